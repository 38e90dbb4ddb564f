"""Nobody listens at the port of a source's server: plugins say so in the words of the core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.places import assert_refusal_is_told

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "webdav": ("webdav+http://{}/data/", {}),
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
    assert_refusal_is_told(*SOURCES[family])
