"""What `stagegate check` is going to ask, why, and how long that took last time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect_stagegate.cli.ages import with_ages
from prefect_stagegate.cli.common import escaped, print_json, say, say_line
from prefect_stagegate.clock import now
from prefect_stagegate.readiness import PlannedCheck
from prefect_stagegate.units import bytes_text, count_text

SOON = 0.05
"""Seconds that nobody waits for."""


def tell_plan(planned: Sequence[PlannedCheck], *, json: bool) -> None:
    """Print the whole plan: the cost first, then each check."""
    if json:
        print_json(
            [
                {
                    "check": one.requirement.check,
                    "state": one.state,
                    "reason": one.reason,
                    "seconds": one.seconds,
                    "bytes_to_fetch": one.fetches,
                }
                for one in planned
            ]
        )
        return
    say(forecast(planned))
    for one in planned:
        held = f"{one.evidence.outcome}: {one.evidence.summary}" if one.evidence else one.reason
        say_line(f"{one.requirement.check:<18} {one.state:<8} {_seconds(one):>8}  {with_ages(held, now())}")


def announce(planned: Sequence[PlannedCheck]) -> None:
    """Tell somebody who waits at a terminal what they wait for."""
    if not sys.stderr.isatty():
        return
    print(forecast(planned), file=sys.stderr)
    for one in planned:
        if one.evidence is None:
            line = f"  {one.requirement.check:<18} {_seconds(one):>8}  {one.reason}"
            print(escaped(" ".join(line.splitlines())), file=sys.stderr)


def forecast(planned: Sequence[PlannedCheck]) -> str:
    """One line: how many checks are to be asked, how long they took last time, and what has to be fetched for them."""
    asked = [one for one in planned if one.evidence is None]
    if not asked:
        return f"Nothing to ask: all evidence still holds ({count_text(len(planned), 'check')})."
    seconds: dict[str, float] = {}
    for one in asked:
        if one.seconds is not None:
            work = one.definition.shared or one.requirement.check
            seconds[work] = max(one.seconds, seconds.get(work, 0.0))
    took = f"took {_about(sum(seconds.values()))} last time" if seconds else "their time is not known yet"
    untimed = sum((one.definition.shared or one.requirement.check) not in seconds for one in asked)
    more = f", and {untimed} of unknown length" if seconds and untimed else ""
    missing = max(one.fetches for one in asked)
    fetch = f", after bringing {bytes_text(missing)} to this node" if missing else ""
    return f"To ask: {len(asked)} of {count_text(len(planned), 'check')}, {took}{more}{fetch}."


def _seconds(one: PlannedCheck) -> str:
    return "?" if one.seconds is None else _about(one.seconds)


def _about(seconds: float) -> str:
    if seconds < SOON:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - a minute
