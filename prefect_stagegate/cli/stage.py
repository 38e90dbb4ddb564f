"""`stagegate stage`: bring a dataset into this node's cache."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import All, Display, Json, Places, VersionOrSpec
from prefect_stagegate.cli.printing import (
    error_values,
    escaped,
    print_changes,
    print_failed,
    print_json,
    print_json_list,
    say,
    say_first,
)
from prefect_stagegate.cli.progress import shown_progress
from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.jobs import address
from prefect_stagegate.jobs.staging import stage as job
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Action, Address, FailedObject, PlannedObject, Version
from prefect_stagegate.spec import Spec, doubtful_columns
from prefect_stagegate.units import bytes_text, count_text


def stage(
    what: VersionOrSpec,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="List and plan; fetch nothing.")] = False,
    every: All = False,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Make a version from a spec's sources, or fetch an existing version to this node.

    What the cache holds already isn't fetched again, nor what an interrupted run fetched.

    For example:

    - `stagegate stage nycflights.yaml --dry-run`
    - `stagegate stage nycflights@production`

    Parameters
    ----------
    what
        A spec's path or URL, or DATASET@REF, or DATASET@sha256:….
    """
    spec_or_address = address.parse(what)
    workspace, display = (places or Places()).workspace(create=True), display or Display()
    if dry_run:
        # Only the files can prove that a column's type is a mistake, so this warns and refuses nothing.
        for _, doubt in doubtful_columns(spec_or_address.contract.tables) if isinstance(spec_or_address, Spec) else ():
            print(f"stagegate: {escaped(doubt)}", file=sys.stderr)
        _preview(workspace, spec_or_address, every=every, json=json)
        return
    with shown_progress(f"stage {spec_or_address.dataset}", display.progress_form(json=json)) as progress:
        try:
            version = job.stage(workspace, spec_or_address, progress=progress)
        except TransferFailed as error:
            if json:
                _print_failed(spec_or_address.dataset, error)
            raise
    if json:
        print_json(asdict(version))
    elif not display.quiet:
        _print(version)


def _print_failed(dataset: str, error: TransferFailed) -> None:
    failed = [asdict(FailedObject.of(failure)) for failure in error.failures]
    print_json({"dataset": dataset, "digest": None, "failed": failed, "error": error_values(error)})


def _print(version: Version) -> None:
    say(f"{version.dataset}@{version.digest}")
    fetched, reused = bytes_text(version.bytes_fetched), bytes_text(version.bytes_reused)
    from_peers = sum(peer.bytes > 0 for peer in version.peers)
    if from_peers:
        other = count_text(from_peers, "other node")
        fetched += f" ({bytes_text(version.bytes_from_peers)} of it from {other} of the site)"
    say(f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}: fetched {fetched}, reused {reused}")
    say(f"path: {version.path}")
    say(f"weakest pin: {version.pins}")
    if version.failed:
        print_failed(version.failed)
    if version.proposed:
        say("The spec proposes another policy. Checks use the adopted one; the differences:")
        print_changes(version.proposed)
        say("Next: stagegate policy adopt SPEC --reason TEXT")


def _preview(workspace: Workspace, spec_or_address: Spec | Address, *, every: bool, json: bool) -> None:
    totals = _Totals()
    plan = totals.counted(job.preview(workspace, spec_or_address))
    if json:
        lines = ({"action": step.action, "path": step.path, "size": step.object.size} for step in plan)
        dataset = {"dataset": spec_or_address.dataset}
        # The plan is printed as it is listed, so its totals are complete only after the last object.
        print_json_list(
            lines,
            "objects",
            dataset,
            lambda: {"bytes_to_fetch": totals.bytes[Action.FETCH], "bytes_away": totals.archived[1]},
        )
        return
    say_first(plan, lambda step: f"{step.action:<6} {bytes_text(step.object.size):>12}  {step.path}", every=every)
    for action in Action:
        say(f"{action}: {count_text(totals.objects[action], 'object')}, {bytes_text(totals.bytes[action])}")
    count, size = totals.archived
    if count:
        say(f"archived: {count:,} of them, {bytes_text(size)}; their source must restore them first")


class _Totals:
    """A plan's objects and bytes, by action."""

    def __init__(self) -> None:
        self.objects: Counter[Action] = Counter()
        self.bytes: Counter[Action] = Counter()
        self.archived = (0, 0)
        """Objects that an archive has to restore first, and their bytes."""

    def counted(self, plan: Iterable[PlannedObject]) -> Iterator[PlannedObject]:
        """Yield the objects, and add each to the totals."""
        for step in plan:
            self.objects[step.action] += 1
            self.bytes[step.action] += step.object.size
            if step.object.away and step.action is Action.FETCH:
                self.archived = (self.archived[0] + 1, self.archived[1] + step.object.size)
            yield step
