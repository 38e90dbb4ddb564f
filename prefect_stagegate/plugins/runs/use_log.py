"""Tells the runs of this process which version they use, and records the uses in the catalog.

Trackers and catalogs may hang, so both are done in a thread, which is waited for no longer than `SECONDS`. What fails
is logged once: a run reads its data whatever its tracker does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Event

from prefect_stagegate.catalog import Catalog, moves
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.jobs.open_workspace import whoami
from prefect_stagegate.jobs.read import VersionInUse
from prefect_stagegate.jobs.review.decisions import decision_line
from prefect_stagegate.model import LATEST
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.runs.active_runs import ActiveRun, active_runs, unfailing
from prefect_stagegate.plugins.runs.use_records import TrackedRun, UseBegun, record_begun, record_ended
from prefect_stagegate.sources.wrappers.timeout import call_with_timeout

SECONDS = 5.0
"""How long a reader waits for all trackers and the catalog together, once when a use begins and once when it ends."""


def begin(version: VersionInUse) -> None:
    """Begin the use of a version by the runs that are active."""
    _begin(version, active_runs())


def log(version: VersionInUse, run: str) -> tuple[str, ...]:
    """Begin the use of a version by the runs that are active and not known yet, and by one that is named."""
    tool, colon, name = run.partition(":")
    named = [ActiveRun(TrackedRun(tool, name) if colon else TrackedRun("", run))] if run.strip() else []
    _begin(version, [*active_runs(), *named])
    return tuple(map(str, version.ends))


def tags(version: VersionInUse) -> dict[str, str]:
    """What a run should know of a version, as flat texts; without the decision where the catalog can't be read."""
    known = _plain_tags(version)
    with unfailing("read the decision about a version"):
        known |= call_with_timeout(lambda: _decision_tags(version, version.open_catalog()), SECONDS)
    return known


def _begin(version: VersionInUse, runs: Iterable[ActiveRun]) -> None:
    if new := {run.run: run for run in runs if run.run not in version.ends}:
        use = _Use(version, [*new.values()])
        version.ends.update(dict.fromkeys(new, use.end))
        with unfailing("tell the run which version it uses, in time"):
            call_with_timeout(use.begin, SECONDS)


class _Use:
    """The use of a version by runs of this process."""

    def __init__(self, version: VersionInUse, runs: list[ActiveRun]) -> None:
        self._version, self._runs = version, runs
        self._catalog: Catalog | None = None
        self._names: dict[TrackedRun, str] = {}
        self._process: int | None = os.getpid()
        self._has_begun = Event()

    def begin(self) -> None:
        """Tell the trackers, and record the uses."""
        version, tags = self._version, _plain_tags(self._version)
        try:
            with unfailing("open the catalog, to record which run uses a version"):
                self._catalog = version.open_catalog()
            with unfailing("read the decision about a version"):
                tags |= _decision_tags(version, self._catalog)
            for run in self._runs:
                if run.tell:
                    with unfailing(f"log a version to {run.run.tool}"):
                        run.tell(version, tags)
            self._record()
        finally:
            self._has_begun.set()

    def _record(self) -> None:
        settings, version = Settings.from_environment(os.environ), self._version
        for run in self._runs:
            if self._catalog is None:
                return
            with unfailing("record in the catalog which run uses a version"):
                use = UseBegun(run.run, version.ref, str(whoami(settings)), settings.node, stamp(now()))
                self._names[run.run] = record_begun(self._catalog, version.dataset, version.digest, use)

    def end(self) -> None:
        """Record the ends, unless that was done, or this is a fork of the process that began."""
        is_ours, self._process = self._process == os.getpid(), None
        if is_ours:
            with unfailing("record in the catalog that a use ended, in time"):
                call_with_timeout(self._end, SECONDS)

    def _end(self) -> None:
        self._has_begun.wait(SECONDS)
        for run in self._runs:
            models: Iterable[str] = ()
            with unfailing(f"ask {run.run.tool} for the models of a run"):
                models = run.models()
            if self._catalog and (name := self._names.get(run.run)):
                with unfailing("record in the catalog that a use ended"):
                    record_ended(self._catalog, self._version.dataset, self._version.digest, name, models)


def _plain_tags(version: VersionInUse) -> dict[str, str]:
    tags = {"dataset": version.dataset, "ref": version.ref, "digest": version.digest}
    return {f"stagegate.{name}": value for name, value in tags.items() if value}


def _decision_tags(version: VersionInUse, catalog: Catalog | None) -> dict[str, str]:
    """The decision by which the ref's target accepted the version, and its policy; nothing where none did."""
    if catalog is None or version.ref in ("", LATEST):
        return {}
    accepted = [
        entry for entry in moves(catalog.history(version.dataset, version.ref)) if entry.digest == version.digest
    ]
    if not accepted:
        return {}
    statement = whole_statement(catalog, accepted[-1].attestation)
    decision, _ = decision_line(version.dataset, version.digest, version.ref, statement)
    return {"stagegate.decision": decision.id, "stagegate.policy": decision.policy}
