"""Nodes as workers of a Prefect work pool, each with a queue of its own: one deployment serves all of them.

A call of the API is about many nodes: 25 runs are started at a time, 200 read, and 50 cancelled.
Each run is read once, when it ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID, uuid4

import httpx
import orjson
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound, PrefectException
from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.errors import SourceUnavailable, UsageError
from prefect_stagegate.gate.prefect_state import require_api, worker_heartbeats
from prefect_stagegate.plugins.fleet.barrier import NodeReport
from prefect_stagegate.plugins.fleet.engines.fleet_engine import NodeJob, failed, lost

if TYPE_CHECKING:
    from datetime import datetime

    from prefect.client.orchestration import SyncPrefectClient

T = TypeVar("T")
_REPORT = TypeAdapter(NodeReport)

STARTED, READ, CANCELLED = 25, 200, 50
"""Runs that are started, read and cancelled in one call. Prefect starts 100 at most, which a busy server takes over a
minute for, and its client repeats a call after one."""
NAMED = 1000
"""Most runs that a filter names: its query has a parameter for each."""
HEARTBEATS_SECONDS = 10.0
"""Seconds between two looks at the workers' heartbeats, and at runs that somebody deleted."""
API_HINT = "Check PREFECT_API_URL with `prefect version`."
ENDED = FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))


class PoolEngine:
    """Runs jobs as flow runs of one deployment, each in its node's queue.

    Args:
        client: A client of Prefect's API.
        pool: The work pool.
        deployment: The deployment of the flow `stage_node`, as FLOW/DEPLOYMENT.
        lost_after: Seconds without a heartbeat of its worker after which a node is lost.
    """

    def __init__(self, client: SyncPrefectClient, pool: str, deployment: str, lost_after: float) -> None:
        self._client, self._pool, self._deployment = client, pool, deployment
        self._lost_after = lost_after
        self._runs: dict[UUID, str] = {}
        self._refused: dict[str, str] = {}
        self._key = ""
        """What the runs of one start have in common, so that a call that is repeated starts none twice."""
        self._heartbeats: dict[str, datetime] = {}
        """The workers' newest heartbeats, by the server's clock, which may differ from this one."""
        self._seen: dict[str, float] = {}
        """When a node's worker last had a new heartbeat; at first, when the jobs were started."""
        self._looked_at_workers = time.monotonic()

    def nodes(self) -> list[str]:
        """The names of the pool's workers, also of those that are gone."""
        return sorted(worker_heartbeats(self._pool))

    def start(self, jobs: Mapping[str, NodeJob]) -> None:
        """Create a flow run in the queue of each node."""
        deployment = self._required_deployment()
        self._runs, self._refused = {}, {}
        self._looked_at_workers = time.monotonic()
        # A worker that starts late has its time from now on.
        self._heartbeats, self._seen = worker_heartbeats(self._pool), dict.fromkeys(jobs, self._looked_at_workers)
        self._key = uuid4().hex
        for batch in _batches(jobs.items(), STARTED):
            self._start_many(deployment, dict(batch))
        # A server on SQLite fails a transaction of many runs while nodes report; one run at a time, the client retries.
        for node in list(self._refused):
            with suppress(httpx.HTTPError):
                self._start_one(deployment, node, jobs[node])

    def _start_many(self, deployment: UUID, jobs: Mapping[str, NodeJob]) -> None:
        parent = _parent()
        rows = [
            {"parent_task_run_id": parent and str(parent), **self._run_fields(node, job)} for node, job in jobs.items()
        ]
        try:
            results = self._post(f"/deployments/{deployment}/create_flow_run/bulk", rows)["results"]
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            self._refused |= dict.fromkeys(jobs, f"it answered {error.response.status_code}")
            return
        if errors := [result["error"] for result in results if result["status"] != "CREATED"]:
            # All of them: one failure may undo the transaction. The first line: Prefect adds its database's statement.
            self._refused |= dict.fromkeys(jobs, str(errors[0]).partition("\n")[0])
            return
        self._runs |= {UUID(result["flow_run_id"]): node for node, result in zip(jobs, results, strict=True)}

    def _start_one(self, deployment: UUID, node: str, job: NodeJob) -> None:
        run = self._client.create_flow_run_from_deployment(
            deployment, parent_task_run_id=_parent(), **self._run_fields(node, job)
        )
        self._runs[run.id] = node
        del self._refused[node]

    def poll(self) -> Iterator[tuple[str, NodeReport]]:
        """The nodes whose runs ended, or whose workers are gone."""
        for node in list(self._refused):
            yield node, failed(node, f"Prefect did not start its run: {self._refused.pop(node)}")
        try:
            yield from self._ended()
            if self._runs and time.monotonic() - self._looked_at_workers >= HEARTBEATS_SECONDS:
                self._looked_at_workers = time.monotonic()
                yield from self._deleted()
                yield from self._lost()
        except (httpx.HTTPError, PrefectException) as error:
            raise SourceUnavailable(f"Prefect's API did not answer: {type(error).__name__}", hint=API_HINT) from error

    def cancel(self, nodes: Iterable[str]) -> None:
        """Cancel runs. One that has not started never will; a running one is ended by its worker."""
        wanted = set(nodes)
        runs = [run for run, node in self._runs.items() if node in wanted]
        for batch in _batches(runs, CANCELLED):
            ids = {"id": {"any_": [str(run) for run in batch]}}
            self._post("/flow_runs/bulk_set_state", {"flow_runs": ids, "state": {"type": "CANCELLING"}})

    def _ended(self) -> Iterator[tuple[str, NodeReport]]:
        for batch in _batches(list(self._runs), NAMED):
            waiting, is_more = batch, True
            while waiting and is_more:
                ended = self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=waiting), state=ENDED), limit=READ
                )
                for run in ended:
                    node = self._runs.pop(run.id)
                    yield node, _report(node, run)
                waiting, is_more = [run for run in waiting if run in self._runs], len(ended) == READ

    def _deleted(self) -> Iterator[tuple[str, NodeReport]]:
        """The nodes whose runs are gone. Runs are read only where the server has fewer than were started."""
        for batch in _batches(list(self._runs), NAMED):
            count = self._post("/flow_runs/count", {"flow_runs": {"id": {"any_": [str(run) for run in batch]}}})
            for part in _batches(batch, READ) if count < len(batch) else ():
                runs = self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=part)), limit=READ
                )
                for run in set(part) - {run.id for run in runs}:
                    node = self._runs.pop(run)
                    yield node, failed(node, "its flow run was deleted")

    def _lost(self) -> Iterator[tuple[str, NodeReport]]:
        """The nodes whose workers are silent for too long. Their runs stay known, to be cancelled."""
        now, before = time.monotonic(), self._heartbeats
        self._heartbeats = worker_heartbeats(self._pool)
        for node in self._runs.values():
            last = self._heartbeats.get(node)
            if last != before.get(node):
                self._seen[node] = now
            elif now - self._seen[node] > self._lost_after:
                when = f"its last heartbeat was at {last:%Y-%m-%dT%H:%M:%SZ}" if last else "it never had a heartbeat"
                yield node, lost(node, f"its worker in the pool {self._pool} is gone: {when}")

    def _required_deployment(self) -> UUID:
        try:
            deployment = self._client.read_deployment_by_name(self._deployment)
        except ObjectNotFound as error:
            raise UsageError(
                f"Prefect has no deployment {self._deployment!r}",
                hint="docs/how-to/stage-a-fleet.md deploys the flow `stage_node`.",
            ) from error
        if deployment.work_pool_name != self._pool:
            raise UsageError(
                f"The deployment {self._deployment!r} is of the work pool {deployment.work_pool_name!r}, "
                f"not {self._pool!r}"
            )
        return deployment.id

    def _run_fields(self, node: str, job: NodeJob) -> dict[str, Any]:
        return {
            "name": f"{node}: {job.name}",
            "parameters": job.parameters(),
            "work_queue_name": node,
            "idempotency_key": f"{self._key}-{node}",
        }

    def _post(self, path: str, body: Any) -> Any:
        # Prefect's client has no method for the calls that do many runs at once.
        response = self._client.request("POST", cast("Any", path), json=body)
        response.raise_for_status()
        return response.json()


