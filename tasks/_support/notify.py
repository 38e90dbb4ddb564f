"""What a task tells: its log, its events and its artifacts. None of it ever fails the work that it tells of.

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
    # Prefect logs the errors of runs there, with their causes, and stores what is logged.
    logging.getLogger(_name).addFilter(RedactingFilter())


def in_a_run() -> bool:
    """Whether this is called in a flow or task run, and so has an API to tell things to."""
    return bool(FlowRunContext.get() or TaskRunContext.get())


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, or the package's when there is no run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("prefect_stagegate")


@contextmanager
def unfailing(doing: str) -> Iterator[None]:
    """Log whatever goes wrong in the block, and go on: the work that is told of is done.

    Args:
        doing: What could not be done then: `store the artifact nycflights-stage`.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever ails the API
        run_log().warning("Could not %s: %s", doing, error)


def announce(event: VersionEvent) -> None:
    """Emit an event about a version."""
    emit(event.name, event.resource, event.payload, event.related, identity=event.identity)


def announce_version(version: Version, what: Spec | Address) -> None:
    """Say in one line what was staged, and show it as an asset; emit the event when it is new.

    Args:
        version: What was staged.
        what: The spec that it was made from, or the address by which it was brought.
    """
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
        trace(version, what)


def emit(
    event: str,
    resource: dict[str, str],
    payload: dict[str, Any],
    related: list[dict[str, str]] | None = None,
    *,
    identity: UUID | None = None,
) -> None:
    """Emit an event when this is a run; Prefect relates the flow run, the task run and the deployment.

    Args:
        event: Its name.
        resource: What it happened to.
        payload: Small JSON values.
        related: What else it concerns.
        identity: The event's own id. The server keeps one event of an id, and drops those that come after it.
    """
    if in_a_run():
        with unfailing(f"emit {event}"):
            emit_event(event, resource=resource, payload=payload, related=related or [], id=identity)


def attach(artifact: Artifact) -> None:
    """Show an artifact at the run."""
    if in_a_run():
        with unfailing(f"store the artifact {artifact.key}"):
            artifact.create(_sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine
