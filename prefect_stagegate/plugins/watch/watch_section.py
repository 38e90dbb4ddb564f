"""Watching in a report: the last rounds about the version. And in a report and a status, which targets are held."""

from __future__ import annotations

from dataclasses import asdict

from prefect_stagegate.doors import hidden_names
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.watch.holding import held_text, holds_of, release_command
from prefect_stagegate.plugins.watch.watch_keys import watch_of
from prefect_stagegate.plugins.watch.watch_records import ANSWERS, WatchAnswer
from prefect_stagegate.show.document import Cell, Section, Table, Text, VersionBeside
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.workspace import Workspace

SHOWN = 10
"""The newest rounds of a target that a report shows."""


def held_section(workspace: Workspace, subject: Address) -> list[Section]:
    """The targets of a dataset that are held, each with the command that releases it."""
    holds = holds_of(workspace, subject.dataset)
    hidden = hidden_names(workspace.catalog) if holds else {}
    texts, values = list[Text](), {}
    for target, hold in holds.items():
        if str(address := Address(subject.dataset, target)) not in hidden:
            command = release_command(address)
            texts += [Text(held_text(address, hold)), Text(f"Next: {command}")]
            values[target] = {**asdict(hold), "next_step": command}
    return [Section("Held", tuple(texts), {"holds": values})] if texts else []


def watch_section(workspace: Workspace, subject: VersionBeside) -> list[Section]:
    """What `watch` found about a version, and what is held."""
    version = subject.version
    held = held_section(workspace, Address(version.dataset))
    answers = [
        answer
        for target, gate in version.spec.gates.items()
        if watch_of(gate)
        for answer in reversed(workspace.catalog.all(ANSWERS, version.dataset, target, newest=SHOWN))
        if answer.digest == version.digest
    ]
    if not (held or answers):
        return []
    table = Table(("Target", "Asked", "Outcome", "Done"), tuple(map(_row, answers)))
    values = {"holds": {}, "rounds": list(map(asdict, answers))}
    return [*held, Section("Watched since its promotion", (table,) if answers else (), values)]


def _row(answer: WatchAnswer) -> tuple[Cell, ...]:
    done = answer.action.value if answer.action != "none" else ""
    return (
        Cell(answer.target),
        Cell(time_text(answer.at)),
        Cell(answer.outcome.value, "; ".join(f"{check}: {summary}" for check, _, summary in answer.checks)),
        Cell(done, answer.why),
    )
