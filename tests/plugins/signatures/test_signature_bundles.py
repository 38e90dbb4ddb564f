"""A signed bundle with any change in it is refused, or still says what was signed."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.plugins.signatures.signature_bundle import TrustedSigners, proved_statement, sign_statement
from prefect_stagegate.plugins.signatures.signed_files import SignatureRefused, read_statement, write_statement
from tests.plugins.signatures.signers import Authority
from tests.support.keys import pem

KEY, ROOT = ec.generate_private_key(ec.SECP256R1()), Authority("root")
SIGNER = Authority("publisher", ROOT, may_certify=False)
STATEMENT = write_statement("things", "sha256", [("a.txt", "0a" * 32), ("d/b.txt", "1b" * 32)])
BUNDLES = tuple(
    json.dumps(bundle).encode()
    for bundle in (sign_statement(STATEMENT, KEY), sign_statement(STATEMENT, SIGNER.key, [SIGNER.certificate]))
)
TRUSTED = TrustedSigners((pem(KEY),), (ROOT.text,), ("CN=publisher",))


@given(st.data())
def test_changed_bundle_is_refused_or_says_the_same(data: st.DataObject) -> None:
    bundle = bytearray(data.draw(st.sampled_from(BUNDLES)))
    for _ in range(data.draw(st.integers(1, 3))):
        bundle[data.draw(st.integers(0, len(bundle) - 1))] = data.draw(st.integers(0, 255))
    try:
        statement, _ = proved_statement(bytes(bundle), TRUSTED)
    except SignatureRefused:
        return
    assert statement == STATEMENT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3),
    max_leaves=9,
)
PLACES = (
    ("subject",),
    ("subject", 0, "digest", "sha256"),
    ("predicate", "serialization"),
    ("predicate", "serialization", "hash_type"),
    ("predicate", "resources"),
    ("predicate", "resources", 0),
    ("predicate", "resources", 0, "name"),
    ("predicate", "resources", 1, "digest"),
)


@given(st.sampled_from(PLACES), JSON)
def test_statement_with_any_value_is_read_or_refused(place: tuple[str | int, ...], value: Any) -> None:
    statement = json.loads(STATEMENT)
    inner: Any = statement
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        signed = read_statement(json.dumps(statement).encode())
    except SignatureRefused:
        return
    assert all(path and ".." not in path.split("/") for path in signed.digests)
