"""How long what a task holds for others is held: as long as the run that it is for, and no longer.

    in a guarded function     until the function ends
    in a flow run             until the run ends: a thread looks
    in a worker of the run    until the run ends, for which the API is asked (Dask, Ray, a process pool)
    in no flow run            until the process ends

Whatever happens to the thread, a lease ends with its process.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, get_settings_context
from prefect.exceptions import ObjectNotFound

LOOK_SECONDS = 0.25
"""Between two looks whether a run of this process ended."""
ASK_SECONDS = 15.0
"""Between two questions to the API whether a run of another process ended."""

T = TypeVar("T")


class Held:
    """Contexts that are left together; of two under one key, the later takes the place of the earlier."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, ExitStack] = {}

    def enter(self, key: Hashable, context: AbstractContextManager[T]) -> T:
        """Enter a context, and stay in it until `close`."""
        with ExitStack() as entering:
            value = entering.enter_context(context)
            with self._lock:
                earlier, self._held[key] = self._held.get(key), entering.pop_all()
        if earlier is not None:
            earlier.close()
        return value

    def close(self) -> None:
        """Leave all of them."""
        with self._lock:
            held, self._held = self._held, {}
        for one in held.values():
            one.close()


class _Run:
    """An attempt of a flow run, for which something is held."""

    def __init__(self, run_id: UUID, context: Callable[[], Any]) -> None:
        self.id = run_id
        self.context = context
        self.held = Held()


_block: ContextVar[Held | None] = ContextVar("stagegate_held_in_block", default=None)
_process = Held()
_runs: list[_Run] = []
_lock = threading.Lock()
atexit.register(_process.close)


@contextmanager
def held_during(ask: Callable[[], Any]) -> Iterator[None]:
    """Call a function, and hold during the block what it enters into `held`."""
    held = Held()
    with ExitStack() as leaving:
        leaving.callback(held.close)
        token = _block.set(held)
        try:
            ask()
        finally:
            _block.reset(token)
        yield


def held() -> Held:
    """Where to enter what is to be held as long as the run around this goes on."""
    block, run = _block.get(), FlowRunContext.get()
    if block is not None:
        return block
    if run is None or run.flow_run is None:
        return _process
    with _lock:
        kept = _of_worker(run.flow_run.id) if run.detached else _of_run(run.flow_run.id, run)
    return kept.held


def _of_run(run_id: UUID, context: FlowRunContext) -> _Run:
    kept = next((one for one in _runs if one.context() is context), None)
    if kept is None:
        for failed in [one for one in _runs if one.id == run_id]:
            _end(failed)  # this is the next attempt
        # Only weakly: Prefect lets go of the context at the run's end.
        kept = _Run(run_id, weakref.ref(context))
        _watch(kept, LOOK_SECONDS, _ended_here, call=lambda look: look())
    return kept


def _of_worker(run_id: UUID) -> _Run:
    """The run of another process; each of its tasks here has a context of its own, which ends with the task."""
    kept = next((one for one in _runs if one.id == run_id), None)
    if kept is None:
        kept = _Run(run_id, lambda: None)
        # Of the task's context, the thread needs to know where the API is. The task's client is closed with the task.
        settings = get_settings_context().model_copy()

        def call(look: Callable[[], None]) -> None:
            with settings:
                look()

        _watch(kept, ASK_SECONDS, _ended_elsewhere, call)
    return kept


def _watch(
    kept: _Run, seconds: float, ended: Callable[[_Run], bool], call: Callable[[Callable[[], None]], None]
) -> None:
    _runs.append(kept)

    def look() -> None:
        while kept in _runs:
            time.sleep(seconds)
            if ended(kept):
                with _lock:
                    _end(kept)

    threading.Thread(target=call, args=(look,), name=f"leases of {kept.id}", daemon=True).start()


def _end(kept: _Run) -> None:
    if kept in _runs:
        _runs.remove(kept)
        kept.held.close()


def _ended_here(kept: _Run) -> bool:
    # The context of a process's first run is kept by Prefect's services, so the run's state is looked at, too.
    context = kept.context()
    state = context.flow_run.state if context is not None else None
    return context is None or bool(state and state.is_final())


def _ended_elsewhere(kept: _Run) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(kept.id).state
    except ObjectNotFound:
        return True  # somebody deleted it
    except Exception:  # noqa: BLE001 - whatever ails the API: it is asked again
        return False
    return bool(state and state.is_final())
