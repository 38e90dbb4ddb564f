"""Keys by which people of tests sign."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prefect_stagegate.gate.records.signing import SigningKey, read_signing_key
from prefect_stagegate.workspace import no_passphrase


def new_key(path: Path) -> SigningKey:
    """A new Ed25519 key, in a file that only this user can read."""
    path.touch(0o600)
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return read_signing_key(path, no_passphrase)
