"""Believes a proxy about who people are: by a request header, from its addresses alone."""

from __future__ import annotations

import hmac
import re
import secrets
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.doors import LoginOptions
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.login.logged_in import LoggedInPerson, LoginRefused, audit, groups_of, key_of_server
from prefect_stagegate.plugins.login.login_settings import LoginSettings
from prefect_stagegate.serve.incoming import peer_of

_NAME = re.compile(r"[!-~](?:[ -~]{0,252}[!-~])?")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


class HeaderLogin:
    """The pages with logins by a proxy's header.

    Raises:
        UsageError: The header or an address is none, or the server has no key.
    """

    def __init__(self, app: ASGIApp, options: LoginOptions) -> None:
        header, *proxies = options.values
        groups = options.workspace.settings.of(LoginSettings).login_groups_header
        if wrong := next((name for name in filter(None, (header, groups)) if not _HEADER.fullmatch(name)), ""):
            raise UsageError(f"{wrong!r} is no header", hint="Write --trusted-header X-Forwarded-Email.")
        try:
            self._proxies = [ip_network(proxy) for proxy in proxies]
        except ValueError as error:
            raise UsageError(f"The proxy has no such address: {error}", hint="--trusted-proxy 10.0.0.7") from None
        self._app, self._is_required = app, options.is_required
        self._header, self._groups = header, groups
        self._key, self._secret = key_of_server(options.workspace), secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as that of whom the proxy names."""
        request = Request(scope)
        names = [name.lower().encode() for name in (self._header, self._groups) if name]
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name.lower() not in names]}
        peer = peer_of(request)
        try:
            person = self._person(request, peer)
        except LoginRefused as refusal:
            audit("login refused", peer, why=refusal.problem)
            await PlainTextResponse(f"{refusal.problem}\n", refusal.status)(scope, receive, send)
            return
        if person:
            # The same for all requests of a person: there is no session here.
            secret = hmac.new(self._secret, person.name.encode(), "sha256").hexdigest()
            scope["stagegate.visitor"] = person.visitor(self._key, secret)
        await self._app(scope, receive, send)

    def _person(self, request: Request, peer: str) -> LoggedInPerson | None:
        names = request.headers.getlist(self._header)
        if names and not self._is_proxy(peer):
            audit("login refused", peer, why=f"{self._header} from an address that is no trusted proxy")
            names = []
        if not names and self._is_required:
            raise LoginRefused("Only people whom the proxy names may read", status=401)
        if not names:
            return None
        if len(names) > 1 or not _NAME.fullmatch(names[0]):
            # A proxy that adds the header, and leaves the client's own there, lets anybody be anybody.
            raise LoginRefused(f"{self._header} comes twice, or is no name", status=400)
        groups = request.headers.getlist(self._groups) if self._groups else []
        if len(groups) > 1:
            raise LoginRefused(f"{self._groups} comes twice", status=400)
        listed = [group for part in ",".join(groups).split(",") if (group := part.strip())]
        return LoggedInPerson(names[0], f"header:{self._header}", names[0], groups_of(listed))

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped  # of a listener for both
        return any(address in network for network in self._proxies)
