"""Who may read the pages, and what browsers may do with them: checked and said for every request, in one place."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.plugins.pages.bearers import Bearers
from prefect_stagegate.plugins.pages.json_answers import json_error, prefers_json
from prefect_stagegate.serve.incoming import RequestRefused, peer_of
from prefect_stagegate.serve.listening import is_loopback

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""No script, style, picture or form from or to elsewhere, and no page of others around ours."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with `no-referrer`, browsers hide a form's own origin from its server, too
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-cache",
    "vary": "Accept, Authorization",
}
LONGEST_TARGET = 8192
"""Bytes of a request's path and query; longer ones get 414."""
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


class Guard:
    """Refuses requests that may not be answered, and adds `HEADERS` to every response.

    Args:
        app: Answers the others.
        token: What a request must bring, as a bearer token or as the password of basic authentication; empty for none.
        hosts: Names that a request's Host may have beside those of this machine's loopback; None for any. A page of
            somebody else's name that leads to this machine could read everything otherwise (DNS rebinding).
        forms: The paths to which forms may be sent.
        bearers: Tells what programs may that send a token, and answers them: their requests never reach `app`, so that
            their cookies count for nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        hosts: Collection[str] | None,
        forms: Collection[re.Pattern[str]],
        bearers: Bearers,
    ) -> None:
        self._app, self._token, self._hosts, self._forms = app, token.encode(), hosts, forms
        self._bearers = bearers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(request := Request(scope)) or self._app
        text = self._program_token(request)
        if answer is self._app and text:
            try:
                scope = {**scope, "stagegate.grant": await self._bearers.grant(peer_of(request), text)}
                answer = self._bearers.app
            except RequestRefused as refusal:
                headers = {"WWW-Authenticate": 'Bearer realm="stagegate"'} if refusal.status == 401 else {}  # noqa: PLR2004
                answer = _refused(request, refusal.status, f"{refusal.problem} {refusal.hint}", headers)
        await answer(scope, receive, send_with_headers)

    def _program_token(self, request: Request) -> str:
        """The token of a program; empty for a request that has none."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        is_own = self._token and hmac.compare_digest(text.encode(), self._token)
        return text if scheme.lower() == "bearer" and not is_own and self._bearers.names(text) else ""

    def _refusal(self, request: Request) -> Response | None:
        has_form = any(form.fullmatch(request.scope["path"]) for form in self._forms)
        methods = ("GET", "HEAD", "POST")[: 3 if has_form else 2]
        if request.method not in methods:
            return _refused(request, 405, "This page can only be read", {"Allow": ", ".join(methods)})
        if len(request.scope["raw_path"]) + len(request.scope["query_string"]) > LONGEST_TARGET:
            return _refused(request, 414, "This address is too long")
        hosts = request.headers.getlist("host")
        if self._hosts is not None and not (len(hosts) == 1 and self._is_known(hosts[0])):
            text = "This server answers under its own names only; STAGEGATE_PAGES_URL names one more"
            return _refused(request, 421, text)
        is_program = bool(self._program_token(request))
        if self._token and not (is_program or self._is_authorized(request.headers.get("authorization", ""))):
            challenge = {"WWW-Authenticate": 'Basic realm="stagegate", charset="UTF-8"'}
            return _refused(request, 401, "Give the token as the password; any user will do", challenge)
        return None

    def _is_known(self, text: str) -> bool:
        match = _HOST.fullmatch(text)
        if not match or self._hosts is None:
            return False
        host = match[1].strip("[]").lower()
        return is_loopback(host) or host in self._hosts

    def _is_authorized(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.encode()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        # In constant time, so that the time of a refusal tells nothing of the token.
        return hmac.compare_digest(given, self._token)


def _refused(request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    if prefers_json(request.scope):
        return json_error(status, StagegateError(text), headers)
    return PlainTextResponse(f"{text}\n", status, headers)
