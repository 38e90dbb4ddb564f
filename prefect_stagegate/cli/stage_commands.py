"""`stagegate stage` and `doctor`: fetch a dataset into this node's cache, and try its sources."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from json import loads as parse_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import All, Display, Json, Places, VersionOrSpec, load_block
from prefect_stagegate.cli.printing import (
    error_values,
    escaped,
    print_changes,
    print_failed,
    print_json,
    print_json_list,
    print_result,
    say,
    say_first,
)
from prefect_stagegate.cli.progress_display import shown_progress
from prefect_stagegate.errors import ExitCode, TransferFailed, UnknownDataset, UsageError
from prefect_stagegate.jobs import address
from prefect_stagegate.jobs.staging import stage as staging
from prefect_stagegate.jobs.upkeep.doctor import PATIENCE, Examination, examine, failing
from prefect_stagegate.model import Action, Address, FailedObject, PlannedObject, Version
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.redaction import redact
from prefect_stagegate.spec import Spec, doubtful_columns
from prefect_stagegate.units import bytes_text, count_text
from prefect_stagegate.workspace import Workspace

if TYPE_CHECKING:
    from prefect_stagegate.jobs.arriving import Begun


def stage(  # noqa: PLR0913 - one parameter a flag
    what: VersionOrSpec,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="List and plan; fetch nothing.")] = False,
    again: Annotated[
        bool,
        Parameter(negative="", help="List the sources of DATASET@REF again, and make a version of what they have."),
    ] = False,
    background: Annotated[
        bool, Parameter(negative="", help="Return at once; another process fetches the version. Not for a spec.")
    ] = False,
    options_at_stdin: Annotated[
        bool, Parameter(show=False, help="Standard input has what `ArrivingDataset` asks for, as JSON.")
    ] = False,
    every: All = False,
    json: Json = False,
    places: Places = Places(),
    display: Display = Display(),
) -> None:
    """Make a version from a spec's sources, or fetch an existing one.

    What the cache holds already isn't fetched again, nor what an interrupted run fetched.

    For example:

    - `stagegate stage nycflights.yaml --dry-run`
    - `stagegate stage nycflights@production`
    - `stagegate stage nycflights@production --background`
    - `stagegate stage nycflights --again`

    Parameters
    ----------
    what
        A spec's path or URL, or DATASET@REF, or DATASET@sha256:….
    """
    spec_or_address = address.parse(what)
    if again and (background or isinstance(spec_or_address, Spec)):
        raise UsageError("--again takes DATASET@REF, and no --background", hint="Leave --again out.")
    if background:
        _stage_in_background(spec_or_address, places, json=json, quiet=display.quiet)
        return
    options = parse_json(sys.stdin.readline()) if options_at_stdin else {}
    workspace = places.workspace(create=True, catalog_options=options.get("catalog"))
    if again:
        spec_or_address = address.staged_spec_of(workspace, spec_or_address)
    if dry_run:
        # Only the files can prove that a column's type is a mistake, so this warns and refuses nothing.
        for _, doubt in doubtful_columns(spec_or_address.contract.tables) if isinstance(spec_or_address, Spec) else ():
            print(f"stagegate: {escaped(doubt)}", file=sys.stderr)
        _preview(workspace, spec_or_address, every=every, json=json)
        return
    with shown_progress(f"stage {spec_or_address.dataset}", display.progress_form(json=json)) as progress:
        try:
            version = staging.stage(workspace, spec_or_address, follow=options.get("follow", ""), progress=progress)
        except TransferFailed as error:
            if json:
                _print_failed(spec_or_address.dataset, error)
            raise
        except UnknownDataset as error:
            if Path(f"{what}.yaml").is_file():
                error.hint = f"Did you mean `stagegate stage {what}.yaml`?"
            raise
    print_result(version, partial(_print_version, what), json=json, quiet=display.quiet)


def _stage_in_background(what: Spec | Address, places: Places, *, json: bool, quiet: bool) -> None:
    from prefect_stagegate.jobs.arriving import arriving

    if isinstance(what, Spec):
        raise UsageError(
            f"The first staging of {what.dataset} can't be read early: nobody knows its digests yet",
            hint="Stage it without --background; other nodes may then fetch the version so.",
            dataset=what.dataset,
        )
    print_result(arriving(what, places.cache, places.catalog).begin(), _print_arriving, json=json, quiet=quiet)


def _print_arriving(begun: Begun) -> None:
    say(f"{begun.dataset}@{begun.digest}")
    say(f"{count_text(begun.files, 'file')}, {bytes_text(begun.bytes)}: {begun.state}")
    say("`stagegate ready` tells when it is complete; `open_dataset(…, wait=False)` reads each file as it comes.")


def _print_failed(dataset: str, error: TransferFailed) -> None:
    failed = list(map(FailedObject.of, error.failures))
    print_json({"dataset": dataset, "digest": None, "failed": failed, "error": error_values(error)})


def _print_version(what: str, version: Version) -> None:
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
        say(f"Next: stagegate policy adopt {shlex.quote(redact(what))} --reason TEXT")


def _preview(workspace: Workspace, spec_or_address: Spec | Address, *, every: bool, json: bool) -> None:
    totals = _Totals()
    plan = totals.counted(staging.preview(workspace, spec_or_address))
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


def doctor(
    what: VersionOrSpec,
    /,
    *,
    timeout: Annotated[
        float,
        Parameter(
            metavar="SECONDS",
            show_default=True,
            help="After which a source counts as one that does not answer.",
        ),
    ] = PATIENCE,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Try each source of a spec, and say how to fix those that fail.

    Each source and mirror is listed until the first object that the spec takes, of which one range is read. All are
    tried at once. Exits with 3 when one does not work.

    For example:

    - `stagegate doctor nycflights.yaml`
    - `stagegate doctor nycflights@production --json`

    Parameters
    ----------
    what
        A spec's path or URL, or DATASET@REF, or DATASET@sha256:…, whose stored spec is taken.
    """
    settings = Settings.from_environment(os.environ)
    examinations = examine(_spec(what, places, settings), settings, load_block, patience=timeout)
    print_result(examinations, _print_examinations, json=json)
    return ExitCode.ERROR if failing(examinations) else ExitCode.PASS


