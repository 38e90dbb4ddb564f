"""Resume flow runs that are suspended until somebody answers, once the answer is recorded."""

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
"""Seconds that `wake` waits for a run that is about to suspend."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The result of waking one flow run."""

    flow_run: str
    resumed: bool
    told: str
    """The result in words, after "Flow run <id>"."""


def wake(waits: Iterable[Wait], answer: Approval) -> tuple[Woken, ...]:
    """Resume the flow runs that wait for a recorded answer. Raise nothing, since the answer counts in any case.

    The answer fills in their forms.
    """
    return tuple(_woken(waits, answer))


def _woken(waits: Iterable[Wait], answer: Approval) -> Iterator[Woken]:
    url = PREFECT_API_URL.value()
    decision = "approve" if answer.approved else "decline"
    form = {"decision": decision, "name": answer.approver.name, "reason": answer.reason}
    for wait in waits:
        if not url:
            yield Woken(wait.flow_run, False, "was not resumed: PREFECT_API_URL is not set")
            continue
        try:
            with get_client(sync_client=True) as client:
                yield _resume(client, UUID(wait.flow_run), form)
        # A run may wait on another server than the one that answers here, or may have been deleted.
        except ObjectNotFound:
            yield Woken(wait.flow_run, False, f"is unknown to {url}")
        except httpx.HTTPError as error:
            yield Woken(wait.flow_run, False, f"was not resumed: {url} did not answer: {error}")


def _resume(client: SyncPrefectClient, run: UUID, form: dict[str, Any]) -> Woken:
    """Resume one run. Wait for it when it is about to suspend."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = client.resume_flow_run(run, form)
        if result.status is SetStateStatus.ACCEPT:
            return Woken(str(run), True, "was resumed")
        # The server refused: the run is over, will start anyway, or is still on its way into suspension.
        state = client.read_flow_run(run).state
        if state is None or state.is_final() or state.is_scheduled() or state.is_pending():
            return Woken(str(run), False, f"no longer waits, but is {state.name if state else 'gone'}")
        if time.monotonic() > deadline:
            return Woken(str(run), False, f"could not be resumed: {getattr(result.details, 'reason', state.name)}")
        time.sleep(0.5)
