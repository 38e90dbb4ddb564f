"""`stagegate serve`: pages of the catalog."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from prefect_stagegate.cli.flags import Places
from prefect_stagegate.cli.printing import say_line
from prefect_stagegate.errors import UsageError

LOGIN = Group("Login options", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True)
class WayToLogIn:
    """How people log in."""

    oidc: Annotated[
        str,
        Parameter(
            metavar="ISSUER", group=LOGIN, help="Let people log in at this OpenID provider; see STAGEGATE_OIDC_…."
        ),
    ] = ""
    trusted_header: Annotated[
        str, Parameter(metavar="NAME", group=LOGIN, help="Believe this header of a proxy about who people are.")
    ] = ""
    trusted_proxy: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="ADDRESS", group=LOGIN, negative="", help="Such a proxy's address; the header of others is dropped."
        ),
    ] = ()
    required: Annotated[
        bool, Parameter(name="--login-required", group=LOGIN, negative="", help="Show pages only to who is logged in.")
    ] = False

    @property
    def option(self) -> tuple[str, ...]:
        """The option by which people log in, with its values; empty without one.

        Raises:
            UsageError: There are two, or one lacks a part.
        """
        if (self.oidc and self.trusted_header) or bool(self.trusted_header) != bool(self.trusted_proxy):
            raise UsageError(
                "People log in by --oidc, or by --trusted-header together with --trusted-proxy",
                hint="Name one of them.",
            )
        if self.trusted_header:
            return "trusted-header", self.trusted_header, *self.trusted_proxy
        return ("oidc", self.oidc) if self.oidc else ()


def pages(
    *,
    bind: Annotated[str, Parameter(metavar="HOST:PORT")] = "",
    base_path: Annotated[str, Parameter(metavar="BASE")] = "",
    token_file: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    insecure: Annotated[bool, Parameter(negative="")] = False,
    login: WayToLogIn | None = None,
    places: Places | None = None,
) -> None:
    """Show the catalog as pages for a browser.

    An inbox, a picture of where versions are, and a page for each dataset, version, policy, decision and node.

    For example:

    - `stagegate serve`
    - `stagegate serve --bind 0.0.0.0:8445 --token-file /etc/stagegate/pages-token`
    - `stagegate serve --oidc https://login.example.org`

    Parameters
    ----------
    bind
        Where to listen [STAGEGATE_PAGES_BIND]; by default 127.0.0.1:8445. Beyond this machine, it needs a token.
    base_path
        The path below which the pages lie, behind a proxy [STAGEGATE_PAGES_BASE_PATH]; by default that of
        STAGEGATE_PAGES_URL.
    token_file
        Holds the token that readers give as their password; any user will do [STAGEGATE_PAGES_TOKEN_FILE].
    insecure
        Serve whoever can connect, without a token: where a proxy before it asks who people are.
    """
    # Late: the server's libraries take half a second to load.
    from prefect_stagegate.plugins.pages.pages_settings import PagesSettings
    from prefect_stagegate.plugins.pages.server import serve_pages
    from prefect_stagegate.serve.tokens import read_token

    # Services may start before the first staging.
    workspace = (places or Places()).workspace(create=True)
    settings = workspace.settings.of(PagesSettings)

    def started(url: str) -> None:
        say_line(f"Showing the catalog {workspace.catalog.url} at {url}")
        sys.stdout.flush()

    serve_pages(
        workspace,
        bind or settings.pages_bind,
        base=base_path or settings.pages_base_path,
        token=read_token(token_file or settings.pages_token_file, "--token-file and STAGEGATE_PAGES_TOKEN_FILE"),
        insecure=insecure,
        login=login.option if login else (),
        login_required=bool(login and login.required),
        started=started,
    )
