"""A running server of pages, and catalogs whose pages are worth a look."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from prefect_stagegate.plugins.pages.bearers import Bearers
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.guard import Guard
from prefect_stagegate.plugins.pages.navigation import Links
from prefect_stagegate.plugins.pages.pages_app import form_paths, pages_app
from prefect_stagegate.plugins.pages.server import CONNECTIONS
from prefect_stagegate.serve.listening import listen, server_config
from prefect_stagegate.transport.http import Client, Request, Response, fetch
from prefect_stagegate.workspace import Workspace


@contextmanager
def page_server(
    workspace: Workspace,
    *,
    base: str = "",
    token: str = "",
    hosts: Collection[str] | None = (),
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[str]:
    """Run a server of pages in a thread, as the command does; gives its URL, with the base path.

    `wrap` puts what stands for a plugin for logins before the pages.
    """
    app = pages_app(CatalogView(workspace), Links(base))
    app = Guard(wrap(app), token, hosts, form_paths(Links(base)), Bearers(workspace, app))
    server = uvicorn.Server(server_config(app, CONNECTIONS))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{base}"
        server.should_exit = True
        thread.join(10)


def get(url: str, method: str = "GET", **headers: str) -> Response:
    """One request."""
    return fetch(Request(url, headers, Client(), method))


def text_of(url: str) -> str:
    """The HTML of a page that must be there."""
    response = get(url)
    assert response.status == 200, (url, response.status, response.body[-600:])
    return response.body.decode()
