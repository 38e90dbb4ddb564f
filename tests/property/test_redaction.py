"""No secret survives the redactor, wherever it stands in a text and however it is written there."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

from hypothesis import example, given
from hypothesis import strategies as st

from prefect_stagegate.redaction.known import LEAST, WORD, Redactor

anything = st.text(max_size=60)
secrets = st.text(st.characters(codec="utf-8"), min_size=WORD, max_size=60)
tokens = st.text(st.sampled_from("abcXYZ019+/=_-."), min_size=WORD, max_size=60)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda secret: secret,
    "percent": lambda secret: quote(secret, safe=""),
    "percent, slashes kept": quote,
    "percent, lower case": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "form": quote_plus,
    "percent, twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json in json": lambda secret: json.dumps(json.dumps(secret)[1:-1])[1:-1],
    "python": lambda secret: repr(secret)[1:-1],
    "xml": html.escape,
}
BASE64 = (base64.b64encode, base64.urlsafe_b64encode)


@given(secret=secrets | tokens, before=anything, after=anything, spelling=st.sampled_from(sorted(SPELLINGS)))
@example(secret="aaaaaaaa", before="aa", after="aaa", spelling="raw")
@example(secret="a b\\c\"d'e&<\n", before="%", after="%2", spelling="json in json")
def test_known_secrets_are_hidden_anywhere(secret: str, before: str, after: str, spelling: str) -> None:
    redactor = Redactor()
    redactor.remember([secret])
    written = SPELLINGS[spelling](secret)
    redacted = redactor.redact(before + written + after)
    # What is the same character repeated may stand in its surroundings too, and is hidden there just as well.
    assert written not in redacted.replace("***", "\x00")
    assert secret not in redacted.replace("***", "\x00")


@given(secret=secrets | tokens, user=st.binary(max_size=9), rest=st.binary(max_size=9), encode=st.sampled_from(BASE64))
def test_known_secrets_are_hidden_in_base64(
    secret: str, user: bytes, rest: bytes, encode: Callable[[bytes], bytes]
) -> None:
    redactor = Redactor()
    redactor.remember([secret])
    written = encode(user + secret.encode() + rest).decode()
    for spelled in (written, written.rstrip("="), quote(written, safe="")):
        redacted = redactor.redact(f"denied: {spelled}, says the server")
        assert redacted == "denied: ***, says the server"


@given(secret=st.text(st.sampled_from("abcXYZ019"), min_size=LEAST, max_size=WORD - 1))
def test_short_secrets_are_hidden_as_words(secret: str) -> None:
    redactor = Redactor()
    redactor.remember([secret])
    assert redactor.redact(f"({secret}) =%{ord(secret[0]):02x}{secret[1:]}=") == "(***) =***="
    assert redactor.redact(f"x{secret}x") == f"x{secret}x"


CREDENTIALS = (
    "https://lake.s3.amazonaws.com/a?X-Amz-Signature={}&X-Amz-Date=1",
    "https://acme.blob.core.windows.net/a?sv=2023&sig={}",
    "https%3A%2F%2Flake%2Fa%3FX-Amz-Credential%3D{}%26a%3D1",
    "https://host/a?api_key={}",
    "Authorization: Bearer {}",
    "authorization: {}",
    "{{'Authorization': 'Basic {}'}}",
    'Proxy-Authorization: Digest username="me", response="{}"',
    "Cookie: session={}",
    "X-Amz-Security-Token: {}",
    "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature={}",
    "<Credentials><SecretAccessKey>{}</SecretAccessKey></Credentials>",
    '{{"SecretAccessKey" : "{}", "Token": "x"}}',
    '{{\\"access_token\\": \\"{}\\"}}',
    "postgresql://host/db?user=me&password={}",
    "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={};EndpointSuffix=x",
    "http://me:{}@host/data/",
    "https://{}@host/data/",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
    "eyJhbGciOiJub25lIn0.{}.c2ln",
)


@given(
    secret=st.text(st.sampled_from("abcdefXYZ0123456789"), min_size=12, max_size=60), before=anything, after=anything
)
def test_what_looks_like_a_credential_is_hidden(secret: str, before: str, after: str) -> None:
    for form in CREDENTIALS:
        redacted = Redactor().redact(f"{before}\n{form.format('canary' + secret)}\n{after}")
        assert f"canary{secret}" not in redacted, form


def test_the_sentences_of_errors_stay_as_they_are() -> None:
    redactor = Redactor()
    redactor.remember(["anon", "key", "google_default", "password", "minioadmin"])
    for sentence in (
        "Give `username` and `password`, `token` or `headers` by `credentials:`.",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a `profile` or `credentials`, or say `anon: true`.",
        "The listing names 'key=5/user_key=7/part.parquet'",
        "<Error><Code>NoSuchKey</Code><Key>flights/2013-01.parquet</Key></Error>",
        "Basic authentication is what it asks for",
        "sftp://me@nas.example.org/data/ is at https://nas.example.org:8443/a@b",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ):
        assert redactor.redact(sentence) == sentence
