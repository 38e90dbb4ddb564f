"""How all tasks of this package run: uncached, with readable names, and retried once when the error is retryable.

They run under every task runner, and in async flows by twins that keep the work off the event loop. `open_places` opens
the cache and the catalog that their parameters or the settings name.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from anyio import CancelScope
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State, TaskRun
from prefect.client.schemas.objects import StateType
from prefect.context import TaskRunContext
from prefect.futures import PrefectFutureList, PrefectWrappedFuture
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from prefect_stagegate.blocks import StagegateCache, StagegateCatalog, options_of, storage_options
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.spec import Spec
from prefect_stagegate.tasks._support.cancelling import WATCH, requested
from prefect_stagegate.tasks._support.slots import admit
from prefect_stagegate.workspace import Workspace

RETRY_SECONDS = 10
"""Seconds, approximately, before a task's second try. The transfer has retried each object for a while before."""
SHORT_DIGEST = 19
"""Characters of a digest in a run's name."""
STOPPING_SECONDS = 5.0
"""Seconds that a cancelled coroutine waits for its work. A transfer stops within two; other work may go on."""

P = ParamSpec("P")
R = TypeVar("R")


def may_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help, which only the error's `retryable` decides."""
    del task, run
    return isinstance(state.data, StagegateError) and state.data.retryable


