"""The server of pages: who may read, what browsers are told, and how it ends."""

from __future__ import annotations

import base64
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.cache.job_progress import JobProgress, Phase, write_progress
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.pages.server import serve_pages
from tests.plugins.pages.page_server import get, page_server, text_of
from tests.support.records import CountedRecords
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

TOKEN = "0123456789abcdef0123"
GATES = {"pilot": {"require": ["license"]}}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_pages_can_only_be_read(scenario: Scenario) -> None:
    with page_server(scenario.node()) as url:
        assert [get(url, method).status for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")] == [405] * 5
        head = get(f"{url}/datasets", "HEAD")
        assert (head.status, head.body) == (200, b"")


def test_prometheus_gets_the_format_that_it_asks_for(scenario: Scenario) -> None:
    scenario.deliver("one")
    with page_server(scenario.node()) as url:
        plain = get(f"{url}/metrics")
        strict = get(f"{url}/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert b'stagegate_versions{dataset="things"} 1.0' in plain.body
    assert strict.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "sent", ["", TOKEN, f"Bearer {TOKEN}x", "Basic", "Basic !", basic(""), basic(f"{TOKEN}x"), f"Digest {TOKEN}"]
)
def test_without_the_token_nobody_reads(scenario: Scenario, sent: str) -> None:
    with page_server(scenario.node(), token=TOKEN) as url:
        headers = {"Authorization": sent} if sent else {}
        for path in ("/", "/datasets", "/style.css", "/nothing"):
            refused = get(url + path, **headers)
            assert refused.status == 401
            assert b"thing" not in refused.body
        assert refused.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("sent", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_token_opens_the_pages(scenario: Scenario, sent: str) -> None:
    with page_server(scenario.node(), token=TOKEN) as url:
        assert get(url, Authorization=sent).status == 200


def test_pages_show_the_logo_from_their_own_server(scenario: Scenario) -> None:
    with page_server(scenario.node()) as url:
        assert b'<link rel="icon" href="/logo.svg">' in get(url).body
        logo = get(f"{url}/logo.svg")
        assert (logo.status, logo.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "10.0.0.1", "", "a b"])
def test_foreign_names_of_this_machine_are_refused(scenario: Scenario, host: str) -> None:
    with page_server(scenario.node(), hosts=["pages.example.org"]) as url:
        assert send(url, host) == 421


@pytest.mark.parametrize(
    "host", ["localhost:1", "127.0.0.1", "[::1]:8445", "pages.example.org", "PAGES.example.org:443"]
)
def test_own_names_are_answered(scenario: Scenario, host: str) -> None:
    with page_server(scenario.node(), hosts=["pages.example.org"]) as url:
        assert send(url, host) == 200


def send(url: str, host: str) -> int:
    """Request the inbox under a Host; gives the status."""
    address, port = url.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port)), 10) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(connection.recv(4096).split(b" ")[1])


def test_browsers_are_told_what_pages_may_do(scenario: Scenario) -> None:
    digest = scenario.deliver("one").digest
    scenario.promote("pilot")
    with page_server(scenario.node()) as url:
        version = f"{url}/datasets/things/versions/{digest[7:]}"
        (decision,) = re.findall(r'href="(/datasets/things/versions/[0-9a-f]+/decisions/[^"]+)"', text_of(version))
        for address in (url, version, f"{url}/nothing", f"{url}/style.css", f"{url}{decision}"):
            headers = get(address).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "base-uri 'none'" in policy
            assert "http" not in policy
        assert "unsafe" not in get(version).headers["content-security-policy"]
        assert "things is accepted for pilot" in text_of(f"{url}{decision}")


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/datasets/nothing", "/datasets/THINGS", "/datasets/..%2f..", "/datasets/things/versions/1"),
        *(f"/datasets/things/versions/{'0' * 64}", f"/datasets/things/versions/{'0' * 64}/files", "/nodes/nobody"),
        *(
            f"/datasets/things/versions/{'0' * 64}/decisions/pilot/{'0' * 64}",
            "/nodes/a%00b",
            "/nodes/...",
            "/%ff",
            "/datasets/things/",
        ),
        *(f"/datasets/things/versions/{'0' * 64}/decisions/..%2fx/{'0' * 64}", "/datasets/things/compare?old=1&new=2"),
        "/datasets/things/compare",
    ],
)
def test_addresses_without_a_page_get_404(scenario: Scenario, path: str) -> None:
    scenario.deliver("one")
    with page_server(scenario.node()) as url:
        response = get(url + path)
        assert response.status == 404
        assert b"Traceback" not in response.body


