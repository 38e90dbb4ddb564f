"""`stagegate token create`, `list` and `revoke`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import print_records, print_result, print_rows, say, say_line
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.tokens.token_records import DAYS, TokenLine, create_token, revoke_token, token_lines
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.unreadable import UnreadableRecords


def create(
    *,
    holder: Annotated[str, Parameter(name="--for", metavar="NAME", help="The program that it is for.")],
    may: Annotated[
        tuple[str, ...],
        Parameter(metavar="SCOPE,…", negative="", help="read, stage, check; by default only read, which each implies."),
    ] = (),
    dataset: Annotated[
        tuple[str, ...], Parameter(metavar="NAME", negative="", help="Only for this dataset. Repeatable.")
    ] = (),
    days: Annotated[int, Parameter(metavar="N", show_default=True, help="How long it is valid; 365 at most.")] = DAYS,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], metavar="FILE", help="Write it to a new file of mode 0600.")
    ] = None,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Make a token for a program, and show it this once.

    The catalog keeps the SHA-256 of its secret alone. No token promotes, approves, waives or rolls back.

    For example:

    - `stagegate token create --for ci --may stage,check --dataset nycflights`
    - `stagegate token create --for grafana --days 365 --output grafana-token`
    """
    workspace = places.workspace()
    with _new_file(output) as file:
        line, text = create_token(workspace, holder, may, dataset, days)
        if file:
            file.write(f"{text}\n")
    shown = asdict(line) | {"token": None if file else text}
    print_result(shown, lambda _: _show_created(line, "" if file else text, output), json=json)


@contextmanager
def _new_file(path: Path | None) -> Iterator[IO[str] | None]:
    """A new file that others can't read, which goes if the block fails; None without a path."""
    if path is None:
        yield None
        return
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"The token can't be written to {path}: {error.strerror}", hint="Name a new file.") from error
    try:
        with os.fdopen(number, "w", encoding="ascii") as file:
            os.fchmod(number, 0o600)  # whatever the umask takes away
            yield file
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _show_created(line: TokenLine, text: str, output: Path | None) -> None:
    about = f", only for {', '.join(line.datasets)}" if line.datasets else ""
    say_line(f"Token {line.id} for {line.holder}: may {', '.join(line.scopes)}{about}, until {time_text(line.ends)}")
    say(text or f"It is in {output}")
    say("It is kept nowhere else: make another one if it is lost." if text else "Only you can read that file.")


def list_tokens(*, json: Json = False, places: Places = Places()) -> None:
    """List tokens: for whom, what they may do, last use.

    For example:

    - `stagegate token list --json`
    """
    unreadable = UnreadableRecords()
    print_records(token_lines(places.workspace().catalog, unreadable), _show, unreadable, json=json)


def _show(lines: Sequence[TokenLine]) -> None:
    if not lines:
        say("There are no tokens")
        return
    print_rows(("ID", "FOR", "MAY", "DATASETS", "STATE", "ENDS", "LAST USE", "MADE BY"), map(_cells, lines))
    for line in lines:
        if line.revoked:
            when = time_text(line.revoked.at)
            say_line(f"{line.id} was revoked on {when}, by {line.revoked.who}: {line.revoked.reason}")


def _cells(line: TokenLine) -> tuple[str, ...]:
    used = time_text(line.used) if line.used else "never"
    may, about = ",".join(line.scopes), ",".join(line.datasets) or "all"
    return (line.id, line.holder, may, about, line.state, time_text(line.ends), used, str(line.who))


def revoke(
    token: Annotated[str, Parameter(name="ID")],
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    json: Json = False,
    places: Places = Places(),
) -> None:
    """End a token. Servers take it for 10 seconds more at most; jobs that it began go on.

    For example:

    - `stagegate token revoke 3f9c01d2a4b7 --reason "the CI project moved"`

    Parameters
    ----------
    token
        Its id, as `stagegate token list` shows it.
    """
    line = revoke_token(places.workspace(), token, reason)
    print_result(line, lambda _: say_line(f"Token {line.id} for {line.holder} is revoked"), json=json)
