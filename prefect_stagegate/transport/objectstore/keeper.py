"""Holds a store's current credential, and renews it in the background.

Requests are made in an event loop's thread, which must not wait for an identity service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

RENEW_SECONDS = 120.0
"""A credential is renewed so long before its end."""
PAUSE_SECONDS = 10.0
"""Pause between two calls of a provider, whether the first succeeded or failed."""


@dataclass(frozen=True, slots=True)
class Credential(Generic[T]):
    """A provider's credential."""

    value: T
    expires_at: datetime | None = None
    """With its time zone; None: it has no end."""


class CredentialKeeper(Generic[T]):
    """Gives a provider's credential without waiting for the provider. Safe to use from many threads.

    Args:
        provider: Fetches a credential; may block, and may raise anything.
        credential: The first one, where it is known already.
    """

    def __init__(self, provider: Callable[[], Credential[T]], credential: Credential[T] | None = None) -> None:
        self._provider = provider
        self._credential = credential
        self.failure: Exception | None = None
        """What the provider raised last; None after a success."""
        self._next_request = 0.0
        self._renewing = threading.Lock()

    @classmethod
    def fixed(cls, value: T) -> CredentialKeeper[T]:
        """A keeper of a credential without an end."""
        credential = Credential(value)
        return cls(lambda: credential, credential)

    def prepare(self) -> None:
        """Call the provider and wait for it, if there is no credential or it ends soon. Raises nothing.

        After a failure `current` returns None, or still the old credential, for the server to refuse.
        """
        if self._is_due():
            with self._renewing:
                if self._is_due():  # another thread may have renewed it meanwhile
                    self._renew()

    def current(self) -> T | None:
        """The credential; None while there is none, or while an expired one is being renewed. Never blocks."""
        credential = self._credential
        # The common case first: each request asks.
        if credential is not None and credential.expires_at is None:
            return credential.value
        if self._is_due():
            self._renew_in_background()
        # After a failed renewal the old credential is used: the server then says what is wrong.
        if credential is None or (not self.failure and _seconds_left(credential) <= 0):
            return None
        return credential.value

    def _is_due(self) -> bool:
        """Whether the provider is to be called: the credential ends soon, and the pause since the last call is over."""
        ends = self._credential is None or _seconds_left(self._credential) < RENEW_SECONDS
        return ends and time.monotonic() >= self._next_request

    def _renew_in_background(self) -> None:
        # One renewal at a time: other requests go on with the old credential.
        if not self._renewing.acquire(blocking=False):
            return
        started = False
        try:
            with suppress(RuntimeError):  # no more threads can be started: the next request tries again
                threading.Thread(target=self._renew_and_release, name="credential-renewal", daemon=True).start()
                started = True
        finally:
            if not started:
                self._renewing.release()

    def _renew_and_release(self) -> None:
        try:
            self._renew()
        finally:
            self._renewing.release()

    def _renew(self) -> None:
        try:
            self._credential = self._provider()
            self.failure = None
        except Exception as error:  # noqa: BLE001 - each library of credentials has errors of its own
            self.failure = error
        finally:
            # After a failure, too: a service that is down is not called for each object.
            self._next_request = time.monotonic() + PAUSE_SECONDS


def _seconds_left(credential: Credential[T]) -> float:
    return credential.expires_at.timestamp() - time.time() if credential.expires_at else float("inf")
