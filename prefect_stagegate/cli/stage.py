"""`stagegate stage`: bring a dataset into this node's cache."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import (
    All,
    Json,
    Places,
    VersionOrSpec,
    escaped,
    print_json,
    print_json_list,
    say,
    say_first,
    tell_changes,
    tell_failed,
)
from prefect_stagegate.cli.progress import shown_progress
from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.model import Action, Address, FailedObject, PlannedObject, Version
from prefect_stagegate.operations import address
from prefect_stagegate.operations.staging import stage as job
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.spec import Spec, doubtful_columns
from prefect_stagegate.transfer import Progress
from prefect_stagegate.units import bytes_text, count_text


def stage(
    what: VersionOrSpec,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="List and plan; fetch nothing.")] = False,
    every: All = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Make a version from a spec's sources, or bring an existing version to this node.

    What the cache holds already isn't fetched again, nor what an interrupted run fetched.

    For example:

    - `stagegate stage nycflights.yaml --dry-run`
    - `stagegate stage nycflights@production`

    Parameters
    ----------
    what
        A spec's path or URL, or DATASET@REF, or DATASET@sha256:….
    """
    named = address.parse(what)
    workspace = (places or Places()).workspace()
    if dry_run:
        _tell_doubts(named)
        _preview(workspace, named, every=every, json=json)
        return
    with shown_progress(f"stage {named.dataset}", quiet=json) as progress:
        version = _staged(workspace, named, progress, json=json)
    if json:
        print_json(asdict(version))
    else:
        _tell(version)


def _tell_doubts(named: Spec | Address) -> None:
    """Say which columns of the contract are probably mistyped; only the files can prove it."""
    for doubt in doubtful_columns(named.contract.tables) if isinstance(named, Spec) else ():
        print(f"stagegate: {escaped(doubt)}", file=sys.stderr)


def _staged(workspace: Workspace, named: Spec | Address, progress: Progress | None, *, json: bool) -> Version:
    """Do it; for programs, list what failed on standard output before the error ends the command."""
    try:
        return job.stage(workspace, named, progress=progress)
    except TransferFailed as error:
        if json:
            failed = [asdict(FailedObject.of(failure)) for failure in error.failures]
            print_json({"dataset": named.dataset, "digest": None, "failed": failed})
        raise


def _tell(version: Version) -> None:
    say(f"{version.dataset}@{version.digest}")
    fetched, reused = bytes_text(version.bytes_fetched), bytes_text(version.bytes_reused)
    say(f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}: fetched {fetched}, reused {reused}")
    say(f"path: {version.path}")
    say(f"weakest pin: {version.pins}")
    if version.failed:
        tell_failed(version.failed)
    if version.proposed:
        say("The spec proposes another policy; the version is judged by the adopted one, from which it differs:")
        tell_changes(version.proposed)
        say("Next: stagegate policy adopt SPEC --reason TEXT")


def _preview(workspace: Workspace, named: Spec | Address, *, every: bool, json: bool) -> None:
    totals = _Totals()
    planned = totals.counted(job.preview(workspace, named))
    if json:
        lines = ({"action": one.action, "path": one.path, "size": one.object.size} for one in planned)
        dataset = {"dataset": named.dataset}
        print_json_list(
            lines,
            "objects",
            dataset,
            lambda: {"bytes_to_fetch": totals.bytes[Action.FETCH], "bytes_away": totals.away[1]},
        )
        return
    say_first(planned, lambda one: f"{one.action:<6} {bytes_text(one.object.size):>12}  {one.path}", every=every)
    for action in Action:
        say(f"{action}: {count_text(totals.objects[action], 'object')}, {bytes_text(totals.bytes[action])}")
    count, size = totals.away
    if count:
        say(f"to be brought back first: {count:,} of them, {bytes_text(size)}, whose bytes are kept elsewhere")


class _Totals:
    """What a plan comes to."""

    def __init__(self) -> None:
        self.objects: Counter[Action] = Counter()
        self.bytes: Counter[Action] = Counter()
        self.away = (0, 0)
        """Objects, and their bytes, that have to be brought back from where they are archived."""

    def counted(self, planned: Iterable[PlannedObject]) -> Iterator[PlannedObject]:
        """The same objects, each added to the totals."""
        for one in planned:
            self.objects[one.action] += 1
            self.bytes[one.action] += one.object.size
            if one.object.away and one.action is Action.FETCH:
                self.away = (self.away[0] + 1, self.away[1] + one.object.size)
            yield one
