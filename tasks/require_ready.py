"""`require_ready`: refuse to go on unless a version is ready, as a task in a flow or as a decorator over one.

@flow                                              @require_ready("nycflights@production")
def train():                                       @flow
    data = require_ready("nycflights@production")  def train():
    fit(data.path)                                     with open_dataset("nycflights@production") as data:
                                                           fit(data.path)

Either way the version stays on this node until the run ends, and in this process its address means exactly it.
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
from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.errors import GateFailed
from prefect_stagegate.model import Address, Version
from prefect_stagegate.operations.gating.ready import find_ready, hold_ready
from prefect_stagegate.report import Readiness, ready_page
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.leases import held, held_during
from prefect_stagegate.tasks._support.lineage import trace
from prefect_stagegate.tasks._support.notify import attach, in_a_run, run_log, unfailing
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.progress import live_progress
from prefect_stagegate.tasks._support.refusals import end_or_raise
from prefect_stagegate.tasks._support.running import EngineTask, async_twin, in_thread, run_options

F = TypeVar("F", bound=Callable[..., Any])


class Guard:
    """`require_ready(…)` written outside of a run: put over a flow, it asks before every run of it.

    One that guards nothing was meant as a call, and is told so: a gate must not be open by mistake.
    """

    def __init__(self, ask: Callable[[], Version], address: str) -> None:
        self._ask = ask
        self._address = address
        self._used = False

    def __call__(self, guarded: F) -> F:
        """Let a flow, or the function under `@flow`, ask first, and hold what was found until it ends."""
        self._used = True
        if isinstance(guarded, Flow):
            flow = copy.copy(guarded)
            flow.fn = self._over(guarded.fn)
            return cast("F", flow)
        return cast("F", self._over(guarded))

    def _over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function behind the gate, of the same kind: Prefect runs each kind in another way."""
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
                    leaving.enter_context(held_during(self._ask))
                except GateFailed as refusal:
                    return end_or_raise(refusal, gated)
                return function(*args, **kwargs)

        return gated

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with held_during(self._ask):
                return (yield from function(*args, **kwargs))

        return gated

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> Any:
            async with AsyncExitStack() as leaving:
                try:
                    await leaving.enter_async_context(self._asked())
                except GateFailed as refusal:
                    return end_or_raise(refusal, gated)
                return await function(*args, **kwargs)

        return gated

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with self._asked():
                async for one in function(*args, **kwargs):
                    yield one

        return gated

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        with ExitStack() as leaving:
            # Bringing a version may take long, and the loop has others to serve.
            await in_thread(partial(leaving.enter_context, held_during(self._ask)))
            yield

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"require_ready({self._address!r}) was called outside of a flow and guards none, so nothing was asked; "
                "call require_ready.fn(…) in a plain script",
                RuntimeWarning,
                stacklevel=2,
            )


if TYPE_CHECKING:

    class ReadyVersion(Version, Guard):
        """What type checkers see: the version in a run, and the decorator outside of one."""


class RequireReady(EngineTask[..., Version]):
    """The task, which outside of a run is a decorator's factory; `.submit`, `.map`, `.fn` and the rest are a task's."""

    def __call__(  # type: ignore[override]
        self, dataset: str, *, cache: CacheLike = None, catalog: CatalogLike = None, **options: Any
    ) -> ReadyVersion:
        """In a run: the version, or an error. Outside of one: a decorator of flows."""

        def ask() -> Version:
            version: Version = super(RequireReady, self).__call__(dataset, cache=cache, catalog=catalog, **options)
            return version

        return cast("ReadyVersion", ask() if in_a_run() else Guard(ask, dataset))


def _task(function: Callable[..., Version]) -> RequireReady:
    return RequireReady(function, **run_options(lambda parameters: f"require {parameters['dataset']}"))


@_task
def require_ready(dataset: str, *, cache: CacheLike = None, catalog: CatalogLike = None) -> Version:
    """The version that a target accepted, if that still holds, complete on this node; nothing else can be trained on.

    The catalog is asked what the target names. What is cheap to ask of its gate and holds no more is asked again, on
    this node; nothing of it is recorded. A version that does not pass any more is refused, or the run falls back to
    the last accepted version before it that does, as the gate's `on_withdrawal` says. What only this node lacks
    refuses this run and says nothing against the version. Why is shown at the run.

    The version stays on this node until the flow run ends. Until then `open_dataset` and `stagegate://` read it, and
    no other, under this address in this process.

    Args:
        dataset: Dataset and target: `nycflights@production`.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: The target accepted no version, or none that still holds; the message says why, whose turn it is
            and what to do.
        CorruptRecord: What the catalog says about it can't be believed.
        UsageError: The address names no target, or there is no such dataset.
    """
    workspace = open_places(cache, catalog)
    readiness = find_ready(workspace, Address.parse(dataset))
    _show(readiness)
    with ending() as cancel, live_progress(f"{readiness.address.dataset}-stage") as progress:
        key = (workspace.cache.root, readiness.address, readiness.found and readiness.found.digest)
        version = held().enter(key, hold_ready(workspace, readiness, progress=progress, cancel=cancel))
    with unfailing(f"show {version.address} as an asset"):
        trace(version, readiness.address)
    return version


def _show(readiness: Readiness) -> None:
    """Write why into the run: a page, and a line in the log where a refusal would not tell it."""
    key = f"{readiness.address.dataset}-{readiness.address.ref}-ready"
    attach(MarkdownArtifact(key=key, markdown=ready_page(readiness), description=readiness.headline))
    if readiness.found:
        say = run_log().warning if readiness.fell_back else run_log().info
        say("%s; the run uses %s", readiness.headline, readiness.found)


arequire_ready = async_twin(require_ready)
