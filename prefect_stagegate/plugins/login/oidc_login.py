"""Logs people in to the pages by OpenID Connect: /login, /login/callback and /logout.

A login is a transaction of ten minutes, bound to its browser by a cookie, and used once. After it, the browser has a
session: a random name in a cookie, and all else here in memory, so that a logout ends it for whoever has the cookie.
Before the pages get a form, the provider says anew who sends it, and in which groups they are.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.doors import LoginOptions, Visitor
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.login.expiring import Expiring, random_name
from prefect_stagegate.plugins.login.logged_in import LoginEnded, LoginRefused, audit, key_of_server, word
from prefect_stagegate.plugins.login.login_settings import LoginSettings
from prefect_stagegate.serve.incoming import RequestRefused, form_body, form_fields, path_below, peer_of
from prefect_stagegate.serve.listening import is_loopback
from prefect_stagegate.serve.tokens import read_token
from prefect_stagegate.transport.http import Client, environment_proxies

T = TypeVar("T")
if TYPE_CHECKING:
    from prefect_stagegate.plugins.login.provider import Attempt, ProvedLogin

SESSION_COOKIE, BROWSER_COOKIE = "__Host-stagegate", "__Host-stagegate-login"
"""The prefix makes browsers refuse them from other hosts, other paths, and connections without TLS."""
LOGIN_SECONDS = 600.0
"""Seconds that a person may take to log in at the provider."""
MAX_SESSIONS, MAX_LOGINS = 10_000, 5_000
"""Sessions, and logins under way; the oldest goes for a new one."""
MAX_SESSIONS_EACH = 20
"""Sessions of one person; the oldest goes for a new one."""
GROUP_SECONDS = 900.0
"""Seconds after the login for which groups count that only its ID token lists."""
LOGINS_AT_A_TIME = 8
"""Requests that ask the provider at a time; further ones wait."""
ROUTES = ("/login", "/login/callback", "/logout")
OPEN_PATHS = ("/style.css", "/logo.svg")
"""What strangers may read where they have to log in."""
_LOCAL = re.compile(r"/(?!/|login|logout)[!-\[\]-~]{0,2048}")
"""A path of this server: browsers take `//host` and `/\\host` for another one."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LoginSession:
    """Of somebody who is logged in."""

    visitor: Visitor
    login: ProvedLogin
    used: float
    """When the last request came, by the monotonic clock."""
    begun: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held while the provider is asked: one session takes one place of `LOGINS_AT_A_TIME`."""


@dataclass(frozen=True, slots=True)
class LoginUnderWay:
    """What is known of a login until the browser comes back."""

    attempt: Attempt
    browser: str
    """What its cookie must be."""
    next: str
    """The path to go to then."""


class OidcLogin:
    """The pages with logins at the provider of `--oidc`.

    Raises:
        UsageError: The provider, the client's secret, this server's own address or its key can't be used.
        MissingExtra: The library is not installed.
    """

    def __init__(self, app: ASGIApp, options: LoginOptions) -> None:
        from prefect_stagegate.plugins.login.provider import Provider  # late, since it needs the extra

        workspace, (issuer,) = options.workspace, options.values
        settings = workspace.settings.of(LoginSettings)
        address = urlsplit(workspace.settings.pages_url)
        if address.netloc and address.scheme != "https" and not is_loopback(address.hostname or ""):
            raise UsageError(
                f"Nobody can log in safely at {workspace.settings.pages_url}, without TLS",
                hint="Put a proxy with TLS before it, and set STAGEGATE_PAGES_URL to its https:// address.",
            )
        self._app, self._options, self._idle = app, options, settings.login_idle
        self._origin = f"{address.scheme}://{address.netloc}" if address.netloc else ""
        self._key = key_of_server(workspace)
        if not (self._origin or options.is_local):
            raise UsageError(
                "Nobody could log in from another machine: this server does not know its own address",
                hint="Set STAGEGATE_PAGES_URL to its https:// address.",
            )
        self._provider = Provider(
            issuer,
            client_id=settings.oidc_client_id,
            secret=read_token(settings.oidc_client_secret_file, "STAGEGATE_OIDC_CLIENT_SECRET_FILE"),
            scopes=settings.oidc_scopes,
            groups_claim=settings.oidc_groups_claim,
            client=Client(workspace.settings.allowed_hosts, proxies=environment_proxies(), redirects=False),
        )
        self._sessions: Expiring[LoginSession] = Expiring(settings.login_end, MAX_SESSIONS)
        self._logins: Expiring[LoginUnderWay] = Expiring(LOGIN_SECONDS, MAX_LOGINS)
        self._limiter = anyio.CapacityLimiter(LOGINS_AT_A_TIME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the pages answer it."""
        request = Request(scope, receive)
        base = self._options.base
        path = path_below(base, scope["path"])
        session = self._session(request)
        is_asked = path in ROUTES or (session and request.method == "POST")
        if is_asked and (response := await self._answer(request, path, session)):
            await response(scope, receive, send)
        elif self._options.is_required and not session and path not in OPEN_PATHS:
            target = f"{path}?{request.url.query}".removesuffix("?")
            # A browser's look for an icon begins no login, and a program can't.
            is_page = "text/html" in request.headers.get("accept", "")
            refusal = RedirectResponse(f"{base}/login?next={quote(target)}", 303) if is_page else Response(None, 401)
            await refusal(scope, receive, send)
        else:
            login = {"login": "/login", "visitor": session and session.visitor, "logout": _logout_token(session)}
            await self._app({**scope, **{f"stagegate.{name}": value for name, value in login.items()}}, receive, send)

    async def _answer(self, request: Request, path: str, session: LoginSession | None) -> Response | None:
        """Answer a request; None for a form that the pages may have."""
        try:
            match request.method, path:
                case "GET", "/login":
                    response = await self._begin(request)
                case "GET", "/login/callback":
                    response = await self._finish(request)
                case "POST", "/logout":
                    response = await self._end(request, session)
                case "POST", _ if session and path not in ROUTES:
                    await self._prove(request, session)
                    return None
                case _:
                    response = self._page(405, "Nothing here", f"{path} has no {request.method}", "")
        except RequestRefused as refusal:
            who = session.visitor.name if session else ""
            audit("login refused", peer_of(request), path=path[:300], why=refusal.problem, who=who)
            response = self._page(refusal.status, "This did not work", refusal.problem, refusal.hint)
        except Exception:
            log.exception("%s failed", path)
            response = self._page(500, "This did not work", "The server's log says more.", "")
        response.headers["Cache-Control"] = "no-store"
        return response

    def _session(self, request: Request) -> LoginSession | None:
        name, now = request.cookies.get(SESSION_COOKIE, ""), time.monotonic()
        session = self._sessions.get(name)
        if session and now - session.used > self._idle:
            self._sessions.take(name)
            return None
        if session:
            session.used = now
        return session

    async def _begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        from prefect_stagegate.plugins.login.provider import Attempt

        # Another tab of this browser may be logging in, too: then both have one cookie.
        browser = request.cookies.get(BROWSER_COOKIE, "")
        if not re.fullmatch(r"[\w-]{43}", browser, re.ASCII):
            browser = random_name()
        origin = self._origin
        if not origin:
            here = request.base_url  # that of the socket where the Host is none
            if not is_loopback(here.hostname or ""):
                raise LoginRefused("This server does not know its own address", "Set STAGEGATE_PAGES_URL to it.", 503)
            origin = f"http://{here.netloc}"
        attempt = Attempt(random_name(), random_name(), f"{origin}{self._options.base}/login/callback")
        target = request.query_params.get("next", "")
        state = self._logins.put(LoginUnderWay(attempt, browser, target if _LOCAL.fullmatch(target) else "/"))
        url = await self._ask(self._provider.authorization_url, attempt, state)
        response = RedirectResponse(url, 303)
        _set_cookie(response, BROWSER_COOKIE, browser, int(LOGIN_SECONDS))
        return response

    async def _finish(self, request: Request) -> Response:
        """Log in whoever the provider sends back."""
        query = request.query_params
        if len(query) != len(query.multi_items()):
            raise LoginRefused("The provider's answer says something twice", status=400)
        # Once, whatever comes of it.
        login = self._logins.take(query.get("state", ""))
        if not login:
            raise LoginRefused("This login was used before, took too long, or did not begin here", status=400)
        if not hmac.compare_digest(request.cookies.get(BROWSER_COOKIE, "").encode(), login.browser.encode()):
            address = login.attempt.redirect_uri.removesuffix("/login/callback")
            raise LoginRefused("This login began in another browser", f"Open {address}/ in this one, and log in there.")
        await self._ask(self._provider.require_issuer, query.get("iss"))
        if "error" in query or not query.get("code"):
            raise LoginRefused(f"The provider refuses the login: {word(query.get('error')) or 'it sent no code'}")
        person, proved = await self._ask(self._provider.identify, login.attempt, query["code"])
        # Another name than before, which somebody else may have put into this browser.
        self._sessions.take(request.cookies.get(SESSION_COOKIE, ""))
        visitor = person.visitor(self._key, random_name())
        at = time.monotonic()
        name = self._sessions.put(LoginSession(visitor, proved, at, at))
        self._sessions.keep_newest(MAX_SESSIONS_EACH, lambda other: other.visitor.key.subject == person.subject)
        audit("login", peer_of(request), who=person.name, issuer=person.issuer, subject=person.subject)
        response = RedirectResponse(f"{self._options.base}{login.next}", 303)
        _set_cookie(response, SESSION_COOKIE, name)
        return response

    async def _end(self, request: Request, session: LoginSession | None) -> Response:
        """Log out here, and show where one logs out at the provider."""
        if not session:
            raise LoginRefused("Nobody is logged in here", status=400)
        token = form_fields(await form_body(request)).get("token", "")
        if not hmac.compare_digest(token.encode(), _logout_token(session).encode()):
            raise LoginRefused("The form is not of this session", "Load the page again, and log out there.")
        self._sessions.take(request.cookies[SESSION_COOKIE])
        audit("logout", peer_of(request), who=session.visitor.name)
        home = f"{self._origin or str(request.base_url).rstrip('/')}{self._options.base}/"
        url = await self._ask(self._provider.logout_url, session.login.id_token, home)
        # A link, since the policy of the pages lets no form lead to another server.
        text = "The provider may still have a session, by which one logs in again without a password."
        response = self._page(200, "You are logged out", text if url else "", "", url)
        response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    async def _prove(self, request: Request, session: LoginSession) -> None:
        """Have the provider say who sends a form."""
        known = session.visitor
        try:
            async with session.lock:
                is_fresh = time.monotonic() - session.begun < GROUP_SECONDS
                person = await self._ask(self._provider.identify_again, session.login, is_fresh=is_fresh)
        except LoginRefused as refusal:
            if isinstance(refusal, LoginEnded):
                self._sessions.take(request.cookies[SESSION_COOKIE])
            raise LoginRefused(f"Nothing was done. {refusal.problem}", refusal.hint, refusal.status) from None
        # Under another name than the page showed nobody answers: its form is of another secret then.
        secret = known.secret if person.name == known.name else random_name()
        session.visitor = person.visitor(self._key, secret, known.key.at)

    async def _ask(self, function: Callable[..., T], *arguments: object, **more: object) -> T:
        return await anyio.to_thread.run_sync(lambda: function(*arguments, **more), limiter=self._limiter)

    def _page(self, status: int, title: str, problem: str, hint: str, url: str = "") -> Response:
        base = self._options.base
        out = f'<p><a href="{escape(url)}">Log out there, too</a></p>' if url else ""
        text = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} · stagegate</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{base}/logo.svg"><link rel="stylesheet" href="{base}/style.css">
<main><h1>{title}</h1><p>{escape(problem)}</p><p>{escape(hint)}</p>{out}
<p><a href="{base}/login">Log in</a> · <a href="{base}/">To the pages</a></p></main></html>
"""
        return HTMLResponse(text, status)


def _logout_token(session: LoginSession | None) -> str:
    return hmac.new(session.visitor.secret.encode(), b"/logout", "sha256").hexdigest() if session else ""


def _set_cookie(response: Response, name: str, value: str, seconds: int | None = None) -> None:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
