"""`stagegate stage`: bring a dataset into this node's cache."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import Json, Places, VersionOrSpec, print_json, say, tell_failed
from prefect_stagegate.cli.progress import shown_progress
from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.model import Action, Address, FailedObject, Version
from prefect_stagegate.operations import address
from prefect_stagegate.operations import stage as job
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.spec import Spec
from prefect_stagegate.transfer import Progress
from prefect_stagegate.units import bytes_text


def stage(
    what: VersionOrSpec,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="List and plan; fetch nothing.")] = False,
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
    where = (places or Places()).workspace()
    if dry_run:
        _preview(where, named, json=json)
        return
    with shown_progress(f"stage {named.dataset}", quiet=json) as progress:
        version = _staged(where, named, progress, json=json)
    if json:
        print_json(asdict(version))
    else:
        _tell(version)


def _staged(where: Workspace, named: Spec | Address, progress: Progress | None, *, json: bool) -> Version:
    """Do it; for programs, list what failed on standard output before the error ends the command."""
    try:
        return job.stage(where, named, progress=progress)
    except TransferFailed as error:
        if json:
            failed = [asdict(FailedObject.of(failure)) for failure in error.failures]
            print_json({"dataset": named.dataset, "digest": None, "failed": failed})
        raise


def _tell(version: Version) -> None:
    say(f"{version.dataset}@{version.digest}")
    fetched, reused = bytes_text(version.bytes_fetched), bytes_text(version.bytes_reused)
    say(f"{version.files} files, {bytes_text(version.bytes)}: fetched {fetched}, reused {reused}")
    say(f"path: {version.path}")
    say(f"weakest pin: {version.pins}")
    if version.failed:
        tell_failed(version.failed)


def _preview(where: Workspace, named: Spec | Address, *, json: bool) -> None:
    totals = {action: [0, 0] for action in Action}
    away = [0, 0]
    lines = []
    for planned in job.preview(where, named):
        totals[planned.action][0] += 1
        totals[planned.action][1] += planned.object.size
        if planned.object.away and planned.action is Action.FETCH:
            away[0] += 1
            away[1] += planned.object.size
        if json:
            lines.append({"action": planned.action, "path": planned.path, "size": planned.object.size})
        else:
            say(f"{planned.action:<6} {bytes_text(planned.object.size):>12}  {planned.path}")
    if json:
        fetched = {"bytes_to_fetch": totals[Action.FETCH][1], "bytes_away": away[1]}
        print_json({"dataset": named.dataset, "objects": lines, **fetched})
        return
    for action, (count, total) in totals.items():
        say(f"{action}: {count} objects, {bytes_text(total)}")
    if away[0]:
        say(f"to be brought back first: {away[0]} of them, {bytes_text(away[1])}, whose bytes are kept elsewhere")
