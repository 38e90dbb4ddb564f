"""How long a lease lasts that a task takes for others: as long as the run that it is for, and no longer.

    in a guarded function     until the function ends (`leased`)
    in a flow run             until its end: a thread looks for it
    in a worker of the run    until the run's end, for which the API is asked (Dask, Ray, a process pool)
    in no flow run            until the process ends

Whatever happens to the thread, a lease ends with its process.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

LOOK_SECONDS = 0.25
"""Between two looks whether a run of this process ended."""
ASK_SECONDS = 15.0
"""Between two questions to the API whether a run ended elsewhere."""

_block: ContextVar[ExitStack | None] = ContextVar("stagegate_leased_block", default=None)
_process = ExitStack()


@dataclass(frozen=True, eq=False)
class _Run:
    """One attempt of a flow run that leases are kept for."""

    id: UUID
    context: Callable[[], Any]
    """The context that tasks find, as a weak reference; one that is found nowhere any more has ended."""
    leases: ExitStack = field(default_factory=ExitStack)


_runs: list[_Run] = []
_lock = threading.Lock()


@contextmanager
def leased(ask: Callable[[], Any]) -> Iterator[None]:
    """Call a function, and keep the leases that it takes during the block."""
    with ExitStack() as leases:
        token = _block.set(leases)
        try:
            ask()
        finally:
            _block.reset(token)
        yield


def lasting() -> ExitStack:
    """Where to enter a lease that is to last as long as the run around this."""
    block, run = _block.get(), FlowRunContext.get()
    if block is not None:
        return block
    if run is None or run.flow_run is None:
        return _process
    return _of_worker(run.flow_run.id) if run.detached else _of_run(run, run.flow_run.id)


def _of_run(context: FlowRunContext, run_id: UUID) -> ExitStack:
    with _lock:
        kept = next((one for one in _runs if one.context() is context), None)
        if kept is None:
            for earlier in [one for one in _runs if one.id == run_id]:
                _end(earlier)  # an attempt that failed and is repeated
            kept = _Run(run_id, weakref.ref(context))
            _watch(kept, LOOK_SECONDS, _ended_here)
        return kept.leases


def _of_worker(run_id: UUID) -> ExitStack:
    """The leases of a flow run of another process; each of its tasks here has a context of its own."""
    with _lock:
        kept = next((one for one in _runs if one.id == run_id), None)
        if kept is None:
            kept = _Run(run_id, lambda: None)
            _watch(kept, ASK_SECONDS, _ended_elsewhere)
        return kept.leases


def _watch(kept: _Run, seconds: float, ended: Callable[[_Run], bool]) -> None:
    _runs.append(kept)
    stop = threading.Event()
    kept.leases.callback(stop.set)

    def look() -> None:
        while not stop.wait(seconds):
            if ended(kept):
                with _lock:
                    _end(kept)

    # A copy of the context would keep the run's own context alive; who asks the API needs one, to know where it is.
    target, args = (look, ()) if ended is _ended_here else (copy_context().run, (look,))
    threading.Thread(target=target, args=args, name=f"leases of {kept.id}", daemon=True).start()


def _end(kept: _Run) -> None:
    if kept in _runs:
        _runs.remove(kept)
        kept.leases.close()


def _ended_here(kept: _Run) -> bool:
    # Prefect's services may keep a context for as long as the process lives, so its state is looked at, too.
    context = kept.context()
    state = context.flow_run.state if context is not None else None
    return context is None or bool(state and state.is_final())


def _ended_elsewhere(kept: _Run) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(kept.id).state
    except Exception:  # noqa: BLE001 - whatever ails the API: it is asked again
        return False
    return bool(state and state.is_final())
