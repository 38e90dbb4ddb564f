"""`require_ready`: refuse to go on unless a version is ready, as a task in a flow or as a decorator over one.

@flow                                              @require_ready("nycflights@production")
def train():                                       @flow
    data = require_ready("nycflights@production")  def train():
    fit(data.path)                                     with open_dataset("nycflights@production") as data:
                                                           fit(data.path)

Both keep the version on this node until the run ends. Until then its address names exactly this version in the process.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefect import Flow

from prefect_stagegate.errors import GateFailed
from prefect_stagegate.jobs.gating.require import find_ready, hold_ready
from prefect_stagegate.model import Address, Version
from prefect_stagegate.show import Readiness, ready_document
from prefect_stagegate.tasks._support.assets import trace
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import attach_document, in_a_run, run_log, unfailing
from prefect_stagegate.tasks._support.refusals import end_or_raise
from prefect_stagegate.tasks._support.run_leases import held, held_during
from prefect_stagegate.tasks._support.run_progress import live_progress
from prefect_stagegate.tasks._support.running import (
    CacheLike,
    CatalogLike,
    EngineTask,
    async_twin,
    in_thread,
    open_places,
    run_options,
)

F = TypeVar("F", bound=Callable[..., Any])


class ReadinessGuard:
    """The decorator that `require_ready(…)` returns outside of a run: it calls the task before every run of a flow.

    A guard that decorates nothing was probably meant as a call, so it warns: a gate must not be open by mistake.
    """

    def __init__(self, require: Callable[[], Version], address: str) -> None:
        self._require = require
        self._address = address
        self._used = False

    def __call__(self, guarded: F) -> F:
        """Guard a flow, or the function under `@flow`, and keep the version on this node until it ends."""
        self._used = True
        if isinstance(guarded, Flow):
            # A copy, since other modules may hold the flow as it was, and must not find it changed.
            flow = copy.copy(guarded)
            flow.fn = self._over(guarded.fn)
            return cast("F", flow)
        return cast("F", self._over(guarded))

    def _over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The guarded function, of the same kind, since Prefect runs each kind in another way."""
        kinds: list[tuple[Callable[[Any], bool], Callable[..., Any]]] = [
            (inspect.isasyncgenfunction, self._async_generator),
            (inspect.iscoroutinefunction, self._coroutine),
            (inspect.isgeneratorfunction, self._generator),
        ]
        over = next((over for is_kind, over in kinds if is_kind(function)), self._plain)
        return cast("Callable[..., Any]", wraps(function)(over(function)))

    def _plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **kwargs: Any) -> Any:
            with ExitStack() as leaving:
                try:
                    leaving.enter_context(held_during(self._require))
                except GateFailed as refusal:
                    return end_or_raise(refusal, gated)
                return function(*args, **kwargs)

        return gated

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with held_during(self._require):
                return (yield from function(*args, **kwargs))

        return gated

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> Any:
            async with AsyncExitStack() as leaving:
                try:
                    await leaving.enter_async_context(self._holding())
                except GateFailed as refusal:
                    return end_or_raise(refusal, gated)
                return await function(*args, **kwargs)

        return gated

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with self._holding():
                async for item in function(*args, **kwargs):
                    yield item

        return gated

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        with ExitStack() as leaving:
            # Fetching a version may take long, so don't block the event loop.
            await in_thread(partial(leaving.enter_context, held_during(self._require)))
            yield

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"require_ready({self._address!r}) was called outside of a flow and guards none, so no gate decided; "
                "call require_ready.fn(…) in a plain script",
                RuntimeWarning,
                stacklevel=2,
            )


if TYPE_CHECKING:

    class ReadyVersion(Version, ReadinessGuard):
        """For type checkers: the version in a run, and the decorator outside of one."""


class RequireReady(EngineTask[..., Version]):
    """The task. Calling it outside of a run returns a decorator; `.submit`, `.map`, `.fn` and the rest are a task's."""

    def __call__(  # type: ignore[override]
        self,
        dataset: str,
        *,
        arriving: bool = False,
        cache: CacheLike = None,
        catalog: CatalogLike = None,
        **options: Any,
    ) -> ReadyVersion:
        """Return the version or raise, in a run. Return a decorator of flows outside of one."""

        def require() -> Version:
            places: dict[str, Any] = {"cache": cache, "catalog": catalog}
            version: Version = super(RequireReady, self).__call__(dataset, arriving=arriving, **places, **options)
            return version

        return cast("ReadyVersion", require() if in_a_run() else ReadinessGuard(require, dataset))


def _task(function: Callable[..., Version]) -> RequireReady:
    return RequireReady(function, **run_options(lambda parameters: f"require {parameters['dataset']}"))


@_task
def require_ready(
    dataset: str, *, arriving: bool = False, cache: CacheLike = None, catalog: CatalogLike = None
) -> Version:
    """Return the version that a target accepted, complete on this node, or raise when it does not hold any more.

    The gate's cheap checks whose evidence expired run again. When the version fails, the gate's `on_withdrawal` says
    whether the run is refused or falls back to the last accepted version that passes. A check that fails because of
    this node refuses only this run. The version stays on this node until the flow run ends. Until then `open_dataset`
    and `stagegate://` read exactly this version under this address in this process.

    Args:
        dataset: Dataset and target: `nycflights@production`.
        arriving: Whether the run may begin before all files are here: `open_dataset(dataset, wait=False)` reads each
            as it comes. The version's path exists once it is complete.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: The target accepted no version, or none that still holds; the message says why, whose turn it is
            and what to do.
        CorruptRecord: A record of the catalog about the version is damaged.
        UsageError: The address names no target, or there is no such dataset.
    """
    workspace = open_places(cache, catalog)
    readiness = find_ready(workspace, Address.parse(dataset))
    # Shown before `hold_ready` raises, so that a refusal has its page at the run, too.
    _show(readiness)
    with ending() as cancel, live_progress(f"{readiness.address.dataset}-stage") as progress:
        # A retry enters the same key, so the lease of the new attempt replaces that of the old one.
        key = (workspace.cache.root, readiness.address, readiness.chosen and readiness.chosen.digest)
        ready = hold_ready(workspace, readiness, arriving=arriving, progress=progress, cancel=cancel)
        version = held().enter(key, ready)
    with unfailing(f"show {version.address} as an asset"):
        trace(version, readiness.address)
    return version


def _show(readiness: Readiness) -> None:
    """Show the answer at the run as a page, and log it unless it is a refusal, which raises."""
    key = f"{readiness.address.dataset}-{readiness.address.ref}-ready"
    attach_document(key, ready_document(readiness), readiness.headline)
    if readiness.chosen:
        log = run_log().warning if readiness.fell_back else run_log().info
        log("%s; the run uses %s", readiness.headline, readiness.chosen)


arequire_ready = async_twin(require_ready)
