"""Every way by which a spec, a server, DNS or a proxy could lead a request to a blocked address.

A trap stands in for the cloud's metadata service: it listens on a loopback address that the tests block, and counts
each connection. Nothing may connect to it, and whoever asked gets a typed error that names the address.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from prefect_stagegate.checks.governance import Runbook, runbook
from prefect_stagegate.doors import Source, core_sources, register
from prefect_stagegate.errors import SourceError, SpecError, StagegateError, UsageError
from prefect_stagegate.model import Outcome, Pin, SourceObject
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec
from prefect_stagegate.testing.contexts import a_spec, check_context
from prefect_stagegate.testing.sources import listed
from prefect_stagegate.transport.http import Client, ForbiddenAddress, Request, environment_proxies, fetch
from tests.support.http_servers import Handler, http_server
from tests.support.rawserver import raw_server, response
from tests.support.scripted import ScriptedSource
from tests.support.traps import KEYS, REFUSED, TRAP, Trap, filled, loopback_blocked, rebound, redirector, trap

__all__ = ["loopback_blocked", "rebound", "redirector", "trap"]

SPELLINGS = (
    TRAP,
    "2130706498",
    "0x7f000042",
    "0x7f.0.0.0x42",
    "0177.0.0.0102",
    "127.66",
    "127.0.66",
    f"{TRAP}.",
    "127%2e0.0.66",
    "127.0.0.66".replace(".", "。"),
    "１２７.0.0.66",  # noqa: RUF001 - digits that IDNA takes for others
    "[::ffff:127.0.0.66]",
    "[::ffff:7f00:42]",
    "[0:0:0:0:0:ffff:7f00:42]",
    "[::127.0.0.66]",
    "[64:ff9b::7f00:42]",
    "[64:ff9b:1::7f00:42]",
    "[2002:7f00:42::1]",
)


# ── the client ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", SPELLINGS)
def test_blocked_address_is_refused_however_spelled(trap: Trap, host: str) -> None:
    with pytest.raises(StagegateError) as caught:
        fetch(Request(f"http://{host}:{trap.port}/latest/", timeout=5))
    unroutable = host.startswith(("[64:", "[2002:", "[::127"))
    assert unroutable or "%" in host or isinstance(caught.value, ForbiddenAddress)


@pytest.mark.parametrize("host", SPELLINGS)
def test_redirect_to_blocked_address_is_refused(trap: Trap, host: str) -> None:
    location = f"http://{host}:{trap.port}/".encode()
    redirect = b"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location
    with raw_server(redirect) as server, pytest.raises(StagegateError):
        fetch(Request(server.url, timeout=5))


def test_allowed_host_may_be_asked(trap: Trap) -> None:
    with pytest.raises(StagegateError, match="closed the connection"):
        fetch(Request(trap.url, client=Client(allowed=(TRAP,)), timeout=5))
    assert trap.connections.pop()


def test_error_names_address_and_server_that_led_there(trap: Trap, redirector: str) -> None:
    with pytest.raises(ForbiddenAddress) as caught:
        fetch(Request(f"{redirector}/a"))
    assert f"Refused to connect to {TRAP}" in str(caught.value)
    assert f"redirect from {redirector.removeprefix('http://')}" in str(caught.value)
    assert "STAGEGATE_ALLOWED_HOSTS" in caught.value.hint


@pytest.mark.parametrize("kind", ["http://{}/data/", "http://{}/a.bin"])
def test_name_that_resolves_otherwise_later_is_refused(rebound: Trap, kind: str) -> None:
    source = open_source(kind.format(f"localhost:{rebound.port}"))  # the first look lets it pass
    with closing(source), pytest.raises(ForbiddenAddress, match=r"127\.0\.0\.1|::1"):
        list(source.list())


# ── proxies ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", SPELLINGS[:11])
def test_proxy_is_not_asked_for_blocked_address(
    trap: Trap, scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(response(status="403 no", headers={"Connection": "close"})) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with pytest.raises(SourceError, match="no usable host" if "%" in host else "Refused to connect"):
            fetch(Request(f"{scheme}://{host}:{trap.port}/", client=Client(proxies=environment_proxies()), timeout=5))
    assert proxy.requests == []


def test_proxy_at_blocked_address_is_refused(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", trap.url)
    with pytest.raises(ForbiddenAddress, match=TRAP):
        fetch(Request("http://203.0.113.1/", client=Client(proxies=environment_proxies()), timeout=5))


# ── sources by URL and by option ────────────────────────────────────────────────────────────────────────────────────

BY_URL = (
    *("http://{}/d/", "webdav+http://{}/d/", "sftp://{}/d/", "ftp://{}/d/", "hdfs://{}/d/", "webhdfs://{}/d/"),
    "oci://{}/me/things:v1",
)
BY_OPTION: tuple[tuple[str, dict[str, Any]], ...] = (
    ("s3://lake/d/", {"endpoint_url": "http://{}", **KEYS}),
    ("s3://lake/d/", {"client_kwargs": {"endpoint_url": "http://{}"}, **KEYS}),
    ("s3://lake/d/", {"endpoint_url": "http://{}", "config_kwargs": {"read_timeout": 1}, **KEYS}),
    ("hf://datasets/me/things/", {"endpoint": "http://{}"}),
    ("oss://lake/d/", {"endpoint": "http://{}", **KEYS}),
    ("sftp://nas/d/", {"host": TRAP}),
)


@pytest.mark.parametrize("url", BY_URL)
@pytest.mark.parametrize("host", [TRAP, "2130706498", "0x7f000042", "0177.0.0.0102", "[::ffff:127.0.0.66]"])
def test_source_url_names_no_blocked_address(trap: Trap, url: str, host: str) -> None:
    with pytest.raises(StagegateError, match=REFUSED):
        listed(open_source(url.format(f"{host}:{trap.port}"), idle=2))


@pytest.mark.parametrize(("url", "options"), BY_OPTION)
@pytest.mark.parametrize("host", [TRAP, "2130706498", "0x7f000042", "0177.0.0.0102", "[::ffff:127.0.0.66]"])
def test_source_option_names_no_blocked_address(trap: Trap, url: str, options: dict[str, Any], host: str) -> None:
    with pytest.raises(UsageError, match=REFUSED):
        listed(open_source(url, filled(options, f"{host}:{trap.port}"), idle=2))


@pytest.mark.parametrize("url", ["shelf://{}/d/", "my_shelf://me:word@{}", "s3://{}/d/", "shelf://{}:80//x://y"])
@pytest.mark.parametrize("host", [*SPELLINGS[:8], "[::ffff:127.0.0.66]"])
def test_any_scheme_names_no_blocked_address(trap: Trap, url: str, host: str) -> None:
    with registered("shelf", "my_shelf"), pytest.raises(UsageError, match=REFUSED):
        open_source(url.format(host))


def test_bucket_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def numeric(*words: Any, **more: Any) -> Any:
        assert more["flags"] & socket.AI_NUMERICHOST
        return resolve(*words, **more)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", numeric)
    with registered("shelf"), closing(open_source("shelf://bucket.example/d/")) as source:
        assert source.url == "shelf://bucket.example/d/"


@contextmanager
def registered(*schemes: str) -> Iterator[None]:
    """Schemes of a plugin during the block."""
    before = dict(core_sources())
    register(Source("a shelf", {}, schemes, lambda url, *_: ScriptedSource({}, url=url)))
    try:
        yield
    finally:
        core_sources().clear()
        core_sources().update(before)


REDIRECTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("http://{}/d/", {}),
    ("http://{}/a.bin", {}),
    ("http://{}/d/", {"manifest": "checksums"}),
)


@pytest.mark.parametrize(("url", "options"), REDIRECTED)
def test_listing_follows_no_redirect_to_blocked_address(redirector: str, url: str, options: dict[str, Any]) -> None:
    address = redirector.removeprefix("http://")
    with pytest.raises(StagegateError, match=f"Refused to connect to {TRAP}"):
        listed(open_source(filled(url, address), filled(options, address), idle=5))


def test_object_read_follows_no_redirect_to_blocked_address(trap: Trap) -> None:
    class Redirecting(Handler):
        def do_GET(self) -> None:
            self.respond(302, headers={"Location": f"{trap.url}/latest/"})

        def do_HEAD(self) -> None:
            self.respond(200, b"hello")

    with http_server(Redirecting) as url:
        source = open_source(f"{url}/a.bin", idle=5)
        (source_object,) = source.list()
        with pytest.raises(ForbiddenAddress, match=TRAP):
            source.read_into(source_object, 0, memoryview(bytearray(5)))


def test_s3_session_token_follows_no_redirect(redirector: str) -> None:
    options = {"endpoint_url": redirector, **KEYS, "token": "hunter2"}
    with pytest.raises(StagegateError, match="redirects to another host"):
        listed(open_source("s3://lake/d/", options, idle=5))


@pytest.mark.usefixtures("loopback_blocked")
def test_allowed_s3_endpoint_tells_that_an_etag_is_no_md5() -> None:
    encrypted = response(headers={"x-amz-server-side-encryption": "aws:kms"})
    with raw_server(lambda head, _: encrypted.removesuffix(b"hello") if head.startswith(b"HEAD") else b"") as server:
        options = {"endpoint_url": server.url, **KEYS}
        source = open_source("s3://lake/d/", options, allowed=("127.0.0.1",))
        assert source.disowns_checksums(SourceObject("a", 5, Pin("etag", "0" * 32, "strong")))


FOREIGN_LISTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("s3://lake/d/", {"endpoint_url": "http://{}", **KEYS}),
    ("s3://lake/d/", {"endpoint_url": "http://{}", **KEYS, "config_kwargs": {"retries": {"max_attempts": 0}}}),
)


@pytest.mark.parametrize(("url", "options"), FOREIGN_LISTINGS)
def test_foreign_listing_follows_no_redirect(trap: Trap, redirector: str, url: str, options: dict[str, Any]) -> None:
    with pytest.raises(StagegateError, match=f"redirects to (another host|{trap.url})"):
        listed(open_source(url, filled(options, redirector.removeprefix("http://")), idle=5))


def test_foreign_listing_by_proxy_follows_no_redirect(redirector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", redirector)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(StagegateError, match="redirects to another host"):
        listed(open_source("s3://lake/d/", {"endpoint_url": "http://203.0.113.1", **KEYS}, idle=5))


def test_foreign_listing_checks_where_its_name_leads(rebound: Trap) -> None:
    endpoint = f"http://localhost:{rebound.port}"  # the first look lets it pass
    source = open_source("s3://lake/d/", {"endpoint_url": endpoint, **KEYS})
    with closing(source), pytest.raises(ForbiddenAddress, match=r"127\.0\.0\.1|::1"):
        listed(source)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1"])
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
def test_s3_endpoint_is_listed_however_named(host: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment names a proxy for other servers."""
    if proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    page = b"""<ListBucketResult><Name>lake</Name><IsTruncated>false</IsTruncated><Contents><Key>d/a</Key><Size>5</Size>
        <LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"e"</ETag></Contents></ListBucketResult>"""
    with raw_server(response(page)) as server:
        endpoint = f"http://{host}:{server.url.rpartition(':')[2]}"
        assert list(listed(open_source("s3://lake/d/", {"endpoint_url": endpoint, **KEYS}))) == ["a"]


