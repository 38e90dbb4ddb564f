"""`stagegate watch` and `watch release`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import print_records, print_result, print_rows, say
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.watch.watch_records import Hold, WatchAnswer
from prefect_stagegate.plugins.watch.watching import Watched, watch_round, watched_target, watched_targets
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.unreadable import UnreadableRecords

EXITS = {Outcome.FAIL: ExitCode.GATE_FAILED, Outcome.INCONCLUSIVE: ExitCode.ERROR}


def watch(
    *targets: Annotated[str, Parameter(help="DATASET@TARGET; all that are watched, where none is named.")],
    now: Annotated[bool, Parameter(negative="", help="Ask also where it is not due yet.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="List what is watched and due; ask nothing.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Ask the checks again that a target's `watch` names, where that is due, and do what it says on a failure.

    Run it by a timer, as often as `every` says. Two at once ask once. Exits with 1 where a version failed, and with 3
    where a check had no result.

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
        print_records([_plan(each) for each in watched], _show_plan, unreadable, json=json)
        return ExitCode.PASS
    asked = (watch_round(workspace, each) for each in watched if now or each.is_due)
    answers = [answer for answer in asked if answer]
    if answers:
        from prefect_stagegate.cli.reporting import emit_events
        from prefect_stagegate.plugins.watch.watch_events import watch_events

        emit_events(lambda: watch_events(workspace, answers))
    print_records(answers, _show, unreadable, json=json)
    found = {answer.outcome for answer in answers}
    return next((EXITS[each] for each in EXITS if each in found), ExitCode.PASS)


def release(
    target: Annotated[str, Parameter(help="DATASET@TARGET.")],
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why it is settled; kept in the catalog.")],
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Let promotions to a target through that `watch` holds.

    For example:

    - `stagegate watch release nycflights@production --reason "labels were mended, see v4"`
    """
    from prefect_stagegate.plugins.watch.watching import release_target

    hold = release_target(places.workspace(), Address.parse(target), reason)
    print_result(hold, lambda _: say(f"{target} is released"), json=json)


def _plan(watched: Watched) -> dict[str, object]:
    hold: Hold | None = watched.hold
    return {
        "target": str(watched),
        "digest": watched.move.digest,
        "since": watched.move.at,
        "checks": list(watched.keys.checks),
        "on_failure": watched.keys.on_failure,
        "due": watched.is_due,
        "held": hold.why if hold else "",
    }


def _show_plan(plans: Sequence[dict[str, object]]) -> None:
    if not plans:
        say("No target is watched: no adopted policy has `watch` below a gate")
        return
    rows = (
        (plan["target"], time_text(str(plan["since"])), ", ".join(map(str, plan["checks"])),  # type: ignore[call-overload]
         plan["on_failure"], "yes" if plan["due"] else "no", plan["held"])
        for plan in plans
    )  # fmt: skip
    print_rows(("TARGET", "SINCE", "CHECKS", "ON FAILURE", "DUE", "HELD"), ([str(cell) for cell in row] for row in rows))


def _show(answers: Sequence[WatchAnswer]) -> None:
    if not answers:
        say("Nothing was due")
    for answer in answers:
        say(f"{answer.dataset}@{answer.target}: {answer.outcome}{f', {answer.action}' if answer.action != 'none' else ''}")
        for check, outcome, summary in answer.checks:
            say(f"  {check}: {outcome}, {summary}")
        if answer.why:
            say(f"  why: {answer.why}")
        if answer.returned_to:
            say(f"  returned to {answer.returned_to}")
