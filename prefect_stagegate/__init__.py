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
BLOCKS = ("StagegateCache", "StagegateCatalog", "StagegateSource")
"""Prefect's blocks, which are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name == "open_dataset":
        from prefect_stagegate.jobs.read import open_dataset

        return open_dataset
    if name == "__version__":
        from importlib.metadata import version  # reads files

        return version("prefect-stagegate")
    if name in BLOCKS:
        from prefect_stagegate import blocks

        return getattr(blocks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def project_url(label: str) -> str:
    """The project's address of this label, such as `Issues`, without a slash at its end; empty while it has none."""
    from importlib.metadata import metadata

    lines = metadata("prefect-stagegate").get_all("Project-URL") or ()
    return next((line.partition(", ")[2].rstrip("/") for line in lines if line.startswith(f"{label}, ")), "")


def __dir__() -> list[str]:
    """What the module offers; `prefect block register -m prefect_stagegate` looks for blocks here."""
    return sorted({*globals(), *__all__, *BLOCKS})
