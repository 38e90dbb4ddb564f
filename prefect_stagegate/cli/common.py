"""Flags that commands share, and functions that print for them."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter

from prefect_stagegate.cli.json_output import OUTPUT, error_values
from prefect_stagegate.errors import ExitCode, StagegateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cyclopts import Token
    from rich.table import Table

    from prefect_stagegate.cache import Cache
    from prefect_stagegate.jobs.workspace import Workspace
    from prefect_stagegate.model import FailedObject, PolicyChange
    from prefect_stagegate.unreadable import Unreadable


T = TypeVar("T")

COMMON = Group("Common options", sort_key=10)
"""Options of nearly all commands; those of the command itself stand above them."""
Json = Annotated[
    bool,
    Parameter(
        name=("--json", "--compact"),
        negative="",
        group=COMMON,
        allow_repeating=True,
        help="Print JSON for programs instead of text for people; with --compact in one line.",
    ),
]
ProgressForm = Literal["auto", "json", "none"]
Debug = Annotated[bool, Parameter(negative="", group=COMMON, help="Log more, and show errors with their traceback.")]


def converter(parse: Callable[[str], Any]) -> Callable[[type, tuple[Token, ...]], Any]:
    """What reads an option's text by a function that raises `ValueError` for bad ones."""
    return lambda _, tokens: parse(tokens[0].value)


# What help calls the positional arguments.
VersionName = Annotated[str, Parameter(name="DATASET@REF")]
VersionOrSpec = Annotated[str, Parameter(name="SPEC|DATASET@REF")]

All = Annotated[bool, Parameter(name="--all", negative="", help="List every object, not only the first 20.")]

ANYBODY = (
    "Anybody may adopt another policy: this one has no rule. Add `policy: {change: {approval: {count: 1, from: "
    "[governance]}}}` to the spec and adopt it."
)
SHOWN_WITHOUT_ALL = 20
"""Lines that a list has without `--all`."""
UNBROKEN_WIDTH = 1000
"""Width in columns of a table that goes to a program or a file: no row breaks."""


@Parameter(name="*")
@dataclass(frozen=True)
class Places:
    """Where the job works."""

    cache: Annotated[
        Path | None, Parameter(metavar="DIR", group=COMMON, help="The node's cache folder [STAGEGATE_CACHE].")
    ] = None
    catalog: Annotated[
        str | None, Parameter(metavar="DIR|URL", group=COMMON, help="The shared catalog [STAGEGATE_CATALOG].")
    ] = None
    identity: Annotated[
        str | None,
        Parameter(
            metavar="NAME", group=COMMON, help="Who you are, where the system's user isn't it [STAGEGATE_IDENTITY]."
        ),
    ] = None
    debug: Debug = False

    def workspace(self, *, create: bool = False) -> Workspace:
        """Open the cache and the catalog that the flags or the settings name; with `create`, make an absent catalog."""
        # Imported here, since short commands load this module and open no workspace.
        from prefect_stagegate.jobs.workspace import open_workspace
        from prefect_stagegate.model import Identity

        if self.identity is not None and not self.identity.strip():
            raise UsageError("--identity is empty", hint="Name somebody, or leave it out to act as the system's user.")
        identity = Identity(self.identity, "declared") if self.identity else None
        workspace = open_workspace(
            self.cache, self.catalog, create_catalog=create, identity=identity, resolve_credentials=load_block
        )
        return replace(workspace, ask_passphrase=type_passphrase)

    def open_cache(self) -> Cache:
        """Open the cache alone; the cache must exist. Asks no catalog, and imports little."""
        from prefect_stagegate.jobs.read import open_cache

        return open_cache(self.cache)


@Parameter(name="*")
@dataclass(frozen=True)
class Display:
    """What a command that takes long shows of its work and of its result."""

    quiet: Annotated[
        bool,
        Parameter(
            negative="",
            group=COMMON,
            help="Print only errors, and JSON where it is asked for; the exit code tells the result.",
        ),
    ] = False
    progress: Annotated[
        ProgressForm,
        Parameter(
            name="--progress",
            metavar="auto|json|none",
            show_choices=False,
            group=COMMON,
            help="How work is shown on standard error: to people, as a line of JSON a second, or not.",
        ),
    ] = "auto"
    no_progress: Annotated[
        bool, Parameter(name="--no-progress", negative="", group=COMMON, help="Show no progress.")
    ] = False

    def progress_form(self, *, json: bool) -> ProgressForm:
        """How the work is shown while it goes on. What is for people is hidden beside JSON."""
        if self.no_progress:
            return "none"
        return "none" if self.progress == "auto" and (self.quiet or json) else self.progress


def load_block(name: str) -> Mapping[str, Any]:
    """The storage options behind a Prefect block that a spec names, for example `aws-credentials/onprem`.

    Raises:
        UsageError: No Prefect API is configured, or it has no such block.
        SourceUnavailable: The API did not answer.
    """
    # Imported here: Prefect takes seconds to load, and few specs name a block.
    from prefect_stagegate.blocks import storage_options
    from prefect_stagegate.gate.orchestration import require_api

    require_api(f"the block {name!r} is stored there")
    return storage_options(name)


def type_passphrase(path: Path) -> str:
    """Ask for a key's passphrase at the terminal, where no other process can read it."""
    from getpass import getpass

    from prefect_stagegate.workspace import no_passphrase

    return getpass(f"Passphrase of {escaped(str(path))}: ") if sys.stdin.isatty() else no_passphrase(path)


