"""The logs, events and artifacts of tasks. An error in one of them never fails the task.

docs/events.md has an example of each event.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.artifacts import Artifact, MarkdownArtifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import Event, emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.model import Address, FailedObject, Version
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.redaction.chains import RedactingFilter
from prefect_stagegate.spec import Spec
from prefect_stagegate.tasks._support.assets import trace
from prefect_stagegate.tasks._support.version_events import VERSION_STAGED, VersionEvent, version_event
from prefect_stagegate.units import bytes_text, count_text
from prefect_stagegate.workspace import Workspace

if TYPE_CHECKING:
    from prefect_stagegate.show.document import Document

CACHE_NEARLY_FULL = "stagegate.cache.nearly_full"
"""A cache's volume has little room left. Payload: node, cache, used, free, size (bytes), share (of the volume that is
used)."""
API_SECONDS = 3.0
"""Seconds that one response of the API to a command may take."""

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


def attach_document(key: str, document: Document, about: str) -> None:
    """Show a document at the run, in place of an earlier one with the same key."""
    from prefect_stagegate.show.document import render  # late: most stagings show none

    attach(MarkdownArtifact(key=key, markdown=render("markdown", document), description=about))


def attach(artifact: Artifact) -> None:
    """Store an artifact, in a run only."""
    if in_a_run():
        with unfailing(f"store the artifact {artifact.key}"):
            artifact.create(_sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine


def send_events(events: Sequence[VersionEvent]) -> None:
    """Send events of a command, which has no run, to the API of Prefect's settings. Do nothing when they name none.

    Raises:
        httpx.HTTPError: The API did not accept them.
    """
    # Without an API's URL, Prefect's client would start a server.
    if not PREFECT_API_URL.value():
        return
    body = []
    for event in events:
        identity: dict[str, Any] = {"id": event.identity} if event.identity else {}
        made = Event(
            event=event.name, resource=event.resource, related=event.related, payload=event.payload, **identity
        )
        body.append(made.model_dump(mode="json"))
    with get_client(sync_client=True, httpx_settings={"timeout": API_SECONDS}) as client:
        client.request("POST", cast("Any", "/events"), json=body).raise_for_status()


@contextmanager
def showing_failed(dataset: str) -> Iterator[None]:
    """Show the objects that failed when the block raises `TransferFailed`."""
    try:
        yield
    except TransferFailed as error:
        show_failed(dataset, list(map(FailedObject.of, error.failures)))
        raise


def show_failed(dataset: str, failed: Sequence[FailedObject], *, digest: str = "") -> None:
    """Show objects that failed, if there are any; the digest is that of the version made without them."""
    if not failed:
        return
    from prefect_stagegate.show.artifacts import failed_document, failed_lines  # late: most stagings lack nothing

    lines = "\n".join(failed_lines(failed))
    count = count_text(len(failed), "object")
    run_log().warning("%s of %s could not be staged:\n%s", count, dataset, lines)
    attach_document(f"{dataset}-failed", failed_document(dataset, failed, digest=digest), f"{count} failed")


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
