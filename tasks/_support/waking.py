"""Waking flow runs that are suspended until somebody answers, once the answer is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.model import Approval, Wait

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE = 15.0
"""Seconds that `wake` waits for a run which is about to suspend."""


@dataclass(frozen=True, slots=True)
class Woken:
    """What became of a flow run that waited for an answer."""

    flow_run: str
    resumed: bool
    told: str
    """In words."""


def wake(waits: Iterable[Wait], given: Approval) -> tuple[Woken, ...]:
    """Resume the flow runs that wait for an answer that is recorded. Nothing is raised: it is recorded, after all.

    Args:
        waits: Who waits.
        given: The answer, which their forms are filled in with.
    """
    return tuple(_woken(waits, given))


def _woken(waits: Iterable[Wait], given: Approval) -> Iterator[Woken]:
    url = PREFECT_API_URL.value()
    decision = "approve" if given.approved else "decline"
    form = {"decision": decision, "name": given.approver.name, "reason": given.reason}
    for one in waits:
        if not url:
            yield Woken(one.flow_run, False, "PREFECT_API_URL does not say where Prefect's API is")
            continue
        try:
            with get_client(sync_client=True) as client:
                yield _resume(client, UUID(one.flow_run), form)
        except ObjectNotFound:
            yield Woken(one.flow_run, False, f"{url} does not know it")
        except httpx.HTTPError as error:
            yield Woken(one.flow_run, False, f"{url} did not answer: {error}")


def _resume(client: SyncPrefectClient, run: UUID, form: dict[str, Any]) -> Woken:
    """Resume one run, once it is suspended: it may be about to."""
    until = time.monotonic() + PATIENCE
    while True:
        result = client.resume_flow_run(run, form)
        if result.status is SetStateStatus.ACCEPT:
            return Woken(str(run), True, "goes on")
        state = client.read_flow_run(run).state
        if state is None or state.is_final() or state.is_scheduled() or state.is_pending():
            return Woken(str(run), False, f"does not wait any more, but is {state.name if state else 'gone'}")
        if time.monotonic() > until:
            return Woken(str(run), False, f"could not be resumed: {getattr(result.details, 'reason', state.name)}")
        time.sleep(0.5)
