"""A certificate authority for tests, and a signer that it vouches for, as Content Credentials want them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def make_signer(folder: Path, *, locked: bytes | None = None) -> tuple[Path, Path, Path]:
    """Write the signer's certificate with the authority's below it, its key, and the authority's certificate alone."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority, signer = _certificate("Root", root, root, True), _certificate("Ada", leaf, root, False)
    chain, key, alone = (folder / name for name in ("chain.pem", "key.pem", "root.pem"))
    chain.write_bytes(_pem(signer) + _pem(authority))
    alone.write_bytes(_pem(authority))
    lock = NoEncryption() if locked is None else BestAvailableEncryption(locked)
    key.write_bytes(leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    return chain, key, alone


def _certificate(name: str, key: Any, issuer: Any, authority: bool) -> x509.Certificate:
    def named(common: str) -> x509.Name:
        pairs = ((NameOID.ORGANIZATION_NAME, "Tests"), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in pairs])

    now, month = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=30)
    builder = x509.CertificateBuilder(
        named("Root"), named(name), key.public_key(), x509.random_serial_number(), now - month, now + month
    )
    usage = {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage |= dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    builder = builder.add_extension(above, critical=False)
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
