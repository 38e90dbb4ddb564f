"""`stagegate ls`, `show` and `diff`: look, and change nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.cache.quarantine import Quarantine, Quarantined
from prefect_stagegate.cli.flags import All, Json, Places, VersionName
from prefect_stagegate.cli.printing import (
    EMPTY_CATALOG,
    end_unreadable,
    print_failed,
    print_json,
    print_json_list,
    print_records,
    print_result,
    print_rows,
    say,
    say_first,
    say_line,
    write_output,
)
from prefect_stagegate.cli.progress_display import shown_work
from prefect_stagegate.doors import hidden_names, offered
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs import inspect
from prefect_stagegate.model import Address, EvidenceRevocation, Waiver
from prefect_stagegate.model.manifest import Change, Difference, row
from prefect_stagegate.show.document import Cell, Section, Table, Text
from prefect_stagegate.units import bytes_text, count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords


def ls(
    dataset: str | None = None,
    /,
    *,
    held: Annotated[bool, Parameter(negative="", help="List instead who holds what on this node, since when.")] = False,
    quarantine: Annotated[bool, Parameter(negative="", help="List instead what rotted on this node.")] = False,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="List also what listings leave out, marked.")
    ] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """List datasets, their versions and refs, and what this node holds.

    For example:

    - `stagegate ls`
    - `stagegate ls nycflights --json`
    - `stagegate ls --held`

    Parameters
    ----------
    dataset
        Only this dataset.
    """
    if held or quarantine:
        (_list_held if held else _list_quarantine)(places.open_cache(), dataset, json=json)
        return
    unreadable = UnreadableRecords()
    workspace = places.workspace()
    lines = inspect.list_versions(workspace, dataset, unreadable, every=every)
    hidden = hidden_names(workspace.catalog) if every else {}
    records: Sequence[object] = lines
    if every:
        records = [asdict(line) | {"hidden": _marks(line, hidden)} for line in lines]
    print_records(records, lambda _: _print_versions(lines, hidden), unreadable, json=json)


def _marks(line: inspect.VersionLine, hidden: Mapping[str, str]) -> dict[str, str]:
    """The words for the dataset, and for refs that name the version, where other listings leave them out."""
    names = (line.dataset, *(f"{line.dataset}@{ref}" for ref in line.refs))
    return {name: hidden[name] for name in names if name in hidden}


def _print_versions(lines: Sequence[inspect.VersionLine], hidden: Mapping[str, str]) -> None:
    if not lines:
        say(EMPTY_CATALOG)
        return
    version = Column("version", no_wrap=True)  # people copy it, so it is never cut
    about = ("dataset", version, "staged", "refs", "decisions", "files", "size", "weakest pin")
    rows = []
    for line in lines:
        here = (", ".join(line.here_as) or "yes") if line.here else "-"
        holders = "; ".join(map(str, line.leases))
        refs = ", ".join(_marked(ref, hidden.get(f"{line.dataset}@{ref}")) for ref in line.refs) or "-"
        name = _marked(line.dataset, hidden.get(line.dataset))
        facts = (str(line.files), bytes_text(line.bytes), str(line.pins or "-"))
        staged = f"{line.staged_at[:10]} {line.staged_at[11:16]} UTC" if line.staged_at else "-"
        decisions = ", ".join(f"{decision.target} {decision.outcome}" for decision in line.decisions) or "-"
        rows.append((name, digest_text(line.digest), staged, refs, decisions, *facts, here, holders or "-"))
    print_rows((*about, "on this node", "held by"), rows)


def _marked(name: str, word: str | None) -> str:
    return f"{name} ({word})" if word else name


def show(
    address: VersionName,
    /,
    *,
    rows: Annotated[
        bool, Parameter(negative="", help="Print the manifest's lines, whose SHA-256 is the digest.")
    ] = False,
    croissant: Annotated[
        bool, Parameter(negative="", help="Print the version's description in Croissant 1.1, as JSON-LD.")
    ] = False,
    sha256: Annotated[
        bool, Parameter(negative="", help="With --croissant: read each file on this node for its SHA-256.")
    ] = False,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], metavar="FILE", help="With --croissant: the file to write.")
    ] = None,
    every: All = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Show one version: its digest, its size and its entries.

    For example:

    - `stagegate show nycflights@production`
    - `stagegate show --rows nycflights | sha256sum`
    - `stagegate show nycflights@production --croissant -o croissant.json`

    Parameters
    ----------
    address
        DATASET[@REF], DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`. 12 digits of a digest do.
    """
    if (sha256 or output) and not croissant:
        raise UsageError("--sha256 and --output belong to --croissant", hint="Add --croissant, or leave them out.")
    if rows and json:
        raise UsageError("--rows prints the manifest's lines, which are no JSON", hint="Leave --rows or --json out.")
    workspace = places.workspace()
    if croissant:
        describe = offered("descriptions", "croissant", "--croissant")
        # ASCII only, so that no name in it acts on a terminal.
        text = dumps(describe(workspace, Address.parse(address), hashed=sha256), indent=2) + "\n"
        write_output(text, output, "The description")
        return
    unreadable = UnreadableRecords()
    line, manifest = inspect.show(workspace, Address.parse(address), unreadable)
    beside = inspect.beside(workspace, Address(line.dataset, line.digest), unreadable)
    if rows:
        # Streamed, since a manifest may be larger than memory.
        for entry in manifest.entries():
            sys.stdout.buffer.write(row(entry))
        sys.stdout.buffer.flush()
        end_unreadable(unreadable.all)
        return
    if json:
        rest = beside | {"unreadable": unreadable.all}
        print_json_list(manifest.entries(), "entries", asdict(line), lambda: rest)
    else:
        _print_facts(line, beside["waivers"], beside["revocations"])
        if beside["failed"]:
            print_failed(beside["failed"])
        sys.stdout.flush()
        say_first(
            manifest.entries(),
            lambda entry: f"{bytes_text(entry.size):>12}  {entry.digest[:23]}  {entry.path}",
            every=every,
        )
    end_unreadable(unreadable.all)


