"""Prefect tasks, one step of the pipeline each.

    stage_dataset → validate_dataset → check_readiness → promote_dataset → require_ready

Async flows use their twins: `await astage_dataset(…)`. Twins never block the event loop, and stop when
they are cancelled.

`cache` and `catalog` take a block, a path or a URL; by default they come from the STAGEGATE_* settings. The results of
tasks are small and can be pickled. Each task is a module of its name. `_support` has what they share: how
they run and open cache and catalog (`running`), when they must end (`cancelling`), and what they tell (`notify`,
`version_events`, `assets`, `run_progress`).
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prefect_stagegate.doors import declared, load, plugins

if TYPE_CHECKING:
    from prefect_stagegate.tasks.check_readiness import acheck_readiness, check_readiness
    from prefect_stagegate.tasks.collect_garbage import acollect_garbage, collect_garbage
    from prefect_stagegate.tasks.held_refs import held_refs
    from prefect_stagegate.tasks.promote_dataset import apromote_dataset, promote_dataset
    from prefect_stagegate.tasks.require_ready import arequire_ready, require_ready
    from prefect_stagegate.tasks.stage_dataset import astage_dataset, stage_dataset
    from prefect_stagegate.tasks.validate_dataset import avalidate_dataset, validate_dataset
    from prefect_stagegate.tasks.verify_cache import averify_cache, verify_cache

    def __getattr__(name: str) -> Any: ...


__all__ = [
    "acheck_readiness",
    "acollect_garbage",
    "apromote_dataset",
    "arequire_ready",
    "astage_dataset",
    "avalidate_dataset",
    "averify_cache",
    "check_readiness",
    "collect_garbage",
    "held_refs",
    "promote_dataset",
    "require_ready",
    "stage_dataset",
    "validate_dataset",
    "verify_cache",
]

OFFERED = declared("tasks")
"""The tasks of plugins."""


class _Tasks(ModuleType):
    """This package. A task has its module's name, and is what the name means here whichever was imported first."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Task runners pickle a task's function by value, with the modules that it names.
        return import_module, (self.__name__,)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a module to its package once it is loaded.
        is_task = name in __all__ and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if is_task else value)

    def __getattr__(self, name: str) -> Any:
        """Import a task when it is asked for: staging needs no gate."""
        if name in OFFERED:
            return load(OFFERED[name])
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The twin for async flows lies beside its task.
        module = name if find_spec(f"{__name__}.{name}") else name[1:]
        return getattr(import_module(f"{__name__}.{module}"), name)


sys.modules[__name__].__class__ = _Tasks

# Before the first run: a tracer that is set up now sends the run's own span, too.
for plugin in plugins():
    if plugin.start_up:
        load(plugin.start_up)()
