"""Programs that send a bearer token: what theirs grants, asked of plugins, and how often one may be wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from hashlib import sha256

import anyio
import anyio.to_thread
from starlette.types import ASGIApp

from prefect_stagegate.doors import Grant, declared, load
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.plugins.pages.kept import Bounded, Rates
from prefect_stagegate.serve.incoming import RequestRefused
from prefect_stagegate.workspace import Workspace

KNOWN_SECONDS = 5.0
"""Seconds for which a token is known, so that a revoked one ends within 10."""
MAX_KNOWN = 1000
"""Tokens that are known, and senders whose failures are counted."""
FAILURES_A_MINUTE = 30
"""Wrong tokens that may come from one address at once, and as many again in each minute."""
LOOKUPS = 4
"""Tokens that are looked up at a time."""
LOOKUP_SECONDS = 10.0

log = logging.getLogger(__name__)


class Bearers:
    """Tells what tokens grant.

    Args:
        workspace: The catalog itself: a copy of its records would be seconds behind a revocation.
        app: Answers programs: the pages without a plugin for logins, so that no program is ever a visitor.
    """

    def __init__(self, workspace: Workspace, app: ASGIApp) -> None:
        self.app = app
        self._workspace, self._kinds = workspace, declared("bearers")
        self._known, self._failures = Bounded(MAX_KNOWN), Rates(MAX_KNOWN)
        self._limiter = anyio.CapacityLimiter(LOOKUPS)

    def names(self, text: str) -> bool:
        """Whether a text is a token of these kinds, good or bad."""
        return text.startswith(tuple(self._kinds))

    async def grant(self, sender: str, text: str) -> Grant:
        """What a token grants.

        Raises:
            RequestRefused: It is wrong, the sender sent too many wrong ones, or the catalog does not answer.
        """
        key = sha256(text.encode()).digest()
        known: tuple[Grant | None, float] = self._known.get(key) or (None, 0.0)
        grant, until = known
        # Who was right a moment ago is not refused for the failures of others behind the same address.
        if grant is None and self._failures.is_full(sender, FAILURES_A_MINUTE):
            raise RequestRefused(429, "Too many wrong tokens came from here.", "Wait a minute.")
        if until < time.monotonic():
            grant = await self._look_up(text)
            self._known.put(key, (grant, time.monotonic() + KNOWN_SECONDS))
        if grant is None:
            self._failures.take(sender, FAILURES_A_MINUTE)
            hint = "`stagegate token list` shows which are valid."
            raise RequestRefused(401, "This token is unknown, expired or revoked.", hint)
        return grant

    async def _look_up(self, text: str) -> Grant | None:
        find = next(load(place) for prefix, place in self._kinds.items() if text.startswith(prefix))
        grant: Grant | None
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                grant = await anyio.to_thread.run_sync(
                    find, self._workspace, text, abandon_on_cancel=True, limiter=self._limiter
                )
        except (TimeoutError, StagegateError) as error:
            log.warning("a token can't be looked up: %r", str(error))
            raise RequestRefused(503, "The token could not be looked up.", "Try again.") from error
        return grant
