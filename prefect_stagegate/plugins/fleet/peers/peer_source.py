"""Other nodes of the site as sources of blobs. They need no trust: each blob is hashed against its digest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import PlannedObject, SourceObject
from prefect_stagegate.plugins.fleet.nodes import BlobOrder
from prefect_stagegate.sources.adapter import BaseSource, as_typed
from prefect_stagegate.sources.replica import Replica, ReplicaSet
from prefect_stagegate.transport.http import Client, Request, Response, origin_of
from prefect_stagegate.transport.http.proxies import is_named

LONGEST_WAIT = 20.0
"""Seconds that a blob server waits for a blob, at most."""
ACTIVITY = "Stagegate-Activity"
"""The header of a 503 whose value changes while the node's stagings receive bytes."""
SLOWEST = 1_000_000
"""Bytes a second that a node must send each request; one that is slower is dropped."""
LEAST_SECONDS = 10.0
"""Seconds that any request may take beside its wait."""
SOURCE_RATE = 10_000_000
"""Bytes a second at which a blob that a node fetches is waited for, beside `PATIENCE`."""
PATIENCE = 60.0
"""Seconds, beside those for the blob's size, for which all nodes of a transfer together may bring no blob."""

_DENIED, _GONE, _BUSY = (401, 403), 404, 503

log = logging.getLogger(__name__)


class BlobNotYet(SourceError):
    """The node does not have the blob yet."""

    ask_again = 0.25


class PeerSource(BaseSource, Replica):
    """The blob server of another node of the site. Objects are asked for by their digest: see `object_of`.

    After one failed request, wrong bytes, or too long a silence it is dropped: no further blob is asked of it.

    Args:
        node: The node's name.
        url: Of its blob server; without a path.
        client: Trust, certificate and idle time of its requests.
        token: The site's token; empty for none.
        holds: Whether the node's record says that it has every blob; else it fetches them.
        waits: Whether a blob that the node fetches is waited for.
        patience: Shared with the other nodes of a transfer.
    """

    def __init__(
        self, node: str, url: str, client: Client, token: str, *, holds: bool, waits: bool, patience: Patience
    ) -> None:
        self.name, self.url, self.identity = node, url, url
        self._client, self._holds, self._waits, self._patience = client, holds, waits, patience
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._wait = 0.0 if holds or not waits else min(LONGEST_WAIT, client.idle / 2)
        self._lock = threading.Lock()
        self._started = False
        """Whether it was seen to stage or to have a blob; until then, a blob that it lacks may come."""
        self._activity = ""
        self._asked = self._alive = 0.0
        """When it was last asked, and last seen to go on, by the monotonic clock."""
        self.problem = ""

    @property
    def is_dropped(self) -> bool:
        """Whether no further blob is asked of it."""
        return bool(self.problem) or self._patience.is_over

    def drop(self, error: StagegateError) -> None:
        """Ask it for nothing any more in this transfer. From any thread."""
        with self._lock:
            if self.problem:
                return
            self.problem = error.message
        log.warning(
            "The node %s (%s) is left out of this transfer, and its blobs come from elsewhere: %s",
            self.name, self.url, error.message,
        )  # fmt: skip

    def confirm(self, listed: SourceObject) -> None:  # noqa: ARG002
        """Note that a blob of it had its digest. From any thread."""
        self._patience.renew()

    def object_of(self, planned: PlannedObject) -> SourceObject:
        """The planned object as blobs are asked for. Its digest must be known."""
        # Checksums are of the source, which alone knows what they are worth; the digest proves the bytes.
        return replace(planned.object, key=planned.digest.removeprefix("blake3:"), checksums=(), away=False)

    def probe(self, listed: SourceObject) -> Request:
        """The request that asks whether the node has a blob, and waits for it."""
        return self._request("HEAD", listed, None, self._wait)

    def request(self, listed: SourceObject, start: int, end: int) -> Request:
        """The request for the bytes from `start` to `end` (exclusive) of a blob."""
        whole = (start, end) == (0, listed.size)
        # A part is asked for after a probe only.
        return self._request("GET", listed, None if whole else (start, end), self._wait if whole else 0.0)

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        """The error of a failed request; `BlobNotYet` while the node may still bring the blob."""
        if not isinstance(outcome, Response):
            return as_typed(outcome)
        subject = {"source": self.url, "object": listed.key}
        may_come = outcome.status == _BUSY or (outcome.status == _GONE and not (self._holds or self._started))
        if may_come and self._waits:
            return self._not_yet(listed, outcome)
        if outcome.status in (_GONE, _BUSY):
            return ObjectVanished("The node does not have the blob", **subject)
        if outcome.status in _DENIED:
            hint = "All nodes of a site need the same STAGEGATE_PEER_TOKEN_FILE."
            return AccessDenied("The node refused the token", hint=hint, **subject)
        return SourceUnavailable(f"The node answers {outcome.status}", **subject)

    def _refuse(self, *_: object) -> NoReturn:
        raise SourceError("A node's blobs are asked for by their digest alone", source=self.url)

    list = find = read_into = _refuse  # type: ignore[assignment]

    def _request(self, method: str, listed: SourceObject, part: tuple[int, int] | None, wait: float) -> Request:
        now = time.monotonic()
        with self._lock:
            # A silence counts only while it is asked.
            if now - self._asked > self._wait + LEAST_SECONDS:
                self._alive = now
            self._asked = now
        left = self._patience.seconds_left(now, listed.size)
        wait, size = min(wait, left), part[1] - part[0] if part else listed.size
        return Request(
            f"{self.url}/blobs/{listed.key}" + (f"?wait={wait:.3f}" if wait else ""),
            self._headers,
            self._client,
            method,
            range=part,
            size=listed.size,
            timeout=wait + max(1.0, min(LEAST_SECONDS, left), size / SLOWEST),
            verify=self._note_delivery,
        )

    def _note_delivery(self, _: Response) -> None:
        self._started = True
        self._alive = time.monotonic()

    def _not_yet(self, listed: SourceObject, response: Response) -> SourceError:
        now = time.monotonic()
        activity = response.headers.get(ACTIVITY.lower(), "")
        with self._lock:
            self._started |= bool(activity)
            if activity != self._activity:
                self._activity, self._alive = activity, now
            silent = now - self._alive
        subject = {"source": self.url, "object": listed.key}
        if silent <= self._client.idle and self._patience.seconds_left(now, listed.size):
            return BlobNotYet("The node does not have the blob yet", **subject)
        return SourceUnavailable("The node has brought nothing for too long", **subject)


