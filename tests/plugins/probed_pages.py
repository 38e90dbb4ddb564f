"""`stagegate serve` with logins and tokens over a catalog of every case, and what must hold whatever it is sent.

python -m tests.plugins.probed_pages CASES SEED    sends what schemathesis draws, in the environment of `make probe`
"""

from __future__ import annotations

import html
import inspect
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from starlette.routing import compile_path

from prefect_stagegate.plugins.login.oidc_login import ROUTES
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.guard import HEADERS
from prefect_stagegate.plugins.pages.navigation import Links
from prefect_stagegate.plugins.pages.pages_app import pages_app
from prefect_stagegate.plugins.tokens.token_records import create_token
from tests.plugins.login.login_server import Browser
from tests.plugins.login.lying_provider import SECRET, lying_provider
from tests.plugins.pages.page_catalogs import fill
from tests.support.keys import new_key

Case: TypeAlias = tuple[str, str, str, str, bytes | None]
"""Method, path, query, Content-Type and body. An empty path is drawn later, an empty type, too."""
ROOT = Path(__file__).parents[2]
ANSWER_SECONDS, MEMORY_GROWTH = 10.0, 256 << 20
ADDRESSES = 12
"""Addresses of a route that exist, at most."""
MARKER = "<probe\"'>"
INDEX, SIZES = "index.sqlite", "sizes of the cache's folders"
SERVE = """
from prefect_stagegate.cli import main
from prefect_stagegate.plugins.pages import forms

forms.SENT_A_MINUTE = forms.SENT_A_MINUTE_FROM = 10**9  # what lies behind the limit is probed, too
main()
"""
METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
NAMES = (
    *(
        "..",
        "...",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e",
        "%00",
        "%ff%fe",
        "%ed%a0%80",
        "%",
        "%zz",
        "%C2%B2",
    ),
    *("%0d%0aX-Probe:1", "nan", "self", "latest", "-", "~", ";", "\\..\\", "{{7*7}}", "%E2%80%AE", "%F0%9F%98%80"),
    *("'%20OR%201=1--", "sha256:", "0" * 64, "a" * 300, "a" * 4000, quote(MARKER)),
)
"""Parts of an address as they are sent."""
HOSTS = ("", "localhost", "[::1]", "[::.]", "[", "evil.example", "a@evil", "127.0.0.1:99999", "a b", "\xff", MARKER)
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
KINDS = (FORM, JSON, "text/html", "*/*;q=nan", "a/b;q=1e999,,;", MARKER)
QUERY = ("page", "for", "all", "old", "new", "beside", "next", "state", "code", "iss", "error", "self", MARKER)
BODIES = (None, b"", b"answer=approve&reason=x&token=x.y", b'{"ref": "\\ud800"}', b"\xff", b"[" * 90_000, b"a=1&" * 30)
FIELDS = ("token", "answer", "reason", "until", "to", "leaving", "ref", "gate", MARKER)


