"""Where objects lie, who is said to ask, and that nobody waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
import pytest

from prefect_stagegate.transport.objectstore import S3Settings, open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore import s3_buckets as s3
from prefect_stagegate.transport.objectstore.credentials import Resolved
from tests.support.object_requests import KEY, LIFE, BlockedProvider, headers_of, url_of


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"region": "eu-west-1"},
        {"region": "eu-west-1", "virtual_host": False},
        {"endpoint": "http://127.0.0.1:8333"},
        {"endpoint": "http://localhost:8333", "virtual_host": True},
        {"endpoint": "https://Store.example.org:443/prefix/"},
        {"endpoint": "store.example.org"},
        {"endpoint": "http://[::1]:9000"},
        {"endpoint": "https://bücher.example"},
    ],
    ids=str,
)
def test_an_object_lies_where_obstore_finds_it(settings: dict[str, Any]) -> None:
    store = open_s3(parse_bucket_url("s3://lake/"), S3Settings(key="k", secret="s", **settings))
    signed = obstore.sign(store._store, "GET", KEY, timedelta(minutes=1))
    assert url_of(store) == signed.partition("?")[0].replace("+", "%2B")


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
