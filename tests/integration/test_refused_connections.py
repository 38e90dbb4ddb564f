"""Nobody listens at the port of a source's server: every family says so in the same words, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.places import assert_refusal_is_told

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "http": ("http://{}/data/", {}),
    "s3": ("s3://lake/", {"endpoint_url": "http://{}", "key": "me", "secret": "secret-of-me"}),
}


@pytest.mark.parametrize("family", SOURCES)
def test_a_refused_connection_is_told_with_host_and_port(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_refusal_is_told(*SOURCES[family])