# ── chains and wrappers of fsspec ───────────────────────────────────────────────────────────────────────────────────

CHAINS = (
    "simplecache::{}/a.csv",
    "filecache::{}/a.csv",
    "blockcache::{}/a.csv",
    "zip://a.csv::{}/a.zip",
    "tar://a.csv::{}/a.tar",
    "reference://::{}/refs.json",
    "cached://x::{}/a",
)
WRAPPERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reference://", {"fo": "{}/refs.json"}),
    ("github://x/", {"org": "a", "repo": "b"}),
    ("simplecache://x/", {"target_protocol": "http", "fo": "{}"}),
    ("zip://x/", {"fo": "{}/a.zip"}),
    ("jlab://x/", {"url": "{}"}),
    ("data://x/", {}),
    ("generic://x/", {}),
)


@pytest.mark.parametrize("chain", CHAINS)
def test_chain_leads_no_source_to_blocked_address(trap: Trap, chain: str) -> None:
    with pytest.raises(UsageError, match=r"chains file systems|Refused to connect"):
        open_source(chain.format(trap.url), {})
    with pytest.raises(SpecError):
        load_spec({"stagegate": 1, "dataset": "d", "sources": [{"url": chain.format(trap.url)}]}, known_checks={})


@pytest.mark.parametrize(("url", "options"), WRAPPERS)
def test_wrapper_leads_no_source_to_blocked_address(trap: Trap, url: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="may not be read by fsspec"):
        open_source(url, filled(options, trap.url))