def test_long_addresses_are_refused(scenario: Scenario) -> None:
    with page_server(scenario.node()) as url:
        assert get(f"{url}/{'x' * 9000}").status == 414


def test_numbers_of_pages_are_anybodys(scenario: Scenario) -> None:
    scenario.deliver("one")
    with page_server(scenario.node()) as url:
        pages = {text_of(f"{url}/datasets/things?page={n}") for n in ("-1", "0", "x", "9" * 80, "%F0%9F%98%80", "1")}
        assert len({re.sub(r"read at .*?\.|\d+ s ago|title=.*?>", "", page) for page in pages}) == 1


def test_base_path_is_in_every_link(scenario: Scenario) -> None:
    digest = scenario.deliver("one").digest
    with page_server(scenario.node(), base="/stagegate") as url:
        for page in ("", "/datasets", "/datasets/things", f"/datasets/things/versions/{digest[7:]}", "/nodes"):
            links = re.findall(r'(?:href|src|action)="([^"]*)"', text_of(url + page))
            assert {link for link in links if not link.startswith(("/stagegate/", "#", "data:", "mailto:"))} == set()
        # A proxy may take the base path away.
        assert get(url.removesuffix("/stagegate") + "/datasets").status == 200


def test_pages_show_what_happened_since(scenario: Scenario) -> None:
    with page_server(scenario.node()) as url:
        assert "The catalog has no dataset" in text_of(f"{url}/datasets")
        one = scenario.deliver("one").digest
        assert one[7:19] in wait_for(f"{url}/datasets/things", one[7:19])
        two = scenario.deliver("two").digest
        page = wait_for(f"{url}/datasets/things", two[7:19])
        assert page.index(two[7:19]) < page.index(one[7:19])


def wait_for(url: str, text: str) -> str:
    """The page, once it has a text: listings are believed for two seconds."""
    page: str = eventually(lambda: text in (body := get(url).body.decode()) and body, 10)
    return page


class _HangingRecords(CountedRecords):
    """A store that stops answering."""

    hangs = False

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """List, or wait."""
        if self.hangs:
            time.sleep(3)
        return super().keys(prefix, after)


