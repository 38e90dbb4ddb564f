"""What a task tells: its log, its events and its artifacts. None of it ever fails the work that it tells of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.artifacts import Artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from prefect_stagegate.model import Version
from prefect_stagegate.units import bytes_text

VERSION_STAGED = "stagegate.version.staged"
"""A version that the catalog had not known was staged. Payload: version, dataset, digest, files, bytes,
bytes_fetched."""
GATE_PASSED = "stagegate.gate.passed"
"""A gate accepted a version. Payload: version, dataset, digest, target, outcome, checks (name → outcome)."""
GATE_FAILED = "stagegate.gate.failed"
"""A gate refused a version, or could not decide; `outcome` tells which. Payload: as for `stagegate.gate.passed`."""
REF_MOVED = "stagegate.ref.moved"
"""A target's ref was moved by a promotion. Payload: version, dataset, digest, target, previous
(empty for the first)."""
CACHE_NEARLY_FULL = "stagegate.cache.nearly_full"
"""A cache's volume has little room left. Payload: cache, used, free, size, share (bytes; of the volume that is used)."""


def in_a_run() -> bool:
    """Whether this is called in a flow or task run, and so has an API to tell things to."""
    return bool(FlowRunContext.get() or TaskRunContext.get())


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, or the package's when there is no run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("prefect_stagegate")


def announce(event: str, dataset: str, digest: str, **payload: Any) -> None:
    """Emit one of the events above about a version, on the resource `stagegate.dataset.<dataset>`.

    The resource's label `stagegate.target` lets automations match one target; it is absent from events without one.

    Args:
        event: Its name.
        dataset: The dataset.
        digest: The version.
        payload: What the event says beyond `version`, `dataset` and `digest`; small JSON values.
    """
    if in_a_run():
        resource = {"prefect.resource.id": f"stagegate.dataset.{dataset}", "prefect.resource.name": dataset}
        if "target" in payload:
            resource["stagegate.target"] = payload["target"]
        said: Mapping[str, Any] = {"version": f"{dataset}@{digest}", "dataset": dataset, "digest": digest, **payload}
        emit_event(event, resource=resource, payload=dict(said))


def announce_version(version: Version) -> None:
    """Say in one line what was staged, and emit the event when the catalog had not known the version."""
    sizes = map(bytes_text, (version.bytes, version.bytes_fetched, version.bytes_reused))
    run_log().info("%s: %d files, %s; fetched %s, reused %s", version.address, version.files, *sizes)
    if version.new:
        figures = {"files": version.files, "bytes": version.bytes, "bytes_fetched": version.bytes_fetched}
        announce(VERSION_STAGED, version.dataset, version.digest, **figures)


def attach(artifact: Artifact) -> None:
    """Show an artifact at the run."""
    if not in_a_run():
        return
    try:
        artifact.create(_sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine
    except Exception as error:  # noqa: BLE001 - whatever ails the API, the work is done
        run_log().warning("The artifact %s could not be stored: %s", artifact.key, error)
