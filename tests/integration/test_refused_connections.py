"""Nobody listens at the port of a source's server: every family says so in the same words, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import free_port

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "http": ("http://{}/data/", {}),
    "webdav": ("webdav+http://{}/data/", {}),
    "s3": ("s3://lake/", {"endpoint_url": "http://{}", "key": "me", "secret": "secret-of-me"}),
    "gcs": ("gs://lake/", {"endpoint_url": "http://{}", "anon": True}),
    "azure": ("az://lake/", {"endpoint_url": "http://{}/acme", "account_name": "acme", "anon": True}),
    "hub": ("hf://datasets/me/things/", {"endpoint": "http://{}", "token": False}),
    "registry": ("oci://{}/me/things:v1", {}),
    "sftp": ("sftp://me@{}/data/", {"password": "secret-of-me"}),
}


@pytest.mark.parametrize("family", SOURCES)
def test_a_refused_connection_is_told_with_host_and_port(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = f"127.0.0.1:{free_port()}"
    url, options = SOURCES[family]
    given = {name: value.format(address) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(SourceUnavailable) as caught:
        list(open_source(url.format(address), given).list())
    assert caught.value.message == f"Connection refused by {address}"
    assert caught.value.hint == "Check the server's address and port, and that it runs."
    assert caught.value.retryable