def _json(value: Any) -> bytes:
    """A value of dataclasses, dictionaries and lists as JSON that can't act on a terminal."""
    import orjson

    with suppress(TypeError):  # a name that is not UTF-8, whose surrogates orjson refuses
        document = orjson.dumps(value, option=0 if OUTPUT.is_compact else orjson.OPT_INDENT_2, default=str)
        if document.isascii() and b"\x7f" not in document:
            return document
        value = orjson.loads(document)
    return OUTPUT.text(value).replace("\x7f", "\\u007f").encode()


def print_json(value: Any) -> None:
    """Write a value of dataclasses, dictionaries and lists to standard output as JSON."""
    document = _json(value) + b"\n"
    OUTPUT.begin()
    sys.stdout.buffer.write(document)


def write_output(text: str, file: Path | None, subject: str) -> None:
    """Write a text to a file, or to standard output where none is given.

    Raises:
        UsageError: The file can't be written. The message begins with the subject, `The report`.
    """
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{subject} can't be written to {file}: {error.strerror}") from error


def print_json_list(
    items: Iterable[Any],
    name: str = "",
    before: Mapping[str, Any] = MappingProxyType({}),
    after: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Write a list as `print_json` would, item by item: it may be longer than memory.

    Args:
        items: The list's items. An error between two of them becomes the object's `error`, or the last item, and is
            raised again.
        name: The list's key in an object; empty when the list stands alone.
        before: The object's values before the list.
        after: Returns the object's values after the list; called when the list has ended.
    """
    write = sys.stdout.buffer.write
    # Brackets and indentation are written by hand, so that only one item is in memory at a time.
    line, margin = (b"", b"") if OUTPUT.is_compact else (b"\n", b"    " if name else b"  ")
    # The object's text up to its empty list; the list's items and the rest follow.
    opening = _json({**before, name: []}) if name else b"[]"
    opening = opening.removesuffix(b"]" + line + b"}" if name else b"]")
    separator, failure = opening, None

    def write_item(text: bytes) -> None:
        write(separator + line + margin + text.replace(b"\n", b"\n" + margin))

    try:
        for item in items:
            # Only now, since an error before the first item is a document of its own.
            OUTPUT.begin()
            write_item(_json(item))
            separator = b","
    except StagegateError as error:
        if separator is opening:
            raise
        failure = error
    # Not by orjson: an object's name may hold surrogates.
    ending = OUTPUT.text({"error": error_values(failure)}).encode() if failure else b""
    if failure and not name:
        write_item(ending)
    write((opening if separator is opening else line + margin[2:]) + b"]")
    if name:
        rest = ending or _json({**after()})
        write(line + b"}" if rest == b"{}" else b"," + rest[1:])
    write(b"\n")
    if failure:
        raise failure


def end_unreadable(unreadable: Sequence[Unreadable]) -> None:
    """Name the records that could not be read, and exit with 3 when there are any; call this last."""
    for record in unreadable:
        print(escaped(" ".join(f"can't be read: {record}".splitlines())), file=sys.stderr)
    if unreadable:
        sys.exit(ExitCode.ERROR)


def unreadable_lines(unreadable: Sequence[Unreadable]) -> list[dict[str, Any]]:
    """The records that could not be read, as the last elements of a command's JSON list."""
    return [{"unreadable": asdict(record)} for record in unreadable]


def print_table(table: Table) -> None:
    """Print a table at the terminal's width; to a program or a file, each row on one line."""
    from rich.cells import cell_len
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else UNBROKEN_WIDTH)
    if console.is_terminal:
        console.print(table)
        return
    # By hand, since rich takes half a second for a thousand rows.
    columns = [
        [" ".join(str(cell).splitlines()) for cell in (column.header, *column.cells)] for column in table.columns
    ]
    widths = [max(map(cell_len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def say(text: str = "") -> None:
    """Print text for people, with what would act on their terminal escaped."""
    print(escaped(text))


def say_line(text: str) -> None:
    """Print text as a single line, so that no reason that somebody gave looks like a line of ours."""
    say(" ".join(text.splitlines()))


def say_first(items: Iterable[T], line: Callable[[T], str], *, every: bool) -> None:
    """Print a line for each item; without `every`, for the first 20, and how many more there are."""
    count = 0
    for count, item in enumerate(items, start=1):
        if every or count <= SHOWN_WITHOUT_ALL:
            say(line(item))
    if count > SHOWN_WITHOUT_ALL and not every:
        say(f"… and {count - SHOWN_WITHOUT_ALL:,} more; --all lists them")


def print_failed(failed: Sequence[FailedObject]) -> None:
    """Print which objects a version lacks, and why."""
    from prefect_stagegate.show.failed import failed_lines
    from prefect_stagegate.units import count_text

    say(f"{count_text(len(failed), 'object')} failed and {'was' if len(failed) == 1 else 'were'} left out:")
    for line in failed_lines(failed):
        say(line)


def print_changes(changes: Iterable[PolicyChange]) -> None:
    """Print how two policies differ, a line a change."""
    for change in changes:
        say_line(f"{change.direction:<10} {change.subject}: {change.difference}")


def escaped(text: str) -> str:
    """The text with control characters as escapes, so that it can't act on a terminal; lines and tabs stay."""
    # Nearly every text is: no escapes are needed, and their module is not imported.
    if text.isprintable():
        return text
    from prefect_stagegate.show.legible import legible_text

    return legible_text(text)