@dataclass
class ProbedSite:
    """A server under probe."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path
    senders: Mapping[str, Mapping[str, str]]
    """The headers of a stranger, of a program that may read, and of a person who is logged in."""
    methods: Mapping[str, set[str]]
    """What each of the app's own routes takes."""
    known: Mapping[str, list[dict[str, str]]]
    """The names of addresses that exist, by route."""
    statuses: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By sender and route."""

    def play(self, sender: str, route: str, cases: st.SearchStrategy[Case], most: int, number: int) -> None:
        """Send so many cases to a route."""

        @seed(f"{number} {sender} {route}")
        @settings(max_examples=most, database=None, deadline=None, suppress_health_check=[*HealthCheck])
        @given(cases, _paths(route, self.known[route]), _headers(self.url))
        def send(case: Case, path: str, headers: dict[str, str]) -> None:
            method, drawn, query, kind, body = case
            headers |= {"Content-Type": kind} if kind else {}
            self._probe(sender, route, method, f"{drawn or path}?{query}", {**headers, **self.senders[sender]}, body)

        send()

    def _probe(
        self, sender: str, route: str, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        """Send one request as it stands, and raise AssertionError where the response breaks a promise."""
        request, begun, status = (sender, method, target, headers, body and body[:300]), time.monotonic(), 0
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=2 * ANSWER_SECONDS)) as connection:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in (dict(headers) | ({"Content-Length": str(len(body))} if body else {})).items():
                connection.putheader(name, value)
            with suppress(ConnectionError, HTTPException):
                connection.endheaders(body)
                response = connection.getresponse()
                text, status = response.read().decode(errors="replace"), response.status
        self.statuses[sender, route, status] += 1
        if not status:  # it was refused before it was read
            assert len(body or b"") > 32 << 10, request
            return
        assert status < 500, (status, request, text[-600:])
        assert time.monotonic() - begun < ANSWER_SECONDS, (status, request)
        # Pages do say where the catalog, the sources and caches are.
        own = map(str, (ROOT, sys.prefix, *(self.folder / name for name in ("key.pem", "secret", "log"))))
        said = [word for word in ("Traceback (most", 'File "/', SECRET, *own) if word in text]
        assert not said, (said, request, text[-600:])
        assert HEADERS.keys() <= {name.lower() for name in response.headers}, (request, response.headers.items())
        assert "X-Probe" not in response.headers, request
        assert MARKER not in text or "html" not in response.headers.get("Content-Type", ""), (request, text[-600:])

    def _state(self) -> dict[str, object]:
        """All of catalog and cache, but when a token was used last, and how large `/metrics` found folders to be."""
        found = (path for name in ("catalog", "cache") for path in (self.folder / name).rglob("*") if path.is_file())
        files = {str(path): path.read_bytes() for path in found if not {"tokens.used", INDEX} & {*path.parts}}
        with closing(sqlite3.connect(f"file:{self.folder}/cache/{INDEX}?mode=ro", uri=True)) as database:
            return files | {INDEX: [row for row in database.iterdump() if SIZES not in row.replace("''", "'")]}

    @property
    def _memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise AssertionError unless, after all requests, nothing changed and the server is well."""
        state, memory = self._state(), self._memory
        yield
        assert self.process.poll() is None
        assert self._memory - memory < MEMORY_GROWTH
        after = self._state()
        changed = [name for name in state.keys() | after.keys() if state.get(name) != after.get(name)]
        assert not changed, changed
        assert "Traceback" not in (self.folder / "log").read_text()
        page = Browser().send("GET", self.url, self.senders["person"]).body
        assert b"ines@example.org" in page  # nobody ended the session meanwhile


