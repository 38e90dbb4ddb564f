"""Ed25519 signatures: DSSE envelopes around attestations and answers. Only this module imports the signing library.

A key is a PEM file (PKCS #8), as `openssl genpkey -algorithm ed25519` writes it. In specs and settings a public key is
written `ed25519:<64 hex digits>`, as `stagegate key FILE` prints it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.model.canonical import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
"""The payload type of in-toto Statements in DSSE envelopes."""
PREFIX = "ed25519:"
PUBLIC = re.compile(r"ed25519:[0-9a-f]{64}")
OTHERS = 0o007
FEWEST_RSA_BITS = 1024
"""Of the shortest RSA key that OpenSSH reads."""


class SigningKey:
    """A private key. Make one with `read_signing_key`."""

    def __init__(self, signer: CryptoSigner) -> None:
        self._signer = signer
        self.id = str(signer.public_key.keyid)
        """Its key id in envelopes."""
        self.public = PREFIX + str(signer.public_key.keyval["public"])
        """The public key, as specs write it."""

    def sign(self, value: Any, payload_type: str = STATEMENT_PAYLOAD) -> dict[str, Any]:
        """Put JSON values into a signed DSSE envelope, itself made of JSON values."""
        from securesystemslib.dsse import Envelope

        envelope = Envelope(canonical(value), payload_type, {})
        envelope.sign(self._signer)
        written: dict[str, Any] = envelope.to_dict()
        return written


def read_signing_key(path: Path, ask_passphrase: Callable[[Path], str]) -> SigningKey:
    """Read a private key.

    Args:
        path: A PEM file that nobody else can read.
        ask_passphrase: Called when the file is encrypted.

    Raises:
        UsageError: The file can't be read, others can read it, it is no Ed25519 key, or the passphrase is wrong.
        MissingExtra: The signing library is not installed.
    """
    from_crypto = _library().CryptoSigner
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = load_private_key(path, ask_passphrase, NEW_KEY)
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"The key {path} can't be used: it is no Ed25519 key", hint=NEW_KEY)
    return SigningKey(from_crypto(key))


def load_private_key(path: Path, ask_passphrase: Callable[[Path], str], hint: str) -> PrivateKeyTypes:
    """Read a private key of any kind; the rest is as for `read_signing_key`. `hint` says how to make a right one.

    Raises:
        UsageError: The file can't be read, others can read it, it is no key, or the passphrase is wrong.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _private(path)
    # The passphrase is only asked for when it is needed: commands run unattended, too.
    secret = ask_passphrase(path).encode() if b"ENCRYPTED" in data else None
    try:
        return load_pem_private_key(data, secret)
    except Exception as error:  # of many types, and its message may hold secrets: not shown
        why = "the passphrase is wrong" if secret else "it is no private key in PEM"
        raise UsageError(f"The key {path} can't be used: {why}", hint=hint) from error


def read_public_key(text: str) -> str:
    """Read a public key from a PEM file or from the form that specs use, and return that form.

    Raises:
        UsageError: It is neither.
        MissingExtra: The signing library is not installed.
    """
    if text.startswith(PREFIX):
        if not PUBLIC.fullmatch(text):
            hint = "Write ed25519: and 64 hex digits, as `stagegate key` does."
            raise UsageError(f"{text!r} is no public key", hint=hint)
        return text
    key = _library().SSlibKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{text} is no public key in PEM", hint="`openssl pkey -in KEY -pubout` writes one."
        ) from error
    if not isinstance(public, Ed25519PublicKey):
        raise UsageError(f"{text} is no Ed25519 key", hint=NEW_KEY)
    return PREFIX + str(key.from_crypto(public).keyval["public"])


def ssh_key_problem(text: str) -> str:
    """Why ssh-keygen can't read a public key, written as its type and base64; empty when it can."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return "a damaged key"
    is_short = isinstance(key, RSAPublicKey) and key.key_size < FEWEST_RSA_BITS
    return "an RSA key that is too short for OpenSSH" if is_short else ""


def signers(envelope: Mapping[str, Any], value: Any, payload_type: str, keys: Iterable[str]) -> list[str]:
    """The public keys whose signature in the envelope is valid for exactly these JSON values; none for other content.

    Raises:
        MissingExtra: The signing library is not installed.
    """
    library = _library()
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

    try:
        # Copies: the library takes fields out of what it reads.
        written = {**envelope, "signatures": [dict(signature) for signature in envelope["signatures"]]}
        read = Envelope.from_dict(written)
    except (KeyError, TypeError, ValueError):
        return []
    # A valid signature proves nothing here if it is for other content.
    if (read.payload, read.payload_type) != (canonical(value), payload_type):
        return []
    proved = []
    # One by one, to tell which of them signed.
    for text in keys:
        try:
            read.verify([_key(library, text)], 1)
        except (UnverifiedSignatureError, VerificationError):
            continue
        proved.append(text)
    return proved


def envelopes_around(value: Any, envelopes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The envelopes whose content is exactly these JSON values, whoever signed them.

    Whoever writes to the catalog could lay an envelope around another decision beside one.
    """
    payload = base64.b64encode(canonical(value)).decode()
    return [envelope for envelope in envelopes if envelope.get("payload") == payload]


NEW_KEY = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one."


def _key(library: Any, text: str) -> SSlibKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.removeprefix(PREFIX)))
    key: SSlibKey = library.SSlibKey.from_crypto(public)
    return key


def _private(path: Path) -> bytes:
    try:
        # A key that every user of this machine can read proves nothing about who signed.
        if path.stat().st_mode & OTHERS:
            raise UsageError(f"The key {path} can be read by everybody", hint=f"chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {path} can't be read: {error.strerror}") from error


def _library() -> Any:
    try:
        from securesystemslib import signer
    except ImportError as error:
        raise MissingExtra(
            "Signatures need securesystemslib, which is not installed", hint="pip install 'prefect-stagegate[sign]'"
        ) from error
    return signer
