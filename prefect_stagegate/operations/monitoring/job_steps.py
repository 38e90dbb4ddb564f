"""The steps of jobs: each is a span, and what it did is counted on this node when it ends.

    with step(workspace, "promote", dataset) as running:
        …
        running.note(digest=digest)

Jobs are short processes that nobody scrapes. So the counters lie in the cache's `index.sqlite`, and add up over jobs.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from prefect_stagegate.cache.memory import Count
from prefect_stagegate.errors import Cancelled
from prefect_stagegate.model import Receipt
from prefect_stagegate.operations.monitoring.families import (
    BUCKET,
    BUCKETS,
    BYTES,
    ERRORS,
    FAILED_OBJECTS,
    OBJECTS,
    RETRIES,
    STEP_SECONDS,
    STEPS,
    SUM,
    THREAD_SECONDS,
    Family,
)
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.sources.base import server_of
from prefect_stagegate.tracing import Attribute, fail_span, span
from prefect_stagegate.transfer import Transfer, TransferStats

LONGEST = 120
"""Characters that the value of a label may have."""
UNEXPECTED = "Unexpected"
"""The kind of every error that is none of this package's tree, so that no message or class of others is a label."""


class Step:
    """A step that runs."""

    def __init__(self) -> None:
        self.counts: list[Count] = []
        self.attributes: dict[str, Attribute] = {}

    def count(self, family: Family, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter when the step ends."""
        self.counts.append((family.name, labels, amount))

    def note(self, **attributes: Attribute) -> None:
        """Give the span attributes: `stagegate.digest`, `stagegate.bytes`, `stagegate.outcome`. No secret is one."""
        self.attributes |= {f"stagegate.{name}": value for name, value in attributes.items()}


@contextmanager
def step(workspace: Workspace, name: str, dataset: str, *, is_current: bool = True) -> Iterator[Step]:
    """Count and trace what the block does.

    Args:
        workspace: Its cache keeps the counters.
        name: The step: `list`, `plan`, `transfer`, …
        dataset: The dataset.
        is_current: Whether spans of the block are below this one's; see `span`.
    """
    running = Step()
    running.note(dataset=dataset)
    began, outcome = time.perf_counter(), "ok"
    with span(f"stagegate.{name}", running.attributes, is_current=is_current) as traced:
        try:
            yield running
        except (GeneratorExit, KeyboardInterrupt, SystemExit, Cancelled):
            outcome = "stopped"
            raise
        except BaseException as error:
            outcome, kind = "error", _kind_of(error)
            # Once, where it arose: the steps around this one see the same error.
            if vars(error).setdefault("_counted_in", id(running)) == id(running):
                running.count(ERRORS, name, kind)
            if traced:
                fail_span(traced, kind)
            raise
        finally:
            if traced:
                traced.set_attributes({"stagegate.outcome": outcome, **running.attributes})
            _keep(workspace, running, name, dataset, outcome, time.perf_counter() - began)


def transfer_step(workspace: Workspace, dataset: str, transfer: Transfer) -> Transfer:
    """Count and trace a transfer from its first receipt to its end, with its bytes by where they came from."""

    def receipts() -> Iterator[Receipt]:
        with step(workspace, "transfer", dataset, is_current=False) as running:
            try:
                yield from transfer
            finally:
                _count_transfer(running, transfer.stats)

    return Transfer(receipts(), transfer.stats)


def _count_transfer(running: Step, stats: TransferStats) -> None:
    running.note(objects=stats.objects, bytes=stats.fetched, bytes_reused=stats.reused)
    # By server, since every folder of it would be a series of its own.
    rows: list[tuple[str, str, int]] = [("cache", "", stats.reused), ("resumed", "", stats.resumed)]
    rows += [(tier, server_of(name), size) for (tier, name), (_, size) in stats.places.items() if tier != "cache"]
    for tier, source, size in rows:
        if size:
            running.count(BYTES, tier, source[:LONGEST], amount=size)
    running.count(OBJECTS, amount=stats.objects)
    running.count(RETRIES, amount=stats.retries)
    for side, seconds in stats.seconds.items():
        running.count(THREAD_SECONDS, side, amount=seconds)
    for failure in stats.failures:
        running.count(FAILED_OBJECTS, _kind_of(failure))


def _kind_of(error: BaseException) -> str:
    """The nearest type of this package's tree of errors."""
    tree = f"{__package__.partition('.')[0]}.errors"
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == tree), UNEXPECTED)


def _keep(workspace: Workspace, running: Step, name: str, dataset: str, outcome: str, seconds: float) -> None:
    running.count(STEPS, name, dataset, outcome)
    bucket = bisect_left(BUCKETS, seconds)
    workspace.cache.memory.count(
        [
            *running.counts,
            (STEP_SECONDS.name + BUCKET, (name, str(bucket)), 1.0),
            (STEP_SECONDS.name + SUM, (name,), seconds),
        ]
    )
