"""Where objects lie, who is said to ask, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
import pytest

from prefect_stagegate.model import CredentialLife
from prefect_stagegate.plugins.azure import azure
from prefect_stagegate.plugins.azure.azure import AzureIdentity, open_azure, parse_container_url
from prefect_stagegate.plugins.azure.azure_options import EMULATED_KEY, azure_settings
from prefect_stagegate.plugins.gcs import gcs
from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
from prefect_stagegate.plugins.gcs.google import GoogleIdentity
from prefect_stagegate.transport.objectstore import ObjectStore, S3Settings, open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore import s3_buckets as s3
from prefect_stagegate.transport.objectstore.credentials import Resolved

LIFE = CredentialLife("renewed", "a test")
KEY = "folder/naïve %41+#.bin"


class BlockedProvider:
    """A provider that answers when it is let go."""

    def __init__(self, **credential: Any) -> None:
        self._credential = {"expires_at": datetime.now(UTC) + timedelta(hours=1), **credential}
        self.gate = threading.Event()

    def __call__(self) -> dict[str, Any]:
        assert self.gate.wait(10)
        return self._credential


def headers_of(store: ObjectStore) -> dict[str, str]:
    request = store.get_request(KEY)
    assert request
    return request[1]


def url_of(store: ObjectStore, **more: str) -> str:
    request = store.get_request(KEY, **more)
    assert request
    return request[0]


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


def test_a_blob_lies_where_obstore_finds_it() -> None:
    store = open_azure(
        parse_container_url("az://lake/")[0], azure_settings({"account_name": "acme", "account_key": EMULATED_KEY})
    )
    signed = obstore.sign(store._store, "GET", KEY, timedelta(minutes=1))
    assert url_of(store).partition("?")[0] == signed.partition("?")[0].replace("+", "%2B")


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


def test_a_google_request_waits_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BlockedProvider(token="t0ken")
    identity = GoogleIdentity(LIFE, {}, lambda: str(provider()["token"]), provider)
    monkeypatch.setattr(gcs, "identify", lambda *_, **__: identity)
    store = open_gcs(parse_bucket_url("gs://lake/"), gcs_settings({"requester_pays": "me"}))
    begin = time.monotonic()
    assert store.get_request(KEY) is None
    assert time.monotonic() - begin < 1
    provider.gate.set()
    store.prepare()
    assert headers_of(store)["Authorization"] == "Bearer t0ken"
    assert headers_of(store)["x-goog-user-project"] == "me"
    expected = "https://storage.googleapis.com/lake/folder%2Fna%C3%AFve%20%2541%2B%23.bin?generation=17"
    assert url_of(store, version="17") == expected


@pytest.mark.parametrize(("token", "header"), [("anon", None), ("ya29.token", "Bearer ya29.token")])
def test_a_fixed_token_of_google_needs_nobody(token: str, header: str | None) -> None:
    store = open_gcs(parse_bucket_url("gs://lake/"), gcs_settings({"token": token}))
    assert headers_of(store).get("Authorization") == header


def test_an_azure_request_waits_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BlockedProvider(token="t0ken")
    monkeypatch.setattr(azure, "_identify", lambda *_: AzureIdentity(LIFE, {}, None, provider))
    store = open_azure(parse_container_url("az://lake/")[0], azure_settings({"account_name": "acme"}))
    assert store.get_request(KEY) is None
    provider.gate.set()
    store.prepare()
    assert headers_of(store) == {"x-ms-version": "2023-11-03", "Authorization": "Bearer t0ken"}
    assert url_of(store) == "https://acme.blob.core.windows.net/lake/folder/na%C3%AFve%20%2541%2B%23.bin"


@pytest.mark.parametrize("sas", ["sv=1&sig=a+b/c=", "?sv=1&sig=a%2Bb%2Fc%3D"], ids=["plain", "encoded"])
def test_a_sas_is_encoded_once(sas: str) -> None:
    store = open_azure(parse_container_url("az://lake/")[0], azure_settings({"account_name": "acme", "sas_token": sas}))
    assert url_of(store).endswith(".bin?sv=1&sig=a%2Bb%2Fc%3D")


def test_what_only_obstore_knows_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    application = {"client_id": "c", "client_secret": "s", "tenant_id": "t"}
    container = parse_container_url("az://lake/")[0]
    store = open_azure(container, azure_settings({"account_name": "acme", **application}))
    store.prepare()
    assert store.get_request(KEY) is None
    monkeypatch.setattr(gcs, "identify", lambda *_, **__: GoogleIdentity(LIFE, {"skip_signature": True}))
    assert open_gcs(parse_bucket_url("gs://lake/"), gcs_settings({})).get_request(KEY) is None
    key = open_azure(container, azure_settings({"account_name": "acme", "account_key": EMULATED_KEY}))
    assert key.get_request(KEY, version="17") is None


def test_an_s3_provider_that_fails_leaves_the_old_key(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=60)
    answers = iter([{"access_key_id": "old", "secret_access_key": "s", "token": "old", "expires_at": ended}])
    monkeypatch.setattr(s3, "resolve", lambda settings, **_: Resolved(settings, lambda: next(answers), LIFE))
    store = open_s3(parse_bucket_url("s3://lake/"), S3Settings())
    store.prepare()
    assert headers_of(store)["x-amz-security-token"] == "old"
