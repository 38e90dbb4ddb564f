"""`stagegate watch`, `watch hold` and `watch release`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, Signature
from prefect_stagegate.cli.printing import print_records, print_result, print_rows, say
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.watch.watch_records import WatchAction, WatchAnswer
from prefect_stagegate.plugins.watch.watching import Watched, watch_round, watched_target, watched_targets
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.unreadable import UnreadableRecords

EXITS = {Outcome.FAIL: ExitCode.GATE_FAILED, Outcome.INCONCLUSIVE: ExitCode.ERROR}


def watch(
    *targets: Annotated[str, Parameter(help="DATASET@TARGET; all that are watched, where none is named.")],
    now: Annotated[bool, Parameter(negative="", help="Ask also where it is not due yet.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="List what is watched and due; ask nothing.")] = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print only rounds that told, held or rolled back.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Ask the checks again that a target's `watch` names.

    Only those that are due. Run it by a timer, as often as `every` says. Exits with 1 where a version failed, and with
    3 where a check had no result.

    For example:

    - `stagegate watch`
    - `stagegate watch nycflights@production --now`
    """
    workspace, unreadable = places.workspace(), UnreadableRecords()
    if targets:
        watched = [watched_target(workspace, Address.parse(target)) for target in targets]
    else:
        watched = list(watched_targets(workspace, unreadable))
    if dry_run:
        print_records(list(map(_plan, watched)), _show_plan, unreadable, json=json)
        return ExitCode.PASS
    asked = (watch_round(workspace, each) for each in watched if now or each.is_due)
    answers = [answer for answer in asked if answer]
    if answers:
        from prefect_stagegate.cli.reporting import emit_events
        from prefect_stagegate.plugins.watch.watch_events import watch_events

        emit_events(lambda: watch_events(workspace, answers))
    shown = [answer for answer in answers if answer.action is not WatchAction.NONE] if quiet else answers
    print_records(shown, partial(_show, quiet=quiet), unreadable, json=json)
    found = {answer.outcome for answer in answers}
    return next((EXITS[each] for each in EXITS if each in found), ExitCode.PASS)


def hold(
    target: Annotated[str, Parameter(help="DATASET@TARGET, watched or not.")],
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Let no promotion to a target through until somebody releases it.

    What it serves stays, and may be rolled back. Whoever may waive at its gate may.

    For example:

    - `stagegate watch hold nycflights@production --reason "the vendor mends its labels"`
    """
    from prefect_stagegate.plugins.watch.holding import hold_target
    from prefect_stagegate.plugins.watch.watch_events import emit_hold

    workspace = places.workspace()
    address = Address.parse(target)
    held = hold_target(workspace, address, reason, signature.person_key(workspace))
    print_result(held, lambda _: say(f"{target} is held"), json=json)
    emit_hold(address, held)


def release(
    target: Annotated[str, Parameter(help="DATASET@TARGET.")],
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Let promotions to a target through that `watch` holds.

    Whoever may waive at its gate may.

    For example:

    - `stagegate watch release nycflights@production --reason "labels were mended, see v4"`
    """
    from prefect_stagegate.plugins.watch.holding import release_target

    workspace = places.workspace()
    hold = release_target(workspace, Address.parse(target), reason, signature.person_key(workspace))
    print_result(hold, lambda _: say(f"{target} is released"), json=json)


def _plan(watched: Watched) -> dict[str, Any]:
    return {
        "target": str(watched),
        "digest": watched.move.digest,
        "since": watched.move.at,
        "checks": watched.keys.checks,
        "on_failure": watched.keys.on_failure,
        "due": watched.is_due,
        "held": watched.hold.why if watched.hold else "",
    }


def _show_plan(plans: Sequence[dict[str, Any]]) -> None:
    if not plans:
        say("No target is watched: no adopted policy has `watch` below a gate")
        return
    rows = (
        (target, time_text(since), ", ".join(checks), on_failure, "yes" if due else "no", held)
        for target, _, since, checks, on_failure, due, held in map(dict.values, plans)
    )
    print_rows(("TARGET", "SINCE", "CHECKS", "ON FAILURE", "DUE", "HELD"), rows)


def _show(answers: Sequence[WatchAnswer], *, quiet: bool) -> None:
    if not (answers or quiet):
        say("Nothing was due")
    for answer in answers:
        done = "" if answer.action is WatchAction.NONE else f", {answer.action}"
        say(f"{answer.dataset}@{answer.target}: {answer.outcome}{done}")
        for check, outcome, summary in answer.checks:
            say(f"  {check}: {outcome}, {summary}")
        if answer.why:
            say(f"  why: {answer.why}")
        if answer.returned_to:
            say(f"  returned to {answer.returned_to}")
