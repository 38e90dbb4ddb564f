"""The flow `watch`: ask promoted versions' checks again where that is due."""

from __future__ import annotations

from prefect import State, flow
from prefect.states import Completed, Failed

from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.watch.watch_events import watch_events
from prefect_stagegate.plugins.watch.watch_records import WatchAnswer
from prefect_stagegate.plugins.watch.watching import watch_round, watched_target, watched_targets
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import announce, run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, open_places
from prefect_stagegate.unreadable import UnreadableRecords


@flow(name="stagegate-watch")
def watch(
    targets: list[str] | None = None, cache: CacheLike = None, catalog: CatalogLike = None
) -> State[list[WatchAnswer]]:
    """Ask the checks again that targets' `watch` names, where that is due, and do what it says on a failure.

    Schedule it as often as `every` says. Each round that told, held or rolled back emits `stagegate.watch.answered`.

    Args:
        targets: `nycflights@production`, …; all that are watched, where none is named.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        StagegateError: A target is not watched, or the catalog can't be read.
    """
    workspace, unreadable = open_places(cache, catalog), UnreadableRecords()
    with ending() as cancel:
        named = [watched_target(workspace, Address.parse(target)) for target in targets or ()]
        watched = named or watched_targets(workspace, unreadable)
        asked = (watch_round(workspace, each, cancel) for each in watched if each.is_due)
        answers = [answer for answer in asked if answer]
    for event in watch_events(workspace, answers):
        announce(event)
    for record in unreadable.all:
        run_log().warning("A record can't be read: %s", record)
    failed = [f"{answer.dataset}@{answer.target}: {answer.why}" for answer in answers if answer.outcome is Outcome.FAIL]
    if failed:
        return Failed(message="; ".join(failed), data=answers)
    return Completed(message=f"{len(answers)} asked", data=answers)
