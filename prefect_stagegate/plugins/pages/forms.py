"""Whether a sent form may act: checked in this one place, before any `act` of a page runs.

    who       a visitor is logged in, and sends no more than `SENT_A_MINUTE` forms
    from      this server's own origin, as browsers say it, in a small form of text
    what      the token of this page, this session and this moment, once: `TOKEN_SECONDS`, never twice
    as shown  what the page relied on is what it relies on now; else the newer page is shown, and nothing done

A token is `<payload>.<HMAC>`; its payload has a nonce, when it ends, and a digest of each fact that the page relied on.
Each answer and each refusal is a line of this module's log.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from prefect_stagegate.doors import Grant, Visitor
from prefect_stagegate.errors import SourceError
from prefect_stagegate.model.canonical import canonical, digest_of
from prefect_stagegate.plugins.pages.kept import Bounded, Rates
from prefect_stagegate.serve.incoming import RequestRefused, form_body, form_fields, peer_of
from prefect_stagegate.show.legible import one_line
from prefect_stagegate.transport.http import origin_of

SENT_A_MINUTE, SENT_A_MINUTE_FROM = 20, 120
"""Forms a minute of one session, and from one address without a session: a proxy may have many people behind it."""
TOKEN_SECONDS = 3600.0
"""Seconds for which a form can be sent after its page was made."""
MAX_NONCES = 1500
"""Used tokens that are kept of one session, above those of `SENT_A_MINUTE` in `TOKEN_SECONDS`."""
MAX_SESSIONS = 1000
"""Sessions and addresses that are counted; weighed alike, since a form costs a login first."""
FORM = "application/x-www-form-urlencoded"
TOKEN = "token"  # noqa: S105 - a field's name
"""The field that holds the token."""

log = logging.getLogger(__name__)


class LoggedOut(RequestRefused):
    """Nobody is logged in, perhaps no longer."""


@dataclass(frozen=True, slots=True)
class ShownForm:
    """What the template of a page with an `act` knows as `form`."""

    token: str = ""
    """Empty where nobody may send it: nobody is logged in, or there is nothing to answer."""
    values: Mapping[str, str] | None = None
    """What was sent and not done, so that nobody types it again."""
    problem: str = ""
    """Why nothing was done."""
    hint: str = ""
    changed: tuple[str, ...] = ()
    """What is another since the page was shown on which somebody answered."""


class Forms:
    """Checks forms, and makes their tokens.

    Args:
        address: Where browsers find the server, as STAGEGATE_PAGES_URL says; empty for what a request's Host says.
    """

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._sent, self._used = Rates(MAX_SESSIONS), Bounded(MAX_SESSIONS)
        self._lock = threading.Lock()
        log.setLevel(logging.INFO)  # the command shows warnings alone, and this is the record of who did what

    async def read(self, request: Request) -> tuple[Visitor, dict[str, str]]:
        """Who sent a form, and its fields. They may be looked at; `use` says whether they may act.

        Raises:
            LoggedOut: Nobody is logged in.
            RequestRefused: It comes from elsewhere, there are too many, or it is no form.
        """
        visitor: Visitor | None = request.scope.get("stagegate.visitor")
        if visitor is None:  # apart, so that strangers behind the same proxy take nobody's turn
            self._limit(f"from {peer_of(request)}", SENT_A_MINUTE_FROM)
        self._require_own_origin(request)
        if visitor is None:
            problem = "Nothing was done: nobody is logged in, or the login has ended."
            raise LoggedOut(403, problem, "Log in, then answer again.")
        self._limit(_session(visitor), SENT_A_MINUTE)
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        charset = parameters.strip().lower()
        if kind.strip().lower() != FORM or charset not in ("", "charset=utf-8"):
            raise RequestRefused(415, f"Nothing was done: answers are sent as {FORM}.")
        return visitor, form_fields(await form_body(request))

    def _require_own_origin(self, request: Request) -> None:
        address = self._address or f"{request.scope['scheme']}://{request.headers.get('host', '')}"
        own, origins = _origin(address), [*map(_origin, request.headers.getlist("origin"))]
        sites = request.headers.getlist("sec-fetch-site")
        if own is None or origins != [own] or sites not in ([], ["same-origin"]):
            raise RequestRefused(
                403,
                f"Nothing was done: the form was not sent from {address}.",
                f"Open the page at {address}, and answer there. STAGEGATE_PAGES_URL names another address.",
            )

    def _limit(self, sender: str, most: int) -> None:
        if not self._sent.take(sender, most):
            raise RequestRefused(429, "Nothing was done: too many forms came.", "Wait a minute.")

    def token(self, visitor: Visitor, path: str, facts: Mapping[str, object]) -> str:
        """The token of a form, for one session, a page's path and what the page relies on."""
        digests = {word: digest_of(value)[7:23] for word, value in facts.items()}
        content = [secrets.token_urlsafe(16), int(time.time() + TOKEN_SECONDS), digests]
        payload = base64.urlsafe_b64encode(canonical(content)).decode()
        return f"{payload}.{_mac(visitor, path, payload)}"

    def use(self, visitor: Visitor, path: str, token: str, facts: Mapping[str, object]) -> tuple[str, ...]:
        """Use a form's token up, and give the words of what is no longer as it was shown; none when it may act.

        Raises:
            RequestRefused: It is no token of this session and page, or it was used or ended.
        """
        payload, _, mac = token.rpartition(".")
        if not (payload and hmac.compare_digest(mac.encode(), _mac(visitor, path, payload).encode())):
            raise RequestRefused(403, "Nothing was done: the form is not of this page and login.")
        nonce, end, digests = json.loads(base64.urlsafe_b64decode(payload))
        if end < time.time():
            raise RequestRefused(409, f"Nothing was done: the page is older than {TOKEN_SECONDS / 60:g} minutes.")
        with self._lock:
            used: dict[str, int] = self._used.get(_session(visitor)) or {}
            used = {other: other_end for other, other_end in used.items() if other_end >= time.time()}
            if nonce in used:
                raise RequestRefused(409, "Nothing more was done: this form was sent already.")
            if len(used) >= MAX_NONCES:
                raise RequestRefused(429, "Nothing was done: too many forms came.", "Wait an hour.")
            self._used.put(_session(visitor), used | {nonce: end})
        now = {word: digest_of(value)[7:23] for word, value in facts.items()}
        return tuple(word for word in sorted(now | digests) if now.get(word) != digests.get(word))


def audit(request: Request, outcome: str, form: Mapping[str, str] | None = None) -> None:
    """Log what came of a form: who sent it, from where, to which page, with what, without its token."""
    who: Visitor | Grant | None = request.scope.get("stagegate.grant") or request.scope.get("stagegate.visitor")
    fields = {name: value[:500] for name, value in (form or {}).items() if name != TOKEN}
    line = {
        "who": who.name if who else "",
        "from": peer_of(request),
        "page": request.scope["path"][:300],
        "form": fields,
    }
    log.info("%s: %s", one_line(outcome[:500]), json.dumps(line))


def _origin(url: str) -> tuple[str, str, int] | None:
    """The origin of a URL; None where it has none, as `null`."""
    try:
        return origin_of(url)
    except SourceError:
        return None


def _session(visitor: Visitor) -> str:
    return digest_of(["session", visitor.secret])  # the secret itself is kept by the plugin for logins alone


def _mac(visitor: Visitor, path: str, payload: str) -> str:
    return hmac.new(visitor.secret.encode(), canonical([path, payload]), "sha256").hexdigest()