def test_slow_store_costs_one_page_its_time_and_no_other(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.pages.pages_app.PAGE_SECONDS", 1.0)
    scenario.deliver("one")
    scenario.stage(dataset="other")
    store = _HangingRecords(open_records(str(scenario.on["catalog"]), {}))
    with page_server(replace(scenario.node(), catalog=Catalog(store))) as url:
        assert "things" in text_of(f"{url}/datasets/things")
        store.hangs = True
        slow = get(f"{url}/datasets/other")
        assert slow.status == 503
        assert b"was not ready within 1 s" in slow.body
        # What was read before still serves while the store hangs.
        assert "things" in text_of(f"{url}/datasets/things")


def test_damaged_records_are_named_and_the_rest_is_shown(scenario: Scenario) -> None:
    digest = scenario.deliver("one").digest
    scenario.promote("pilot")
    for path in (scenario.folder / "catalog/datasets/things/evidence").rglob("*.json"):
        path.write_text("{")
    for path in (scenario.folder / "catalog/datasets/things/decisions").rglob("*.json"):
        path.write_text("{}")
    (scenario.folder / "catalog/nodes/broken.json").write_text("[]")
    with page_server(scenario.node()) as url:
        assert "can't be read" in text_of(f"{url}/datasets/things/versions/{digest[7:]}")
        for page in ("", "/datasets", "/datasets/things", "/nodes", "/datasets/things/policy"):
            assert digest[7:19] in text_of(url + page) or page in ("", "/nodes", "/datasets/things/policy")
        assert "can't be read" in text_of(f"{url}/nodes")
        assert b"The catalog&#39;s record nodes/broken.json can&#39;t be read" in get(f"{url}/nodes/broken").body


def test_catalog_that_is_gone_is_no_empty_one(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.pages.copies.FRESH", 0.0)
    scenario.deliver("one")
    catalog = scenario.folder / "catalog"
    with page_server(scenario.node()) as url:
        assert "things" in text_of(f"{url}/datasets/things")
        assert get(f"{url}/datasets/other").status == 404
        catalog.rename(scenario.folder / "unmounted")
        catalog.mkdir()
        assert "things" in text_of(f"{url}/datasets/things")
        answer = get(f"{url}/datasets/another")
        assert answer.status == 503
        assert f"There is no catalog at {catalog} any more" in answer.body.decode()


@contextmanager
def command(*words: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_stagegate", "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": settings["STAGEGATE_CACHE"], **settings},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_command_serves_and_ends_within_two_seconds(scenario: Scenario) -> None:
    scenario.deliver("one")
    settings = scenario.environment(STAGEGATE_PAGES_URL="https://data.example.org/here/")
    with command("--bind", "127.0.0.1:0", **settings) as process:
        assert process.stdout
        line = process.stdout.readline()
        url = line.split(" at ")[1].strip()
        assert url.endswith("/here/")
        assert "things" in text_of(f"{url}datasets")
        assert "things" in get(f"{url}datasets", Host="data.example.org").body.decode()
        # A connection that waits keeps nothing alive.
        address, port = url.removeprefix("http://").removesuffix("/here/").split(":")
        with socket.create_connection((address, int(port))) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: localh")
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143
            assert time.monotonic() - begun < 4  # two seconds, and a busy machine


@pytest.mark.parametrize(
    ("bind", "options", "message"),
    [
        ("0.0.0.0:0", {}, "Anybody who can connect to 0.0.0.0:0 could read what this catalog says"),
        ("nonsense", {}, "'nonsense' is no address to listen at"),
        ("203.0.113.1:1", {"token": TOKEN}, "Could not listen at 203.0.113.1:1"),
        ("127.0.0.1:0", {"base": "stagegate"}, "'stagegate' is no base path"),
        ("127.0.0.1:0", {"base": "/a/../b c"}, "is no base path"),
    ],
)
def test_what_can_t_be_served_is_refused(scenario: Scenario, bind: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        serve_pages(scenario.node(), bind, **options)  # type: ignore[arg-type]
    assert message in str(refused.value)


def test_connections_that_do_nothing_are_cut_off(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.serve.listening.IDLE_SECONDS", 0.2)
    with page_server(scenario.node()) as url:
        address, port = url.removeprefix("http://").split(":")
        with socket.create_connection((address, int(port)), 10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localh")
            assert slow.recv(1) == b""


def test_nodes_page_shows_jobs_that_run(scenario: Scenario) -> None:
    node = scenario.node()
    done = JobProgress(Phase.FETCHING, 7, 3, 2_000_000, 500_000, 0, 25_000, 60.0, "a <b>.bin", "", "network")
    with page_server(node) as url:
        assert "Running on this node" not in text_of(f"{url}/nodes")
        with node.cache.leases.hold(LeaseKind.WRITER, "things", purpose="stage") as writer:
            write_progress(node.cache.layout, writer.id, done)
            page = text_of(f"{url}/nodes")
    for text in ("3 of 7", "500.0 kB of 2.0 MB", "25.0 kB/s", "60 seconds left", "network-bound", "a &lt;b&gt;.bin"):
        assert text in page