def _spec(text: str, places: Places, settings: Settings) -> Spec:
    """The spec, or the stored spec of an address; creates no catalog where there is none."""
    spec_or_address = address.parse(text)
    if not isinstance(spec_or_address, Address):
        return spec_or_address
    from prefect_stagegate.catalog import Catalog

    # A doctor changes nothing, so it makes no catalog.
    catalog = Catalog.open(places.catalog or settings.catalog, create=False)
    return address.spec_beside(catalog, spec_or_address.dataset, catalog.resolve(spec_or_address))


def _print_examinations(examinations: Sequence[Examination]) -> None:
    for examination in examinations:
        _print_examination(examination)
    sick = len(failing(examinations))
    say(f"{len(examinations) - sick} of {len(examinations)} work" + (f", {sick} do not." if sick else "."))


def _print_examination(examination: Examination) -> None:
    role = f" (a mirror of {examination.mirror_of})" if examination.mirror_of else ""
    if not examination.works:
        say(f"FAILS  {examination.url}{role} as {examination.who}: {examination.problem}. {examination.fix}".rstrip())
        return
    listed, read = examination.list_seconds or 0.0, examination.read_seconds or 0.0
    found = (
        f"pins by {examination.pin}; listed in {listed:.2f} s, "
        f"read {bytes_text(examination.read_bytes)} of {examination.object} in {read:.2f} s"
        if examination.pin
        else f"listed in {listed:.2f} s; it has no object now, as the spec allows"
    )
    say(f"works  {examination.url}{role} as {examination.who}: {found}")