# ── specs, suites and runbooks by URL ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", SPELLINGS[:11])
def test_spec_url_names_no_blocked_address(trap: Trap, host: str) -> None:
    with pytest.raises(SpecError, match="no usable host" if "%" in host else "Refused .*ALLOWED_HOSTS"):
        load_spec(f"http://{host}:{trap.port}/spec.yaml", known_checks={})


def test_spec_follows_no_redirect_to_blocked_address(redirector: str) -> None:
    with pytest.raises(SpecError, match=f"Refused to connect to {TRAP}"):
        load_spec(f"{redirector}/spec.yaml", known_checks={})


@pytest.mark.parametrize("chain", CHAINS)
def test_chain_is_no_spec(trap: Trap, chain: str) -> None:
    with pytest.raises(SpecError, match="chains file systems"):
        load_spec(chain.format(trap.url), known_checks={})


@pytest.mark.parametrize("scheme", ["github", "reference", "webhdfs", "simplecache", "jlab", "oci", "hf"])
def test_spec_is_read_by_known_schemes_alone(trap: Trap, scheme: str) -> None:
    with pytest.raises(SpecError, match=f"{scheme}:// is none of https, http"):
        load_spec(f"{scheme}://{TRAP}:{trap.port}/spec.yaml", known_checks={})


