"""Sigstore bundles around statements, as OpenSSF Model Signing writes them: making one, and proving who signed it.

    mediaType              the bundle's version
    verificationMaterial   publicKey, x509CertificateChain or certificate: how its signer is known
    dsseEnvelope           the statement, and the signature

Keys are elliptic curve keys (P-256, P-384, P-521). Only this module imports sigstore.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from prefect_stagegate.clock import now
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.gate.records.signing import STATEMENT_PAYLOAD, load_private_key
from prefect_stagegate.plugins.signatures.signed_files import SignatureRefused
from prefect_stagegate.units import digest_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm
    from cryptography.x509 import Certificate
    from sigstore.models import TrustedRoot

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""The curves that the format has, each with the hash of its signatures."""
NEW_KEY = "`openssl ecparam -name prime256v1 -genkey -noout -out key.pem` makes one."
MODEL_SIGNATURES = Record("stagegate.model-signatures", dict[str, Any])
"""Signatures of a version's files, as Sigstore bundles."""
MOST_BYTES = 64 << 20
"""Bytes of the largest bundle that is read or made: that of about 250,000 files."""
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
MOST_CERTIFICATES = 16
"""The most certificates of a chain."""


@dataclass(frozen=True, slots=True)
class TrustedSigners:
    """Whose signature counts: that of any of the keys, of a certificate below any of the roots, or of the identity."""

    keys: tuple[str, ...] = ()
    """Public keys in PEM."""
    roots: tuple[str, ...] = ()
    """Certificates of authorities in PEM."""
    signers: tuple[str, ...] = ()
    """Globs of whom these authorities may name: the subject, or an alternative name, of a signer's certificate."""
    purpose: str = CODE_SIGNING
    """The extended key usage that a signer's certificate must have."""
    subject: str = ""
    """A mail address or a URL that Sigstore vouches for; empty for none."""
    issuer: str = ""
    """The URL of the OpenID provider that the subject proved itself to."""
    trust_root: str = ""
    """The keys of a Sigstore instance as JSON (`trusted_root.json`); by default those of the public one."""


class _Signature(BaseModel):
    sig: str


class _Envelope(BaseModel):
    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _Certificate(BaseModel):
    raw_bytes: str = Field(alias="rawBytes")


class _Chain(BaseModel):
    certificates: list[_Certificate] = Field(min_length=1, max_length=MOST_CERTIFICATES)


class _Material(BaseModel):
    public_key: dict[str, Any] | None = Field(default=None, alias="publicKey")
    chain: _Chain | None = Field(default=None, alias="x509CertificateChain")
    certificate: _Certificate | None = None


class _Bundle(BaseModel):
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")


def sign_statement(
    statement: bytes, key: EllipticCurvePrivateKey, certificates: Sequence[Certificate] = ()
) -> dict[str, Any]:
    """Put a statement into a signed bundle, itself made of JSON values.

    Args:
        statement: An in-toto Statement.
        key: See `read_statement_key`.
        certificates: That of the key, then those of the authorities between it and a root; see `read_chain`.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    signature = key.sign(_signed_bytes(statement), ECDSA(_hash_of(key.public_key())))
    if certificates:
        chain = [{"rawBytes": _text(_der(certificate))} for certificate in certificates]
        material: dict[str, Any] = {"x509CertificateChain": {"certificates": chain}}
    else:
        material = {"publicKey": {"hint": key_id(key.public_key())}}
    envelope = {
        "payload": _text(statement),
        "payloadType": STATEMENT_PAYLOAD,
        "signatures": [{"sig": _text(signature)}],
    }
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material | {"tlogEntries": []},
        "dsseEnvelope": envelope,
    }


def proved_statement(data: bytes, trusted: TrustedSigners) -> tuple[bytes, str]:
    """The statement in a bundle, and who signed it, in words.

    Raises:
        SignatureRefused: It is no bundle, or no signer that is trusted signed the statement.
        UsageError: An identity is to be proved, and Sigstore's trust root can't be read.
        MissingExtra: An identity is to be proved, and sigstore is not installed.
    """
    try:
        bundle = _Bundle.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise SignatureRefused(f"it is no Sigstore bundle: {place}: {first['msg'][:200]}") from error
    material = bundle.material
    if material.public_key is not None:
        return _proved_by_key(bundle, trusted)
    if material.chain is not None:
        return _proved_by_certificate(bundle, material.chain, trusted)
    if material.certificate is not None:
        return _proved_by_identity(data, trusted)
    raise SignatureRefused("it does not say how its signer is known")


def read_statement_key(path: Path, ask_passphrase: Callable[[Path], str]) -> EllipticCurvePrivateKey:
    """Read a private key from a PEM file that nobody else can read. `ask_passphrase` is called when it is encrypted.

    Raises:
        UsageError: The file can't be read, others can read it, the passphrase is wrong, or the key is of another kind.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    key = load_private_key(path, ask_passphrase, NEW_KEY)
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise UsageError(f"The key {path} can't be used: it is no P-256, P-384 or P-521 key", hint=NEW_KEY)
    return key


