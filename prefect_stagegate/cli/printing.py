"""What commands print: text for people, and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_stagegate.errors import ExitCode, StagegateError, UsageError
from prefect_stagegate.redaction import redact

if TYPE_CHECKING:
    from rich.table import Column, Table
    from rich.text import Text

    from prefect_stagegate.model import FailedObject, PolicyChange
    from prefect_stagegate.unreadable import Unreadable, UnreadableRecords

T = TypeVar("T")

INDENT = 2
ANYBODY = (
    "Anybody may adopt another policy: this one has no rule. Add `policy: {change: {approval: {count: 1, from: "
    "[governance]}}}` to the spec and adopt it."
)
EMPTY_CATALOG = "The catalog is empty. Stage a spec with `stagegate stage SPEC`, or try `stagegate demo`."
SHOWN_WITHOUT_ALL = 20
"""Lines that a list has without `--all`."""
UNBROKEN_WIDTH = 1000
"""Width in columns of a table that goes to a program or a file: no row breaks."""


@dataclass
class JsonOutput:
    """What the typed words say of JSON, and whether some was printed."""

    is_wanted: bool = False
    is_compact: bool = False
    is_begun: bool = False
    """Whether standard output holds a document, or the beginning of one."""

    def read(self, words: Sequence[str]) -> None:
        """Start again for these words. They count also when the parser refuses them: its errors are JSON, too."""
        options = words[: words.index("--")] if "--" in words else words
        self.is_compact = "--compact" in options
        self.is_wanted = self.is_compact or "--json" in options
        self.is_begun = False

    def begin(self) -> None:
        """Note that a document begins, so that no error is printed as a second one."""
        self.is_begun = True

    def text(self, value: Any) -> str:
        """A document as text. ASCII only: UTF-8 can't hold the surrogates that stand for names which aren't UTF-8."""
        form: dict[str, Any] = {"separators": (",", ":")} if self.is_compact else {"indent": INDENT}
        return json.dumps(value, default=_plain, **form)

    def print_error(self, values: dict[str, Any]) -> None:
        """Print an error as the document, where JSON is wanted and none was begun."""
        if self.is_wanted and not self.is_begun:
            self.begin()
            print(self.text({"error": values}))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


OUTPUT = JsonOutput()
"""Of the command that this process runs."""


def error_values(error: StagegateError) -> dict[str, Any]:
    """An error for programs: what happened, to what, what to do, and whether the same command may work later."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "dataset": error.dataset,
        "source": redact(error.source),
        "object": redact(error.object),
        "retryable": error.retryable,
    }


def json_document(value: Any) -> bytes:
    """A value of dataclasses, dictionaries and lists as JSON that can't act on a terminal."""
    import orjson

    with suppress(TypeError):  # a name that is not UTF-8, whose surrogates orjson refuses
        document = orjson.dumps(value, option=0 if OUTPUT.is_compact else orjson.OPT_INDENT_2, default=str)
        if document.isascii() and b"\x7f" not in document:
            return document
        value = orjson.loads(document)
    return OUTPUT.text(value).replace("\x7f", "\\u007f").encode()


def values_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, for JSON with others. `asdict` would write optional ones of its parts, too."""
    # Some leave out what is unsigned; those with slots have all.
    names = vars(record) if hasattr(record, "__dict__") else [field.name for field in fields(record)]
    return {name: getattr(record, name) for name in names}


def print_json(value: Any) -> None:
    """Write a value of dataclasses, dictionaries and lists to standard output as JSON."""
    document = json_document(value) + b"\n"
    OUTPUT.begin()
    sys.stdout.buffer.write(document)


def print_result(result: T, print_text: Callable[[T], object], *, json: bool, quiet: bool = False) -> None:
    """Print what a command did: as JSON, or for people unless they want quiet."""
    if json:
        print_json(result)
    elif not quiet:
        print_text(result)


def print_records(
    records: Sequence[T], print_text: Callable[[Sequence[T]], object], unreadable: UnreadableRecords, *, json: bool
) -> None:
    """Print what could be read, then `end_unreadable`; in JSON the others are the last elements. Call this last."""
    if json:
        print_json([*records, *({"unreadable": record} for record in unreadable.all)])
    else:
        print_text(records)
    end_unreadable(unreadable.all)


def write_output(text: str, file: Path | None, subject: str) -> None:
    """Write a text to a file, whose folder is made if need be, or to standard output where none is given.

    Raises:
        UsageError: The file can't be written. The message begins with the subject, `The report`.
    """
    if file is None:
        sys.stdout.write(text)
        return
    try:
        if not file.parent.exists():
            file.parent.mkdir(parents=True)
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
    opening = json_document({**before, name: []}) if name else b"[]"
    opening = opening.removesuffix(b"]" + line + b"}" if name else b"]")
    separator, failure = opening, None

    def write_item(text: bytes) -> None:
        write(separator + line + margin + text.replace(b"\n", b"\n" + margin))

    try:
        for item in items:
            # Only now, since an error before the first item is a document of its own.
            OUTPUT.begin()
            write_item(json_document(item))
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
        rest = ending or json_document({**after()})
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


def print_rows(columns: Iterable[str | Column], rows: Iterable[Iterable[str | Text]]) -> None:
    """Print rows as a table. Their cells are no markup: a command may be called `[red]`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(escaped(cell)) if isinstance(cell, str) else cell for cell in row))
    print_table(table)


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


def say_lines(texts: Iterable[str]) -> None:
    """Print each text as a single line."""
    for text in texts:
        say_line(text)


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
    from prefect_stagegate.show.artifacts import failed_lines
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
