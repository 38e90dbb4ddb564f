"""Runs the server of pages: where it listens, and who may read."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from prefect_stagegate.doors import LoginOptions, offered
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.pages.bearers import Bearers
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.guard import Guard
from prefect_stagegate.plugins.pages.navigation import Links
from prefect_stagegate.plugins.pages.pages_app import form_paths, pages_app
from prefect_stagegate.serve.listening import is_loopback, run_server, split_address
from prefect_stagegate.workspace import Workspace

CONNECTIONS = 128
"""Connections at a time; requests on further ones get 503."""


def serve_pages(
    workspace: Workspace,
    bind: str,
    *,
    base: str = "",
    token: str = "",
    insecure: bool = False,
    login: tuple[str, ...] = (),
    login_required: bool = False,
    started: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve pages of a catalog until the process gets SIGINT or SIGTERM.

    Args:
        workspace: The catalog to show, and the settings.
        bind: `HOST:PORT` to listen at; port 0 for a free one.
        base: The path below which the pages lie: `/stagegate`; empty for that of STAGEGATE_PAGES_URL, or the root.
        token: What requests must bring; empty for none.
        insecure: Whether to serve anybody who can connect from another machine.
        login: How people log in, by `Plugin.logins`, and the values of that option; empty where they can't.
        login_required: Whether only those who are logged in may read.
        started: Called with the pages' address as soon as the server accepts connections.

    Raises:
        UsageError: The address can't be listened at, the base path is none, other machines could read the pages without
            a token, or people can't log in so.
    """
    host, _ = split_address(bind)
    if login_required and not login:
        raise UsageError("--login-required needs a way to log in", hint="Name a provider by --oidc ISSUER.")
    if not (token or insecure or login_required or is_loopback(host)):
        raise UsageError(
            f"Anybody who can connect to {bind} could read what this catalog says",
            hint="Name a token with --token-file, or pass --insecure where a proxy before it asks who people are.",
        )
    address = urlsplit(workspace.settings.pages_url)
    links = Links(base_path(base or address.path))
    # Beyond loopback anybody's name may lead here; then the token, or the proxy, keeps strangers out.
    hosts = list(filter(None, [address.hostname])) if is_loopback(host) else None
    view = CatalogView(workspace)
    app, forms = pages_app(view, links), form_paths(links)
    bearers = Bearers(workspace, app)
    if login:
        wrap = offered("logins", login[0], f"--{login[0]}")
        app = wrap(app, LoginOptions(workspace, links.base, login_required, login[1:], is_loopback(host)))
        forms = (*forms, re.compile(f"({re.escape(links.base)})?/logout"))
    # Now, since the first reading checks all logs: the first page need not wait for it.
    view.begin()
    run_server(
        Guard(app, token, hosts, forms, bearers),
        bind,
        lambda url: started(f"{url}{links()}"),
        connections=CONNECTIONS,
    )


def base_path(text: str) -> str:
    """A base path without a slash at its end; empty for the root.

    Raises:
        UsageError: It is no path.

    >>> base_path("/stagegate/"), base_path("/")
    ('/stagegate', '')
    """
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise UsageError(f"{text!r} is no base path", hint="Write letters, digits, `.`, `_`, `~`, `-`: /stagegate.")
    return path
