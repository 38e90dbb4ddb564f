"""Slots of concurrency limits: a transfer holds one for its node and one for each of its sources.

It takes all of them at once before it lists anything, and releases them after its version is published. It never holds
one slot while it waits for another, so no two transfers wait for each other.

Limits that don't exist, disabled limits and an API that doesn't answer never stop a transfer, since needed data matter
more than limits. A limit of 0 closes its node or source until somebody raises it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Event

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException

from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.settings import Settings
from prefect_stagegate.spec import Spec
from prefect_stagegate.tasks._support.limits import node_limit, read_limits, reason_of, source_limit
from prefect_stagegate.tasks._support.notify import in_a_run, run_log

PAUSE = (2.0, 15.0)
"""The shortest and longest time between two looks for a free slot, in seconds; the server says when to look again."""
NO_SLOT = (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY)
"""The server's status codes for a limit without free slots, and for a limit of 0."""
API_ERRORS = (httpx.HTTPError, PrefectException, ConcurrencySlotAcquisitionError)


@contextmanager
def admit(spec: Spec, cancel: Event | None = None) -> Iterator[None]:
    """Hold slots of this node and of a spec's sources during the block. Outside of a run, do nothing.

    Args:
        spec: The spec. Mirrors of its sources don't count, since nobody knows beforehand whether they are read.
        cancel: Set it to stop waiting.

    Raises:
        StagegateError: No slot became free within STAGEGATE_SLOT_WAIT.
        Cancelled: `cancel` was set.
    """
    with ExitStack() as slots:
        if in_a_run():
            settings = Settings.from_environment(os.environ)
            names = {node_limit(settings.node), *(source_limit(source.url) for source in spec.sources)}
            try:
                # All at once: two transfers that each held one slot could wait for each other's.
                _take(slots, _existing(names), settings.slot_wait, cancel or Event())
            except API_ERRORS as error:
                run_log().warning("Concurrency limits are ignored: %s", reason_of(error))
        yield


def _existing(names: Collection[str]) -> list[str]:
    """The limits that exist, sorted. Prefect would log a warning about each of the others."""
    with get_client(sync_client=True) as client:
        return sorted(read_limits(client, names))


def _take(slots: ExitStack, names: Sequence[str], wait: float, cancel: Event) -> None:
    """Take a slot of each limit at once, trying again until all of them have a free one."""
    limits, begun, has_waited = " and ".join(names), time.monotonic(), False
    while (pause := _try(slots, names)) is not None:
        left = begun + wait - time.monotonic()
        if left <= 0:
            raise StagegateError(
                f"No slot of {limits} became free in {wait:.0f} s",
                hint="`prefect global-concurrency-limit inspect NAME` shows a limit, `stagegate limits` raises it, and "
                "STAGEGATE_SLOT_WAIT says how long to wait.",
            )
        if not has_waited:
            run_log().info("Waiting for a free slot of %s, %.0f s at most", limits, wait)
            has_waited = True
        if cancel.wait(min(pause, left)):
            raise Cancelled(f"Stopped waiting for a free slot of {limits}")
    if has_waited:
        run_log().info("Got a slot of %s after %.0f s", limits, time.monotonic() - begun)


def _try(slots: ExitStack, names: Sequence[str]) -> float | None:
    """Take the slots at once, or return the seconds after which to try again."""
    if not names:
        return None
    # A lease that can't be renewed ends no transfer: needed data matter more than limits.
    held = concurrency(list(names), max_retries=0, raise_on_lease_renewal_failure=False)
    try:
        # By hand, because leaving may fail, and its error must not hide what the block raised.
        held.__enter__()
    except ConcurrencySlotAcquisitionError as error:
        response = getattr(error.__cause__, "response", None)
        if response is None or response.status_code not in NO_SLOT:
            raise
        low, high = PAUSE
        return min(max(low, float(response.headers.get("Retry-After", high))), high)
    slots.callback(_give_back, held)
    return None


def _give_back(held: AbstractContextManager[None]) -> None:
    """Release the slots. An error is logged only: the server releases them when their lease ends."""
    try:
        held.__exit__(None, None, None)
    except API_ERRORS as error:
        run_log().warning("Slots of concurrency limits are released some minutes late: %s", reason_of(error))
