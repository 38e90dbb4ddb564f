"""Where objects lie, who is said to ask, and that nobody waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.transport.objectstore import S3Settings, open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore import s3_buckets as s3
from prefect_stagegate.transport.objectstore.credentials import Resolved
from prefect_stagegate.transport.objectstore.object_requests import S3Requests
from tests.support.object_requests import LIFE, BlockedProvider, headers_of, url_of
from tests.support.rawserver import raw_server, response

PATH = "folder/na%C3%AFve%20%2541%2B%23.bin"


@pytest.mark.parametrize(
    ("settings", "bucket_url"),
    [
        ({}, "https://lake.s3.us-east-1.amazonaws.com"),
        ({"region": "eu-west-1"}, "https://lake.s3.eu-west-1.amazonaws.com"),
        ({"region": "eu-west-1", "virtual_host": False}, "https://s3.eu-west-1.amazonaws.com/lake"),
        ({"endpoint": "http://127.0.0.1:8333"}, "http://127.0.0.1:8333/lake"),
        ({"endpoint": "http://localhost:8333", "virtual_host": True}, "http://lake.localhost:8333"),
        ({"endpoint": "https://Store.example.org:443/prefix/"}, "https://store.example.org/prefix/lake"),
        ({"endpoint": "store.example.org"}, "https://store.example.org/lake"),
        ({"endpoint": "http://[::1]:9000"}, "http://[::1]:9000/lake"),
        ({"endpoint": "https://bücher.example"}, "https://xn--bcher-kva.example/lake"),
    ],
    ids=str,
)
def test_an_object_lies_below_its_bucket(settings: dict[str, Any], bucket_url: str) -> None:
    store = open_s3(parse_bucket_url("s3://lake/"), S3Settings(key="k", secret="s", **settings))
    assert url_of(store) == f"{bucket_url}/{PATH}"


PAGE = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>{}</EncodingType>
<IsTruncated>false</IsTruncated><Contents><Key>a+b%2Bc</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>
<ETag>&quot;e&quot;</ETag><Size>5</Size></Contents><CommonPrefixes><Prefix>d%01/</Prefix></CommonPrefixes></ListBucketResult>"""


@pytest.mark.parametrize(("encoding", "keys"), [("url", ("a b+c", "d\x01/")), ("", ("a+b%2Bc", "d%01/"))])
def test_listed_key_is_decoded_where_the_server_encoded_it(encoding: str, keys: tuple[str, str]) -> None:
    page = S3Requests("http://x/lake", None).page(PAGE.format(encoding).encode())
    ((listed,), (folder,)) = page.objects, page.folders
    assert ((listed.key, folder), listed.size, listed.etag, listed.modified) == (keys, 5, "e", 1767225600.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no listing",
        b"<html></html>",
        b"\xff\xfe<",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><ListBucketResult/>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>a</Key><Size>x</Size><LastModified>2026-01-01</LastModified></Contents>"
        b"</ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<a>" * 100_000,
    ],
)
def test_page_that_is_no_listing_is_typed(body: bytes) -> None:
    with raw_server(response(body)) as server:
        store = open_s3(parse_bucket_url("s3://lake/"), S3Settings(endpoint=server.url, anonymous=True))
        with pytest.raises(SourceError, match="something else than a listing"):
            list(store.listing(""))


def test_an_s3_request_waits_for_no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    old = {"access_key_id": "old", "secret_access_key": "s", "token": "old", "expires_at": soon}
    renewal = BlockedProvider(access_key_id="new", secret_access_key="t", token="new")
    answers = iter([old])

    def provider() -> dict[str, Any]:
        return next(answers, None) or renewal()

    monkeypatch.setattr(s3, "resolve", lambda settings, **_: Resolved(settings, provider, LIFE))
    store = open_s3(parse_bucket_url("s3://lake/"), S3Settings())
    assert headers_of(store)["x-amz-security-token"] == "old"
    renewal.gate.set()
    store.prepare()
    assert headers_of(store)["x-amz-security-token"] == "new"
    assert "Credential=new/" in headers_of(store)["Authorization"]


def test_an_s3_provider_that_fails_leaves_the_old_key(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=60)
    answers = iter([{"access_key_id": "old", "secret_access_key": "s", "token": "old", "expires_at": ended}])
    monkeypatch.setattr(s3, "resolve", lambda settings, **_: Resolved(settings, lambda: next(answers), LIFE))
    store = open_s3(parse_bucket_url("s3://lake/"), S3Settings())
    store.prepare()
    assert headers_of(store)["x-amz-security-token"] == "old"
