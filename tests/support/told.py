"""What the Prefect server of this process was told: its events, artifacts and task runs, read by its API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

PATIENCE = 20.0
"""Seconds until what was told must have reached the server's database."""


def events_about(resource: str, count: int = 0) -> list[dict[str, Any]]:
    """The events about a resource, the oldest first, once there are `count` of them.

    Args:
        resource: Its id; a closing `*` stands for any ending.
        count: How many must be there. With 0, what is there when all that was emitted before has arrived.
    """
    key = "id_prefix" if resource.endswith("*") else "id"
    wanted = {"resource": {key: [resource.removesuffix("*")]}, "order": "ASC"}
    if not count:
        marker = f"stagegate.test.{uuid4()}"
        emit_event("stagegate.test.marker", resource={"prefect.resource.id": marker})
        events_about(marker, 1)
    return _once(lambda: _ask("/events/filter", {"filter": wanted})["events"], lambda events: len(events) >= count)


def artifact(key: str) -> dict[str, Any]:
    """The newest artifact of a key."""
    answer = httpx.get(f"{PREFECT_API_URL.value()}/artifacts/{key}/latest", timeout=10)
    newest: dict[str, Any] = answer.raise_for_status().json()
    return newest


def artifacts_of(flow_run: str) -> list[dict[str, Any]]:
    """All artifacts of a flow run, the oldest first."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "CREATED_DESC"}
    artifacts: list[dict[str, Any]] = _ask("/artifacts/filter", wanted)
    return artifacts[::-1]


def task_runs_of(flow_run: str) -> list[dict[str, Any]]:
    """The task runs of a flow run, the oldest first, once all of them ended."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "EXPECTED_START_TIME_ASC"}
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    return _once(
        lambda: _ask("/task_runs/filter", wanted),
        lambda runs: bool(runs) and all(run["state_type"] in ended for run in runs),
    )


def _once(
    ask: Callable[[], list[dict[str, Any]]], enough: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """The answer once it is enough, or the last one before the patience ends."""
    until = time.monotonic() + PATIENCE
    while True:
        records = ask()
        if enough(records) or time.monotonic() > until:
            return records
        time.sleep(0.1)


def _ask(path: str, wanted: dict[str, Any]) -> Any:
    return httpx.post(f"{PREFECT_API_URL.value()}{path}", json=wanted, timeout=10).raise_for_status().json()
