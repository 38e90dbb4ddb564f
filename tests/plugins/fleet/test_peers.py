"""Nodes of a site read blobs from one another: the source is read once, and no node can spoil another's bytes."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import AccessDenied, TransferFailed
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.fleet.node import hold_version
from prefect_stagegate.plugins.fleet.nodes import BlobOrder, HeldVersion, put_node, read_node, read_nodes
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.plugins.fleet.peers.peer_search import announce_fleet
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.transport.http import Request, fetch
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace
from tests.plugins.fleet.site import LATEST, Site, blob_server, stage_together
from tests.support.rawserver import raw_server, response
from tests.support.records import CountedRecords
from tests.support.versions import read_manifest
from tests.support.waiting import eventually
from tests.support.webservers import accepts, certificates

LOOPBACK = ("http://127.0.0.0/8",)
TOKEN = "0123456789abcdef0123"


def contents(small: int = 40, large: int = 2) -> dict[str, bytes]:
    drawn = random.Random(68)
    files = {f"{number:03}.bin": drawn.randbytes(drawn.randrange(1, 5000)) for number in range(small)}
    return files | {f"large{number}.bin": drawn.randbytes(3_000_000) for number in range(large)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, contents())
    yield made
    made.close()


def put_token(folder: Path, token: str = TOKEN) -> Path:
    path = folder / "token"
    path.write_text(token + "\n")
    path.chmod(0o600)
    return path


def same_bytes(node: Workspace, site: Site) -> bool:
    view = node.cache.views.path(LATEST.dataset, node.catalog.resolve(LATEST))
    assert view
    return {path.name: path.read_bytes() for path in view.iterdir()} == site.source.files


def test_source_is_read_once_by_nodes_that_stage_together(site: Site) -> None:
    site.make()
    nodes = [site.node(f"gpu-{number}") for number in range(3)]
    versions = stage_together(*nodes)
    assert site.read() == site.size
    assert all(same_bytes(node, site) for node in nodes)
    assert sum(version.bytes_from_peers for version in versions) == 2 * site.size
    assert all(version.bytes_fetched == site.size for version in versions)


def test_nodes_of_a_fleet_read_one_record_of_all_nodes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    version = site.make()
    nodes = [site.node(f"gpu-{number}") for number in range(3)]
    names = [node.settings.node for node in nodes]
    records = read_nodes(nodes[0].catalog, UnreadableRecords())
    assert announce_fleet(nodes[0], version.dataset, version.digest, names, records)
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.peer_search.read_nodes", None)
    fetched = hold_on_all(nodes, Address(version.dataset, version.digest))
    assert fetched == [site.size] * 3
    assert site.read() == site.size


@pytest.mark.parametrize("damage", ["", "not JSON", '{"dataset": "others", "digest": "", "members": []}'])
def test_nodes_of_a_fleet_without_its_record_read_all(site: Site, damage: str) -> None:
    version = site.make()
    stage(site.node("gpu-1"), LATEST)
    second = site.node("gpu-2")
    records = read_nodes(second.catalog, UnreadableRecords())
    announce_fleet(second, version.dataset, version.digest, ["gpu-2"], records)
    (path,) = Path(second.catalog.url).rglob("fleets/*.json")
    path.write_text(damage) if damage else path.unlink()
    site.source.sent.clear()
    assert hold_on_all([second], Address(version.dataset, version.digest)) == [site.size]
    assert site.read() == 0


class ReadOnlyRecords(CountedRecords):
    """A store whose credentials of the coordinator only read."""

    def create(self, key: str, data: bytes) -> NoReturn:  # noqa: ARG002 - as the store calls it
        raise AccessDenied("Access denied", object=key)

    replace = create


def test_coordinator_that_only_reads_the_catalog_goes_on(site: Site) -> None:
    version, node = site.make(), site.node("gpu-1")
    catalog = Catalog(ReadOnlyRecords(node.catalog.records), memory=node.cache.memory)
    records = read_nodes(catalog, UnreadableRecords())
    reading = replace(node, catalog=catalog)
    assert not announce_fleet(reading, version.dataset, version.digest, ["gpu-1"], records)


def hold_on_all(nodes: list[Workspace], version: Address) -> list[int]:
    """Stage on all nodes as those of one fleet; the bytes that each fetched."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        return [report.fetched for report in pool.map(lambda node: hold_version(node, version, fleet=True), nodes)]


