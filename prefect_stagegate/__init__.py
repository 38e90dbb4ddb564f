"""Prefect tasks and flows that stage data beside the GPUs, prove it, and gate production on readiness.

    from prefect_stagegate import open_dataset
    from prefect_stagegate.tasks import stage_dataset
    from prefect_stagegate.flows import pilot_to_production

Importing this loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_stagegate.jobs.read import open_dataset as open_dataset

    __version__: str

__all__ = ["open_dataset"]


def __getattr__(name: str) -> Any:
    if name == "open_dataset":
        from prefect_stagegate.jobs.read import open_dataset

        return open_dataset
    if name == "__version__":
        from importlib.metadata import version  # reads files

        return version("prefect-stagegate")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
