"""Web listings of servers that mean harm, and pins that servers give alone."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed
from tests.support.rawserver import raw_server, response

MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


def entry(name: str, size: object = 5) -> dict[str, object]:
    return {"name": name, "type": "file", "mtime": MODIFIED, "size": size}


def spec_of(url: str, **more: Any) -> dict[str, Any]:
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": url, **more}]}


@pytest.mark.parametrize("size", [2**63, 2**64, 10**30, 1e300, -5])
def test_impossible_size_is_named_and_may_be_left_out(size: object, tmp_path: Path) -> None:
    page = json.dumps([entry("a.bin"), entry("b.bin", size)]).encode()
    body = response(b"hello", headers={"Last-Modified": MODIFIED})
    listing = response(page, headers={"Content-Type": "application/json"})
    with raw_server(lambda head, _: listing if head.startswith(b"GET /d/ ") else body) as server:
        workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
        with pytest.raises(UsageError, match=r"1 object can't be .*'b\.bin' of .*: no file has its size"):
            stage(workspace, spec_of(f"{server.url}/d/"))
        assert stage(workspace, spec_of(f"{server.url}/d/", exclude=["b.bin"])).files == 1


def test_link_that_is_no_url_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    page = b'<a href="a.bin">a</a> <a href="http://[x/">bad</a> <a href="b.bin">b</a>'
    listing = response(page, headers={"Content-Type": "text/html"})
    with raw_server(lambda head, _: listing if head.startswith(b"GET /d/ ") else response()) as server:
        assert set(listed(open_source(f"{server.url}/d/"))) == {"a.bin", "b.bin"}
    assert "http://[x/" in caplog.text


@pytest.mark.parametrize("page", ["", "{}", "[1]", "[", '[{"type": "directory", "name": "a"}', "[" * 100_000, "[] []"])
def test_page_that_is_not_one_whole_listing_is_refused(page: str) -> None:
    listing = response(page.encode(), headers={"Content-Type": "application/json"})
    with raw_server(listing) as server, pytest.raises(SourceError, match="no listing of nginx"):
        listed(open_source(f"{server.url}/d/"))


LIST_LONG_PAGE = """
import resource
from prefect_stagegate.sources.web.indexes import json_items
text = "[" + ",".join(['{"name": "a", "type": "directory", "x": [[],[],[],[],[],[],[],[]]}'] * 120_000) + "]"
resource.setrlimit(resource.RLIMIT_DATA, (110 << 20, 110 << 20))
assert sum(1 for _ in json_items(text, "")) == 120_000
"""


def test_long_page_takes_little_more_memory_than_its_size() -> None:
    """8 MB, of which a parser of the whole page makes 120 MB."""
    subprocess.run([sys.executable, "-c", LIST_LONG_PAGE], check=True)


@pytest.mark.parametrize(
    "headers", [{"ETag": '"a"'}, {"Last-Modified": MODIFIED}, {"ETag": '"a"', "Last-Modified": MODIFIED}]
)
def test_stagers_at_once_read_a_source_once(headers: dict[str, str], tmp_path: Path) -> None:
    """Whichever pins the server gives."""
    data, reads = bytes(200_000), list[bytes]()

    def answer(head: bytes, _: socket.socket) -> bytes:
        if head.startswith(b"HEAD"):
            return response(data, headers=headers)[: -len(data)]
        reads.append(head)
        time.sleep(0.5)  # until all have asked
        return response(data, headers=headers)

    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    with raw_server(answer) as server, ThreadPoolExecutor(10) as pool:
        specs = [{**spec_of(f"{server.url}/a.bin"), "dataset": f"d{number}"} for number in range(10)]
        assert {version.files for version in pool.map(lambda spec: stage(workspace, spec), specs)} == {1}
    assert len(reads) == 1