def test_source_is_not_read_when_a_node_has_the_version(site: Site) -> None:
    site.make()
    stage(site.node("gpu-1"), LATEST)
    site.source.sent.clear()
    second = site.node("gpu-2")
    version = stage(second, LATEST)
    assert site.read() == 0
    assert same_bytes(second, site)
    assert [(peer.node, peer.bytes, peer.problem) for peer in version.peers] == [("gpu-1", site.size, "")]


def test_node_that_comes_later_reads_from_those_that_fetch(site: Site) -> None:
    site.make()
    first, second = site.node("gpu-1"), site.node("gpu-2")
    with blocked(site) as go_on, ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(stage, first, LATEST)
        assert eventually(lambda: is_fetching(second, "gpu-1"))
        threading.Timer(0.5, go_on).start()
        version = stage(second, LATEST)
        # One that overtakes the first is read from by it.
        from_peers = version.bytes_from_peers + fetching.result().bytes_from_peers
    assert version.bytes_from_peers > 0
    assert site.read() + from_peers == 2 * site.size
    assert same_bytes(second, site)


def test_rotten_file_is_healed_from_a_node_of_the_site(site: Site) -> None:
    site.make()
    stage(site.node("gpu-1"), LATEST)
    second = site.node("gpu-2")
    rotten = stage(second, LATEST).path / "large0.bin"
    rotten.chmod(0o644)
    with rotten.open("r+b") as file:
        file.write(b"rot")
    rotten.chmod(0o444)
    site.source.sent.clear()
    assert verify(second, LATEST, repair=True).repaired
    assert same_bytes(second, site)
    assert site.read() == 0


def flipped(site: Site, name: str) -> str:
    """The URL of a node that holds the version by its record, and flips a bit of each blob."""
    holder = site.node(name, url=None)
    stage(holder, LATEST)
    for blob in holder.cache.layout.blobs.glob("*/*"):
        blob.chmod(0o644)
        with blob.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
    return site.node(name).settings.of(FleetSettings).peer_url


def test_wrong_bytes_cost_one_try_and_are_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.make()
    flipped(site, "gpu-1")
    site.source.sent.clear()
    second = site.node("gpu-2")
    version = stage(second, LATEST)
    assert same_bytes(second, site)
    assert site.read() == site.size
    assert [(peer.node, peer.bytes) for peer in version.peers] == [("gpu-1", 0)]
    assert "blake3:" in version.peers[0].problem
    assert "The node gpu-1" in caplog.text


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(None, "Connection refused", id="a dead node"),
        pytest.param(response(b"", "500 Internal Server Error"), "answers 500", id="a node that fails"),
        pytest.param(
            response(b"", "302 Found", {"Location": "http://169.254.169.254/"}), "answers 302", id="one that redirects"
        ),
        pytest.param(response(b"short"), "", id="a node that sends other bytes"),
    ],
)
def test_node_that_fails_costs_one_try(site: Site, answer: bytes | None, problem: str) -> None:
    site.make()
    with raw_server(answer or b"") as server:
        if answer is None:
            server.close()
        holder = site.node("gpu-1", url=server.url)
        stage(holder, LATEST)
        site.source.sent.clear()
        second = site.node("gpu-2")
        version = stage(second, LATEST)
    assert same_bytes(second, site)
    assert site.read() == site.size
    assert version.peers[0].node == "gpu-1"
    assert problem in version.peers[0].problem


def test_silent_node_is_left_after_the_idle_time(site: Site) -> None:
    site.make()
    ended = threading.Event()
    with raw_server(lambda _head, _connection: b"" if ended.wait(30) else None) as server:
        stage(site.node("gpu-1", url=server.url), LATEST)
        second = site.node("gpu-2", idle_timeout=1.0)
        version = stage(second, LATEST)
        ended.set()
    assert same_bytes(second, site)
    assert "stopped answering" in version.peers[0].problem