def read_chain(path: Path, key: EllipticCurvePrivateKey) -> list[Certificate]:
    """Read a key's certificate from a PEM file, and those of authorities that follow it there.

    Raises:
        UsageError: The file can't be read, has no certificate, or its first one is not the key's.
    """
    try:
        certificates = _certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} has no certificates in PEM") from error
    if certificates[0].public_key() != key.public_key():
        hint = "Put the key's own certificate first, and those of its authorities after it."
        raise UsageError(f"The first certificate in {path} is not the key's", hint=hint)
    return certificates


def public_key_problem(pem: str) -> str:
    """Say why a text is no public key for signatures of files; empty when it is one."""
    try:
        _public_key(pem)
    except ValueError as error:
        return str(error)
    return ""


def certificate_problem(pem: str) -> str:
    """Say why a text has no certificates in PEM; empty when it has some."""
    try:
        _certificates(pem.encode())
    except ValueError as error:
        return str(error)
    return ""


def key_id(key: EllipticCurvePublicKey) -> str:
    """The format's name of a public key: SHA-256 of its PEM, in hex."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _proved_by_key(bundle: _Bundle, trusted: TrustedSigners) -> tuple[bytes, str]:
    if not trusted.keys:
        raise SignatureRefused("it is signed by a key, and the gate trusts none: `keys` is empty")
    signed = _SignedStatement(bundle.envelope)
    for key in map(_public_key, trusted.keys):
        if signed.is_by(key):
            return signed.statement, f"the key {digest_text(f'sha256:{key_id(key)}')}"
    raise SignatureRefused("no key under `keys` signed it, or it was changed since")


def _proved_by_certificate(bundle: _Bundle, chain: _Chain, trusted: TrustedSigners) -> tuple[bytes, str]:
    """Verify the certificate as of now, since the bundle proves no other time. Asks for no revocations."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import load_der_x509_certificate
    from cryptography.x509.verification import PolicyBuilder, Store

    if not trusted.roots:
        raise SignatureRefused("it is signed by a certificate, and the gate trusts none: `certificates` is empty")
    try:
        signer, *between = [load_der_x509_certificate(_bytes(each.raw_bytes)) for each in chain.certificates]
        roots = [root for pem in trusted.roots for root in _certificates(pem.encode())]
        authorities, anybody = _certificate_rules()
        policy = PolicyBuilder().store(Store(roots)).time(now())
        rules = policy.extension_policies(ca_policy=authorities, ee_policy=anybody)
        rules.build_client_verifier().verify(signer, between)
        key, usable = signer.public_key(), _may_sign(signer, trusted.purpose)
        name, *others = _names(signer)
    except Exception as error:  # of many types, for whatever a stranger may write
        reason = f"no root under `certificates` vouches for its certificate: {str(error)[:500]}"
        raise SignatureRefused(reason) from error
    if not usable:
        raise SignatureRefused(f"the certificate of {name!r} is not for this purpose ({trusted.purpose})")
    if not any(fnmatchcase(each, pattern) for each in (name, *others) for pattern in trusted.signers):
        raise SignatureRefused(f"`signers` names nobody of this certificate: {', '.join((name, *others))[:500]}")
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES:
        signed = _SignedStatement(bundle.envelope)
        if signed.is_by(key):
            return signed.statement, f"the certificate of {name!r}"
        raise SignatureRefused(f"the certificate of {name!r} did not sign it, or it was changed since")
    raise SignatureRefused(f"the certificate of {name!r} has no P-256, P-384 or P-521 key")


