"""Choose and open a fleet's engine."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.fleet.engines.dask import dask_engine
from prefect_stagegate.plugins.fleet.engines.engine import FleetEngine
from prefect_stagegate.plugins.fleet.engines.pool import pool_engine
from prefect_stagegate.plugins.fleet.engines.ray import ray_engine


def open_engine(
    pool: str | None, deployment: str, dask: str | None, ray: str | None, lost_after: float
) -> AbstractContextManager[FleetEngine]:
    """The engine that the user named: a Prefect work pool, a Dask scheduler or a Ray cluster.

    Raises:
        UsageError: None or several were named, or the one doesn't exist.
        MissingExtra: Its library is not installed.
        SourceUnavailable: It does not answer.
    """
    if sum(name is not None for name in (pool, dask, ray)) != 1:
        raise UsageError(
            "A fleet has one engine", hint="Give one of `pool` (a Prefect work pool), `dask` and `ray` (addresses)."
        )
    if dask is not None:
        return dask_engine(dask, lost_after)
    if ray is not None:
        return ray_engine(ray, lost_after)
    return pool_engine(pool or "", deployment, lost_after)
