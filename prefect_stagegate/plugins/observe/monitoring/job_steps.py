"""The steps of jobs: each is a span, and what it did is counted on this node when it ends.

    with step(workspace, "promote", dataset) as figures:
        …
        figures.note(digest=digest)

Jobs are short processes that nobody scrapes. So the counters lie in the cache's `index.sqlite`, and add up over jobs.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from prefect_stagegate.cache.memory import Count
from prefect_stagegate.errors import Cancelled
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Receipt
from prefect_stagegate.plugins.observe.monitoring.families import (
    BUCKET,
    BUCKETS,
    BYTES,
    ERRORS,
    FAILED_OBJECTS,
    LONGEST,
    OBJECTS,
    RETRIES,
    STEP_SECONDS,
    STEPS,
    SUM,
    THREAD_SECONDS,
    Family,
)
from prefect_stagegate.plugins.observe.tracing import Attribute, fail_span, span
from prefect_stagegate.sources.base import server_of
from prefect_stagegate.transport.transfer import Transfer, TransferStats

UNEXPECTED = "Unexpected"
"""The kind of every error that is none of this package's tree, so that no message or class of others is a label."""


class StepFigures:
    """What a step did: attributes of its span, and what is added to counters when it ends."""

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
def step(workspace: Workspace, name: str, dataset: str, *, is_current: bool = True) -> Iterator[StepFigures]:
    """Count and trace what the block does.

    Args:
        workspace: Its cache keeps the counters.
        name: The step: `list`, `plan`, `transfer`, …
        dataset: The dataset.
        is_current: Whether spans of the block are below this one's; see `span`.
    """
    figures = StepFigures()
    figures.note(dataset=dataset)
    began, outcome = time.perf_counter(), "ok"
    with span(f"stagegate.{name}", figures.attributes, is_current=is_current) as traced:
        try:
            yield figures
        except (GeneratorExit, KeyboardInterrupt, SystemExit, Cancelled):
            outcome = "stopped"
            raise
        except BaseException as error:
            outcome, kind = "error", _kind_of(error)
            # Once, where it arose: the steps around this one see the same error.
            if vars(error).setdefault("_counted_in", id(figures)) == id(figures):
                figures.count(ERRORS, name, kind)
            if traced:
                fail_span(traced, kind)
            raise
        finally:
            if traced:
                traced.set_attributes({"stagegate.outcome": outcome, **figures.attributes})
            _keep(workspace, figures, name, dataset, outcome, time.perf_counter() - began)


def transfer_step(workspace: Workspace, dataset: str, transfer: Transfer) -> Transfer:
    """Count and trace a transfer from its first receipt to its end, with its bytes by where they came from."""

    def receipts() -> Iterator[Receipt]:
        with step(workspace, "transfer", dataset, is_current=False) as figures:
            try:
                yield from transfer
            finally:
                _count_transfer(figures, transfer.stats)

    return Transfer(receipts(), transfer.stats)


def _count_transfer(figures: StepFigures, stats: TransferStats) -> None:
    figures.note(objects=stats.objects, bytes=stats.fetched, bytes_reused=stats.reused)
    rows: list[tuple[str, str, int]] = [("cache", "", stats.reused), ("resumed", "", stats.resumed)]
    # A copy: a thread that was left behind may add still. By server, since every folder of it would be a series.
    places = dict(stats.places)
    rows += [(tier, server_of(name), size) for (tier, name), (_, size) in places.items() if tier != "cache"]
    for tier, source, size in rows:
        if size:
            figures.count(BYTES, tier, source[:LONGEST], amount=size)
    figures.count(OBJECTS, amount=stats.objects)
    figures.count(RETRIES, amount=stats.retries)
    for side, seconds in stats.seconds.items():
        figures.count(THREAD_SECONDS, side, amount=seconds)
    for failure in stats.failures:
        figures.count(FAILED_OBJECTS, _kind_of(failure))


def _kind_of(error: BaseException) -> str:
    """The nearest type of this package's tree of errors."""
    tree = f"{__package__.partition('.')[0]}.errors"
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == tree), UNEXPECTED)


def _keep(workspace: Workspace, figures: StepFigures, name: str, dataset: str, outcome: str, seconds: float) -> None:
    # A stream that nobody ended is closed at last, when another thread may have stopped for ever in the database.
    if sys.is_finalizing():
        return
    figures.count(STEPS, name, dataset, outcome)
    bucket = bisect_left(BUCKETS, seconds)
    workspace.cache.memory.count(
        [
            *figures.counts,
            (STEP_SECONDS.name + BUCKET, (name, str(bucket)), 1.0),
            (STEP_SECONDS.name + SUM, (name,), seconds),
        ]
    )
