"""Options and identities of Azure's object store. No server is asked."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.azure.azure import open_azure, parse_container_url
from prefect_stagegate.plugins.azure.azure_options import EMULATED_ENDPOINT, azure_settings
from prefect_stagegate.sources import open_source
from prefect_stagegate.transport.objectstore.store import BucketPath

KEY = "d3Jvbmc="
LAKE = BucketPath("lake", "")


@pytest.mark.parametrize(
    ("options", "host", "account", "endpoint"),
    [
        ({"account_name": "acme"}, "", "acme", "https://acme.blob.core.windows.net"),
        ({}, "acme.dfs.core.windows.net", "acme", "https://acme.blob.core.windows.net"),
        ({"account_name": "acme", "account_host": "acme.blob.core.usgovcloudapi.net"}, "", "acme",
         "https://acme.blob.core.usgovcloudapi.net"),
        ({"connection_string": f"AccountName=acme;AccountKey={KEY}"}, "", "acme", "https://acme.blob.core.windows.net"),
        ({"connection_string": "UseDevelopmentStorage=true"}, "", "devstoreaccount1", EMULATED_ENDPOINT),
    ],
)  # fmt: skip
def test_an_azure_account_is_named_in_ways(options: dict[str, Any], host: str, account: str, endpoint: str) -> None:
    settings = azure_settings(options, host=host)
    assert (settings.account, settings.endpoint) == (account, endpoint)


def test_azure_s_variables_answer_what_the_options_leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=other;AccountKey={KEY}")
    assert azure_settings({}).key == KEY
    own = azure_settings({"account_name": "acme", "sas_token": "?sv=1"})
    assert (own.account, own.key, own.sas) == ("acme", "", "?sv=1")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "No storage account is set"),
        ({"account_nam": "acme"}, "account_name"),
        ({"connection_string": "nonsense"}, "names no account"),
        ({"account_name": "acme", "verify": False}, "PEM file"),
    ],
)
def test_azure_options_that_cannot_be_used_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        azure_settings(options)
    assert says in str(caught.value)


def test_an_azure_key_that_is_none_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="not well formed") as caught:
        open_azure(LAKE, azure_settings({"account_name": "acme", "account_key": "not base 64!"}))
    assert "base 64!" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "what"),
    [
        ({"account_key": KEY}, "static", "the key of the account acme"),
        ({"sas_token": "sv=1&se=2030-01-01T00:00:00Z&sig=x"}, "temporary", "a shared access signature"),
        ({"anon": True}, "none", "anonymous reading"),
        ({"client_id": "c", "client_secret": "s", "tenant_id": "t"}, "renewed", "the application c"),
    ],
)
def test_an_azure_store_tells_who_asks(options: dict[str, Any], kind: str, what: str) -> None:
    life = open_azure(LAKE, azure_settings({"account_name": "acme", **options})).life
    assert (life.kind, life.what) == (kind, what)


@pytest.mark.parametrize("url", ["az://me:secret@acme.dfs.core.windows.net/x", "az:///x"])
def test_a_container_s_url_holds_no_credentials(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_container_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/x", "webdav+http://169.254.169.254/x/", "abfss://lake@169.254.169.254/x/"]
)
def test_no_source_lies_where_machines_tell_their_secrets(url: str) -> None:
    with pytest.raises(UsageError, match="metadata addresses are blocked"):
        open_source(url, {"anon": True} if url.startswith("abfss") else {})
