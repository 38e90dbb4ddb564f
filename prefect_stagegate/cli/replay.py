"""`stagegate gate replay`: what another policy would have decided."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import print_json, say
from prefect_stagegate.jobs.review.trials import Replayed, replay_records
from prefect_stagegate.units import count_text, digest_text


def replay(
    *,
    policy: Annotated[Path, Parameter(metavar="FILE", help="A spec, whose gates are the policy.")],
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only decisions of this gate.")] = "",
    since: Annotated[
        str, Parameter(metavar="TIME", help="Only decisions from then on: 30d, 2026-03-01 or a time.")
    ] = "",
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Decide recorded decisions again under another policy, and show which change and by which checks.

    No check runs, and nothing is recorded. A check with other limits is judged by the figures that it measured; without
    them it is inconclusive.

    For example:

    - `stagegate gate replay --policy stricter.yaml --since 30d`
    """
    replayed = list(replay_records((places or Places()).workspace(), policy, since=since, target=gate))
    if json:
        print_json([asdict(decision) | {"flipped": decision.flipped} for decision in replayed])
        return
    for decision in replayed:
        if decision.flipped or decision.problem:
            _print(decision)
    flipped = sum(decision.flipped for decision in replayed)
    say(f"{flipped:,} of {count_text(len(replayed), 'decision')} change.")


def _print(decision: Replayed) -> None:
    version = f"{decision.dataset}@{digest_text(decision.digest)}"
    if decision.problem:
        say(f"{version} for {decision.target}: {decision.problem}")
        return
    say(f"{decision.at[:19]}Z  {version} for {decision.target}: {decision.before} → {decision.after}")
    for check in decision.checks:
        say(f"    {check.check:<16} {check.before} → {check.after}{': ' + check.why if check.why else ''}")