def test_suite_follows_no_redirect_to_blocked_address(trap: Trap) -> None:
    spec = b"stagegate: 1\ndataset: d\nsources: [{url: 'file:///x/'}]\n"
    spec += b"contract: {tables: {t: {files: '*.csv', suite: suite.yaml}}}\n"

    class Redirecting(Handler):
        def do_GET(self) -> None:
            self.respond(200 if self.path == "/spec.yaml" else 302, spec, {"Location": f"{trap.url}/latest/"})

    with http_server(Redirecting) as url, pytest.raises(SpecError, match=f"suite.* Refused to connect to {TRAP}"):
        load_spec(f"{url}/spec.yaml", known_checks={})


@pytest.mark.parametrize("way", ["directly", "by a redirect"])
def test_runbook_leads_to_no_blocked_address(trap: Trap, redirector: str, way: str) -> None:
    link = trap.url if way == "directly" else redirector
    answer = runbook(check_context(spec=a_spec(runbook=f"{link}/runbook")), Runbook(resolve=True))
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert f"Refused to connect to {TRAP}" in answer.findings[0].problem
    assert "STAGEGATE_ALLOWED_HOSTS" in answer.findings[0].fix


def test_runbook_may_lead_to_allowed_host(trap: Trap) -> None:
    question = check_context(spec=a_spec(runbook=f"{trap.url}/runbook"), allowed_hosts=(TRAP,))
    assert "closed the connection" in runbook(question, Runbook(resolve=True)).findings[0].problem
    assert trap.connections.pop()
