"""Work pools.

Checks on where Prefect sends runs: is the pool open, does a worker live, does its queue move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

from pydantic import Field

from prefect_stagegate.gate import prefect_state
from prefect_stagegate.gate.base import Ceilings, CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Outcome, Scope
from prefect_stagegate.spec import Duration
from prefect_stagegate.units import age_text, count_text, time_text

HOLDS = timedelta(minutes=5)
"""A worker can die at any time."""
T = TypeVar("T")


class WorkPool(Parameters):
    """Which pool runs the flows is for the user to say."""

    pool: str = Field(default="", description="The work pool's name.", examples=["gpu"])


class Worker(WorkPool, Ceilings):
    """A worker tells every 30 seconds that it lives (PREFECT_WORKER_HEARTBEAT_SECONDS)."""

    warn: Duration = Field(
        default=timedelta(seconds=30),
        description="The age of the last heartbeat above which it warns.",
        examples=["1m"],
    )
    fail: Duration = Field(
        default=timedelta(seconds=90),
        description="The age of the last heartbeat above which it fails.",
        examples=["3m"],
    )


@Check("worker", owner="infra", scope=Scope.ENVIRONMENT, ttl=HOLDS, renewal=Renewal.CHEAP)
def worker(context: CheckContext, parameters: Worker) -> CheckResult:
    """Whether a worker of the work pool lives: the age of the last heartbeat of any of them.

    Up to `warn` (30s) passes, up to `fail` (90s) warns, older and none fail: Prefect takes a worker for offline after
    three missed heartbeats.
    """
    if not parameters.pool:
        return missing_parameter("worker", "pool", "prefect work-pool ls")
    seen, problem = look_up(lambda: prefect_state.heartbeat(parameters.pool))
    subject, fix = f"work pool {parameters.pool}", f"prefect worker start --pool {parameters.pool}"
    if seen is None:
        return one_finding(Outcome.FAIL, subject, problem or "no worker ever sent a heartbeat", fix)
    age = max(context.now - seen, timedelta(0))  # the server's clock may be ahead
    measured = {"pool": parameters.pool, "age_seconds": age.total_seconds()}
    summary = f"last heartbeat at {time_text(seen)}"
    if age <= parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if age <= parameters.fail else Outcome.FAIL
    limit = parameters.warn if outcome is Outcome.WARN else parameters.fail
    silent = f"the last heartbeat was at {time_text(seen)}, more than {age_text(limit)} before the check"
    return one_finding(outcome, subject, silent, fix, measured, summary=summary)


@Check("work_pool", owner="infra", scope=Scope.ENVIRONMENT, ttl=HOLDS, renewal=Renewal.CHEAP)
def work_pool(context: CheckContext, parameters: WorkPool) -> CheckResult:  # noqa: ARG001
    """Whether the work pool takes runs: Prefect calls it ready, which passes; paused or not ready fails.

    A pool is ready when a worker of it lives. One whose slots are all in use warns.
    """
    if not parameters.pool:
        return missing_parameter("work_pool", "pool", "prefect work-pool ls")
    subject = f"work pool {parameters.pool}"
    pool, problem = look_up(lambda: prefect_state.work_pool(parameters.pool))
    if pool is None:
        fix = f"prefect work-pool create {parameters.pool}"
        return one_finding(Outcome.FAIL, subject, problem, fix)
    measured = {"pool": parameters.pool, "status": pool.status, "limit": pool.limit, "active": pool.active}
    if pool.status == "READY":
        return _free_slots(subject, parameters.pool, pool, measured)
    outcome = Outcome.FAIL if pool.status else Outcome.INCONCLUSIVE
    problem = f"it is {pool.status.lower().replace('_', ' ') or 'of no known status'}"
    resume = f"prefect work-pool resume {parameters.pool}"
    fix = resume if pool.status == "PAUSED" else f"prefect worker start --pool {parameters.pool}"
    return one_finding(outcome, subject, problem, fix, measured)


def _free_slots(subject: str, name: str, pool: prefect_state.Pool, measured: Mapping[str, object]) -> CheckResult:
    if pool.limit is not None and (pool.active or 0) >= pool.limit:
        problem = f"all of its {count_text(pool.limit, 'slot')} are in use"
        fix = f"Wait, or raise it: prefect work-pool set-concurrency-limit {name} {pool.limit + 1}"
        # A pool without slots runs nothing, however long one waits.
        outcome = Outcome.WARN if pool.limit else Outcome.FAIL
        return one_finding(outcome, subject, problem, fix, measured)
    return CheckResult(Outcome.PASS, "ready", measured=measured)


class WorkQueue(WorkPool):
    """Prefect's own policy of a queue's health: no late run, and polled within 60 seconds."""

    queue: str = Field(default="default", description="The queue's name.", examples=["high"])
    polled: Duration = Field(
        default=timedelta(seconds=60), description="The age of the last poll above which it fails.", examples=["2m"]
    )


@Check("queue", owner="infra", scope=Scope.ENVIRONMENT, ttl=HOLDS, renewal=Renewal.CHEAP)
def queue(context: CheckContext, parameters: WorkQueue) -> CheckResult:
    """Whether the work queue moves: a worker polls it, and no run is late.

    Polled within `polled` (60s) without a late run passes, late runs warn, a queue that is paused or that nobody polls
    fails, as in Prefect's WorkQueueHealthPolicy.
    """
    if not parameters.pool:
        return missing_parameter("queue", "pool", "prefect work-queue ls")
    subject = f"queue {parameters.pool}/{parameters.queue}"
    work_queue, problem = look_up(lambda: prefect_state.queue(parameters.pool, parameters.queue))
    if work_queue is None:
        fix = f"prefect work-queue create {parameters.queue} --pool {parameters.pool}"
        return one_finding(Outcome.FAIL, subject, problem, fix)
    # The server's clock may be ahead.
    age = max(context.now - work_queue.polled, timedelta(0)) if work_queue.polled else None
    measured = {"late_runs": work_queue.late, "polled_seconds": age.total_seconds() if age is not None else None}
    if work_queue.paused:
        fix = f"prefect work-queue resume {parameters.queue} --pool {parameters.pool}"
        return one_finding(Outcome.FAIL, subject, "it is paused", fix, measured)
    if work_queue.polled is None or age is None or age > parameters.polled:
        problem = "no worker ever polled it"
        if work_queue.polled:
            limit = age_text(parameters.polled)
            problem = f"the last poll was at {time_text(work_queue.polled)}, more than {limit} before the check"
        fix = f"prefect worker start --pool {parameters.pool} --work-queue {parameters.queue}"
        return one_finding(Outcome.FAIL, subject, problem, fix, measured)
    if work_queue.late:
        problem = f"late: {count_text(work_queue.late, 'run')}"
        fix = "Start another worker, or raise the limits that hold them: prefect flow-run ls --state Late"
        return one_finding(Outcome.WARN, subject, problem, fix, measured)
    return CheckResult(Outcome.PASS, f"polled at {time_text(work_queue.polled)}", measured=measured)


def missing_parameter(name: str, parameter: str, lists: str) -> CheckResult:
    """The answer of a check whose gate leaves out the parameter that names what to look at."""
    fix = f"Set it in the gate, as in {{{name}: {{{parameter}: …}}}}; `{lists}` lists what there is."
    return one_finding(Outcome.INCONCLUSIVE, name, f"the gate names no {parameter}", fix)


def look_up(fetch: Callable[[], T]) -> tuple[T | None, str]:
    """The fetched object, or None with the message when Prefect has no such object. Other errors are raised."""
    try:
        return fetch(), ""
    except prefect_state.NotThere as error:
        return None, error.message