def test_node_that_only_says_not_yet_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.peer_source.PATIENCE", 2.0)
    site.make()
    ticks = iter(range(10**9))

    def always_later(_head: bytes, _connection: socket.socket) -> bytes:
        return response(b"", "503 Service Unavailable", {"Stagegate-Activity": str(next(ticks))})

    with raw_server(always_later) as server:
        site.node("gpu-1", url=server.url)
        second = site.node("gpu-2", idle_timeout=1.0)
        version = stage(second, LATEST, peers=["gpu-1", "gpu-2"])
    assert same_bytes(second, site)
    assert "brought nothing" in version.peers[0].problem


def test_own_share_does_not_wait_for_other_nodes(tmp_path: Path) -> None:
    site = Site(tmp_path, contents(small=16, large=0), idle_timeout=3.0)
    version = site.make()
    read_when_left: list[int] = []

    class Watch(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            read_when_left.append(site.read())

    logger, watch, silent = (
        logging.getLogger("prefect_stagegate.plugins.fleet.peers.peer_source"),
        Watch(),
        ["gpu-1", "gpu-2", "gpu-3"],
    )
    logger.addHandler(watch)
    ended = threading.Event()
    with raw_server(lambda _head, _connection: b"" if ended.wait(30) else None) as server:
        for name in silent:
            site.node(name, url=server.url)
        own = site.node("gpu-4", objects_in_flight=2)
        stage(own, LATEST, peers=silent)
        ended.set()
    logger.removeHandler(watch)
    order = BlobOrder("gpu-4", [], silent)
    entries = read_manifest(own.catalog, version.dataset, version.digest).entries()
    assert read_when_left[0] == sum(entry.size for entry in entries if not order(entry.digest)) > 0
    assert same_bytes(own, site)
    site.close()


def test_late_node_does_not_keep_others_from_being_asked(tmp_path: Path) -> None:
    site = Site(tmp_path, contents(small=24, large=0), idle_timeout=2.0)
    version = site.make()
    outside = open_workspace(tmp_path / "outside", tmp_path / "catalog")
    entries = list(read_manifest(outside.catalog, version.dataset, version.digest).entries())
    late, names = threading.Event(), ["gpu-1", "gpu-2"]
    held_when_left: list[str] = []

    class Watch(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            held_when_left.extend(entry.path for entry in entries if own.cache.blobs.holds(entry.digest, entry.size))

    logger, watch = logging.getLogger("prefect_stagegate.plugins.fleet.peers.peer_source"), Watch()
    with (
        raw_server(lambda _head, _connection: b"" if late.wait(30) else None) as server,
        blob_server(outside.cache) as url,
    ):
        site.node("gpu-1", url=server.url)
        site.node("gpu-2", url=url)
        own = site.node("gpu-3", objects_in_flight=8)
        logger.addHandler(watch)
        stage(own, LATEST, peers=names)
        late.set()
    logger.removeHandler(watch)
    order = BlobOrder("gpu-3", [], names)
    of_others = {entry.path for entry in entries if order(entry.digest)[:1] != ("gpu-1",)}
    assert set(held_when_left) == of_others
    assert same_bytes(own, site)
    site.close()


def test_slow_node_does_not_take_all_open_places(tmp_path: Path) -> None:
    site = Site(tmp_path, {f"{number:02}.bin": random.Random(number).randbytes(1_100_000) for number in range(32)})
    version = site.make()
    outside = open_workspace(tmp_path / "outside", tmp_path / "catalog")
    entries = list(read_manifest(outside.catalog, version.dataset, version.digest).entries())
    came: list[str] = []
    names, done = ["gpu-1", "gpu-2"], threading.Event()
    with blob_server(outside.cache, bandwidth=6_000_000) as slow, blob_server(outside.cache) as fast:
        site.node("gpu-1", url=slow)
        site.node("gpu-2", url=fast)
        own = site.node("gpu-3")

        def watch() -> None:
            while not done.wait(0.01):
                held = (entry.digest for entry in entries if own.cache.blobs.holds(entry.digest, entry.size))
                came.extend(digest for digest in held if digest not in came)

        watcher = threading.Thread(target=watch)
        watcher.start()
        stage(own, LATEST, peers=names)
        done.set()
        watcher.join()
    order = BlobOrder("gpu-3", [], names)
    of_fast = {entry.digest for entry in entries if order(entry.digest)[:1] == ("gpu-2",)}
    half_of_slow = (len(entries) - len(of_fast)) // 2
    assert 0 < len(of_fast) < len(entries)
    assert of_fast <= set(came[: len(of_fast) + half_of_slow])
    site.close()


def test_without_a_site_no_node_is_asked(site: Site) -> None:
    site.make()
    stage(site.node("gpu-1"), LATEST)
    site.source.sent.clear()
    version = stage(site.node("gpu-2", site=""), LATEST)
    assert version.peers == ()
    assert site.read() == site.size


def test_other_sites_are_not_asked(site: Site) -> None:
    site.make()
    stage(site.node("far", site="dc2"), LATEST)
    site.source.sent.clear()
    assert stage(site.node("gpu-2"), LATEST).peers == ()
    assert site.read() == site.size


def test_holder_with_an_old_record_is_asked(site: Site) -> None:
    """A node that joins, when the agent of the only holder last wrote longer ago than the time-out."""
    version = site.make()
    stage(site.node("gpu-1"), LATEST)
    site.source.sent.clear()
    second = site.node("gpu-2", node_timeout=-100.0)
    assert stage(second, LATEST).bytes_from_peers == site.size
    third = site.node("gpu-3", node_timeout=-100.0)
    records = read_nodes(third.catalog, UnreadableRecords())
    announce_fleet(third, version.dataset, version.digest, ["gpu-3"], records)
    hold_on_all([third], Address(version.dataset, version.digest))
    assert site.read() == 0


def test_nodes_that_never_had_a_record_read_the_source_once(site: Site) -> None:
    """The first fleet of nodes without an agent; one begins later than the others."""
    version = site.make()
    nodes = [site.node(f"gpu-{number}", record=False) for number in range(3)]
    names = [node.settings.node for node in nodes]
    assert announce_fleet(nodes[0], version.dataset, version.digest, names, [])
    address = Address(version.dataset, version.digest)
    with ThreadPoolExecutor(3) as pool:
        early = [pool.submit(hold_version, node, address, fleet=True) for node in nodes[:2]]
        late = threading.Timer(1.5, hold_version, (nodes[2], address), {"fleet": True})
        late.start()
        assert [report.result().fetched for report in early] == [site.size] * 2
        late.join()
    assert all(same_bytes(node, site) for node in nodes)
    assert site.read() <= 1.1 * site.size


def test_absent_node_of_a_fleet_is_waited_for_in_vain_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.peer_search.JOIN_SECONDS", 1.5)
    version, node = site.make(), site.node("gpu-1", record=False)
    announce_fleet(node, version.dataset, version.digest, ["gpu-1", "gone"], [])
    assert hold_on_all([node], Address(version.dataset, version.digest)) == [site.size]


def test_renamed_node_does_not_wait_for_itself(site: Site) -> None:
    made, node = site.make(), site.node("gpu-2")
    record = publish_record(node)
    fetching = HeldVersion(made.dataset, made.digest, made.bytes, missing=made.bytes, fetching=True)
    put_node(node.catalog, replace(record, name="gpu-1", versions=(fetching,)))
    assert stage(node, LATEST).peers == ()


def test_record_can_t_lead_to_a_metadata_service(site: Site) -> None:
    site.make()
    stage(site.node("gpu-1", url="http://169.254.169.254"), LATEST)
    second = site.node("gpu-2")
    version = stage(second, LATEST)
    assert same_bytes(second, site)
    assert "169.254.169.254" in version.peers[0].problem


@pytest.mark.parametrize("hosts", [(), ("10.0.0.0/8", "gpu-1.example.org"), ("127.0.0.0/8",)])
def test_token_goes_to_no_host_that_the_site_does_not_name(
    site: Site, tmp_path: Path, hosts: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes a record into the catalog gets nothing; without TLS, the setting must say so."""
    site.make()
    with raw_server(response(b"", "404 Not Found")) as planted:
        stage(site.node("gpu-1", url=planted.url), LATEST)
        second = site.node("gpu-2", peer_token_file=put_token(tmp_path), peer_hosts=hosts)
        assert stage(second, LATEST).bytes_from_peers == 0
    assert planted.requests == []
    assert same_bytes(second, site)
    assert "STAGEGATE_PEER_HOSTS" in caplog.text
    assert f"gpu-1 ({planted.url})" in caplog.text


def test_planted_nodes_together_take_one_budget_of_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six that say "not yet" for ever, and six that say nothing; the source is there."""
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.peer_source.PATIENCE", 2.0)
    site.make()
    ended, ticks = threading.Event(), iter(range(10**9))

    def later(_head: bytes, _connection: socket.socket) -> bytes:
        return response(b"", "503 Service Unavailable", {"Stagegate-Activity": str(next(ticks))})

    with raw_server(later) as busy, raw_server(lambda _head, _connection: b"" if ended.wait(60) else None) as silent:
        for number in range(12):
            planted = site.node(f"gpu-{number}", url=(busy if number % 2 else silent).url)
        holder = publish_record(planted)
        fetching = HeldVersion(LATEST.dataset, planted.catalog.resolve(LATEST), site.size, site.size, fetching=True)
        for number in range(12):
            record = replace(holder, name=f"gpu-{number}", url=(busy if number % 2 else silent).url)
            put_node(planted.catalog, replace(record, versions=(fetching,)))
        node, begun = site.node("node"), time.monotonic()
        stage(node, LATEST)
        took = time.monotonic() - begun
        ended.set()
    assert same_bytes(node, site)
    assert took < 8


def test_wrong_token_is_named_and_never_shown(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.make()
    first = site.node("gpu-1", url=None)
    stage(first, LATEST)
    with blob_server(first.cache, TOKEN) as url:
        site.node("gpu-1", url=url)
        right = site.node("gpu-2", peer_token_file=put_token(tmp_path), peer_hosts=LOOPBACK)
        assert stage(right, LATEST).bytes_from_peers == site.size
        wrong = site.node("gpu-3", peer_token_file=put_token(tmp_path, "another-token-0123456789"), peer_hosts=LOOPBACK)
        version = stage(wrong, LATEST)
    refused = {peer.node: peer.problem for peer in version.peers}["gpu-1"]
    assert "refused the token" in refused
    assert "another-token" not in caplog.text


def test_nodes_prove_themselves_by_certificates(site: Site, tmp_path: Path) -> None:
    site.make()
    authority, own = certificates(tmp_path), tmp_path / "own.pem"
    own.write_text((tmp_path / "server.pem").read_text() + (tmp_path / "server.key").read_text())
    first = site.node("gpu-1", url=None)
    stage(first, LATEST)
    tls: dict[str, Any] = {"ssl_certfile": str(own), "ssl_ca_certs": str(authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    with blob_server(first.cache, **tls) as url:
        site.node("gpu-1", url=url)
        stranger = site.node("gpu-2", url=None, peer_ca=authority)
        assert stage(stranger, LATEST).bytes_from_peers == 0
        second = site.node("gpu-3", url=None, peer_ca=authority, peer_certificate=own)
        assert stage(second, LATEST).bytes_from_peers == site.size


def test_slow_node_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.peer_source.LEAST_SECONDS", 0.5)
    version = site.make()
    second, ended = site.node("gpu-2"), threading.Event()
    sizes = {
        entry.digest[7:]: entry.size for entry in read_manifest(second.catalog, "things", version.digest).entries()
    }

    def drip(head: bytes, connection: socket.socket) -> None:
        size = sizes[head.decode().partition("/blobs/")[2][:64]]
        with suppress(OSError):
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            while not ended.wait(0.1) and head.startswith(b"GET"):
                connection.sendall(b"x")

    with raw_server(drip) as server:
        stage(site.node("gpu-1", url=server.url), LATEST)
        slow = stage(second, LATEST).peers
        ended.set()
    assert same_bytes(second, site)
    assert "stopped answering" in slow[0].problem


def test_object_that_is_gone_everywhere_is_named(site: Site) -> None:
    site.make()
    del site.source.files["000.bin"]
    stage_first = site.node("gpu-1")
    with pytest.raises(TransferFailed, match=r"manifest no longer names the object .*000\.bin"):
        stage(stage_first, LATEST)
    with pytest.raises(TransferFailed, match=r"manifest no longer names the object .*000\.bin"):
        stage(site.node("gpu-2", idle_timeout=1.0), LATEST, peers=["gpu-1", "gpu-2"])


@pytest.mark.system
def test_nginx_serves_a_node_s_blobs(site: Site, tmp_path: Path) -> None:
    site.make()
    first = site.node("gpu-1", url=None)
    held = stage(first, LATEST)
    (first.cache.layout.ingest / ("4" * 64)).write_bytes(b"unverified")
    name = next(first.cache.layout.blobs.glob("*/*")).name
    (first.cache.layout.blobs / name[:2] / (name[:2] + "0" * 62)).symlink_to(first.cache.root / "format")
    with nginx_blobs(tmp_path, first) as url:
        site.node("gpu-1", url=url)
        site.source.sent.clear()
        second = site.node("gpu-2", peer_token_file=put_token(tmp_path), peer_hosts=LOOPBACK)
        assert stage(second, LATEST).bytes_from_peers == held.bytes
        assert site.read() == 0
        assert same_bytes(second, site)
        token = {"Authorization": f"Bearer {TOKEN}"}
        paths = [
            f"{name[:2]}{'0' * 62}",
            "4" * 64,
            "../format",
            f"..%2fformat?{name}",
            f"{name[:2]}/{name}",
            name[:63],
            "",
        ]
        refused = [fetch(Request(f"{url}/blobs/{path}", token)).status for path in paths]
        assert [status for status in refused if status not in (403, 404)] == []
        assert fetch(Request(f"{url}/blobs/{name}")).status == 401
        assert fetch(Request(f"{url}/blobs/{name}", token, method="DELETE")).status in (403, 405)


@contextmanager
def nginx_blobs(folder: Path, node: Workspace) -> Iterator[str]:
    """Run nginx with the lines of `deployments/`, for a node's cache; gives its URL."""
    port, token = free_port(), folder / "nginx-token"
    token.write_text(f'"Bearer {TOKEN}" 1;')
    lines = (Path(__file__).parents[3] / "deployments/nginx-blobs.conf").read_text()
    for shipped, own in (
        ("/etc/nginx/stagegate-token", str(token)),
        ("/var/cache/stagegate", str(node.cache.root)),
        ("listen 8444;", f"listen 127.0.0.1:{port};"),
    ):
        assert shipped in lines
        lines = lines.replace(shipped, own)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; user root;"
        f"events {{ worker_connections 256; }} http {{ access_log off; {temporary} {lines} }}"
    )
    with launched(
        ["/usr/sbin/nginx", "-p", str(folder), "-c", str(config)], folder / "nginx.log", lambda: accepts(port)
    ):
        yield f"http://127.0.0.1:{port}"


def is_fetching(node: Workspace, name: str) -> bool:
    """Whether a node's record says that it fetches."""
    record = read_node(node.catalog, name)
    return record is not None and any(held.fetching for held in record.versions)


class blocked:  # noqa: N801 - used as a statement
    """Has the source wait with each object until `go_on` is called."""

    def __init__(self, site: Site) -> None:
        self._source, self._go = site.source, threading.Event()
        self._answer = self._source._server._script

    def __enter__(self):  # type: ignore[no-untyped-def]
        def answer(head: bytes, connection: socket.socket) -> bytes | None:
            if not head.startswith(b"HEAD") and b"SHA256SUMS" not in head:
                self._go.wait(20)
            return self._answer(head, connection)

        self._source._server._script = answer
        return self._go.set

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._source._server._script = self._answer
