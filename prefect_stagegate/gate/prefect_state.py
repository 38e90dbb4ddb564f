"""The state of Prefect's work pools, workers, queues, schedules, limits and automations, from its API.

No other module of the engine imports Prefect, and this one does so only inside its functions: a gate without a check
on Prefect needs no Prefect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect_stagegate.errors import SourceUnavailable, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Worker

SECONDS = 10.0
"""How long one call to the API may take."""
MOST_DAYS = timedelta(days=90)
"""How far back events are read. A server keeps them for 7 days by default."""
MOST_WORKERS = 10_000
"""Workers of a pool that are looked at, at most."""
_PAGE = 200
"""Most objects that Prefect's API returns at once."""
EXECUTED, FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool."""

    status: str
    """`READY`, `NOT_READY` or `PAUSED`; empty when the server does not say."""
    limit: int | None
    active: int | None
    """Slots in use; None without a limit."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A work queue."""

    paused: bool
    polled: datetime | None
    """When a worker last polled it for runs."""
    late: int
    """Number of runs that should have begun."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment's schedules."""

    paused: bool
    schedules: int
    active: int
    next: datetime | None
    """When its next run is due, as the server planned it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A global concurrency limit."""

    active: bool
    """Whether it is in force."""
    slots: int
    used: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """The last action of an automation, whether or not it succeeded."""

    at: datetime
    executed: bool
    reason: str = ""
    """Why the action failed; empty when it succeeded."""


class NotThere(UsageError):
    """Prefect has no object of that name. A check reports this as a finding, for the look-up itself worked."""


def require_api(purpose: str) -> None:
    """Raise unless PREFECT_API_URL or Prefect's profile names an API.

    Args:
        purpose: The rest of the message after "No Prefect API is configured, and".

    Raises:
        UsageError: No API is named.
    """
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        hint = "Set PREFECT_API_URL, or name it in a profile: prefect config set PREFECT_API_URL=http://HOST:4200/api"
        raise UsageError(f"No Prefect API is configured, and {purpose}", hint=hint)


@contextmanager
def _client(subject: str = "") -> Iterator[SyncPrefectClient]:
    """A client of the API that Prefect's settings name. Never starts a server of its own.

    Raises:
        UsageError: The settings name no API.
        NotThere: Prefect has no `subject`.
        SourceUnavailable: The API does not answer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectException

    # Without an API, Prefect's client would start a server of its own, which knows nothing of the user's objects.
    require_api("the check asks it")
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client:
            yield client
    except ObjectNotFound as error:
        raise NotThere(f"Prefect has no {subject}") from error
    except (httpx.HTTPError, PrefectException) as error:
        hint = "Check PREFECT_API_URL with `prefect version`."
        raise SourceUnavailable(f"Prefect's API did not answer: {type(error).__name__}", hint=hint) from error


def heartbeat(pool: str) -> datetime | None:
    """The newest heartbeat of a pool's workers; None when it never had one."""
    return max(worker_heartbeats(pool).values(), default=None)


def work_pool(name: str) -> Pool:
    """The state of a work pool."""
    with _client(f"work pool {name!r}") as client:
        pool = client.read_work_pool(name)
    status = "PAUSED" if pool.is_paused else pool.status.value if pool.status else ""
    return Pool(status, pool.concurrency_limit, pool.active_slots)


def queue(pool: str, name: str) -> Queue:
    """The state of a work queue."""
    with _client(f"queue {name!r} in the work pool {pool!r}") as client:
        work_queue = client.read_work_queue_by_name(name, work_pool_name=pool)
        status = client.read_work_queue_status(work_queue.id)
    return Queue(work_queue.is_paused, status.last_polled, status.late_runs_count)


def worker_heartbeats(pool: str) -> dict[str, datetime]:
    """The newest heartbeat of each worker of a pool, by the worker's name and the server's clock.

    Which queues are polled says less: Prefect 3.9 notes few of the polls of a pool that many workers poll.
    """
    newest = {worker.name: worker.last_heartbeat_time for worker in _workers(pool)}
    return {name: last for name, last in newest.items() if last}


def live_workers(pool: str) -> frozenset[str]:
    """The names of a pool's workers that are online: the server had at least one of the last three heartbeats."""
    from prefect.client.schemas.objects import WorkerStatus

    return frozenset(worker.name for worker in _workers(pool) if worker.status is WorkerStatus.ONLINE)


def _workers(pool: str) -> list[Worker]:
    workers: list[Worker] = []
    with _client(f"work pool {pool!r}") as client:
        client.read_work_pool(pool)  # raises for a missing pool; the list of its workers would just be empty
        for offset in range(0, MOST_WORKERS, _PAGE):
            page = client.read_workers_for_work_pool(pool, limit=_PAGE, offset=offset)
            workers += page
            if len(page) < _PAGE:
                break
    return workers


def deployment(name: str) -> Deployment:
    """The schedules of a deployment, which is named FLOW/DEPLOYMENT."""
    if name.count("/") != 1:
        raise UsageError(
            f"{name!r} names no deployment", hint="Write FLOW/DEPLOYMENT, as `prefect deployment ls` does."
        )
    with _client(f"deployment {name!r}") as client:
        definition = client.read_deployment_by_name(name)
        due = _next_run(client, definition.id)
    active = sum(schedule.active for schedule in definition.schedules)
    return Deployment(definition.paused, len(definition.schedules), active, due)


def _next_run(client: SyncPrefectClient, deployment: UUID) -> datetime | None:
    """When the next planned run is due; None without one. Polling as a worker does would mark it as polled."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    return (runs[0].next_scheduled_start_time or runs[0].expected_start_time) if runs else None


def limit(name: str) -> Limit:
    """The state of a global concurrency limit."""
    with _client(f"concurrency limit {name!r}") as client:
        global_limit = client.read_global_concurrency_limit_by_name(name)
    return Limit(global_limit.active, global_limit.limit, global_limit.active_slots)


def last_delivery(automation: str, since: datetime) -> Delivery | None:
    """The last action of an automation since a moment, by the server's events; None without one."""
    from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter

    with _client(f"automation {automation!r}") as client:
        automations = client.read_automations_by_name(automation)
        if not automations:
            raise NotThere(f"Prefect has no automation {automation!r}")
        # Names of automations are not unique: one that is enabled suffices.
        if not any(match.enabled for match in automations):
            raise NotThere(f"Prefect has the automation {automation!r}, but it is disabled")
        event_filter = EventFilter(
            occurred=EventOccurredFilter(since=since),
            event=EventNameFilter(name=[EXECUTED, FAILED]),
            resource=EventResourceFilter(id=[f"prefect.automation.{match.id}" for match in automations]),
        )
        events = client.read_events(event_filter, limit=1).events
    if not events:
        return None
    return Delivery(events[0].occurred, events[0].event == EXECUTED, str(events[0].payload.get("reason", "")))
