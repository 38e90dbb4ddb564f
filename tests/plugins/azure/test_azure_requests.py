"""Where blobs lie, who is said to ask, and that nobody waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
import pytest

from prefect_stagegate.errors import AccessDenied, ObjectChanged, ObjectVanished
from prefect_stagegate.plugins.azure import azure
from prefect_stagegate.plugins.azure.azure import AzureIdentity, open_azure, parse_container_url
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY, azure_settings
from prefect_stagegate.plugins.gcs import gcs
from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
from prefect_stagegate.plugins.gcs.google import GoogleIdentity
from prefect_stagegate.transport.objectstore import ObjectStore, parse_bucket_url
from tests.plugins.clouds import Cloud
from tests.support.object_requests import (
    DATA,
    KEY,
    KEYS,
    LIFE,
    BlockedProvider,
    assert_reads,
    error,
    headers_of,
    url_of,
)


def test_a_blob_lies_where_obstore_finds_it() -> None:
    store = open_azure(
        parse_container_url("az://lake/")[0], azure_settings({"account_name": "acme", "account_key": EMULATED_KEY})
    )
    signed = obstore.sign(store._store, "GET", KEY, timedelta(minutes=1))
    assert url_of(store).partition("?")[0] == signed.partition("?")[0].replace("+", "%2B")


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


@pytest.fixture(scope="module")
def container(azure: Cloud) -> Any:
    from azure.storage.blob import ContainerClient

    client = ContainerClient.from_connection_string(azure.client_options["connection_string"], "requests")
    client.create_container()
    for key in (*KEYS, "a//b", "dir/"):
        client.upload_blob(key, DATA)
    return client


@pytest.mark.system
@pytest.mark.usefixtures("container")
class TestAzure:
    def sas(self) -> str:
        from datetime import timedelta

        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        return generate_container_sas(
            EMULATED,
            "requests",
            EMULATED_KEY,
            permission=ContainerSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def store(self, azure: Cloud, **access: Any) -> ObjectStore:
        options = {"account_name": EMULATED, "endpoint_url": azure.endpoint_url, **access}
        return open_azure(parse_container_url("az://requests/")[0], azure_settings(options))

    def test_odd_keys_are_read(self, azure: Cloud) -> None:
        for access in ({"account_key": EMULATED_KEY}, {"sas_token": self.sas()}, {"sas_token": f"?{self.sas()}"}):
            store = self.store(azure, **access)
            for key in (*KEYS, "a//b", "dir/"):
                assert_reads(store, key)

    def test_refusals_are_typed(self, azure: Cloud) -> None:
        store = self.store(azure, account_key=EMULATED_KEY)
        for method in ("GET", "HEAD"):
            assert type(error(store, "absent", method=method)) is ObjectVanished
            assert type(error(store, KEYS[0], method=method, **{"If-Match": '"other"'})) is ObjectChanged
            wrong = error(self.store(azure, account_key="d3Jvbmc="), KEYS[0], method=method)
            assert type(wrong) is AccessDenied
            assert "sig=" not in str(wrong)

    def test_a_public_container_is_read_by_nobody(self, azure: Cloud, container: Any) -> None:
        container.set_container_access_policy(signed_identifiers={}, public_access="blob")
        store = self.store(azure, anon=True)
        assert_reads(store, KEYS[0])
        container.set_container_access_policy(signed_identifiers={})
        assert type(error(store, KEYS[0])) in (AccessDenied, ObjectVanished)
