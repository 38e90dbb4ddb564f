"""Redirects: each hop is judged, and a credential is told to one origin alone."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.transport.http import Client, Request, fetch
from prefect_stagegate.transport.http.request_policy import MAX_REDIRECTS
from tests.support.rawserver import raw_server, response
from tests.support.webservers import certificates


def leading(location: str, status: int = 302) -> bytes:
    return response(b"elsewhere", f"{status} x", {"Location": location, "ETag": '"first"'})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PROPFIND"])
def test_redirect_keeps_method_body_and_range(status: int, method: str) -> None:
    with raw_server(lambda head, _: leading("b?c", status) if b" /d/a " in head else response(b"")) as server:
        body = b"x" if method in ("POST", "PROPFIND") else None
        came = fetch(Request(f"{server.url}/d/a", method=method, body=body))
        assert (came.status, came.url) == (200, f"{server.url}/d/b?c")
        assert [headers["etag"] for headers in came.redirects] == ['"first"']
        assert server.requests[1].startswith(f"{method} /d/b?c ".encode())


def test_redirect_without_end_is_refused() -> None:
    with raw_server(lambda _head, _: leading("/a")) as server:
        with pytest.raises(SourceError, match=r"Too many redirects \(5\)"):
            fetch(Request(f"{server.url}/a"))
        assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/a",
        "FILE:///etc/passwd",
        "dict://127.0.0.1:11211/",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "javascript:alert(1)",
    ],
)
def test_redirect_to_another_scheme_is_refused(location: str) -> None:
    with raw_server(lambda _head, _: leading(location)) as server:
        with pytest.raises(SourceError):
            fetch(Request(f"{server.url}/a"))
        assert len(server.requests) == 1


def test_user_in_a_redirect_is_sent_to_nobody() -> None:
    with raw_server(lambda head, _: response(head)) as other:
        with raw_server(lambda _head, _: leading(other.url.replace("//", "//me:hunter2@"))) as server:
            came = fetch(Request(f"{server.url}/a"))
        assert b"authorization" not in bytes(came.body).lower()
        assert "hunter2" not in came.url.partition("//")[2] or b"hunter2" not in bytes(came.body)


SECRETS = {
    "Authorization": "canary-1",
    "AUTHORIZATION2": "canary-2",
    "Cookie": "canary-3",
    "x-amz-security-token": "canary-4",
    "X-Api-Key": "canary-5",
    "Proxy-Authorization": "canary-6",
}
HARMLESS = {"Accept": "a/b", "IF-MATCH": '"e"', "Depth": "1"}


@pytest.mark.parametrize("back", [False, True])
def test_credentials_reach_no_other_origin(back: bool) -> None:
    """Another port is another origin; they come along again where a redirect leads back."""
    with raw_server(lambda _head, _: leading(f"{server.url}/b") if back else response()) as other:
        with raw_server(lambda head, _: leading(f"{other.url}/a") if b" /a " in head else response()) as server:
            fetch(Request(f"{server.url}/a", {**SECRETS, **HARMLESS}))
            sent = [*server.requests]
        assert all(value.encode() in head for head in sent for value in SECRETS.values())
        assert len(sent) == (2 if back else 1)
        assert b"canary" not in other.requests[0]
        assert all(f"{name}: {value}".encode() in other.requests[0] for name, value in HARMLESS.items())


def test_redirect_leaves_no_tls(tmp_path: Path) -> None:
    authority = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with raw_server(response()) as plain:
        for location in (f"{plain.url}/b", f"{plain.url}/b".replace("http", "HTTP"), f"//{plain.address}/b"):
            with (
                raw_server(leading(location), context) as server,
                pytest.raises(SourceError),
            ):
                fetch(Request(f"{server.url}/a", client=Client(ca_file=str(authority)), timeout=5))
        assert plain.requests == []


def test_redirect_is_a_response_where_none_is_followed() -> None:
    with raw_server(leading("/b")) as server:
        came = fetch(Request(f"{server.url}/a", client=Client(redirects=False)))
        assert (came.status, came.headers["location"], len(server.requests)) == (302, "/b", 1)


def test_location_with_a_line_break_adds_no_header() -> None:
    with raw_server(lambda head, _: leading("/b%0d%0aX: y z") if b" /a " in head else response()) as server:
        fetch(Request(f"{server.url}/a"))
        assert server.requests[1].split(b"\r\n")[0].count(b" ") == 2
        assert not any(line.startswith(b"X:") for line in server.requests[1].split(b"\r\n"))


@pytest.mark.parametrize("length", [9, 1 << 30])
def test_long_body_of_a_redirect_ends(length: int) -> None:
    head = b"HTTP/1.1 302 x\r\nLocation: /b\r\nContent-Length: %d\r\n\r\n" % length
    with raw_server(
        lambda request, _: head + b"x" * min(length, 200_000) if b" /a " in request else response()
    ) as server:
        assert bytes(fetch(Request(f"{server.url}/a", size=5, timeout=5)).body) == b"hello"