@contextmanager
def pool_engine(pool: str, deployment: str, lost_after: float) -> Iterator[PoolEngine]:
    """An engine on a Prefect work pool.

    Raises:
        UsageError: No API is configured, or it has no such pool.
        SourceUnavailable: The API does not answer.
    """
    require_api("a fleet's nodes are queues of its work pools")
    try:
        with get_client(sync_client=True) as client:
            client.read_work_pool(pool)
            yield PoolEngine(client, pool, deployment, lost_after)
    except ObjectNotFound as error:
        raise UsageError(f"Prefect has no work pool {pool!r}", hint="`prefect work-pool ls` lists them.") from error
    except httpx.HTTPStatusError as error:
        request = error.request
        raise SourceUnavailable(
            f"Prefect's API answered {error.response.status_code} to {request.method} {request.url.path}",
            hint="The log of its server says why.",
        ) from error
    except httpx.HTTPError as error:
        raise SourceUnavailable(f"Prefect's API did not answer: {type(error).__name__}", hint=API_HINT) from error


def _parent() -> UUID | None:
    """The task run that the nodes' runs belong to."""
    context = TaskRunContext.get()
    return context.task_run.id if context else None


def _report(node: str, run: FlowRun) -> NodeReport:
    """The report of a run that ended."""
    state = run.state
    if state is None:
        return failed(node, "its flow run has no state")
    if state.type is not StateType.COMPLETED:
        return failed(node, f"{state.name}: {state.message or 'Prefect gives no reason'}")
    without = f"its run {run.name} ended without a report: the deployment is of another flow or release"
    report = from_message(state.message or "")
    return failed(node, without) if report is None else report


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def to_message(report: NodeReport) -> str:
    """Write a report as JSON: the message of its flow run's state."""
    return orjson.dumps(asdict(report)).decode()


def from_message(message: str) -> NodeReport | None:
    """Read a report; None for a message that holds none."""
    try:
        return _REPORT.validate_json(message)
    except ValidationError:
        return None
