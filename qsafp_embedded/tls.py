# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 with pinned keys: self-signed Ed25519 certificates whose dates nobody looks at (architecture, decision 5)."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from . import keys
from ._core import sha256
from .errors import ConfigError

__all__ = [
    "NO_CHECK_TIME",
    "client_context",
    "key_of_certificate",
    "load_identity",
    "make_certificate",
    "server_context",
    "spki_of_certificate",
    "spki_of_key",
    "trust",
]

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: keys are pinned, no wall clock decides anything


def make_certificate(key: keys.Ed25519Key, *, name: str = "qsafp") -> bytes:
    """Return a self-signed certificate of an Ed25519 key, PEM; its dates span all that X.509 can say without a clock.

    The key id is part of the subject: among trust anchors of one name OpenSSL would look at the first only.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} {key.kid.hex()}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.private.public_key())
        .serial_number(int.from_bytes(key.kid) | 1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
    )
    return builder.sign(key.private, None).public_bytes(Encoding.PEM)


def spki_of_key(key: keys.Ed25519Key) -> bytes:
    """Return the SHA-256 of a key's SubjectPublicKeyInfo, as set documents and validator.toml pin it."""
    return sha256(key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def key_of_certificate(der: bytes) -> tuple[bytes, bytes]:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo, and its raw key (empty unless Ed25519); raises ValueError."""
    public = x509.load_der_x509_certificate(der).public_key()
    spki = sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return spki, public.public_bytes_raw() if isinstance(public, Ed25519PublicKey) else b""


def spki_of_certificate(der: bytes) -> bytes:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo; raises ValueError if it is no certificate."""
    return key_of_certificate(der)[0]


def load_identity(context: ssl.SSLContext, key: keys.Ed25519Key, certificate: Path) -> None:
    """Give a context its certificate file and the matching key, which never touches a disk as PEM; raises ConfigError."""
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd = os.memfd_create("tls-key", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(certificate, f"/proc/self/fd/{fd}")
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"{certificate}: no certificate of the TLS key: {why}") from why
    finally:
        os.close(fd)


def server_context(key: keys.Ed25519Key, certificate: Path, *, trusted: Iterable[Path]) -> ssl.SSLContext:
    """Return a TLS 1.3 server context that demands a client certificate out of ``trusted`` files; raises ConfigError.

    Which of them may speak is checked per connection by SPKI, so that a reload can take one away.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= NO_CHECK_TIME
    load_identity(context, key, certificate)
    trust(context, trusted)
    return context


def client_context(key: keys.Ed25519Key, certificate: Path) -> ssl.SSLContext:
    """Return a TLS 1.3 client context with an identity; names and dates of servers are not looked at, the caller checks pins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    load_identity(context, key, certificate)
    return context


def trust(context: ssl.SSLContext, certificates: Iterable[Path]) -> None:
    """Add relay certificates to those a context accepts in a handshake; raises ConfigError naming the file."""
    for path in certificates:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as why:
            raise ConfigError(f"{path}: no relay certificate: {why}") from why
