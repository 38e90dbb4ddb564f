"""Prefect flows, made of the tasks of this package, and those of plugins.

    stage → (stagegate.version.staged) → pilot_to_production        refresh, sweep: keep a node's cache current, intact

Deployments name them by module: `prefect_stagegate.flows.stage:stage`.
"""

import sys
from types import ModuleType
from typing import Any

from prefect_stagegate.doors import declared, load
from prefect_stagegate.flows.pilot_to_production import pilot_to_production
from prefect_stagegate.flows.refresh import refresh
from prefect_stagegate.flows.stage import stage
from prefect_stagegate.flows.sweep import sweep

__all__ = ["pilot_to_production", "refresh", "stage", "sweep"]

OFFERED = declared("flows")
"""The flows of plugins."""


def __getattr__(name: str) -> Any:
    """Import a plugin's flow when it is asked for."""
    if name in OFFERED:
        return load(OFFERED[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


for _name in OFFERED:
    # Deployments of any release name the flow by this module, wherever it lies in the plugin.
    sys.modules[f"{__name__}.{_name}"] = _module = ModuleType(f"{__name__}.{_name}")
    vars(_module)["__getattr__"] = __getattr__
