# SPDX-License-Identifier: Apache-2.0
"""What it costs the core to verify a lease."""

from __future__ import annotations

import ctypes
import secrets
import time
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from frame import ROUNDS, Bench, Paired, Pinned, median, subject
from frame import floors as c_floors
from places import M, N, sodium

from qsafp_embedded import cose, keys, sets
from qsafp_embedded._core import cbor_dumps

KEYS = ("lease.verify_us.ed25519", "lease.verify_us.hybrid")


class Quorum:
    """Keys of six validators, and a core over memory that trusts them."""

    def __init__(self, suite: str) -> None:
        self.ed = [keys.Ed25519Key.from_seed(secrets.token_bytes(32)) for _ in range(N)]
        self.ml = [keys.MLDSA65Key.from_seed(secrets.token_bytes(32)) for _ in range(N)] if suite == "hybrid" else []
        one = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
        members = tuple(
            sets.Validator(i, ("https://127.0.0.1:1",), (bytes(32),), k.public, self.ml[i].public if self.ml else None)
            for i, k in enumerate(self.ed)
        )
        s = sets.ValidatorSet(secrets.token_bytes(16), 1, M, members, suite=suite, lab=True, set_keys=(one.public,))
        document = sets.encode(s, [one])
        self.lib = subject()
        self.core = ctypes.c_void_p(self.lib.subject_core(document, len(document), ctypes.c_char_p(sodium().encode())))
        if not self.core:
            raise RuntimeError("the core does not start")

    def begin(self) -> bytes:
        """The next request's payload."""
        buf = ctypes.create_string_buffer(1024)
        n = self.lib.subject_core_begin(self.core, buf)
        if n < 0:
            raise RuntimeError(f"begin: {n}")
        return buf.raw[:n]

    def sign(self, payload: bytes) -> list[cose.CoseSignature]:
        """All signatures of a lease, in order."""
        out = []
        for i in range(M):
            out += [cose.sign_payload(payload, k[i], cose.AAD_LEASE) for k in (self.ed, self.ml) if k]
        return out

    def put(self, token: bytes) -> int:
        """Token bytes in, verdict out: ns."""
        took = int(self.lib.subject_core_put(self.core, token, len(token)))
        if took < 0:
            raise RuntimeError(f"the lease was refused: {took}")
        return took


def _tbs(payload: bytes, s: cose.CoseSignature) -> bytes:
    return cbor_dumps(["Signature", b"", s.protected, cose.AAD_LEASE, payload])


def _bare_sodium(q: Quorum, payload: bytes, signed: list[cose.CoseSignature]) -> int:
    bare, _ = c_floors()
    messages = [_tbs(payload, s) for s in signed]
    shape = (ctypes.c_uint32 * 2)(M, len(messages[0]))
    parts = [b"".join(s.signature for s in signed), b"".join(k.public for k in q.ed[:M]), b"".join(messages)]
    took = int(bare.floor_verify_ed25519(sodium().encode(), *parts, shape))
    if took < 0:
        raise RuntimeError("bare verification failed")
    return took


def _bare_cryptography(q: Quorum, payload: bytes, signed: list[cose.CoseSignature]) -> int:
    work: list[tuple[Any, bytes, bytes]] = []
    for i, s in enumerate(signed):
        raw = (q.ed if i % 2 == 0 else q.ml)[i // 2].public
        public: Any = Ed25519PublicKey.from_public_bytes(raw) if i % 2 == 0 else MLDSA65PublicKey.from_public_bytes(raw)
        work.append((public, s.signature, _tbs(payload, s)))
    start = time.perf_counter_ns()
    for public, signature, message in work:
        public.verify(signature, message)
    return time.perf_counter_ns() - start


def _verify(b: Bench, suite: str) -> None:
    q, name = Quorum(suite), f"lease.verify_us.{suite}"
    each = max(2, b.n(name) // ROUNDS)
    bare = _bare_sodium if suite == "ed25519" else _bare_cryptography
    mine, floor = [], []
    with Pinned(0):
        for _ in range(ROUNDS):
            m, f = [], []
            for _ in range(each):
                payload = q.begin()
                signed = q.sign(payload)
                token = cose.encode_sign(payload, signed)
                f.append(bare(q, payload, signed) / 1e3)
                m.append(q.put(token) / 1e3)
            mine.append(median(m))
            floor.append(median(f))
    p = Paired(mine, floor)
    b.beside(f"lease.bare_us.{suite}", median(floor), "us", samples=floor, n=each * ROUNDS)
    factor = 1.15 if suite == "ed25519" else 1.5
    b.put_paired(name, p, n=each * ROUNDS, factor=factor)


STEPS = tuple(((key,), partial(_verify, suite=key.rpartition(".")[2])) for key in KEYS)
