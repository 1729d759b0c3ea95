# SPDX-License-Identifier: Apache-2.0
"""A device in Python, as validators see one: a key, a log, requests.  It has no gate; storms are made of many."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from .. import cose, keys, sets
from .._core import Tree, cbor_dumps, claims_encode, tree_leaf

__all__ = ["Device", "tree_of", "tree_range"]


def tree_of(leaves: Sequence[bytes]) -> Tree:
    """The Merkle tree over leaf hashes."""
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def tree_range(leaves: Sequence[bytes], old: int, new: int) -> list[bytes]:
    """The compact range [old, new): roots of the largest perfect subtrees, left to right (RFC 9162)."""
    out = []
    while old < new:
        width = 1
        while not old & (2 * width - 1) and old + 2 * width <= new:
            width *= 2
        out.append(tree_of(leaves[old : old + width]).root())
        old += width
    return out


class Device:
    """One device with a real key, whose log grows by three records for each request."""

    def __init__(self, members: sets.ValidatorSet, model: bytes) -> None:
        """``model`` is the hash that its leases name."""
        self.key = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
        self.ueid, self.log_id = b"\x01" + secrets.token_bytes(32), secrets.token_bytes(32)
        self._members, self._model = members, model
        self._leaves: list[bytes] = []
        self._serial = 0
        self.payload = b""

    @property
    def registration(self) -> str:
        """Its [[device]] table for validator.toml."""
        rows = {"ueid": self.ueid, "key": self.key.public, "log_id": self.log_id}
        text = "".join(f'{name} = "{value.hex()}"\n' for name, value in rows.items())
        return f'\n[[device]]\n{text}models = ["{self._model.hex()}"]\nregistered = 1700000000\n'

    def ask(self) -> bytes:
        """The envelope of its next request; every earlier one was approved."""
        old = len(self._leaves)
        self._leaves += [tree_leaf(secrets.token_bytes(32)) for _ in range(3)]
        self._serial += 1
        self.payload = claims_encode(
            {
                "iat": 0,
                "lease_id": secrets.token_bytes(16),
                "nonce": secrets.token_bytes(16),
                "ueid": self.ueid,
                "duration_ms": 60_000,
                "serial": self._serial,
                "model": self._model,
                "log_id": self.log_id,
                "log_size": len(self._leaves),
                "log_root": tree_of(self._leaves).root(),
                "policy_ms": [1000, 1000, 0, 0],
                "has_failsafe": False,
                "failsafe_seq": 0,
                "failsafe_hash": bytes(32),
                "level": 1,
                "lab": self._members.lab,
                "epoch": self._members.epoch,
                "set_id": self._members.set_id,
            }
        )
        body = cbor_dumps({1: self.payload, 2: bytes(32), 3: [0, 0, 0, 1, 0], 4: [0, b""]})
        request = cose.encode_sign1(body, self.key, cose.AAD_REQUEST)
        hashes = tree_range(self._leaves, old, len(self._leaves))
        return bytes(cbor_dumps({1: request, 2: old, 3: None, 4: hashes, 5: None, 6: None, 7: None}))
