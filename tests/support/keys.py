"""Keys by which people of tests sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from prefect_stagegate.gate.records.answers import ServerLogin
from prefect_stagegate.gate.records.signing import SigningKey, read_signing_key
from prefect_stagegate.workspace import no_passphrase


def new_key(path: Path) -> SigningKey:
    """A new Ed25519 key, in a file that only this user can read."""
    path.touch(0o600)
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return read_signing_key(path, no_passphrase)


def unwritten_key() -> SigningKey:
    """A new Ed25519 key in memory alone."""
    return SigningKey(CryptoSigner.generate_ed25519())


def login_at(server: SigningKey, name: str, *groups: str) -> ServerLogin:
    """Somebody's login at a server, one subject a name."""
    at = "2026-03-01T03:30:00.000000Z"
    return ServerLogin(server, name, "https://login.example.org", f"subject of {name}", at, groups)


def pem(key: Any) -> str:
    """A key's public half."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def write_key(path: Path, key: Any) -> Path:
    """Write a private key as openssl does, and its public half beside it, as `.pub`."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    path.with_suffix(".pub").write_text(pem(key))
    return path
