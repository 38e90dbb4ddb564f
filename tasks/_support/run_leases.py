"""Hold leases as long as the flow run that needs them.

    a task that is called in     holds until
    a guarded function           the function ends
    a flow run                   the run ends; a thread watches it
    a worker of the run          the run ends; a thread asks the API (Dask, Ray, a process pool)
    no flow run                  the process ends

In any case a lease ends with its process.
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
"""Seconds between two looks whether a run of this process ended."""
ASK_SECONDS = 15.0
"""Seconds between two requests to the API whether a run of another process ended."""

T = TypeVar("T")


class Held:
    """Context managers that are left together. A later one replaces an earlier one of the same key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, ExitStack] = {}

    def enter(self, key: Hashable, context: AbstractContextManager[T]) -> T:
        """Enter a context manager, and stay in it until `close`."""
        with ExitStack() as entering:
            value = entering.enter_context(context)
            with self._lock:
                earlier, self._held[key] = self._held.get(key), entering.pop_all()
        # Leave the earlier one last, so that something is held all the time.
        if earlier is not None:
            earlier.close()
        return value

    def close(self) -> None:
        """Leave all of them."""
        with self._lock:
            held, self._held = self._held, {}
        for stack in held.values():
            stack.close()


class _RunAttempt:
    """An attempt of a flow run, with what is held for it."""

    def __init__(self, run_id: UUID, context: Callable[[], Any]) -> None:
        self.id = run_id
        self.context = context
        self.held = Held()


_block: ContextVar[Held | None] = ContextVar("stagegate_held_in_block", default=None)
_process = Held()
_attempts: list[_RunAttempt] = []
_lock = threading.Lock()
atexit.register(_process.close)


@contextmanager
def held_during(function: Callable[[], Any]) -> Iterator[None]:
    """Call a function, and hold what it enters into `held` until the block ends."""
    held = Held()
    with ExitStack() as leaving:
        leaving.callback(held.close)
        token = _block.set(held)
        try:
            function()
        finally:
            # Before the block runs: what its own tasks hold belongs to its flow run.
            _block.reset(token)
        yield


def held() -> Held:
    """The collection whose contexts are held as long as the current run."""
    # A guarded function comes first: it may end before the run does.
    block, run = _block.get(), FlowRunContext.get()
    if block is not None:
        return block
    if run is None or run.flow_run is None:
        return _process
    with _lock:
        attempt = _of_worker(run.flow_run.id) if run.detached else _of_run(run.flow_run.id, run)
    return attempt.held


def _of_run(run_id: UUID, context: FlowRunContext) -> _RunAttempt:
    """The attempt that runs in this process; a new attempt ends the earlier ones of the same run."""
    attempt = next((known for known in _attempts if known.context() is context), None)
    if attempt is None:
        for failed in [known for known in _attempts if known.id == run_id]:
            _end(failed)
        # Keep a weak reference only: that the context is gone shows that the run has ended.
        attempt = _RunAttempt(run_id, weakref.ref(context))
        _watch(attempt, LOOK_SECONDS, _ended_here, call=lambda look: look())
    return attempt


def _of_worker(run_id: UUID) -> _RunAttempt:
    """The attempt of a run in another process. Each of its tasks here has a context that ends with the task."""
    attempt = next((known for known in _attempts if known.id == run_id), None)
    if attempt is None:
        attempt = _RunAttempt(run_id, lambda: None)
        # The thread outlives the task and its API client. It copies the settings, which say where the API is.
        settings = get_settings_context().model_copy()

        def call(look: Callable[[], None]) -> None:
            with settings:
                look()

        _watch(attempt, ASK_SECONDS, _ended_elsewhere, call)
    return attempt


def _watch(
    attempt: _RunAttempt,
    seconds: float,
    has_ended: Callable[[_RunAttempt], bool],
    call: Callable[[Callable[[], None]], None],
) -> None:
    """Start a thread that ends the attempt once `has_ended` says so; `call` runs the thread's loop."""
    _attempts.append(attempt)

    def look() -> None:
        while attempt in _attempts:
            time.sleep(seconds)
            if has_ended(attempt):
                with _lock:
                    _end(attempt)

    threading.Thread(target=call, args=(look,), name=f"leases of {attempt.id}", daemon=True).start()


def _end(attempt: _RunAttempt) -> None:
    if attempt in _attempts:
        _attempts.remove(attempt)
        attempt.held.close()


def _ended_here(attempt: _RunAttempt) -> bool:
    # Prefect's services keep the context of a process's first run alive, so look at the run's state, too.
    context = attempt.context()
    state = context.flow_run.state if context is not None else None
    return context is None or bool(state and state.is_final())


def _ended_elsewhere(attempt: _RunAttempt) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(attempt.id).state
    except ObjectNotFound:
        return True  # somebody deleted it
    except Exception:  # noqa: BLE001 - on any error of the API, ask it again later
        return False
    return bool(state and state.is_final())
