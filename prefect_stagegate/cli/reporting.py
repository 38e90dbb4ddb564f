"""What commands say of a decision: its plan, its report, its expectations, and an event for Prefect."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.cli.printing import OUTPUT, escaped, print_json, print_table, say, say_line, write_output
from prefect_stagegate.clock import moment, now
from prefect_stagegate.gate.gate import PlannedCheck
from prefect_stagegate.model import LATEST, ExpectationResult
from prefect_stagegate.show import Report, Row, by_table, cells, document_of, render, to_rich
from prefect_stagegate.units import age_text, bytes_text, count_text, digest_text, listed
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import ResolvedVersion, Workspace

if TYPE_CHECKING:
    from prefect_stagegate.cli.flags import ReportFiles
    from prefect_stagegate.tasks._support.version_events import VersionEvent


def print_report(report: Report, *, json: bool) -> None:
    """Print a report: with colours to a terminal, as plain lines to a program."""
    if json:
        OUTPUT.begin()
        say(OUTPUT.text(document_of(report).values))
        return
    document = document_of(report_with_ages(report, now()))
    if sys.stdout.isatty():
        Console().print(to_rich(document), crop=False)
    else:
        say(render("text", document).rstrip())


def write_reports(report: Report, files: ReportFiles) -> list[Path]:
    """Write a report to each file that is given; return the files.

    Raises:
        UsageError: A file can't be written.
    """
    written = files.by_format()
    for name, path in written:
        write_output(render(name, document_of(report)), path, "The report")
    return [path for _, path in written]


TIME = re.compile(r"(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?!\w)")
"""A time as `wording.time_text` writes it."""


def with_ages(text: str, now: datetime) -> str:
    """The text with an age behind each time.

    >>> with_ages("last heartbeat at 2026-03-01T03:00:00Z", moment("2026-03-01T03:17:00Z"))
    'last heartbeat at 2026-03-01T03:00:00Z (17 min ago)'
    """

    def with_age(match: re.Match[str]) -> str:
        try:
            age = now - moment(match[0])
        except ValueError:  # digits of no date
            return match[0]
        past = age.total_seconds() >= 0
        return f"{match[0]} ({age_text(age)} ago)" if past else f"{match[0]} (in {age_text(-age)})"

    return TIME.sub(with_age, text)


def report_with_ages(report: Report, now: datetime) -> Report:
    """The report with an age behind each time in its rows' summaries and findings."""
    return replace(report, rows=tuple(_aged_row(row, now) for row in report.rows))


def _aged_row(row: Row, now: datetime) -> Row:
    findings = tuple(replace(finding, problem=with_ages(finding.problem, now)) for finding in row.findings)
    return replace(row, summary=with_ages(row.summary, now), findings=findings)


SHOWN_EXPECTATIONS = 20
"""The most expectations of one table that are printed; the failed ones come first."""
HEAD = ("verdict", "expectation", "observed", "refused rows", "examples", "time")
_COLOURS = {"failed": "red", "errored": "magenta", "passed": "green"}


def print_expectations(results: Sequence[ExpectationResult]) -> None:
    """Print a table with a row for each expectation; nothing without any."""
    if not results:
        return
    table = Table(*HEAD, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    ordered = list(chain.from_iterable(by_table(results).values()))
    for result in ordered[:SHOWN_EXPECTATIONS]:
        table.add_row(*_cells(result))
    print_table(table)
    if len(ordered) > SHOWN_EXPECTATIONS:
        say(f"… and {len(ordered) - SHOWN_EXPECTATIONS:,} more; --json has all")


def _cells(result: ExpectationResult) -> list[Text]:
    """The cells as text, never markup: a value may be `[red]`."""
    expectation, column, severity, verdict, observed, refused, examples, time = map(escaped, cells(result))
    verdict = verdict if severity == "critical" else f"{verdict} ({severity})"
    title = f"{column}: {expectation}" if column else expectation
    first = Text(verdict, _COLOURS.get(result.verdict, ""))
    return [first, *map(Text, (title, observed, refused, examples, time))]


SHORTEST_SECONDS = 0.05
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
    changed = f". What the spec changed ({listed(version.unstaged)}) counts after `stagegate stage SPEC`."
    return f"Judging {about} by policy {digest_text(version.adopted)}{changed if version.unstaged else ''}"


def _staged_at(workspace: Workspace, version: ResolvedVersion) -> str:
    """When the version was staged last; empty when `latest` never named it."""
    moves = workspace.catalog.history(version.dataset, LATEST)
    return next((move.at for move in reversed(moves) if move.digest == version.digest), "")


def print_plan(planned: Sequence[PlannedCheck], *, json: bool) -> None:
    """Print the whole plan: the cost first, then each check."""
    if json:
        names = ("check", "state", "reason", "seconds", "bytes_to_fetch")
        rows = [(check.requirement.check, check.state, check.reason, check.seconds, check.fetches) for check in planned]
        print_json([dict(zip(names, row, strict=True)) for row in rows])
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
    if seconds < SHORTEST_SECONDS:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - a minute


EVENT_SECONDS = 10.0
"""Seconds that a command waits for Prefect's API, at most. By then its work is done and printed."""


def emit_events(events: Callable[[], Iterable[VersionEvent]]) -> None:
    """Send events to Prefect's API, if one is configured. A failure is printed and changes nothing else.

    `events` makes them, and is called only then.
    """
    if not api_is_configured():
        return
    # Readers of a pipe see what the command did before it waits for the API.
    sys.stdout.flush()
    # The import of Prefect stands inside, too: the command has done its work, and nothing may fail it now.
    try:
        from prefect_stagegate.tasks._support.notify import send_events

        failure = _send_within(EVENT_SECONDS, partial(send_events, [*events()]))
    except Exception as error:  # noqa: BLE001 - whatever ails Prefect
        failure = f"{type(error).__name__}: {error}"
    if failure:
        print(f"stagegate: no event was sent to Prefect: {escaped(failure)}", file=sys.stderr)


def _send_within(seconds: float, send: Callable[[], None]) -> str:
    """Call `send` for so many seconds at most; return why it failed or did not return, empty when it succeeded."""
    # What is returned when the thread has not ended by then; the thread replaces it.
    failures = [f"no answer within {seconds:.0f} s"]

    def run() -> None:
        try:
            send()
            failures.clear()
        except Exception as error:  # noqa: BLE001 - whatever ails the API
            failures[:] = [f"{type(error).__name__}: {error}"]

    # A daemon thread ends with the process, so an API that hangs delays no command.
    sending = Thread(target=run, name="stagegate-events", daemon=True)
    sending.start()
    sending.join(seconds)
    return "".join(failures)


def api_is_configured() -> bool:
    """Whether the environment or Prefect's active profile names an API; Prefect's own import would take seconds."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    try:
        return bool(profiles["profiles"][active]["PREFECT_API_URL"])
    # People write this file: a table may be missing, or be a text, and then no API is named.
    except (KeyError, TypeError):
        return False
