"""Every way by which a source of a plugin could lead a request to a blocked address."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed
from prefect_stagegate.transport.http import ForbiddenAddress
from tests.support.rawserver import raw_server, response
from tests.support.traps import KEYS, REFUSED, TRAP, Trap, filled, loopback_blocked, rebound, redirector, trap

__all__ = ["loopback_blocked", "rebound", "redirector", "trap"]

BY_OPTION: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gs://lake/d/", {"endpoint_url": "http://{}", "anon": True}),
    ("az://lake/d/", {"endpoint_url": "http://{}/me", "account_name": "me", "anon": True}),
    ("az://lake/d/", {"account_host": "{}", "account_name": "me", "anon": True}),
    ("delta+s3://lake/t", {"endpoint_url": "http://{}", **KEYS}),
    ("iceberg://lake/ns.t", {"type": "rest", "uri": "http://{}"}),
    ("iceberg://lake/ns.t", {"type": "sql", "uri": "sqlite:////x", "s3.endpoint": "http://{}"}),
    ("iceberg://lake/ns.t", {"type": "rest", "uri": "http://127.0.0.1:1", "oauth2-server-uri": "http://{}/t"}),
    ("iceberg://lake/ns.t", {"type": "glue", "glue.endpoint": "http://{}"}),
)
REDIRECTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("webdav+http://{}/d/", {}),
    ("hf://datasets/me/things/", {"endpoint": "http://{}", "token": "hunter2"}),
    ("iceberg://lake/ns.t", {"type": "rest", "uri": "http://{}"}),
    ("oci://{}/me/things:v1", {"username": "me", "password": "hunter2"}),
)
FOREIGN_LISTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("az://lake/d/", {"endpoint_url": "http://{}", "account_name": "me", "account_key": "d3Jvbmc="}),
    ("gs://lake/d/", {"endpoint_url": "http://{}", "token": "t0ken"}),
    ("delta+s3://lake/t", {"endpoint_url": "http://{}", **KEYS}),
)


@pytest.mark.parametrize(("url", "options"), BY_OPTION)
@pytest.mark.parametrize("host", [TRAP, "2130706498", "0x7f000042", "0177.0.0.0102", "[::ffff:127.0.0.66]"])
def test_option_of_a_plugin_names_no_blocked_address(trap: Trap, url: str, options: dict[str, Any], host: str) -> None:
    with pytest.raises(UsageError, match=REFUSED):
        listed(open_source(url, filled(options, f"{host}:{trap.port}"), idle=2))


@pytest.mark.parametrize(("url", "options"), REDIRECTED)
def test_listing_of_a_plugin_follows_no_redirect(redirector: str, url: str, options: dict[str, Any]) -> None:
    address = redirector.removeprefix("http://")
    with pytest.raises(StagegateError, match=f"Refused to connect to {TRAP}"):
        listed(open_source(filled(url, address), filled(options, address), idle=5))


@pytest.mark.parametrize(("url", "options"), FOREIGN_LISTINGS)
def test_listing_by_a_library_follows_no_redirect(
    trap: Trap, redirector: str, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(StagegateError, match=f"redirects to (another host|{trap.url})"):
        listed(open_source(url, filled(options, redirector.removeprefix("http://")), idle=5))


@pytest.mark.parametrize(("url", "options"), FOREIGN_LISTINGS)
def test_listing_by_proxy_follows_no_redirect(
    redirector: str, url: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", redirector)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(StagegateError, match="redirects to another host"):
        listed(open_source(url, filled(options, "203.0.113.1"), idle=5))


@pytest.mark.parametrize(("url", "options"), FOREIGN_LISTINGS)
def test_listing_checks_where_its_name_leads(rebound: Trap, url: str, options: dict[str, Any]) -> None:
    source = open_source(url, filled(options, f"localhost:{rebound.port}"))  # the first look lets it pass
    with closing(source), pytest.raises(ForbiddenAddress, match=r"127\.0\.0\.1|::1"):
        listed(source)


def test_webdav_name_that_resolves_otherwise_later_is_refused(rebound: Trap) -> None:
    source = open_source(f"webdav+http://localhost:{rebound.port}/data/")  # the first look lets it pass
    with closing(source), pytest.raises(ForbiddenAddress, match=r"127\.0\.0\.1|::1"):
        list(source.list())


def test_google_listing_follows_no_redirect(redirector: str) -> None:
    with pytest.raises(StagegateError, match="redirects to another host"):
        listed(open_source("gs://lake/d/", {"endpoint_url": redirector, "anon": True}, idle=5))


@pytest.mark.usefixtures("loopback_blocked")
def test_allowed_google_endpoint_is_listed() -> None:
    page = {"items": [{"name": "d/a", "size": "5", "updated": "2026-01-01T00:00:00Z", "generation": "7"}]}
    with raw_server(response(json.dumps(page).encode())) as server:
        options = {"endpoint_url": server.url, "anon": True}
        assert list(listed(open_source("gs://lake/d/", options, allowed=("127.0.0.1",)))) == ["a"]
