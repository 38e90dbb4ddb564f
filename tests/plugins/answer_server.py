"""Pages with forms, and people who are logged in as a plugin for logins would have it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.doors import PageRequest, Visitor, answer_path
from prefect_stagegate.jobs.gating.approve import open_request
from prefect_stagegate.model import Address, Approval
from prefect_stagegate.plugins.answers.request_page import request_page
from prefect_stagegate.workspace import Workspace
from tests.plugins.pages.page_server import page_server

GATES = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
}


def logged_in(app: ASGIApp) -> ASGIApp:
    """Stands for a plugin for logins: the cookie `who` is believed, and is the session."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        cookies = dict(scope["headers"]).get(b"cookie", b"").decode()
        scope = {**scope, "stagegate.login": "/login"}
        if match := re.search(r"who=([^;]+)", cookies):
            name, _, session = match[1].partition(":")
            scope["stagegate.visitor"] = Visitor(name, None, f"secret of {name} {session}")
        await app(scope, receive, send)

    return answer


@dataclass
class Browsing:
    """A person at a browser: what they load, and what they send."""

    url: str
    who: str

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        """Load a page."""
        cookie = {"Cookie": f"who={self.who}"} if self.who else {}
        return httpx.request(method, self.url + path, headers=cookie, timeout=30)

    def form(self, path: str) -> dict[str, str]:
        """The hidden fields of a page's form."""
        text = self.get(path).text
        return {name: html.unescape(value) for name, value in hidden(text)}

    def send(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        """Send fields as the page's own form does."""
        known = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", "Cookie": f"who={self.who}"}
        given = known | {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in given.items() if value != "-"}
        return httpx.post(self.url + path, data=fields, headers=given, timeout=60)

    def answer(self, path: str, **fields: str) -> httpx.Response:
        """Load a page, and send its form."""
        return self.send(path, self.form(path) | fields)


def hidden(text: str) -> list[tuple[str, str]]:
    """Names and values of a page's hidden fields, without the layout's own form."""
    return re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text)


@contextmanager
def answering(workspace: Workspace, base: str = "") -> Iterator[Callable[..., Browsing]]:
    """A server of pages; gives the browsers of people by their names."""
    with page_server(workspace, base=base, wrap=logged_in) as url:
        yield partial(Browsing, url)


def request_path(workspace: Workspace, version: str = "latest") -> str:
    """The path of the page of the newest request for production."""
    asked = open_request(workspace, Address("things", version), "production")
    return answer_path("approve", dataset="things", target="production", request=asked.id)


def answers_to(workspace: Workspace, path: str) -> list[Approval]:
    """The answers on record to the request of a page."""
    dataset, _, target, request = path.removeprefix("/datasets/").split("/")
    names = {"dataset": dataset, "target": target, "request": request}
    people = request_page(PageRequest(workspace, names, "", print, print)).people
    return [*people.counted, *(answer for answer, _ in people.ignored)]
