"""Azure's store against the contract of sources."""

from __future__ import annotations

from typing import Any

import obstore
import pytest
from obstore.exceptions import InvalidPathError
from obstore.store import AzureStore

from prefect_stagegate.errors import ObjectChanged
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import Place, SourceContract, listed, read
from tests.plugins.clouds import Cloud, cloud_place
from tests.support.places import WIRE


@pytest.mark.system
class TestAzure(SourceContract):
    @pytest.fixture
    def place(self, azure: Cloud, request: pytest.FixtureRequest) -> Place:
        anonymous = {name: value for name, value in azure.storage_options.items() if name != "account_key"}
        denied = {**azure.storage_options, "account_key": "d3Jvbmc="}
        return cloud_place(
            azure,
            request,
            denied=denied,
            anonymous=anonymous,
            lacks="\\\n\t",
            library=("xml.etree.ElementTree.fromstring", WIRE),
        )


def _azure_store(server: Cloud, container: str) -> AzureStore:
    """The naive client of Azure's protocol."""
    config: Any = {"account_name": EMULATED, "account_key": EMULATED_KEY, "endpoint": server.endpoint_url}
    return AzureStore(container, config=config, client_options={"allow_http": True})


@pytest.mark.system
def test_one_odd_key_hides_no_other_on_azure(azure: Cloud) -> None:
    from azure.storage.blob import ContainerClient

    url = azure.bucket("odd-keys")
    container = ContainerClient.from_connection_string(azure.client_options["connection_string"], "odd-keys")
    for key in ("odd/a", "odd/b//key", "odd/z"):
        container.upload_blob(key, b"x")
    with pytest.raises(InvalidPathError):  # the naive client
        obstore.list(_azure_store(azure, "odd-keys")).collect()
    assert set(listed(open_source(f"{url}/", azure.storage_options))) == {"odd/a", "odd/b//key", "odd/z"}


@pytest.mark.system
def test_listed_and_requested_etags_are_equal_on_azure(azure: Cloud) -> None:
    url, client = azure.bucket("etags"), azure.client()
    client.pipe_file("etags/a.bin", b"one")
    store = _azure_store(azure, "etags")
    (naive,) = obstore.list(store).collect()
    assert naive["e_tag"] != obstore.head(store, "a.bin")["e_tag"]
    source = open_source(f"{url}/", azure.storage_options)
    obj = listed(source)["a.bin"]
    assert (obj.pin.kind, obj.pin) == ("etag", source.find("a.bin").pin)
    assert read(source, obj) == b"one"


@pytest.mark.system
def test_a_server_that_ignores_versions_is_asked_by_etag(azure: Cloud) -> None:
    url, client = azure.bucket("no-versions"), azure.client()
    client.pipe_file("no-versions/a.bin", b"one")
    source = open_source(f"{url}/", azure.storage_options)
    obj = listed(source)["a.bin"]
    client.pipe_file("no-versions/a.bin", b"two")
    old: Any = {"version": "2020-01-01T00:00:00.0000000Z"}
    naive = obstore.get(_azure_store(azure, "no-versions"), "a.bin", options=old)
    assert bytes(naive.bytes()) == b"two"
    with pytest.raises(ObjectChanged):
        read(source, obj)
