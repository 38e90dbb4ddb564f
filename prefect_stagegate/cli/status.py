"""`stagegate status`: the inbox. Where each target stands, whose turn it is, and which policies are proposed."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import asdict, replace
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.inbox import EMPTY, dataset_texts, inbox_texts, policy_texts
from prefect_stagegate.cli.printing import end_unreadable, escaped, print_json, unreadable_lines
from prefect_stagegate.clock import now
from prefect_stagegate.errors import CatalogError, ExitCode, SourceError, UsageError
from prefect_stagegate.jobs.gating import status as job
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import check_name
from prefect_stagegate.units import count_text
from prefect_stagegate.unreadable import UnreadableRecords

WATCH_SECONDS = 10
LONGEST_WATCH = 86_400


def status(
    dataset: Annotated[str, Parameter(name="DATASET")] = "",
    /,
    *,
    mine: Annotated[
        bool, Parameter(negative="", help="Only what waits for you: your name is an address in `owners`, or you asked.")
    ] = False,
    watch: Annotated[
        int | bool,
        Parameter(negative="", metavar="[SECONDS]", help="Look again every 10 seconds, or so many, until stopped."),
    ] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Show where each target stands, whose turn it is, and the next command.

    What needs somebody most comes first. The exit code is for monitoring: 1 when something was refused or withdrawn, or
    evidence ended; 3 when a record can't be read or a gate could not decide; 4 when it is somebody's turn; otherwise 0.

    For example:

    - `stagegate status`
    - `stagegate status nycflights --json`
    - `stagegate status --mine --identity ines@example.org`
    - `stagegate status --watch 30`

    Parameters
    ----------
    dataset
        Only this dataset.
    """
    workspace = (places or Places()).workspace()
    name = check_name("dataset", dataset) if dataset else ""
    if watch is False:
        sys.exit(_show(workspace, name, mine=mine, json=json))
    if json:
        raise UsageError("--watch shows text for people", hint="Run the command again for JSON.")
    seconds = WATCH_SECONDS if watch is True else watch
    if not 1 <= seconds <= LONGEST_WATCH:
        raise UsageError(f"{seconds} is not a number of seconds from 1 to {LONGEST_WATCH:,}")
    _watch(workspace, name, seconds, mine=mine)


def _show(workspace: Workspace, dataset: str, *, mine: bool, json: bool) -> int:
    """Print the inbox once; returns the exit code."""
    statuses, unreadable = _read(workspace, dataset, mine=mine)
    lines = job.inbox(statuses, unreadable)
    if json:
        print_json([*map(_json, statuses), *unreadable_lines(unreadable.all)])
    else:
        print("\n".join(_texts(workspace, statuses, unreadable, whole=bool(dataset), mine=mine)))
    end_unreadable(unreadable.all)
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


def _json(status: job.DatasetStatus) -> dict[str, Any]:
    """The status with the command of each line, which the line's actions imply."""
    lines = [{**asdict(line), "next_step": line.next_step, "since": line.since} for line in status.lines]
    return {**asdict(status), "lines": lines}


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
        texts += [text for status in statuses for text in dataset_texts(status, time_now)]
    texts += inbox_texts(lines, time_now)
    if not mine:
        texts += [text for status in statuses for text in policy_texts(status, whole=whole)]
    if not lines and mine:
        texts.append(f"Nothing waits for {workspace.identity.name}.")
    elif not texts:
        texts.append(EMPTY)
    return [escaped(text) for text in texts]


def _watch(workspace: Workspace, dataset: str, seconds: int, *, mine: bool) -> None:
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
