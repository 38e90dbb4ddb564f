"""The events of a round: `stagegate.watch.answered` where somebody has to know, and those of a rollback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import NAMESPACE_URL, uuid5

from prefect_stagegate.model import Promotion
from prefect_stagegate.plugins.watch.watch_records import WatchAction, WatchAnswer
from prefect_stagegate.tasks._support.version_events import VersionEvent, rollback_events, version_event
from prefect_stagegate.workspace import Workspace

WATCH_ANSWERED = "stagegate.watch.answered"
"""A round of watching told, held or rolled back. Payload: version, dataset, digest, target, outcome, action, reason,
returned_to, checks (name → outcome)."""


def watch_events(workspace: Workspace, answers: Iterable[WatchAnswer]) -> Iterator[VersionEvent]:
    """The events of the rounds that did something. Each has one id, so that the server keeps it once."""
    for answer in answers:
        if answer.action is not WatchAction.NONE:
            about = (answer.dataset, answer.target, str(answer.number), answer.at)
            yield version_event(
                WATCH_ANSWERED,
                answer.dataset,
                answer.digest,
                identity=uuid5(NAMESPACE_URL, "/".join((WATCH_ANSWERED, *about))),
                target=answer.target,
                outcome=answer.outcome.value,
                action=answer.action.value,
                reason=answer.why,
                returned_to=answer.returned_to,
                checks={check: outcome.value for check, outcome, _ in answer.checks},
            )
        if answer.returned_to:
            moved = Promotion(answer.dataset, answer.target, answer.returned_to, answer.digest)
            yield from rollback_events(workspace, moved)
