"""The order in which an arriving version is fetched: first what its readers ask for, then the rest of the plan."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from threading import Event

from prefect_stagegate.cache.arrivals import Arrival
from prefect_stagegate.catalog import RefEntry, withdrawal_of
from prefect_stagegate.doors import Job
from prefect_stagegate.errors import Cancelled, CatalogError, GateFailed, SourceError, StagegateError, TransferFailed
from prefect_stagegate.jobs.staging.temporary_tables import BATCH, insert, temporary
from prefect_stagegate.model import LATEST, Action, Address, PlannedObject, Receipt
from prefect_stagegate.transport.transfer import TransferStats
from prefect_stagegate.transport.transfer.progress import Meter, repeating

FAILURES = 16
"""Objects that may fail before the job ends: a few cost only the readers of those files."""
OBJECTS = 1024
"""Objects that are begun and not done, at most: a file that a reader asks for waits behind them."""
LEAST_AHEAD, MOST_AHEAD = 2 << 20, 32 << 20
"""Bounds of the bytes of them that are yet to come before another is begun. All share the link, so what a reader asks
for waits for as many."""
AHEAD, MEASURED = 0.25, 0.5
"""Seconds: between the bounds, as many bytes as come in the first, by a rate that is measured over the second."""
POLL = 0.02
"""Seconds between two looks whether another object may be begun."""
TELL, LOOK = 0.5, 5.0
"""Seconds between two looks for failures, and for a withdrawal."""


class FetchOrder:
    """Passes a plan on in the order that readers ask for, and only as fast as it is fetched.

    Args:
        arrival: Has the wishes, and gets the failures.
        job: May be stopped.
        meter: Counts the bytes that come.
    """

    def __init__(self, arrival: Arrival, job: Job, meter: Meter) -> None:
        self._arrival, self._job, self._meter = arrival, job, meter
        self.stats = TransferStats()
        """The figures of the transfer, with its failures."""
        self._rest = temporary("CREATE TABLE rest (path TEXT PRIMARY KEY, number INT, planned BLOB)", self)
        self._rest.execute("CREATE INDEX by_number ON rest (number)")
        self._awaited: dict[str, None] = {}
        """Paths that readers wait for, in the order in which they came: none is kept waiting by a later one."""
        self._wanted: dict[str, None] = {}
        """Paths that readers will want."""
        self._begun: dict[str, int] = {}
        """The sizes of the objects that are begun and not done, by path."""
        # Each is written by one thread alone.
        self._given = self._failed = self._held = 0
        """Bytes of all begun objects, of the failed ones, and of those that another process fetched."""
        self._ahead = LEAST_AHEAD
        """Bytes that may be yet to come."""
        self._measured: tuple[int, float] | None = None
        """Bytes that had come when the rate was last measured, and when."""
        self._settled = self._told = 0
        """Failures that were counted, and told."""
        self.withdrawal: GateFailed | None = None
        self.ended = Event()
        """Set where nothing is passed on any more."""

    def planned(self, plan: Iterator[PlannedObject]) -> Iterator[PlannedObject]:
        """The plan in another order. In the transfer's own thread."""
        is_read, numbers = False, 0
        while not self._is_over():
            if not self._has_room():
                self.ended.wait(POLL)
                continue
            planned = self._asked_for(is_read=is_read) or (None if self._awaited or self._wanted else self._in_order())
            if planned:
                self._begun[planned.path] = planned.object.size
                self._given += planned.object.size
                yield planned
            elif is_read:
                return
            else:
                batch = list(islice(plan, BATCH))
                is_read = not batch
                fetched = [planned for planned in batch if planned.action is Action.FETCH]
                rows = [(planned.path, n, pickle.dumps(planned)) for n, planned in enumerate(fetched, numbers)]
                insert(self._rest, "INSERT INTO rest", rows)
                numbers += len(rows)
                yield from (planned for planned in batch if planned.action is not Action.FETCH)

    def done(self, receipt: Receipt) -> None:
        """Count an object that is in the cache."""
        size = self._begun.pop(receipt.path, 0)
        self._held += 0 if receipt.fetched else size

    def _asked_for(self, *, is_read: bool) -> PlannedObject | None:
        """The first object of the wishes that is yet to begin; None where there is none, or it is yet to be planned."""
        for path, first in self._arrival.wanted():
            if path not in self._begun:
                (self._awaited if first else self._wanted).setdefault(path)
        while wishes := self._awaited or self._wanted:
            path = next(iter(wishes))
            planned = self._take("DELETE FROM rest WHERE path = ? RETURNING planned", path)
            if planned or is_read:
                for each in (self._awaited, self._wanted):
                    each.pop(path, None)
            if planned or not is_read:
                return planned
        return None

    def _in_order(self) -> PlannedObject | None:
        return self._take("DELETE FROM rest WHERE number = (SELECT min(number) FROM rest) RETURNING planned")

    def _take(self, statement: str, *values: str) -> PlannedObject | None:
        row = self._rest.execute(statement, values).fetchone()
        return pickle.loads(row[0]) if row else None  # noqa: S301 - this process wrote it, and no other can

    def _is_over(self) -> bool:
        stopped = self.ended.is_set() or (self._job.cancel is not None and self._job.cancel.is_set())
        return stopped or len(self.stats.failures) > FAILURES

    def _has_room(self) -> bool:
        """Whether another object may begin."""
        for failure in self.stats.failures[self._settled :]:
            self._settled += 1
            self._failed += self._begun.pop(failure.object, 0)
        if not self._begun:
            return True
        came = self._failed + self._held + self._meter.snapshot().bytes_moved
        if len(self._begun) > 1:  # of one large object, more at once would take from it
            self._measure(came)
        return len(self._begun) < OBJECTS and self._given - came <= self._ahead

    def _measure(self, came: int) -> None:
        """Have as much begun as comes in `AHEAD`."""
        now = time.monotonic()
        before, then = self._measured = self._measured or (came, now)
        if now - then >= MEASURED:
            self._ahead = max(LEAST_AHEAD, min(MOST_AHEAD, int((came - before) * AHEAD / (now - then))))
            self._measured = came, now

    # ---------------------------------------------------------------- what readers are told

    def tell(self) -> None:
        """Tell readers of the objects that failed since the last call."""
        if len(failures := self.failures()) > self._told:
            self._told = len(failures)
            self._arrival.fail(failures)

    def failures(self) -> dict[str, StagegateError]:
        """The failures so far, by path."""
        return {failure.object: failure for failure in self.stats.failures[:]}

    def look(self, digest: str, target: str) -> None:
        """End the plan where the target has withdrawn the version."""
        with suppress(CatalogError, SourceError):  # a catalog that does not answer withdraws nothing
            if entry := withdrawal_of(self._job.workspace.catalog, self._job.dataset, target, digest):
                self.withdrawal = withdrawal_error(Address(self._job.dataset, target), entry)
                self.ended.set()

    def require_all(self) -> None:
        """Raise where something is missing.

        Raises:
            TransferFailed: Some objects failed, and the transfer went on.
            GateFailed: The version was withdrawn.
        """
        if self.withdrawal:
            raise self.withdrawal
        if self.stats.failures:
            raise TransferFailed(self.stats.failures)


