# SPDX-License-Identifier: Apache-2.0
"""Binding an attestation key to a TPM at enrolment, the enroller's side: MakeCredential, and what the EK's certificate says.

After the TPM 2.0 library specification, part 1, annex C: who answers has the endorsement key's private half and the attestation
key in one TPM.  Both keys are P-256, by the templates of board_ports/linux/tpm_quote.c, so that x || y says all of them.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ._core import sha256
from .errors import ConfigError

__all__ = ["CERTIFICATE", "FIRST_USE", "ak_name", "ek_trust", "make"]

CERTIFICATE, FIRST_USE = "certificate", "first-use"  # why an endorsement key is taken for a TPM's
# TPMT_PUBLIC up to x and y: ECC, SHA-256; fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted sign; ECDSA with SHA-256
AK = bytes.fromhex("0023 000b 00050472 0000 0010 0018 000b 0003 0010")


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def ak_name(ak: bytes) -> bytes:
    """The name of the attestation key x || y: its public area's hash, so that no other kind of key has it."""
    return b"\x00\x0b" + sha256(AK + _sized(ak[:32]) + _sized(ak[32:]))


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa with SHA-256, one block (part 1, 11.4.10.2)."""
    return hmac.digest(key, struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits), "sha256")[: bits // 8]


def _public(point: bytes, what: str) -> ec.EllipticCurvePublicKey:
    try:
        if len(point) == 64:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError:
        pass
    raise ConfigError(f"{what} is no point of P-256")


def _seal(seed: bytes, name: bytes, secret: bytes) -> bytes:
    """TPM2B_ID_OBJECT: the secret under keys that only the seed and this name give."""
    cipher = Cipher(algorithms.AES(_kdfa(seed, b"STORAGE", name, 128)), CFB(bytes(16))).encryptor()
    hidden = cipher.update(_sized(secret)) + cipher.finalize()
    tag = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", 256), hidden + name, "sha256")
    return _sized(_sized(tag) + hidden)


def make(ek: bytes, ak: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """MakeCredential: a secret of at most 32 bytes that only the TPM of this EK gives back, and only for this attestation key.

    Args: ek, ak: x || y.  Returns: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.  Raises: ConfigError.
    """
    whole = _public(ek, "the endorsement key")
    _public(ak, "the attestation key")
    own = ec.generate_private_key(ec.SECP256R1())
    n = own.public_key().public_numbers()
    x, y = n.x.to_bytes(32), n.y.to_bytes(32)
    seed = sha256(struct.pack(">I", 1) + own.exchange(ec.ECDH(), whole) + b"IDENTITY\0" + x + ek[:32])  # KDFe (part 1, 11.4.10.3)
    return _seal(seed, ak_name(ak), secret), _sized(_sized(x) + _sized(y))


def ek_trust(ek: bytes, certificate: bytes, authorities: Sequence[bytes]) -> str:
    """Tell why this EK is taken for a real TPM's: a certificate that one of the authorities signed, else trust on first use.

    Args: certificate: DER from the TPM's NV memory, empty if it has none.  authorities: PEM or DER certificates of makers.
    Raises: ConfigError if there are authorities and none vouches, or the certificate is another key's.
    """
    if not certificate:
        if authorities:
            raise ConfigError("this TPM has no certificate of its endorsement key: leave --ek-ca out to trust it on first use")
        return FIRST_USE
    try:
        cert = x509.load_der_x509_certificate(certificate)
        key = cert.public_key()
    except ValueError as why:
        raise ConfigError(f"the certificate of the endorsement key cannot be read: {why}") from why
    if key != _public(ek, "the endorsement key"):
        raise ConfigError("the certificate in the TPM is not of its endorsement key")
    return CERTIFICATE if _vouched(cert, authorities) else FIRST_USE


def _vouched(cert: x509.Certificate, authorities: Sequence[bytes]) -> bool:
    """Whether an authority signed it; its dates are not looked at, no wall clock decides anything here."""
    for data in authorities:
        try:
            found = x509.load_pem_x509_certificates(data) if data.lstrip().startswith(b"-----") else [x509.load_der_x509_certificate(data)]
        except ValueError as why:
            raise ConfigError(f"--ek-ca: no certificate: {why}") from why
        for authority in found:
            try:
                cert.verify_directly_issued_by(authority)
            except (InvalidSignature, ValueError, TypeError):
                continue
            return True
    if authorities:
        raise ConfigError("none of --ek-ca signed the certificate of the endorsement key")
    return False
