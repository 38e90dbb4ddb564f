"""Where blobs lie, who is said to ask, and that nobody waits for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from prefect_stagegate.errors import AccessDenied, ObjectChanged, ObjectVanished
from prefect_stagegate.plugins.azure import azure
from prefect_stagegate.plugins.azure.azure import AzureAccess, open_azure, parse_container_url
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY, azure_settings
from prefect_stagegate.transport.objectstore import ObjectStore
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import bearer_header
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


def test_an_azure_request_waits_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BlockedProvider(token="t0ken")
    keeper = CredentialKeeper(lambda: Credential(AzureAccess(headers=bearer_header(provider()["token"]))))
    monkeypatch.setattr(azure, "_identify", lambda *_: (LIFE, keeper))
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


def test_identity_that_fails_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    application = {"client_id": "c", "client_secret": "s", "tenant_id": "t"}
    store = open_azure(parse_container_url("az://lake/")[0], azure_settings({"account_name": "acme", **application}))
    monkeypatch.setattr(store.requests.keeper, "_provider", lambda: 1 / 0)
    with pytest.raises(AccessDenied, match="can't be renewed"):
        list(store.listing(""))


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
