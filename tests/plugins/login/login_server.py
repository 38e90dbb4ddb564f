"""A server whose pages say who visits it, and a browser without scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from prefect_stagegate.doors import LoginOptions, load
from prefect_stagegate.plugins.login import PLUGIN
from prefect_stagegate.transport.http import Client, Request, Response, fetch
from prefect_stagegate.workspace import Workspace
from tests.plugins.login.lying_provider import running

SESSION = "__Host-stagegate"
_COOKIE = re.compile(r'(__Host-[\w-]+)=("?)([\w-]*)\2;([^,]*)')


def send(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Response:
    """Send one request, and follow no redirect."""
    return fetch(Request(url, headers, Client(redirects=False), method, body))


class Browser:
    """Keeps cookies, and follows redirects."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, str] = {}
        """Of the cookies, in lower case."""
        self.visited: list[str] = []

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, follow: bool = True) -> Response:
        """Open an address."""
        for _ in range(10):
            self.visited.append(url)
            response = self.send("GET", url, headers)
            if not follow or response.status not in (302, 303):
                return response
            url = _absolute(url, response.headers["location"])
        raise AssertionError(self.visited)

    def post(self, url: str, headers: Mapping[str, str] | None = None, **form: str) -> Response:
        """Send a form."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self.send("POST", url, headers, urlencode(form).encode())

    def sees(self, url: str) -> dict[str, Any]:
        """What the pages know of the visitor."""
        response = self.get(url, follow=False)
        assert response.status == 200, response.body
        seen: dict[str, Any] = json.loads(response.body)
        return seen

    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send one request with the cookies, and follow no redirect."""
        # Providers are other sites: they get none of the cookies.
        cookies = self.cookies if "/authorize" not in url else {}
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        response = send(method, url, {**(headers or {}), **({"Cookie": cookie} if cookie else {})}, body)
        for name, _, value, attributes in _COOKIE.findall(response.headers.get("set-cookie", "") + ";"):
            self.attributes[name] = attributes.lower()
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        return response


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the pages: shows who visits."""
    visitor = scope.get("stagegate.visitor")
    key = visitor and visitor.key
    shown = {
        "name": visitor and visitor.name,
        "subject": key and key.subject,
        "issuer": key and key.issuer,
        "groups": key and key.groups,
        "at": key and key.at,
        "hint": visitor and visitor.hint,
        "secret": visitor and visitor.secret,
        "path": scope["path"],
        "login": scope.get("stagegate.login"),
        "logout": scope.get("stagegate.logout"),
        "headers": [name.decode() for name, _ in scope["headers"]],
    }
    await JSONResponse(shown)(scope, receive, send)


@contextmanager
def login_server(
    workspace: Workspace, option: str, *values: str, base: str = "", required: bool = False
) -> Iterator[str]:
    """Run the pages behind a way to log in; gives their URL, with the base path."""
    wrap = load(PLUGIN.logins[option])
    with running(wrap(pages, LoginOptions(workspace, base, required, values))) as url:
        yield url + base


def _absolute(url: str, location: str) -> str:
    parts = urlsplit(url)
    return location if "://" in location else f"{parts.scheme}://{parts.netloc}{location}"
