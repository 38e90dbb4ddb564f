"""What `stagegate check` prints before it decides: the version that it judges, and the plan of its checks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.cli.ages import with_ages
from prefect_stagegate.cli.printing import escaped, print_json, say, say_line
from prefect_stagegate.clock import now
from prefect_stagegate.gate.gate import PlannedCheck
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import LATEST
from prefect_stagegate.units import bytes_text, count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import ResolvedVersion

SHORT = 0.05
"""Seconds below which a check's time is not worth a figure."""


def judged_line(workspace: Workspace, version: ResolvedVersion, gate: str) -> str:
    """One line for people: the version's digest, the refs that name it, when it was staged, and the policy."""
    # A check decides without them, also where a ref's newest entry is not proved.
    heads = ref_heads(workspace.catalog, version.dataset, UnreadableRecords())
    names = [name for name, head in heads.items() if head.entry.digest == version.digest]
    latest = heads[LATEST].entry if LATEST in heads else None
    staged = latest.at if latest and latest.digest == version.digest else _staged_at(workspace, version)
    facts = [", ".join(names) or "no ref names it", *([f"staged {staged[:19]}Z"] if staged else [])]
    if latest and latest.digest != version.digest:
        facts.append(f"{LATEST} names {digest_text(latest.digest)}")
    about = f"{version.dataset}@{digest_text(version.digest)} ({'; '.join(facts)}) for {gate}"
    if version.is_trial:
        return f"TRIAL under your own spec: it is not recorded and does not count. It judges {about}"
    return f"Judging {about} by policy {digest_text(version.adopted)}"


def _staged_at(workspace: Workspace, version: ResolvedVersion) -> str:
    """When the version was staged last; empty when `latest` never named it."""
    moves = workspace.catalog.history(version.dataset, LATEST)
    return next((move.at for move in reversed(moves) if move.digest == version.digest), "")


def print_plan(planned: Sequence[PlannedCheck], *, json: bool) -> None:
    """Print the whole plan: the cost first, then each check."""
    if json:
        print_json(
            [
                {
                    "check": check.requirement.check,
                    "state": check.state,
                    "reason": check.reason,
                    "seconds": check.seconds,
                    "bytes_to_fetch": check.fetches,
                }
                for check in planned
            ]
        )
        return
    say(forecast(planned))
    for check in planned:
        answer = f"{check.evidence.outcome}: {check.evidence.summary}" if check.evidence is not None else check.reason
        say_line(f"{check.requirement.check:<18} {check.state:<8} {_seconds(check):>8}  {with_ages(answer, now())}")


def announce(planned: Sequence[PlannedCheck]) -> None:
    """Print the checks that are to be asked on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return
    print(forecast(planned), file=sys.stderr)
    for check in planned:
        if check.evidence is None:
            line = f"  {check.requirement.check:<18} {_seconds(check):>8}  {check.reason}"
            print(escaped(" ".join(line.splitlines())), file=sys.stderr)


def forecast(planned: Sequence[PlannedCheck]) -> str:
    """One line: how many checks are to be asked, how long they took last time, and what has to be fetched for them."""
    due = [check for check in planned if check.evidence is None]
    if not due:
        return f"No check to run: all evidence still holds ({count_text(len(planned), 'check')})."
    # Checks that share their work take its time once.
    seconds: dict[str, float] = {}
    for check in due:
        if check.seconds is not None:
            work = check.definition.shared or check.requirement.check
            seconds[work] = max(check.seconds, seconds.get(work, 0.0))
    took = f"took {_about(sum(seconds.values()))} last time" if seconds else "their time is not known yet"
    untimed = sum((check.definition.shared or check.requirement.check) not in seconds for check in due)
    more = f", {untimed} of unknown duration" if seconds and untimed else ""
    # Each check names all bytes that this node lacks, and they are fetched once for all checks.
    missing = max(check.fetches for check in due)
    fetch = f", after fetching {bytes_text(missing)} to this node" if missing else ""
    return f"To run: {len(due)} of {count_text(len(planned), 'check')}, {took}{more}{fetch}."


def _seconds(check: PlannedCheck) -> str:
    return "?" if check.seconds is None else _about(check.seconds)


def _about(seconds: float) -> str:
    if seconds < SHORT:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - a minute