@contextmanager
def readers_told(job: Job, digest: str, target: str) -> Iterator[FetchOrder | None]:
    """Give the order in which the block fetches a version, and tell its readers what fails; None without readers.

    `target` is the ref that the readers named; empty for none. It may withdraw the version meanwhile.

    Raises:
        GateFailed: The version was withdrawn.
    """
    arrival = Arrival(job.workspace.cache.layout, digest)
    with arrival.fetching() as is_read, ExitStack() as repeated:
        if not is_read or job.meter is None:
            yield None
            return
        order = FetchOrder(arrival, job, job.meter)
        if job.cancel is None:  # else it belongs to who may stop more than this job
            job.cancel = order.ended
        repeated.enter_context(repeating(order.tell, TELL))
        try:
            if target not in ("", LATEST):
                order.look(digest, target)
                order.require_all()
                repeated.enter_context(repeating(partial(order.look, digest, target), LOOK))
            yield order
        except Exception as error:
            why = order.withdrawal or error
            repeated.close()
            # Of a stop readers are not told: they have another process go on.
            if not isinstance(why, Cancelled):
                known = why if isinstance(why, StagegateError) else StagegateError(f"Unexpected error: {why!r}")
                with suppress(OSError):
                    arrival.fail(order.failures() | {"": known})
            if order.withdrawal:
                raise order.withdrawal from error
            raise
        finally:
            order.ended.set()
        arrival.end()


def withdrawal_error(address: Address, entry: RefEntry) -> GateFailed:
    """The error for a version that a target accepted and withdrew."""
    return GateFailed(
        f"{address} was withdrawn by {entry.who}: {entry.reason}",
        hint=f"`stagegate status {address.dataset}` says what may be used, and whose turn it is.",
        dataset=address.dataset,
    )