def _certificates(pem: bytes) -> list[Certificate]:
    """Read certificates.

    Raises:
        ValueError: There are none, or one can't be read.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(pem)
    except Exception as error:  # of many types
        raise ValueError("it is no certificate in PEM") from error


def _certificate_rules() -> tuple[Any, Any]:
    """What the certificates of authorities, and of signers, must have: X.509's own rules, not those of the web."""
    from cryptography.x509 import BasicConstraints, KeyUsage
    from cryptography.x509.verification import Criticality, ExtensionPolicy

    def signs_certificates(_policy: Any, _certificate: Certificate, usage: KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("a certificate of the chain may not sign others")

    authorities = (
        ExtensionPolicy.permit_all()
        .require_present(BasicConstraints, Criticality.AGNOSTIC, None)  # and must say that it is an authority's
        .may_be_present(KeyUsage, Criticality.AGNOSTIC, signs_certificates)
    )
    return authorities, ExtensionPolicy.permit_all()


def _may_sign(certificate: Certificate, purpose: str) -> bool:
    """Whether a certificate is for a purpose, and its key for signatures."""
    from cryptography.x509 import ExtendedKeyUsage, KeyUsage

    values = [extension.value for extension in certificate.extensions]
    purposes = [each.dotted_string for value in values if isinstance(value, ExtendedKeyUsage) for each in value]
    return purpose in purposes and all(value.digital_signature for value in values if isinstance(value, KeyUsage))


def _names(certificate: Certificate) -> list[str]:
    """The subject of a certificate, and its alternative names."""
    from cryptography.x509 import SubjectAlternativeName

    values = (extension.value for extension in certificate.extensions)
    others = (name for value in values if isinstance(value, SubjectAlternativeName) for name in value)
    return [certificate.subject.rfc4514_string(), *(str(name.value) for name in others)]


def _proved_by_identity(data: bytes, trusted: TrustedSigners) -> tuple[bytes, str]:
    """Verify what Sigstore vouches for: certificate, log entry and time. Sends no request."""
    if not trusted.subject:
        raise SignatureRefused("it is signed by an identity, and the gate trusts none: `identity` is empty")
    try:
        from sigstore.models import Bundle
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity
    except ImportError as error:
        raise MissingExtra(
            "Proving an identity needs sigstore, which is not installed", hint="pip install 'prefect-stagegate[oms]'"
        ) from error
    root = _trust_root(trusted.trust_root)
    try:
        expected = Identity(identity=trusted.subject, issuer=trusted.issuer)
        payload_type, statement = Verifier(trusted_root=root).verify_dsse(Bundle.from_json(data), expected)
    except Exception as error:  # of many types, for whatever a stranger may write
        raise SignatureRefused(f"Sigstore does not vouch for {trusted.subject}: {str(error)[:500]}") from error
    if payload_type != STATEMENT_PAYLOAD:
        raise SignatureRefused(f"it signs {payload_type[:200]!r} instead of a statement")
    return statement, f"{trusted.subject} ({trusted.issuer})"


def _trust_root(text: str) -> TrustedRoot:
    """The keys of a Sigstore instance; for an empty text those of the public one, as they are on this node.

    Raises:
        UsageError: The text is no trust root, or the node's can't be read.
    """
    from sigstore.models import ClientTrustConfig, TrustedRoot

    try:
        if not text:
            # Not to ask for newer keys is intended: nothing to warn of.
            logging.getLogger("sigstore._internal.tuf").setLevel(logging.ERROR)
            return ClientTrustConfig.production(offline=True).trusted_root
        with NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:  # the library reads files only
            file.write(text)
            file.flush()
            return TrustedRoot.from_file(file.name)
    except Exception as error:  # of many types: files, JSON, keys
        hint = "Write the contents of Sigstore's trusted_root.json below `trust_root` of `identity`."
        raise UsageError(f"Sigstore's trust root can't be read: {str(error)[:500]}", hint=hint) from error


def _public_key(pem: str) -> EllipticCurvePublicKey:
    """Read a public key.

    Raises:
        ValueError: It is no P-256, P-384 or P-521 key in PEM.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is no public key in PEM; `openssl pkey -in KEY -pubout` writes one") from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ValueError("it is no P-256, P-384 or P-521 key, and OpenSSF Model Signing has no other")
    return key


class _SignedStatement:
    """The statement in an envelope, and its one signature."""

    def __init__(self, envelope: _Envelope) -> None:
        """Raises `SignatureRefused` where the envelope is not one around a statement."""
        if envelope.payload_type != STATEMENT_PAYLOAD:
            raise SignatureRefused(f"it signs {envelope.payload_type[:200]!r} instead of a statement")
        self.statement, self._signature = _bytes(envelope.payload), _bytes(envelope.signatures[0].sig)
        # Once for all keys, which may be many: a statement may be long.
        self._digest = cache(lambda name: hashlib.new(name, _signed_bytes(self.statement)).digest())

    def is_by(self, key: EllipticCurvePublicKey) -> bool:
        """Whether the key signed it."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        algorithm = _hash_of(key)
        try:
            key.verify(self._signature, self._digest(algorithm.name), ECDSA(Prehashed(algorithm)))
        except InvalidSignature:
            return False
        return True


def _signed_bytes(statement: bytes) -> bytes:
    """What a signature is over: DSSE's encoding of type and content before authentication."""
    return b"DSSEv1 %d %s %d %s" % (len(STATEMENT_PAYLOAD), STATEMENT_PAYLOAD.encode(), len(statement), statement)


def _hash_of(key: EllipticCurvePublicKey) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    algorithm: HashAlgorithm = getattr(hashes, CURVES[key.curve.name])()
    return algorithm


def _der(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    """Read base64.

    Raises:
        SignatureRefused: It is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise SignatureRefused("a part of it is no base64") from error
