"""`stagegate status`: the inbox. Where each target stands, whose turn it is, and which policies are proposed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from textwrap import wrap
from typing import Annotated, NoReturn

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import ANYBODY, EMPTY_CATALOG, escaped, print_records
from prefect_stagegate.clock import moment, now
from prefect_stagegate.errors import CatalogError, ExitCode, SourceError, UsageError
from prefect_stagegate.jobs.review import status as job
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.jobs.review.status import DatasetStatus
from prefect_stagegate.model import PolicyChange, check_name
from prefect_stagegate.show.document import Text
from prefect_stagegate.units import age_text, count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

WATCH_SECONDS = 10
LONGEST_WATCH = 86_400


def status(
    dataset: Annotated[str, Parameter(name="DATASET")] = "",
    /,
    *,
    mine: Annotated[
        bool, Parameter(negative="", help="Only what waits for you, by `owners` or since you asked.")
    ] = False,
    watch: Annotated[
        int | bool,
        Parameter(negative="", metavar="[SECONDS]", help="Look again every 10 seconds, or so many, until stopped."),
    ] = False,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Show where each target stands, and the next command.

    What needs somebody most comes first. Exits with 1 when something was refused or withdrawn, or evidence ended; with
    3 when a record can't be read or a gate could not decide; with 4 when it is somebody's turn.

    For example:

    - `stagegate status`
    - `stagegate status nycflights --json`
    - `stagegate status --mine --identity ines@example.org`

    Parameters
    ----------
    dataset
        Only this dataset.
    """
    workspace = places.workspace()
    name = check_name("dataset", dataset) if dataset else ""
    if watch is False:
        return _show(workspace, name, mine=mine, json=json)
    if json:
        raise UsageError("--watch shows text for people", hint="Run the command again for JSON.")
    seconds = WATCH_SECONDS if watch is True else watch
    if not 1 <= seconds <= LONGEST_WATCH:
        raise UsageError(f"{seconds} is not a number of seconds from 1 to {LONGEST_WATCH:,}")
    return _watch(workspace, name, seconds, mine=mine)


def _show(workspace: Workspace, dataset: str, *, mine: bool, json: bool) -> ExitCode:
    """Print the inbox once; returns the exit code."""
    statuses, unreadable = _read(workspace, dataset, mine=mine)
    lines = job.inbox(statuses, unreadable)
    texts = [] if json else _texts(workspace, statuses, unreadable, whole=bool(dataset), mine=mine)
    print_records(list(map(job.status_values, statuses)), lambda _: print("\n".join(texts)), unreadable, json=json)
    return lines[0].standing.exit_code if lines else ExitCode.PASS


def _read(workspace: Workspace, dataset: str, *, mine: bool) -> tuple[list[job.DatasetStatus], UnreadableRecords]:
    unreadable = UnreadableRecords()
    statuses = job.status(workspace, dataset, unreadable)
    if not mine:
        return statuses, unreadable
    name = workspace.identity.name
    filtered = [
        replace(status, lines=tuple(line for line in status.lines if line.concerns(name))) for status in statuses
    ]
    return [status for status in filtered if status.lines], unreadable


def _texts(
    workspace: Workspace,
    statuses: list[job.DatasetStatus],
    unreadable: UnreadableRecords,
    *,
    whole: bool,
    mine: bool,
) -> list[str]:
    """The lines to print, escaped."""
    time_now, lines = now(), job.inbox(statuses, unreadable)
    texts: list[str] = []
    if whole and not mine:
        texts += [text for status in statuses for text in _dataset_texts(status, time_now)]
    texts += _inbox_texts(lines, time_now)
    if not mine:
        texts += [text for status in statuses for text in _section_texts(status)]
        texts += [text for status in statuses for text in _policy_texts(status, whole=whole)]
    if not lines and mine:
        texts.append(f"Nothing waits for {workspace.identity.name}.")
    elif not texts:
        texts.append(EMPTY_CATALOG)
    return [escaped(text) for text in texts]


def _watch(workspace: Workspace, dataset: str, seconds: int, *, mine: bool) -> NoReturn:
    """Print the inbox again and again, until the process is stopped."""
    while True:
        try:
            statuses, unreadable = _read(workspace, dataset, mine=mine)
            texts = _texts(workspace, statuses, unreadable, whole=bool(dataset), mine=mine)
            texts += [escaped(" ".join(f"can't be read: {record}".splitlines())) for record in unreadable.all]
        except (CatalogError, SourceError) as error:  # the store may be back at the next look
            texts = [escaped(str(error))]
        _redraw([f"{now():%Y-%m-%dT%H:%M:%SZ}, every {seconds} s until stopped", "", *texts])
        time.sleep(seconds)


def _redraw(texts: list[str]) -> None:
    """Print each text: at a terminal it replaces the one before, elsewhere it follows it."""
    if not sys.stdout.isatty():
        print("\n".join([*texts, ""]), flush=True)
        return
    height = shutil.get_terminal_size().lines
    if len(texts) >= height:
        texts = [*texts[: height - 2], f"… and {count_text(len(texts) - height + 2, 'more line')}"]
    # To the first cell, each line cleared behind its text, and then all below: so the screen does not flicker.
    print("\x1b[H" + "".join(f"{text}\x1b[K\n" for text in texts) + "\x1b[J", end="", flush=True)