def run_options(run_name: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """Prefect's options for all tasks of this package.

    Prefect caches nothing: the result of an earlier run says nothing about the files on this node. Each job finds out
    by itself what it need not do again.
    """

    def task_run_name(parameters: dict[str, Any]) -> str:  # Prefect looks for this parameter's name
        return run_name(parameters)

    return {
        "tags": {"stagegate"},
        "task_run_name": task_run_name,
        "cache_policy": NO_CACHE,
        "retries": 1,
        "retry_delay_seconds": exponential_backoff(RETRY_SECONDS),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": may_help,
    }


class Answered(State[R]):
    """A failed state that has a result: Prefect shows it as failed, and reading it raises nothing."""

    def result(self, raise_on_failure: bool = True, **options: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        """The answer."""
        return super().result(raise_on_failure=False, **options)

    async def aresult(self, raise_on_failure: bool = True, **options: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        """The answer."""
        return await super().aresult(raise_on_failure=False, **options)


def answered(result: R, name: str, message: str) -> R:
    """Return a task's result that its run shows as a failure of this name. Anywhere else: the result alone."""
    context = TaskRunContext.get()
    # Outside of a flow, somebody in another process may read the state from the server, and gets Prefect's own class.
    if context is None or not isinstance(context.task, EngineTask) or context.task_run.flow_run_id is None:
        return result
    return cast("R", Answered(type=StateType.FAILED, name=name, message=message, data=result))


class EngineTask(Task[P, R]):
    """A task whose runs in other processes find out when this process must end."""

    if not TYPE_CHECKING:  # which would hide the function's parameters from type checkers

        def __call__(self, *args: Any, return_state: bool = False, **kwargs: Any) -> Any:
            ended = super().__call__(*args, return_state=return_state, **kwargs)
            return ended if return_state else _opened(ended)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run to the flow's task runner, as `Task.submit` does."""
        return _watched_while_away(super().submit(*args, **kwargs))

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run for each element, as `Task.map` does."""
        return _watched_while_away(super().map(*args, **kwargs))

    def with_options(self, **options: Any) -> Task[P, R]:
        """A copy with other options, as `Task.with_options` makes it."""
        changed = super().with_options(**options)
        changed.__class__ = type(self)  # Prefect makes a plain task
        return changed


def _opened(ended: Any) -> Any:
    async def awaited() -> Any:
        return _opened(await ended)

    if inspect.iscoroutine(ended):
        return awaited()
    return ended.result(_sync=True) if isinstance(ended, Answered) else ended


def _watched_while_away(submitted: Any) -> Any:
    """Keep this process's watch running while futures are unfinished: runs in child processes look at it."""
    for future in submitted if isinstance(submitted, PrefectFutureList) else [submitted]:
        if isinstance(future, PrefectWrappedFuture):
            away = threading.Event()
            WATCH.add(away)
            future.add_done_callback(partial(_arrived, away))
    return submitted


def _arrived(away: threading.Event, _: object) -> None:
    WATCH.discard(away)


def engine_task(run_name: Callable[[Mapping[str, Any]], str]) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A decorator that makes a function a task with `run_options`."""
    return lambda function: EngineTask(function, **run_options(run_name))


def async_twin(task: Task[P, R]) -> Task[P, Coroutine[Any, Any, R]]:
    """The same task for async flows: `await astage_dataset(…)`.

    The work runs in a thread, so the event loop goes on. Cancelling the coroutine cancels the work.
    """

    @wraps(task.fn)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(partial(task.fn, *args, **kwargs))

    twin.__name__, twin.__qualname__ = f"a{task.fn.__name__}", f"a{task.fn.__qualname__}"
    run_name = cast("Callable[[Mapping[str, Any]], str]", task.task_run_name)
    return EngineTask(twin, **run_options(run_name))


async def in_thread(work: Callable[[], R]) -> R:
    """Run a function in a thread with this context. After a cancellation, wait `STOPPING_SECONDS` for it to stop."""
    # The work finds the event in its context: see `cancelling.ending`.
    end, context, done = threading.Event(), copy_context(), Future[R]()
    context.run(requested.set, end)

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the coroutine
            done.set_exception(error)

    # Use no thread pool, in which the work could wait for other work. A daemon does not keep the process from ending.
    threading.Thread(target=run, name="stagegate-work", daemon=True).start()
    waiting = asyncio.wrap_future(done)
    # Read the exception even when nobody waits for it any more: asyncio logs exceptions that nobody read.
    waiting.add_done_callback(lambda ended: ended.exception())
    try:
        await asyncio.wait([waiting])
    except asyncio.CancelledError:
        end.set()
        with CancelScope(shield=True):  # else Prefect's time-outs would interrupt this wait, too
            await asyncio.wait([waiting], timeout=STOPPING_SECONDS)
        raise
    return waiting.result()


def short_name(spec_or_ref: Any) -> str:
    """The dataset or address in a spec or reference, short enough for a run's name.

    >>> short_name("specs/nycflights.yaml"), short_name("nycflights@production"), short_name({"dataset": "nycflights"})
    ('nycflights', 'nycflights@production', 'nycflights')
    """
    if isinstance(spec_or_ref, Spec):
        return spec_or_ref.dataset
    if isinstance(spec_or_ref, Mapping):
        return str(spec_or_ref.get("dataset", "a spec"))
    text = str(spec_or_ref)
    dataset, at, ref = text.partition("@")
    if at and "/" not in text:
        return f"{dataset}@{ref[:SHORT_DIGEST]}"
    return Path(text.partition("?")[0]).stem


CacheLike = StagegateCache | Path | str | None
"""A cache as a block or a folder; None means that of the settings."""
CatalogLike = StagegateCatalog | Path | str | None
"""A catalog as a block, a folder or a URL; None means that of the settings."""
SpecParameter = str | Path | dict[str, Any]
"""A spec as a flow's parameter, as JSON allows it: a path, a URL, a dictionary, or an address."""


def open_places(cache: CacheLike, catalog: CatalogLike) -> Workspace:
    """Open the cache and the catalog. Specs can name credentials blocks, and transfers take slots of limits.

    Raises:
        CacheError, CatalogError: One of them can't be opened.
    """
    block = catalog if isinstance(catalog, StagegateCatalog) else None
    return open_workspace(
        cache.path if isinstance(cache, StagegateCache) else cache,
        catalog.url if isinstance(catalog, StagegateCatalog) else catalog,
        catalog_options=options_of(block) if block else None,
        resolve_credentials=storage_options,
        admit=admit,
        flow_run=str(flow_run.id or ""),
    )
