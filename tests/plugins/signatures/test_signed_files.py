"""The statement of OpenSSF Model Signing: what is read of it when a stranger wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from prefect_stagegate.plugins.signatures.signature_bundle import TrustedSigners, proved_statement
from prefect_stagegate.plugins.signatures.signed_files import SignatureRefused, read_statement, write_statement
from tests.plugins.signatures.signers import Authority
from tests.support.keys import pem

DIGESTS = {"a.txt": "0a" * 32, "d/b.txt": "1b" * 32}


def statement(**changes: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(write_statement("things", "sha256", DIGESTS.items()))
    return {**written, **changes}


def listing(*resources: tuple[str, str, str], method: str = "files", hash_type: str = "sha256") -> dict[str, Any]:
    """A statement whose subject fits the resources, each with name, algorithm and digest."""
    values = statement()
    digests = [bytes.fromhex(digest) for _, _, digest in resources]
    values["subject"][0]["digest"]["sha256"] = hashlib.sha256(b"".join(digests)).hexdigest()
    values["predicate"]["serialization"] |= {"method": method, "hash_type": hash_type}
    names = ("name", "algorithm", "digest")
    values["predicate"]["resources"] = [dict(zip(names, resource, strict=True)) for resource in resources]
    return values


def test_statement_is_read_as_it_was_written() -> None:
    signed = read_statement(write_statement("things", "blake3", DIGESTS.items()))
    assert (signed.algorithm, signed.digests) == ("blake3", DIGESTS)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (statement(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (statement(predicateType="https://slsa.dev/provenance/v1"), "slsa.dev"),
        (statement(predicateType="https://model_signing/Digests/v0.1"), "Digests/v0.1"),
        (statement(subject=[]), "subject"),
        (statement(subject=statement()["subject"] * 2), "subject"),
        (statement(subject=[{"digest": {"sha256": "00" * 32}}]), "not the digest of the files"),
        (statement(predicate={}), "predicate"),
        (listing(), "resources"),
        (listing(("a.txt:0:9", "sha256", "0a" * 32), method="shards"), "'shards' instead of whole files"),
        (listing(("a.txt", "md5", "0a" * 16), hash_type="md5"), "by 'md5'; known: sha256"),
        (listing(("a.txt", "md5", "0a" * 16)), "by 'md5', and the others are by sha256"),
        (listing(("a.txt", "sha256", "0a" * 31)), "its digest is no sha256"),
        (listing(("a.txt", "sha256", "0A" * 32)), "its digest is no sha256"),
        (listing(("/etc/passwd", "sha256", "0a" * 32)), "empty segment"),
        (listing(("../a.txt", "sha256", "0a" * 32)), '"\\.\\."'),
        (listing((".", "sha256", "0a" * 32)), '"\\."'),
        (listing(("d/./b.txt", "sha256", "0a" * 32)), '"\\."'),
        (listing(("a\n.txt", "sha256", "0a" * 32)), "control character"),
        (listing(("x" * 256, "sha256", "0a" * 32)), "longer than 255 bytes"),
        (listing(("a.txt", "sha256", "0a" * 32), ("a.txt", "sha256", "1b" * 32)), "there twice"),
    ],
)
def test_hostile_statement_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignatureRefused, match=reason) as refused:
        read_statement(json.dumps(values).encode())
    assert len(str(refused.value)) < 800


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"_type": ' * 5000])
def test_what_is_no_statement_is_refused(text: bytes) -> None:
    with pytest.raises(SignatureRefused, match="its statement can't be read"):
        read_statement(text)


def certificates(count: int) -> dict[str, Any]:
    return {"verificationMaterial": {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}] * count}}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: {"verificationMaterial": {}}, "how its signer is known"),
        (lambda _: {"dsseEnvelope": None}, "no Sigstore bundle: dsseEnvelope"),
        (lambda bundle: {"dsseEnvelope": bundle["dsseEnvelope"] | {"signatures": []}}, "no Sigstore bundle"),
        (lambda bundle: {"dsseEnvelope": bundle["dsseEnvelope"] | {"signatures": [{"sig": ""}] * 2}}, "no Sigstore"),
        (lambda bundle: {"dsseEnvelope": bundle["dsseEnvelope"] | {"payloadType": "text/html"}}, "'text/html'"),
        (lambda bundle: {"dsseEnvelope": bundle["dsseEnvelope"] | {"payload": "<b>"}}, "no base64"),
        (lambda _: certificates(1), "no root under `certificates` vouches"),
        (lambda _: certificates(17), "no Sigstore bundle"),
    ],
)
def test_hostile_bundle_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]], reason: str) -> None:
    bundle = {
        "verificationMaterial": {"publicKey": {"hint": ""}},
        "dsseEnvelope": {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": ""}]},
    }
    root = Authority("root")
    data = json.dumps(bundle | change(bundle)).encode()
    with pytest.raises(SignatureRefused, match=reason):
        proved_statement(data, TrustedSigners((pem(root.key),), (root.text,)))