def _print_facts(
    line: inspect.VersionLine, waivers: Sequence[Waiver], revocations: Sequence[EvidenceRevocation]
) -> None:
    say(f"{line.dataset}@{line.digest}")
    say(f"{count_text(line.files, 'file')}, {bytes_text(line.bytes)}; refs: {', '.join(line.refs) or 'none'}")
    say(f"weakest pin: {line.pins or 'unknown'}")
    for waiver in waivers:
        ended = f"; revoked by {waiver.revoked.who}: {waiver.revoked.reason}" if waiver.revoked else ""
        say_line(f"{waiver.check} at {waiver.target}: {waiver}{ended}")
    for revocation in revocations:
        say_line(f"evidence of {revocation.about}: {revocation}")


_CHANGE_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~"}


def diff(
    old: str,
    new: str,
    /,
    *,
    rows: Annotated[bool, Parameter(negative="", help="Compare the rows of the contract's tables instead.")] = False,
    key: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="COLUMN",
            negative="",
            help="With --rows: a column that tells which rows are the same; once for each. Without, whole rows are "
            "compared.",
        ),
    ] = (),
    every: All = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Show how the entries of two versions differ, or the rows of their tables.

    For example:

    - `stagegate diff nycflights@production nycflights@latest`
    - `stagegate diff nycflights@latest~1 nycflights`
    - `stagegate diff nycflights@production nycflights --rows --key flight --key time_hour`

    Parameters
    ----------
    old
        DATASET[@REF], DATASET@REF~1 or DATASET@sha256:….
    new
        The same; may be another dataset.
    """
    if key and not rows:
        raise UsageError("--key belongs to --rows", hint="Add --rows, or leave --key out.")
    if rows:
        compare = offered("comparisons", "rows", "--rows")
        with shown_work(f"diff {old} {new}", "none" if json else "auto") as progress:
            section = compare(places.workspace(), Address.parse(old), Address.parse(new), key, progress)
        if json:
            print_json(section.values)
        else:
            _print_section(section)
        return
    changes = inspect.compare(places.workspace(), Address.parse(old), Address.parse(new))
    if json:
        print_json_list(changes)
        return
    counts: Counter[Change] = Counter()
    say_first(_counted(changes, counts), _change_line, every=every)
    if not counts:
        say("The two are the same.")
        return
    verb = "differs" if counts.total() == 1 else "differ"
    say(
        f"{count_text(counts.total(), 'entry', 'entries')} {verb}: "
        + ", ".join(f"{counts[change]:,} {change}" for change in Change if counts[change])
        + "."
    )


def _print_section(section: Section) -> None:
    """Print what a plugin says: texts as lines, tables as tables."""
    for part in section.parts:
        if isinstance(part, Text):
            say_line(part.text)
        elif isinstance(part, Table):
            if part.title:
                say_line(part.title)
            print_rows(part.head, ([_cell_text(cell) for cell in row] for row in part.rows))
            if part.more:
                say(f"… and {part.more:,} more; --json has all")


def _cell_text(cell: Cell) -> str:
    return " ".join(f"{cell.text} ({cell.below})".split()) if cell.below else cell.text


def _counted(changes: Iterable[Difference], counts: Counter[Change]) -> Iterator[Difference]:
    """Yield the changes, and count each by its kind."""
    for change in changes:
        counts[change.change] += 1
        yield change


def _change_line(change: Difference) -> str:
    sizes = " → ".join(bytes_text(entry.size) for entry in (change.old, change.new) if entry)
    return f"{_CHANGE_SIGNS[change.change]} {change.path}  {sizes}"


def _list_held(cache: Cache, dataset: str | None, *, json: bool) -> None:
    """List the leases of live readers and writers, and the pins, the oldest first."""
    unreadable = UnreadableRecords()
    leases = [lease for lease in cache.leases.live(unreadable) if dataset in (None, lease.dataset)]
    print_records(leases, _print_held, unreadable, json=json)


def _print_held(leases: Sequence[Lease]) -> None:
    if not leases:
        say("No lease or pin is held on this node.")
        return
    version = Column("version", no_wrap=True)
    rows = []
    for lease in leases:
        who, reserved = lease.what or "-", bytes_text(lease.reserved) if lease.reserved else "-"
        held = lease.digest or "all, and what it makes"
        since, pid = f"{lease.since[:19]}Z", str(lease.pid or "-")
        rows.append((lease.kind, since, pid, who, reserved, lease.dataset, held))
    print_rows(("kind", "since", "pid", "who", "reserved", "dataset", version), rows)


def _list_quarantine(cache: Cache, dataset: str | None, *, json: bool) -> None:
    """List the blobs that rotted, the one that was found first on top."""
    blobs = sorted(Quarantine(cache.layout).all(), key=lambda blob: blob.since)
    if dataset is not None:
        blobs = [blob for blob in blobs if any(entry.startswith(f"{dataset}@") for entry in blob.entries)]
    print_result(blobs, _print_quarantine, json=json)


def _print_quarantine(blobs: Sequence[Quarantined]) -> None:
    if not blobs:
        say("Nothing is in quarantine.")
    for blob in blobs:
        say(f"{blob.digest}  {bytes_text(blob.bytes)}, since {blob.since[:19]}Z: {blob.problem}")
        for entry in blob.entries:
            say(f"    {entry}")
