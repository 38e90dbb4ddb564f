"""Servers of HTTP's family whose answers are changed at random: their bytes or a typed error, in time and in memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing.answerer import Answerer
from fuzzing.campaign import Budget, Figures, require_clean, run_campaign
from fuzzing.staging import FILES, Opened, put_files, stage_case

from tests.plugins.clouds import Cloud
from tests.plugins.hub.small_hub import small_hub
from tests.plugins.registries import small_registry
from tests.support.webservers import rclone

pytestmark = [pytest.mark.system, pytest.mark.timeout(0)]

SUMS = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())


def campaign(name: str, answerer: Answerer, scratch: Path, opened: Callable[[random.Random], Opened]) -> Figures:
    """Play a campaign against an answerer; the answers are recorded first."""
    budget = Budget.of_environment()
    answerer.changes = False
    for number in range(4):
        assert stage_case(opened(random.Random(number)), scratch, random.Random(number)) == "staged"
    answerer.changes = True

    def play(number: int, draw: random.Random) -> str:
        answerer.begin(f"{budget.seed}/{number}")
        return stage_case(opened(draw), scratch, draw)

    return run_campaign(name, budget, play)


def test_http_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with rclone("http", tmp_path) as server, Answerer(server.url) as answerer:
        put_files(server.root)
        (server.root / "SHA256SUMS").write_text(SUMS)
        folder = Opened(f"{answerer.url}/", {})
        manifest = Opened(f"{answerer.url}/SHA256SUMS", {"manifest": "checksums"})
        ways = (folder, folder, manifest)
        require_clean(campaign("http", answerer, scratch / "cache", lambda draw: draw.choice(ways)))


def test_webdav_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with rclone("webdav", tmp_path) as server, Answerer(server.url) as answerer:
        put_files(server.root)
        opened = Opened(f"webdav+{answerer.url}/", {})
        require_clean(campaign("webdav", answerer, scratch / "cache", lambda _: opened))


def test_hub_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with small_hub() as hub, Answerer(hub.endpoint) as answerer:
        hub.put_all("datasets/me/things", FILES)
        hub.endpoint, hub.cdn = answerer.url, answerer.url.replace("127.0.0.1", "localhost")
        opened = Opened("hf://datasets/me/things/", {"endpoint": answerer.url, "token": False})
        require_clean(campaign("hub", answerer, scratch / "cache", lambda _: opened))


def test_registry_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with small_registry() as registry, Answerer(f"http://{registry.host}") as answerer:
        registry.tag("me/things", "v1", FILES)
        opened = Opened(f"oci://{answerer.url.removeprefix('http://')}/me/things:v1", {})
        require_clean(campaign("registry", answerer, scratch / "cache", lambda _: opened))


def test_gcs_keeps_its_promise(tmp_path: Path, scratch: Path, gcs: Cloud) -> None:
    url = gcs.bucket("fuzzed")
    client = gcs.client()
    for name, data in FILES.items():
        client.pipe_file(f"fuzzed/{name}", data)
    with Answerer(gcs.endpoint_url) as answerer:
        opened = Opened(f"{url}/", {**gcs.storage_options, "endpoint_url": answerer.url})
        require_clean(campaign("gcs", answerer, scratch / "cache", lambda _: opened))
