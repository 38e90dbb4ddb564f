"""`stagegate retire`, `expire` and `erase`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.catalog.version_records import dataset_names, require_dataset
from prefect_stagegate.cli.flags import Json, Places, Signature
from prefect_stagegate.cli.printing import (
    end_unreadable,
    print_records,
    print_result,
    print_rows,
    say,
    say_first,
    say_line,
)
from prefect_stagegate.durable import read_file
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.model import Address, check_name
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node, report_text
from prefect_stagegate.plugins.retention.erasure import ERASURES, NodeErasure, glob_of, plan_erasure
from prefect_stagegate.plugins.retention.erasure_requests import answer_request, erase_or_ask, find_request
from prefect_stagegate.plugins.retention.erasure_status import NodeStanding, NodeStatus, erasure_status, refs_naming
from prefect_stagegate.plugins.retention.expire import VersionFate
from prefect_stagegate.plugins.retention.expire import expire as expire_versions
from prefect_stagegate.plugins.retention.retirement import Retirement, retirements
from prefect_stagegate.plugins.retention.retirement import retire as retire_address
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import bytes_text, count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords


def retire(
    address: Annotated[str, Parameter(name="DATASET@TARGET")] = "",
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")] = "",
    undo: Annotated[bool, Parameter(negative="", help="Take it back into listings.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Take a dataset or target out of listings; nothing is lost.

    `ls`, `status`, the inbox, pages, metrics and `watch` leave it out; `ls --all` lists it. Whoever names it still
    reads it. Without an address, the command lists what is retired.

    For example:

    - `stagegate retire nycflights@pilot --reason "nobody trains on it since May"`
    - `stagegate retire nycflights --undo`

    Parameters
    ----------
    address
        DATASET, or DATASET@TARGET.
    """
    workspace = places.workspace()
    if not address:
        unreadable = UnreadableRecords()
        print_records(retirements(workspace.catalog, unreadable), _show_retired, unreadable, json=json)
        return
    record = retire_address(workspace, Address.parse(address), reason, undo=undo)
    state = "is retired" if record.is_retired else "is in listings"
    print_result(record, lambda _: say(f"{record} {state}"), json=json)


def _show_retired(records: Sequence[Retirement]) -> None:
    if not records:
        say("Nothing is retired")
    for record in records:
        say_line(f"{record}: since {time_text(record.at)}, by {record.who}: {record.reason}")