@contextmanager
def probed_site(folder: Path, *, is_open: bool = True) -> Iterator[ProbedSite]:
    """Run the server. One that is not open takes any Host, and shows pages only to who is logged in."""
    node = fill(folder)
    new_key(folder / "key.pem")
    (folder / "secret").touch(0o600)
    (folder / "secret").write_text(SECRET)
    places = {"CACHE": "cache", "CATALOG": "catalog", "SIGNING_KEY": "key.pem", "OIDC_CLIENT_SECRET_FILE": "secret"}
    environment = {f"STAGEGATE_{name}": str(folder / place) for name, place in places.items()}
    routes = inspect.getclosurevars(pages_app(CatalogView(node), Links())).nonlocals["app"].routes
    methods = {path: {"GET", "POST"} for path in ROUTES} | {route.path: route.methods for route in routes}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    bind = (f"127.0.0.1:{port}",) if is_open else (f"0.0.0.0:{port}", "--login-required")
    environment |= {"STAGEGATE_PAGES_URL": url, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    with lying_provider() as provider, (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", SERVE, "serve", "--oidc", provider.issuer, "--bind", *bind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as process:
            try:
                assert process.stdout
                assert b"Showing" in process.stdout.readline()
                browser = Browser()
                browser.get(f"{url}/login")
                cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
                token = create_token(node, "probe", ("read",), (), 30)[1]
                senders = {"program": {"Authorization": f"Bearer {token}"}, "person": {"Cookie": cookies}}
                known = _known(url, browser, [*methods])
                yield ProbedSite(url, process, folder, {"stranger": {}, **senders}, methods, known)
            finally:
                process.kill()


def _known(url: str, browser: Browser, routes: list[str]) -> dict[str, list[dict[str, str]]]:
    """The names of addresses to which the pages lead, by route."""
    patterns = {route: compile_path(route)[0] for route in routes}
    found: dict[str, list[dict[str, str]]] = {route: [] for route in routes}
    waiting = ["/"]
    for path in waiting:  # which grows
        text = browser.send("GET", url + path).body.decode(errors="replace")
        for link in map(html.unescape, re.findall(r'(?:href|action)="(/[^"?#]*)', text)):
            route, match = next((route, m) for route, p in patterns.items() if (m := p.fullmatch(unquote(link))))
            if link not in waiting and len(found[route]) < ADDRESSES:
                waiting.append(link)
                found[route].append(match.groupdict())
    return found


parts = st.sampled_from(NAMES) | st.text(max_size=40).map(lambda text: quote(text, safe=""))
"""Parts of an address as they are sent."""


@st.composite
def _paths(draw: st.DrawFn, route: str, known: list[dict[str, str]]) -> str:
    """Paths of a route: often one that exists, of which a part may be another."""
    real = draw(st.sampled_from([*known, {}]))
    other = draw(st.sampled_from(["", "", *re.findall(r"\{(\w+)", route)]))

    def sent(name: re.Match[str]) -> str:
        return quote(real[name[1]], safe="") if name[1] in real and name[1] != other else draw(parts)

    return re.sub(r"\{(\w+)(?::\w+)?\}", sent, route)


def _headers(url: str) -> st.SearchStrategy[dict[str, str]]:
    """Headers that steer the response, mostly with those of a browser at the server's own pages."""
    text = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40).map(str.strip)
    values: dict[str, Any] = dict.fromkeys(("X-Forwarded-Host", "Range", "If-None-Match"), text)
    values |= dict.fromkeys(("Accept", "Content-Type"), st.sampled_from(KINDS) | text)
    values["Cookie"] = st.sampled_from(["__Host-stagegate=x", '__Host-stagegate-login="\\777"']) | text
    values["Authorization"] = st.sampled_from(["Basic !", "Bearer sgt_x", "Bearer \xff"]) | text
    values["Host"] = st.sampled_from([urlsplit(url).netloc] * 20 + [*HOSTS])
    values["Origin"] = st.sampled_from([url] * 20 + ["null", "http://evil.example", "http://[", ""])
    own = {"Host": urlsplit(url).netloc, "Origin": url, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM}
    return st.fixed_dictionaries({}, optional=values).map(lambda drawn: own | drawn)


def _openapi(site: ProbedSite) -> dict[str, Any]:
    """What schemathesis is told: each route takes each method, and all in it is text."""
    text = {"type": "string", "maxLength": 300}
    form = {"type": "object", "properties": dict.fromkeys(FIELDS, text)}
    content = {kind: {"schema": schema} for kind, schema in ((FORM, form), (JSON, form), ("text/plain", text))}
    routes: dict[str, Any] = {}
    for route in site.known:
        names = [("path", name) for name in re.findall(r"\{(\w+)", route)] + [("query", name) for name in QUERY]
        parameters = [{"in": place, "name": n, "required": place == "path", "schema": text} for place, n in names]
        operation = {"parameters": parameters, "responses": {"default": {"description": "any"}}}
        taking = operation | {"requestBody": {"content": content}}
        routes[route.replace(":path", "")] = {
            method.lower(): operation if method in ("GET", "HEAD", "TRACE") else taking for method in METHODS
        }
    return {"openapi": "3.0.3", "info": {"title": "stagegate serve", "version": "1"}, "paths": routes}


def _drawn(site: ProbedSite, number: int, cases: int) -> None:
    """Send about so many cases of schemathesis, most of them to what a route takes."""
    import requests
    import schemathesis

    def sent(case: Any) -> Case:
        request: Any = requests.Request(**case.as_transport_kwargs(base_url=site.url)).prepare()
        path, _, query = request.path_url.partition("?")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        is_known = len(query) % 4  # mostly, the path is another one
        return case.method.upper(), "" if is_known else path, query, request.headers.get("Content-Type", ""), body

    routes = {route.replace(":path", ""): route for route in site.known}
    operations = [each.ok() for each in schemathesis.openapi.from_dict(_openapi(site)).get_all_operations()]
    taken = [each.method.upper() in site.methods[routes[each.path]] for each in operations]
    modes = [*schemathesis.GenerationMode]
    most = max(1, round((cases / len(site.senders) - taken.count(False)) / taken.count(True) / len(modes)))
    for operation, is_taken in zip(operations, taken, strict=True):
        for sender in site.senders:
            for mode in modes if is_taken else modes[-1:]:
                with suppress(Unsatisfiable):  # nothing about it can be wrong
                    drawn = operation.as_strategy(generation_mode=mode).map(sent)
                    odd = [st.just(text) for text in (operation.method.upper(), "", "", "")]
                    drawn = st.one_of(*[drawn] * 9, st.tuples(*odd, st.sampled_from(BODIES)))
                    site.play(sender, routes[operation.path], drawn, most if is_taken else 1, number)


def main() -> None:
    """Probe a server that is open, and one that wants a login."""
    (cases, number), begun, counts = map(int, sys.argv[1:]), time.monotonic(), Counter[str]()
    for is_open in (True, False):
        with tempfile.TemporaryDirectory() as folder, probed_site(Path(folder), is_open=is_open) as site:
            with site.unchanged():
                _drawn(site, number, cases // 2)
            for (sender, route, status), count in site.statuses.items():
                counts.update({f"{sender}, {status}": count, f"{route} {status}": count, "cases": count})
    print(*(f"{count:8,}  {what}" for what, count in sorted(counts.items())), sep="\n")
    print(f"Seed {number}: {counts['cases']:,} cases in {time.monotonic() - begun:.0f} s, and nothing was wrong")


if __name__ == "__main__":
    main()