WIDTH = 80
NAME_WIDTH = 20
INDENT = " " * 14
"""Below a line's name, behind the longest standing."""
CHANGE_INDENT = 11
NEXT = "Next: "
LONGEST_REASON = 300
"""Characters of a reason: `stagegate report` has all of it."""


def _dataset_texts(status: DatasetStatus, now: datetime) -> Iterator[str]:
    """The dataset's policy, and what `latest` names."""
    adopted = f"policy {status.policy}, adopted {_ago(status.adopted_at, now)} by {status.adopted_by}"
    yield from _wrapped(f"{status.dataset}: {adopted if status.policy else 'no policy adopted yet'}", "")
    latest = status.refs[0]
    if latest.digest:
        yield from _wrapped(f"latest is {digest_text(latest.digest)}, {_ago(latest.at, now)} by {latest.by}", "")
    yield ""


def _inbox_texts(lines: Sequence[InboxLine], now: datetime) -> Iterator[str]:
    """A table of the lines. Below a line that waits for somebody stand the person and the command."""
    if lines:
        yield _row("", "dataset@target", "names", "ends", "held", "since")
    for line in lines:
        yield from _line_texts(line, now)


def _line_texts(line: InboxLine, now: datetime) -> Iterator[str]:
    name = f"{line.dataset}@{line.target}" if line.target else f"{line.dataset}, policy"
    facts = _facts(line, now)
    if len(name) > NAME_WIDTH and any(facts):
        yield _row(line.standing, name)
        yield _row("", "", *facts)
    else:
        yield _row(line.standing, name, *facts)
    if line.proposed and line.actions:
        by = line.proposed.by.rpartition(" (")[0]
        yield from _wrapped(
            f"proposed {digest_text(line.proposed.digest)}, {_ago(line.proposed.since, now)} by {by}", INDENT
        )
    for action in line.actions:
        since = f", {_ago(action.since, now)}" if action.since else ""
        reason = action.reason if len(action.reason) <= LONGEST_REASON else f"{action.reason[: LONGEST_REASON - 1]}…"
        yield from _wrapped(f"{action.whom}{since}: {reason}", INDENT)
        yield f"{INDENT}{action.command}"


def _facts(line: InboxLine, now: datetime) -> tuple[str, str, str, str]:
    """What the target names, when evidence ends, how many nodes hold it, and since when the target names it."""
    accepted = line.accepted
    if accepted is None:
        return ("no version yet" if line.target and not line.problem else "", "", "", "")
    left = moment(accepted.ends) - now if accepted.ends else None
    ends = "-" if left is None else age_text(left) if left.total_seconds() > 0 else "ended"
    nodes = len(accepted.held_by)
    return digest_text(accepted.digest), ends, str(nodes or "-"), _ago(accepted.at, now)


def _row(standing: str, name: str, version: str = "", ends: str = "", nodes: str = "", since: str = "") -> str:
    return f"{standing:<12}  {name:<{NAME_WIDTH}}  {version:<19}  {ends:<5}  {nodes:>4}  {since}".rstrip()


def _section_texts(status: DatasetStatus) -> Iterator[str]:
    """The paragraphs that plugins add. A command stays in one line, so that it can be copied."""
    for part in (part for section in status.sections for part in section.parts):
        if isinstance(part, Text):
            yield from [part.text] if part.text.startswith(NEXT) else ("", *_wrapped(part.text, ""))


def _policy_texts(status: DatasetStatus, *, whole: bool) -> Iterator[str]:
    """How the policy in the spec of `latest` differs from the adopted one, and whether anybody may change that."""
    if status.changed_since:
        why = f"latest was staged under an older spec than that of policy {status.policy}, which changed:"
        yield from ("", *_wrapped(f"{status.dataset}: {why}", ""))
        yield from _change_texts(status.changed_since)
        yield f"{NEXT}stagegate stage SPEC, with the newer spec"
    elif status.proposed:
        yield from ("", *_wrapped(f"{status.dataset}: the spec of latest proposes another policy:", ""))
        yield from _change_texts(status.proposed)
        yield f"{NEXT}stagegate policy adopt SPEC --reason TEXT"
    if whole and status.anybody_may_change:
        yield from ("", *_wrapped(ANYBODY, ""))


def _change_texts(changes: Iterable[PolicyChange]) -> Iterator[str]:
    for change in changes:
        text = " ".join(f"{change.subject}: {change.difference}".split())
        first, *rest = wrap(text, WIDTH - CHANGE_INDENT, break_long_words=False) or [""]
        yield f"{change.direction:<10} {first}"
        yield from (f"{'':{CHANGE_INDENT}}{line}" for line in rest)


def _ago(at: str, now: datetime) -> str:
    return f"{age_text(now - moment(at))} ago"


def _wrapped(text: str, indent: str) -> list[str]:
    """A text in lines, broken between words; a longer word stays whole."""
    return wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
