"""How all of these tasks run: uncached, retried once when the engine says that it may help, with readable names.

Also in async flows, by twins that keep the work off the event loop, and under every task runner.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from anyio import CancelScope
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State, TaskRun
from prefect.futures import PrefectFutureList, PrefectWrappedFuture
from prefect.tasks import exponential_backoff

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.spec import Spec
from prefect_stagegate.tasks._support.cancelling import WATCH, requested

RETRY_SECONDS = 10
"""About how long a task waits before its second try; the engine retried each object for a while already."""
SHORT_DIGEST = 19
STOPPING_SECONDS = 5.0
"""How long a cancelled coroutine waits for its work: a transfer stops within two seconds, other work may be left."""

P = ParamSpec("P")
R = TypeVar("R")


def may_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: the engine's judgement and nothing else."""
    del task, run
    return isinstance(state.data, StagegateError) and state.data.retryable


def run_options(run_name: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """What all of our tasks tell Prefect about how they run.

    A record of an earlier run says nothing about what lies on this node, so nothing is cached by Prefect; the engine
    finds out by itself what it need not do again.

    Args:
        run_name: Says what a run does, from its parameters.
    """

    def named(parameters: dict[str, Any]) -> str:  # Prefect looks for this parameter's name
        return run_name(parameters)

    return {
        "tags": {"stagegate"},
        "task_run_name": named,
        "cache_policy": NO_CACHE,
        "retries": 1,
        "retry_delay_seconds": exponential_backoff(RETRY_SECONDS),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": may_help,
    }


class EngineTask(Task[P, R]):
    """A task of ours. What is submitted to another process is told there when this one must end."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run to the flow's task runner; as every task's."""
        return _accompanied(super().submit(*args, **kwargs))

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run for each element; as every task's."""
        return _accompanied(super().map(*args, **kwargs))

    def with_options(self, **options: Any) -> Task[P, R]:
        """A copy with other options; as every task's."""
        changed = super().with_options(**options)
        changed.__class__ = type(self)  # Prefect makes a plain task
        return changed


def _accompanied(submitted: Any) -> Any:
    """Watch in this process while futures are away: the children of a process pool or of Dask look at their parent."""
    for future in submitted if isinstance(submitted, PrefectFutureList) else [submitted]:
        if isinstance(future, PrefectWrappedFuture):
            away = threading.Event()
            WATCH.add(away)
            future.add_done_callback(partial(_arrived, away))
    return submitted


def _arrived(away: threading.Event, _: object) -> None:
    WATCH.discard(away)


def engine_task(run_name: Callable[[Mapping[str, Any]], str]) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a Prefect task of a function that does one job of the engine, named as `run_options` says."""
    return lambda function: EngineTask(function, **run_options(run_name))


def async_twin(task: Task[P, R]) -> Task[P, Coroutine[Any, Any, R]]:
    """The same task for async flows: `await astage_dataset(…)`.

    The work runs in a thread of its own, so the event loop goes on. When the coroutine is cancelled, so is the work.
    """

    @wraps(task.fn)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(partial(task.fn, *args, **kwargs))

    twin.__name__, twin.__qualname__ = f"a{task.fn.__name__}", f"a{task.fn.__qualname__}"
    run_name = cast("Callable[[Mapping[str, Any]], str]", task.task_run_name)
    return EngineTask(twin, **run_options(run_name))


async def in_thread(work: Callable[[], R]) -> R:
    """Run a function in a thread with this context. A cancellation waits a while until the function has stopped."""
    end, context, done = threading.Event(), copy_context(), Future[R]()
    context.run(requested.set, end)

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the coroutine
            done.set_exception(error)

    # No pool: work behind other people's would wait. No end of the process waits for a daemon.
    threading.Thread(target=run, name="stagegate-work", daemon=True).start()
    waiting = asyncio.wrap_future(done)
    waiting.add_done_callback(lambda ended: ended.exception())  # seen, also when nobody waits for it any more
    try:
        await asyncio.wait([waiting])
    except asyncio.CancelledError:
        end.set()
        with CancelScope(shield=True):  # Prefect's time-outs would interrupt the waiting, too
            await asyncio.wait([waiting], timeout=STOPPING_SECONDS)
        raise
    return waiting.result()


def spoken(named: Any) -> str:
    """What a user named, short enough for a run's name.

    >>> spoken("specs/nycflights.yaml"), spoken("nycflights@production"), spoken({"dataset": "nycflights"})
    ('nycflights', 'nycflights@production', 'nycflights')
    """
    if isinstance(named, Spec):
        return named.dataset
    if isinstance(named, Mapping):
        return str(named.get("dataset", "a spec"))
    text = str(named)
    dataset, at, ref = text.partition("@")
    if at and "/" not in text:
        return f"{dataset}@{ref[:SHORT_DIGEST]}"
    return Path(text.partition("?")[0]).stem
