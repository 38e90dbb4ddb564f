"""Watching in a report: the last rounds about the version, and whether a target is held."""

from __future__ import annotations

from dataclasses import asdict

from prefect_stagegate.plugins.watch.watch_keys import watch_of
from prefect_stagegate.plugins.watch.watch_records import WatchAnswer, holds_of, newest_answers
from prefect_stagegate.show.document import Cell, Section, Table, Text, VersionBeside
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.workspace import Workspace

SHOWN = 10
"""The newest rounds of a target that a report shows."""


def watch_section(workspace: Workspace, subject: VersionBeside) -> list[Section]:
    """What `watch` found about a version."""
    version, catalog = subject.version, workspace.catalog
    targets = [target for target, gate in version.spec.gates.items() if watch_of(gate)]
    holds = holds_of(catalog, version.dataset)
    answers = [
        answer
        for target in targets
        for answer in reversed(newest_answers(catalog, version.dataset, target, SHOWN))
        if answer.digest == version.digest
    ]
    texts = [Text(f"{target} is held since {time_text(hold.at)}: {hold.why}") for target, hold in holds.items()]
    table = Table(("Target", "Asked", "Outcome", "Done"), tuple(map(_row, answers)))
    if not (texts or answers):
        return []
    values = {"holds": {target: asdict(hold) for target, hold in holds.items()}, "rounds": list(map(asdict, answers))}
    return [
        Section("Watched since its promotion" if answers else "Held", (*texts, *((table,) if answers else ())), values)
    ]


def _row(answer: WatchAnswer) -> tuple[Cell, ...]:
    done = answer.action.value if answer.action != "none" else ""
    return (
        Cell(answer.target),
        Cell(time_text(answer.at)),
        Cell(answer.outcome.value, "; ".join(f"{check}: {summary}" for check, _, summary in answer.checks)),
        Cell(done, answer.why),
    )
