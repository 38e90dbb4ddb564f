"""A proxy that logs people in: whom its header is believed."""

from __future__ import annotations

import json
import logging
import socket

import pytest

from prefect_stagegate.doors import LoginOptions
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.login.trusted_header import HeaderLogin
from prefect_stagegate.workspace import Workspace
from tests.plugins.login.login_server import Browser, login_server, pages
from tests.support.changed_settings import change_settings

NAME, HERE, ELSEWHERE = "X-Forwarded-Email", "127.0.0.1", "192.0.2.7"


def test_header_of_the_proxy_names_the_person(workspace: Workspace, browser: Browser) -> None:
    workspace = change_settings(workspace, login_groups_header="X-Forwarded-Groups")
    with login_server(workspace, "trusted-header", NAME, ELSEWHERE, f"{HERE}/32") as url:
        response = browser.get(url, {NAME: "ines@example.org", "X-Forwarded-Groups": "approvers, admins"})
        seen = json.loads(response.body)
        assert (seen["name"], seen["groups"]) == ("ines@example.org", ["approvers", "admins"])
        assert seen["issuer"] == "header:X-Forwarded-Email"
        assert not {"x-forwarded-email", "x-forwarded-groups"} & set(seen["headers"])
        assert browser.sees(url)["name"] is None
        again = json.loads(browser.get(url, {NAME: "ines@example.org"}).body)
        other = json.loads(browser.get(url, {NAME: "eva@example.org"}).body)
        assert seen["secret"] == again["secret"] != other["secret"]


@pytest.mark.parametrize("forwarded", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_header_of_others_is_dropped(
    workspace: Workspace, browser: Browser, forwarded: str, caplog: pytest.LogCaptureFixture
) -> None:
    with login_server(workspace, "trusted-header", NAME, ELSEWHERE) as url, caplog.at_level(logging.INFO):
        value = f"for={ELSEWHERE}" if forwarded == "Forwarded" else ELSEWHERE
        seen = json.loads(browser.get(url, {NAME: "ines@example.org", forwarded: value}).body)
        assert seen["name"] is None
        assert "x-forwarded-email" not in seen["headers"]
    assert 'login refused: {"from": "127.0.0.1", "why": "X-Forwarded-Email from' in caplog.text


@pytest.mark.parametrize("name", ["", "a" * 300, "înes", "a\tb"])
def test_odd_names_are_refused(workspace: Workspace, name: str) -> None:
    with login_server(workspace, "trusted-header", NAME, HERE) as url:
        assert _status(url, f"{NAME}: {name}") == 400


def test_header_that_comes_twice_is_refused(workspace: Workspace) -> None:
    with login_server(workspace, "trusted-header", NAME, HERE) as url:
        assert _status(url, f"{NAME}: eva@example.org", f"{NAME.lower()}: ines@example.org") == 400


def test_groups_of_the_client_join_no_others(workspace: Workspace) -> None:
    workspace = change_settings(workspace, login_groups_header="X-Forwarded-Groups")
    with login_server(workspace, "trusted-header", NAME, HERE) as url:
        lines = "X-Forwarded-Groups: readers", "x-forwarded-groups: approvers"
        assert _status(url, f"{NAME}: eva@example.org", *lines) == 400
        assert _status(url, f"{NAME}: eva@example.org", lines[0]) == 200


def test_strangers_read_nothing_where_the_proxy_must_name_them(workspace: Workspace, browser: Browser) -> None:
    with login_server(workspace, "trusted-header", NAME, HERE, required=True) as url:
        assert browser.get(url).status == 401
        assert browser.get(url, {NAME: "ines@example.org"}).status == 200


@pytest.mark.parametrize(
    ("values", "message"), [(("X Name", HERE), "is no header"), ((NAME, "proxy.example.org"), "no such address")]
)
def test_wrong_header_or_proxy_is_refused(workspace: Workspace, values: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HeaderLogin(pages, LoginOptions(workspace, "", False, values))


def _status(url: str, *lines: str) -> int:
    """The status of a request with such headers."""
    address, port = url.removeprefix("http://").split(":")
    head = "\r\n".join(["GET / HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""])
    with socket.create_connection((address, int(port)), 10) as connection:
        connection.sendall(head.encode())
        return int(connection.recv(4096).split(b" ")[1])
