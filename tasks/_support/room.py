"""Warn when the volume of a node's cache is nearly full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from prefect.runtime import flow_run, task_run

from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.settings import Settings
from prefect_stagegate.tasks._support.notify import CACHE_NEARLY_FULL, emit, run_log, unfailing
from prefect_stagegate.units import bytes_text


@contextmanager
def watched_room(workspace: Workspace) -> Iterator[None]:
    """Look at the cache's volume when the block ends, also by an error, and warn when it is nearly full.

    A flow run emits one event about a cache, even when several of its tasks see it nearly full.
    """
    try:
        yield
    finally:
        with unfailing("measure the free space of the cache's volume"):
            _warn(workspace.settings, workspace.cache.root)


def _warn(settings: Settings, cache: Path) -> None:
    node = settings.node
    volume = os.statvfs(cache)
    size, free = volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize
    if free >= int(size * max(settings.free_warning, settings.free_floor)):
        return
    run_log().warning("The volume of %s is nearly full: %s of %s are free", cache, bytes_text(free), bytes_text(size))
    name = f"stagegate.cache.{node}{cache}"
    resource = {
        "prefect.resource.id": name,
        "prefect.resource.name": f"{cache} on {node}",
        "stagegate.node": node,
    }
    used = size - free
    figures = {"used": used, "free": free, "size": size, "share": round(used / size, 4) if size else 0.0}
    payload = {"node": node, "cache": str(cache), **figures}
    # All tasks of a run emit the event with one id, so the server keeps one.
    run = flow_run.get_id() or task_run.get_id()
    emit(CACHE_NEARLY_FULL, resource, payload, identity=uuid5(NAMESPACE_URL, f"{CACHE_NEARLY_FULL}/{run}/{name}"))
