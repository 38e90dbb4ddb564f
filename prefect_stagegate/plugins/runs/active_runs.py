"""The runs that are active in this process, and how each is told which version it uses.

A tracker is asked only where the process has imported it: nothing is imported to find a run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect_stagegate.jobs.read import VersionInUse
from prefect_stagegate.plugins.runs.use_records import MODELS, TrackedRun, clean

_warned: set[str] = set()
log = logging.getLogger(__name__)
Tags = Mapping[str, str]


@contextmanager
def unfailing(doing: str) -> Iterator[None]:
    """Log what the block raises, once a process for each `doing`, and go on: a run reads its data all the same."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever ails a tracker or the catalog
        if doing not in _warned:
            _warned.add(doing)
            log.warning("Could not %s: %s", doing, clean(f"{type(error).__name__}: {error}"))


def _no_models() -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run, and how its tracker is told and asked. Both calls may take long, and may raise anything."""

    run: TrackedRun
    tell: Callable[[VersionInUse, Tags], None] | None = None
    """Logs a version with its tags to the run; None where the process has only the run's name."""
    models: Callable[[], Iterable[str]] = _no_models
    """The models that the run has registered."""


def active_runs() -> list[ActiveRun]:
    """The runs of this process, in the thread that calls."""
    runs: list[ActiveRun] = []
    for find in (_mlflow, _wandb, _prefect):
        with unfailing(f"find the run of {find.__name__[1:]}"):
            runs += find()
    return runs


def _mlflow() -> Iterator[ActiveRun]:
    mlflow: Any = sys.modules.get("mlflow")
    if active := mlflow and mlflow.active_run():
        from prefect_stagegate.plugins.runs.mlflow_input import log_input, registered_models

        # By its id, since a run is active in one thread alone.
        run, uri = active.info.run_id, mlflow.get_tracking_uri()
        known = TrackedRun("mlflow", run, active.info.run_name or "", uri)
        yield ActiveRun(known, partial(log_input, run, uri), partial(registered_models, run, uri, MODELS))
    elif run := os.environ.get("MLFLOW_RUN_ID"):
        yield ActiveRun(TrackedRun("mlflow", run, place=os.environ.get("MLFLOW_TRACKING_URI", "")))


def _wandb() -> Iterator[ActiveRun]:
    if run := getattr(sys.modules.get("wandb"), "run", None):
        place = "" if run.offline else run.url or ""
        yield ActiveRun(TrackedRun("wandb", run.id, run.name or "", place), partial(_tell_wandb, run))
    elif name := os.environ.get("WANDB_RUN_ID"):
        yield ActiveRun(TrackedRun("wandb", name))


def _tell_wandb(run: Any, version: VersionInUse, tags: Tags) -> None:
    """Put the tags into the run's configuration, and use the version as an artifact, which is refused offline."""
    address = f"{version.dataset}@{version.ref or version.digest[:19]}"
    run.config.update({f"stagegate/{address}": dict(tags)}, allow_val_change=True)
    if not run.offline:
        artifact = sys.modules["wandb"].Artifact(version.dataset, type="dataset", metadata=dict(tags))
        artifact.add_reference(version.url, name="version", checksum=False)
        run.use_artifact(artifact)


def _prefect() -> Iterator[ActiveRun]:
    context: Any = sys.modules.get("prefect.context")
    flow, task = (getattr(context, kind).get() if context else None for kind in ("FlowRunContext", "TaskRunContext"))
    if flow and flow.flow_run:
        yield ActiveRun(TrackedRun("prefect", str(flow.flow_run.id), flow.flow_run.name))
    elif task and task.task_run.flow_run_id:  # of a worker in another process
        yield ActiveRun(TrackedRun("prefect", str(task.task_run.flow_run_id)))
    elif run := os.environ.get("PREFECT__FLOW_RUN_ID"):
        yield ActiveRun(TrackedRun("prefect", run))
