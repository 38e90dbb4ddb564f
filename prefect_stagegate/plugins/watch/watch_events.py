"""The events of a round and of a hold by hand: `stagegate.watch.answered`, and those of a rollback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from prefect_stagegate.model import Address, Promotion
from prefect_stagegate.plugins.watch.watch_records import Hold, WatchAction, WatchAnswer
from prefect_stagegate.tasks._support.version_events import VersionEvent, rollback_events, version_event
from prefect_stagegate.workspace import Workspace

WATCH_ANSWERED = "stagegate.watch.answered"
"""A round of watching told, held or rolled back, or somebody held. Payload: version, dataset, digest, target, outcome,
action, reason, returned_to, checks (name → outcome); no outcome and no checks where somebody held."""


def watch_events(workspace: Workspace, answers: Iterable[WatchAnswer]) -> Iterator[VersionEvent]:
    """The events of the rounds that did something."""
    for answer in answers:
        if answer.action is not WatchAction.NONE:
            yield _answered(
                (answer.dataset, answer.target, str(answer.number), answer.at),
                answer.digest,
                outcome=answer.outcome.value,
                action=answer.action.value,
                reason=answer.why,
                returned_to=answer.returned_to,
                checks={check: outcome.value for check, outcome, _ in answer.checks},
            )
        if answer.returned_to:
            moved = Promotion(answer.dataset, answer.target, answer.returned_to, answer.digest)
            yield from rollback_events(workspace, moved)


def emit_hold(address: Address, hold: Hold) -> None:
    """Send the event of a hold by hand, if Prefect's API is configured. A release has none."""
    from prefect_stagegate.cli.reporting import emit_events

    about = (address.dataset, address.target, hold.at)
    facts = {"outcome": "", "action": WatchAction.HELD.value, "reason": f"{hold.who}: {hold.why}"}
    if hold.is_held:
        emit_events(lambda: [_answered(about, hold.digest, **facts, returned_to="", checks={})])


def _answered(about: tuple[str, ...], digest: str, **payload: Any) -> VersionEvent:
    """The event about a dataset and target. It has one id, so that the server keeps it once."""
    identity = uuid5(NAMESPACE_URL, "/".join((WATCH_ANSWERED, *about)))
    return version_event(WATCH_ANSWERED, about[0], digest, identity=identity, target=about[1], **payload)
