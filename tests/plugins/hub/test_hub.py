"""Repositories of the hub as sources: commits, tokens, large files, and what a naive reader gets wrong."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfFileSystem

from prefect_stagegate.errors import (
    AccessDenied,
    ChecksumMismatch,
    SourceError,
    SourceUnavailable,
    TransferFailed,
    UsageError,
)
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.sources import listed, read
from prefect_stagegate.workspace import Workspace
from tests.plugins.hub.small_hub import SmallHub, small_hub

REPO = "datasets/me/things"
URL = f"hf://{REPO}"
SMALL, LARGE = b"small", bytes(range(256)) * 10


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallHub]:
    """A hub that this process asks, with one small and one large file; nobody is logged in."""
    with small_hub() as hub:
        hub.put(REPO, "readme.md", SMALL)
        hub.put(REPO, "data/large.bin", LARGE)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield hub


def spec_of(url: str = URL, **options: Any) -> Spec:
    return load_spec(
        {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": options}]}, known_checks={}
    )


def workspace(tmp_path: Path, node: str) -> Workspace:
    return open_workspace(tmp_path / node, tmp_path / "catalog")


def test_a_url_may_name_a_commit(hub: SmallHub) -> None:
    first = next(iter(hub.commits[REPO]))
    assert set(listed(open_source(f"{URL}@{first}"))) == {"readme.md"}
    assert set(listed(open_source(URL))) == {"readme.md", "data/large.bin"}
    with pytest.raises(SourceError, match="no such revision"):
        listed(open_source(f"{URL}@{'0' * 40}"))


def test_a_model_needs_no_kind(hub: SmallHub) -> None:
    hub.put("models/me/net", "weights.bin", LARGE)
    source = open_source("hf://me/net")
    assert read(source, listed(source)["weights.bin"]) == LARGE
    with pytest.raises(UsageError, match="names no repository"):
        open_source("hf://net")


def test_files_keep_their_pins_in_later_commits(hub: SmallHub) -> None:
    before = listed(open_source(URL))
    commit = hub.put(REPO, "new.bin", b"new")
    after = listed(open_source(URL))
    assert {key: after[key].pin for key in before} == {key: obj.pin for key, obj in before.items()}
    assert {obj.state for obj in after.values()} == {commit}
    assert dict(after["data/large.bin"].checksums)["sha256"] == after["data/large.bin"].pin.value


def test_version_is_fetched_from_its_commit_after_a_push(hub: SmallHub, tmp_path: Path) -> None:
    version = stage(workspace(tmp_path, "one"), spec_of())
    hub.put(REPO, "data/large.bin", LARGE[::-1])
    hub.remove(REPO, "readme.md")
    brought = stage(workspace(tmp_path, "two"), Address("things", version.digest))
    assert (brought.path / "data/large.bin").read_bytes() == LARGE
    assert (brought.path / "readme.md").read_bytes() == SMALL


@pytest.mark.parametrize("name", ["data/large.bin", "readme.md"], ids=["large file", "git file"])
def test_files_are_checked_by_the_digest_that_the_hub_tells(hub: SmallHub, tmp_path: Path, name: str) -> None:
    hub.rotten.add(name)
    with pytest.raises(TransferFailed) as caught:
        stage(workspace(tmp_path, "one"), spec_of())
    assert [type(failure) for failure in caught.value.failures] == [ChecksumMismatch]


def test_a_range_is_one_request_for_these_bytes(hub: SmallHub) -> None:
    naive = HfFileSystem(endpoint=hub.endpoint, token=False, skip_instance_cache=True)
    assert naive.cat_file(f"{REPO}@main/data/large.bin", start=100, end=200) == LARGE[100:200]
    assert {seen.range for seen in hub.seen if seen.range} == {f"bytes=100-{len(LARGE) - 1}"}  # it reads 5 MB ahead
    source = open_source(URL)
    obj = listed(source)["data/large.bin"]
    hub.seen.clear()
    assert read(source, obj, 100, 200) == LARGE[100:200]
    assert [(seen.range, seen.path.split("/")[1]) for seen in hub.seen] == [
        ("bytes=100-199", "datasets"),
        ("bytes=100-199", "cdn"),
    ]


def test_a_redirect_costs_no_connection(hub: SmallHub) -> None:
    source = open_source(URL)
    obj = listed(source)["data/large.bin"]
    for start in range(20):
        assert read(source, obj, start, start + 100) == LARGE[start : start + 100]
    source.close()
    assert hub.connections <= 2, "one to the hub, and one to its content network"


def test_the_token_stays_with_the_hub(hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret")
    hub.gates[REPO] = "hf_very-secret"
    source = open_source(URL)
    assert read(source, listed(source)["data/large.bin"]) == LARGE
    tokens = {seen.path.startswith("/cdn/"): seen.token for seen in hub.seen}
    assert tokens == {False: "Bearer hf_very-secret", True: ""}


def test_the_hub_is_asked_through_the_environment_s_proxy(hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")  # which only the proxy knows: it is the hub itself
    monkeypatch.setenv("http_proxy", hub.endpoint.replace("//", "//me:se%20cret@"))
    monkeypatch.setenv("no_proxy", "localhost")
    source = open_source(URL)
    obj = listed(source)["data/large.bin"]
    hub.seen.clear()
    assert read(source, obj) == LARGE
    assert [seen.path.partition("/resolve/")[0].partition("/sound/")[0] for seen in hub.seen] == [
        f"http://hub.invalid/{REPO}",
        "/cdn",
    ]
    hub.cdn = "http://169.254.169.254"
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(SourceError, match=r"Refused to connect to 169\.254\.169\.254"):
        read(source, obj)


def test_a_proxy_is_told_the_host_and_not_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret")
    monkeypatch.setenv("no_proxy", "")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{server.getsockname()[1]}")
        response = pool.submit(_refusing, server)
        source = open_source(URL, {"endpoint": "https://hub.invalid"})
        with pytest.raises(SourceUnavailable, match="407") as caught:
            listed(source)
    assert "secret" not in str(caught.value)
    lines = response.result().decode().splitlines()
    assert lines[0].startswith("CONNECT hub.invalid:443 ")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:secret').decode()}" in lines
    assert "hf_very-secret" not in "".join(lines)


def test_a_proxy_that_is_no_http_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:secret@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UsageError, match=r"socks5://127\.0\.0\.1:1 can't be used") as caught:
        listed(open_source(URL, {"endpoint": "https://hub.invalid"}))
    assert "secret" not in str(caught.value)


def _refusing(server: socket.socket) -> bytes:
    """What is asked on the next connection, which is answered by 407."""
    connection, _ = server.accept()
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    return request


def test_a_gated_repository_says_what_to_do(hub: SmallHub) -> None:
    hub.gates[REPO] = "hf_wanted"
    for options in ({}, {"token": "hf_of-somebody-else"}):
        with pytest.raises(AccessDenied, match=r"gated.*Request access") as caught:
            listed(open_source(URL, options))
        assert "hf_of" not in str(caught.value)
    with pytest.raises(AccessDenied, match="nobody is logged in"):
        listed(open_source("hf://datasets/me/thigns"))


def test_redirect_to_a_metadata_address_is_not_followed(hub: SmallHub) -> None:
    source = open_source(URL)
    obj = listed(source)["data/large.bin"]
    hub.cdn = "http://169.254.169.254"
    with pytest.raises(SourceError, match=r"Refused to connect to 169\.254\.169\.254") as caught:
        read(source, obj)
    assert caught.value.object == "data/large.bin"