def expire(
    *datasets: Annotated[str, Parameter(help="Only these; all that the catalog has, where none is named.")],
    dry_run: Annotated[
        bool, Parameter(negative="", help="Say of each version what keeps it or why it goes; remove nothing.")
    ] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Remove the versions that the policy's `retain` does not keep, from the catalog and then from this node.

    Without `retain` in the adopted policy, none goes. Never goes what a ref names now, what a request for approval or a
    hold waits on, and what a lease, a pin or a staging of this node needs. Removal begins 30 seconds after the record
    of who removed it, when and why. Other nodes lose their copies by their own `stagegate expire` or `gc`.

    For example:

    - `stagegate expire nycflights --dry-run`
    - `stagegate expire`
    """
    workspace, unreadable = places.workspace(), UnreadableRecords()
    names = [check_name("dataset", name) for name in datasets] or dataset_names(workspace.catalog)
    for name in datasets:
        require_dataset(workspace.catalog, name)
    fates = expire_versions(workspace, names, unreadable, dry_run=dry_run)
    print_records(fates, _show_fates, unreadable, json=json)


def _show_fates(fates: Sequence[VersionFate]) -> None:
    rows = [
        (
            f"{fate.dataset}@{digest_text(fate.digest)}",
            time_text(fate.staged_at) or "-",
            bytes_text(fate.bytes),
            "stays" if fate.kept_by else "expired" if fate.is_gone else "goes",
            "; ".join(fate.kept_by) or fate.why,
        )
        for fate in fates
    ]
    print_rows(("version", "staged", "size", "", "why"), rows)
    going = [fate for fate in fates if not fate.kept_by]
    verb = "expired" if any(fate.is_gone for fate in going) else "to expire"
    say(f"{count_text(len(going), 'version')} {verb}, {bytes_text(sum(fate.bytes for fate in going))} by their files.")


MOST_LISTED = 16 << 20
"""Bytes of a list of paths, at most."""


def erase(  # noqa: PLR0913 - options of a command
    address: Annotated[str, Parameter(name="DATASET@REF")] = "",
    /,
    *,
    files: Annotated[
        tuple[str, ...], Parameter(metavar="GLOB", negative="", help="Entries by their paths, as in `include:`.")
    ] = (),
    listed: Annotated[
        Path | None, Parameter(name="--list", metavar="FILE", help="A file with a path in each line.")
    ] = None,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")] = "",
    node: Annotated[bool, Parameter(negative="", help="Do what was recorded before on this node.")] = False,
    status: Annotated[
        bool, Parameter(negative="", help="Say which nodes proved it, and which did not answer.")
    ] = False,
    approve: Annotated[
        str, Parameter(metavar="REQUEST", help="Agree to a request, by 12 digits of its digest or more.")
    ] = "",
    decline: Annotated[str, Parameter(metavar="REQUEST", help="Decline a request; needs a reason.")] = "",
    dry_run: Annotated[bool, Parameter(negative="", help="Say which entries would go; change nothing.")] = False,
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Remove the bytes of entries from every node, and see which proved it.

    Manifests, digests and logs stay as they are. This node acts at once, others by their agents, or by `stagegate erase
    --node`. Entries with the same bytes in other versions of the dataset go, too. No version that had one can be
    promoted, returned to, fetched or staged again. Sources, backups and other datasets are not touched. With --status,
    exits with 4 while a node has not answered, and with 3 where one has something left.

    Where the policy has `policy.erasure`, it records a request and exits with 4, until as many people agreed as the
    policy wants. Whoever asked can't answer.

    For example:

    - `stagegate erase patients --files "**/4711.dcm" --reason "consent withdrawn"`
    - `stagegate erase patients --approve 3f2a91c07a3b --identity ines@example.org`
    - `stagegate erase --node`
    - `stagegate erase patients --status`

    Parameters
    ----------
    address
        DATASET, for entries of all its versions, or DATASET@REF for those of one.
    """
    workspace, unreadable = places.workspace(), UnreadableRecords()
    version = Address.parse(address) if address else None
    if node:
        names = [version.dataset] if version else [name.partition("/")[0] for name in workspace.catalog.names(ERASURES)]
        reports = [(name, report) for name in dict.fromkeys(names) for report in erase_on_node(workspace, name)]
        print_result(reports, _show_reports, json=json)
        return ExitCode.PASS if all(report.is_proved for _, report in reports) else ExitCode.ERROR
    if version is None:
        raise UsageError("It is not said of which dataset", hint="`stagegate erase DATASET --files GLOB --reason TEXT`")
    require_dataset(workspace.catalog, version.dataset)
    if status:
        standings = erasure_status(workspace, version.dataset, unreadable)
        print_records(standings, _show_standings, unreadable, json=json)
        return _exit_of(standings)
    dataset, asked, request, missing = version.dataset, approve or decline, None, ""
    if asked:
        request, proposed = find_request(workspace, dataset, asked)
        versions, entries = proposed.versions, proposed.entries
    else:
        digest = workspace.catalog.resolve(version) if version.ref else ""
        versions, entries = plan_erasure(workspace, dataset, digest, _wanted(files, listed))
    if dry_run:
        missing = "a dry run changes nothing"
    elif request:
        key = signature.person_key(workspace)
        missing = answer_request(workspace, request, approved=bool(approve), reason=reason, key=key)
    else:
        request, missing = erase_or_ask(workspace, dataset, versions, entries, reason)
    reports = [] if missing else [(dataset, report) for report in erase_on_node(workspace, dataset)]
    values: dict[str, Any] = {
        "versions": versions,
        "entries": entries,
        "request": request,
        "missing": missing,
        "this_node": reports,
        "named_by": refs_naming(workspace.catalog, dataset, versions, unreadable),
    }
    print_result(values, partial(_show_erasure, dataset), json=json)
    end_unreadable(unreadable.all)
    if missing and not dry_run:
        return ExitCode.WAITING
    return ExitCode.PASS if all(report.is_proved for _, report in reports) else ExitCode.ERROR


def _wanted(files: tuple[str, ...], listed: Path | None) -> Callable[[str], bool]:
    if not files and listed is None:
        raise UsageError("It is not said which entries", hint="Give --files GLOB, or --list FILE.")
    try:
        paths = read_file(listed, MOST_LISTED).decode().splitlines() if listed else []
        return glob_of(files, paths)
    except OSError as error:
        raise UsageError(f"{listed} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"The paths can't be read: {error}") from error


def _show_erasure(dataset: str, values: Mapping[str, Any]) -> None:
    entries, request, missing = values["entries"], values["request"], values["missing"]
    say_first(entries, lambda entry: f"{bytes_text(entry.size):>12}  {entry.digest[:19]}  {entry.path}", every=False)
    what = f"{count_text(len(entries), 'entry', 'entries')} of {count_text(len(values['versions']), 'version')}"
    say(f"{what} {'would be erased' if missing else 'have to go from every node'}.")
    for ref in values["named_by"]:
        say(f"{dataset}@{ref} names a version that {'would no longer be' if missing else 'is no longer'} whole.")
    if request and missing:
        say(f"Not erased yet: {missing}")
        say(f"Next: stagegate erase {dataset} --approve {digest_text(request.digest)}, run by an approver")
    _show_reports(values["this_node"])
    if not missing:
        say(f"Next: stagegate erase --node, where no agent runs; then stagegate erase {dataset} --status")


def _show_reports(reports: Sequence[tuple[str, NodeErasure]]) -> None:
    for dataset, report in reports:
        say(report_text(dataset, report))
        for line in report.left:
            say_line(f"  {line}")


def _show_standings(standings: Sequence[NodeStatus]) -> None:
    if not standings:
        say("Nothing was erased, or no node is known")
        return
    rows = (
        (str(each.number), each.node, each.standing.value, time_text(each.at) if each.at else "-", each.why)
        for each in standings
    )
    print_rows(("erasure", "node", "", "answered", "why"), rows)


def _exit_of(standings: Sequence[NodeStatus]) -> ExitCode:
    found = {each.standing for each in standings}
    if found & {NodeStanding.LEFT, NodeStanding.CONTRADICTED}:
        return ExitCode.ERROR
    return ExitCode.WAITING if NodeStanding.UNANSWERED in found else ExitCode.PASS
