# SPDX-License-Identifier: Apache-2.0
"""A lease as a value: what its token says, and whether the validators of a set signed it (docs/formats.md, Lease)."""

from __future__ import annotations

from dataclasses import dataclass

from . import cose, sets
from ._core import claims_decode

__all__ = ["Lease", "Policy"]


@dataclass(frozen=True)
class Policy:
    """The temporal policy of OC-2, all in ms: warning before the end, grace after it, initial period, its extension (0: no limit)."""

    warning_ms: int
    grace_ms: int
    initial_ms: int
    extension_ms: int


@dataclass(frozen=True)
class Lease:
    """The claims of one lease and the key ids that signed it; ``decode`` checks the form, ``verify`` the signatures.

    ``iat`` is Unix s, 0 if the device's clock was not set; ``duration_ms`` counts from the making of the nonce; ``failsafe`` is the
    (sequence, hash) of the fail-safe record that it releases, if any; ``level`` is the isolation level the guard claims.
    """

    token: bytes
    serial: int
    lease_id: bytes
    nonce: bytes
    ueid: bytes
    iat: int
    duration_ms: int
    model: bytes
    log_id: bytes
    log_size: int
    log_root: bytes
    policy: Policy
    failsafe: tuple[int, bytes] | None
    level: int
    lab: bool
    set_id: bytes
    epoch: int
    kids: tuple[bytes, ...]

    @classmethod
    def decode(cls, token: bytes) -> Lease:
        """Read a token; raises FormatError for anything but one deterministic COSE_Sign over lease claims.  Verifies no signature."""
        signed = cose.parse_sign(token)
        c = claims_decode(signed.payload)
        same = ("serial", "lease_id", "nonce", "ueid", "iat", "duration_ms", "model", "log_id", "log_size", "log_root")
        return cls(
            token=token,
            policy=Policy(*c["policy_ms"]),
            failsafe=(c["failsafe_seq"], c["failsafe_hash"]) if c["has_failsafe"] else None,
            kids=tuple(s.kid for s in signed.by),
            **{k: c[k] for k in (*same, "level", "lab", "set_id", "epoch")},
        )

    def verify(self, members: sets.ValidatorSet) -> None:
        """Return if exactly m members of this set signed, in index order; raises FormatError that names who did not (HW-7)."""
        sets.verify_lease(self.token, members)

    def signers(self, members: sets.ValidatorSet) -> tuple[int, ...]:
        """Indexes of the members whose keys are named, in order; a key of nobody in the set is left out."""
        found = {v.index for s in cose.parse_sign(self.token).by if (v := members.member(s.alg, s.kid)) is not None}
        return tuple(sorted(found))
