"""The logs, events and artifacts of tasks. An error in one of them never fails the task.

docs/events.md has an example of each event.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import Artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from prefect_stagegate.model import Address, Version
from prefect_stagegate.redaction.chains import RedactingFilter
from prefect_stagegate.spec import Spec
from prefect_stagegate.tasks._support.events import VERSION_STAGED, VersionEvent, version_event
from prefect_stagegate.tasks._support.lineage import trace
from prefect_stagegate.units import bytes_text, count_text

CACHE_NEARLY_FULL = "stagegate.cache.nearly_full"
"""A cache's volume has little room left. Payload: node, cache, used, free, size (bytes), share (of the volume that is
used)."""

for _name in ("prefect.flow_runs", "prefect.task_runs"):
    # Prefect logs the errors of runs with their causes to these loggers, and stores the log on its server.
    logging.getLogger(_name).addFilter(RedactingFilter())


def in_a_run() -> bool:
    """Whether this is called in a flow or task run, which has an API for events and artifacts."""
    return bool(FlowRunContext.get() or TaskRunContext.get())


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, or the package's when there is no run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("prefect_stagegate")


@contextmanager
def unfailing(doing: str) -> Iterator[None]:
    """Log any error of the block, and go on: the task's work is done by then.

    Args:
        doing: What the block does, for the log: `store the artifact nycflights-stage`.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever ails the API
        run_log().warning("Could not %s: %s", doing, error)


def announce(event: VersionEvent) -> None:
    """Emit an event about a version."""
    emit(event.name, event.resource, event.payload, event.related, identity=event.identity)


def announce_version(version: Version, origin: Spec | Address) -> None:
    """Log a staged version in one line, show it as an asset, and emit the event when it is new."""
    sizes = map(bytes_text, (version.bytes, version.bytes_fetched, version.bytes_reused))
    files = count_text(version.files, "file")
    run_log().info("%s: %s, %s; fetched %s, reused %s", version.address, files, *sizes)
    if version.new:
        figures: dict[str, Any] = {
            "files": version.files,
            "bytes": version.bytes,
            "bytes_fetched": version.bytes_fetched,
        }
        announce(version_event(VERSION_STAGED, version.dataset, version.digest, **figures))
    with unfailing(f"show {version.address} as an asset"):
        trace(version, origin)


def emit(
    event: str,
    resource: dict[str, str],
    payload: dict[str, Any],
    related: list[dict[str, str]] | None = None,
    *,
    identity: UUID | None = None,
) -> None:
    """Emit an event, in a run only. Prefect relates the flow run, the task run and the deployment.

    The server drops later events of the same id.
    """
    if in_a_run():
        with unfailing(f"emit {event}"):
            emit_event(event, resource=resource, payload=payload, related=related or [], id=identity)


def attach(artifact: Artifact) -> None:
    """Store an artifact, in a run only."""
    if in_a_run():
        with unfailing(f"store the artifact {artifact.key}"):
            artifact.create(_sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine
