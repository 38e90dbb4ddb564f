"""Objects that one request reads whole, because their server knows no ranges."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.web.website import WebSource
from prefect_stagegate.transport.transfer import Limits
from tests.support.http_servers import file_server
from tests.support.scripted import fetch_all


def test_checksum_of_a_response_that_came_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web").mkdir()
    data = bytes(range(256)) * 12_000  # too large for memory
    (tmp_path / "web/a.bin").write_bytes(data)
    offers = (("sha256", hashlib.sha256(data).hexdigest()),)
    monkeypatch.setattr(WebSource, "response_checksums", lambda *_: offers, raising=False)
    limits = Limits(part=1 << 18, memory=1 << 20)
    with file_server(tmp_path / "web") as url:
        (receipt,) = fetch_all(open_source(f"{url}/"), Cache.open(tmp_path / "cache"), limits=limits)
    assert receipt.digest == f"blake3:{blake3(data).hexdigest()}"
