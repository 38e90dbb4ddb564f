"""`require_ready`: refuse to go on unless a version is ready, as a task in a flow or as a decorator over one.

@flow                                          @require_ready("nycflights@production")
def train():                                   @flow
    data = require_ready("nycflights@production")      def train():
    fit(data.path)                                     ...
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefect import Flow

from prefect_stagegate.model import Address, Version
from prefect_stagegate.operations import ready
from prefect_stagegate.tasks.cancelling import ending
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks.progress import live_progress
from prefect_stagegate.tasks.running import EngineTask, async_twin, run_options
from prefect_stagegate.tasks.telling import in_a_run, run_log

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
        """Let a flow, or the function under `@flow`, ask first."""
        self._used = True
        if isinstance(guarded, Flow):
            flow = copy.copy(guarded)
            flow.fn = self._before(guarded.fn)
            return cast("F", flow)
        return cast("F", self._before(guarded))

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def asking(*args: Any, **kwargs: Any) -> Any:
                await asyncio.to_thread(self._ask)  # bringing a version may take long, and the loop has others to serve
                return await function(*args, **kwargs)

            return asking

        @wraps(function)
        def asks(*args: Any, **kwargs: Any) -> Any:
            self._ask()
            return function(*args, **kwargs)

        return asks

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
    """The version that a target accepted, complete on this node, or an error: nothing else can be trained on.

    The catalog is asked whether the target accepts it now; the version is brought to this node when it isn't here.

    Args:
        dataset: Dataset and target: `nycflights@production`.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: The target accepted no version.
        CorruptRecord: What the catalog says about it can't be believed.
        UsageError: The address names no target, or there is no such dataset.
    """
    address = Address.parse(dataset)
    with live_progress(f"{address.dataset}-stage") as progress, ending() as cancel:
        version = ready.require_ready(open_places(cache, catalog), address, progress=progress, cancel=cancel)
    run_log().info("%s is %s, at %s", dataset, version.digest, version.path)
    return version


arequire_ready = async_twin(require_ready)