class Patience:
    """How long all nodes of a transfer together may bring nothing: what records plant must not add up.

    It begins with the first request and anew with each proved blob. Once it is over it stays so.
    """

    def __init__(self) -> None:
        self._asked = self._since = -float("inf")
        self.is_over = False

    def seconds_left(self, now: float, size: int) -> float:
        """Seconds for which a blob of `size` bytes may still be waited for."""
        # A time in which nobody is asked does not count.
        if now - self._asked > LONGEST_WAIT + LEAST_SECONDS:
            self._since = now
        self._asked, left = now, max(0.0, self._since + PATIENCE + size / SOURCE_RATE - now)
        if not left and not self.is_over:
            log.warning("No node of the site brought a blob for %.0f s: the rest comes from the source", PATIENCE)
        self.is_over |= not left
        return 0.0 if self.is_over else left

    def renew(self) -> None:
        """Begin anew: a blob came."""
        self._since = time.monotonic()


class Peers(ReplicaSet):
    """The nodes of the site that may be asked for blobs.

    Args:
        sources: By the node's name.
        order: Gives the names of the nodes to ask for a blob, the first to ask first.
    """

    def __init__(self, sources: Sequence[PeerSource], order: BlobOrder) -> None:
        self.sources = tuple(sources)
        self._by_name = {source.name: source for source in sources}
        self._order = order

    def asked(self, digest: str) -> tuple[PeerSource, ...]:
        """The nodes to ask for a blob, in order, without those that were dropped."""
        sources = (self._by_name[name] for name in self._order(digest))
        return tuple(source for source in sources if not source.is_dropped)


def may_have_token(url: str, hosts: Iterable[str]) -> bool:
    """Whether `STAGEGATE_PEER_HOSTS` names the host of a blob server, and permits it without TLS where it has none.

    >>> may_have_token("https://10.1.2.3:8444", ["10.0.0.0/8"]), may_have_token("http://10.1.2.3:8444", ["10.0.0.0/8"])
    (True, False)
    """
    with suppress(SourceError):
        origin = origin_of(url)
        entries = [entry for entry in hosts if origin.scheme == "https" or entry.startswith("http://")]
        # The comma at the end keeps `*` from meaning every host.
        return is_named(origin, "".join(f"{entry.removeprefix('http://')}," for entry in entries))
    return False
