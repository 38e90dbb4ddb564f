"""`stagegate contract suggest` and `stagegate trends`: what kept profiles say."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from prefect_stagegate.cli.flags import Display, Json, Places, VersionName
from prefect_stagegate.cli.printing import print_json, print_rows, say
from prefect_stagegate.cli.progress_display import shown_work
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.profile.suggest import suggest_contract
from prefect_stagegate.plugins.profile.trend_section import MARKS, decision_text, moving, sparkline_text, texts
from prefect_stagegate.plugins.profile.trends import MOST_VERSIONS, read_trends
from prefect_stagegate.units import count_text

STDOUT = "-"


def suggest(
    version: VersionName,
    /,
    *,
    table: Annotated[str, Parameter(metavar="TABLE")] = "",
    output: Annotated[str, Parameter(name=["--output", "-o"], metavar="DIR|FILE", allow_leading_hyphen=True)] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Write columns and suites for a version's tables from their profiles, for a person to edit.

    It writes the version's spec with these columns, suites that the version passes, and gates that require
    `expectations`. Each bound has its reason above it. Nothing is adopted.

    For example:

    - `stagegate contract suggest nycflights --output suggested`
    - `stagegate contract suggest nycflights@pilot --table flights --output -`

    Parameters
    ----------
    version
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    table
        The one table to write for; by default all of the contract.
    output
        The folder to write to; by default DATASET-suggested. A name that ends in `.yaml` is one file, with the suites
        inside, as `contract export` writes one; `-` is standard output.
    force
        Replace files that exist.
    """
    display = display or Display()
    with shown_work(f"contract suggest {version}", display.progress_form(json=False)) as progress:
        suggested = suggest_contract((places or Places()).workspace(), version, table=table, progress=progress)
    if output == STDOUT:
        sys.stdout.write(suggested.text())
        return
    folder, files = Path(output or f"{suggested.version.dataset}-suggested"), suggested.files()
    spec = folder / suggested.spec_name
    if output.endswith((".yaml", ".yml")):
        spec, folder, files = folder, folder.parent, {folder.name: suggested.text()}
    _write(folder, files, force=force)
    if display.quiet:
        return
    say(f"{spec}: {count_text(len(suggested.tables), 'table')} from {suggested.version.dataset}")
    for name, contract in suggested.tables.items():
        columns = count_text(len(contract.types), "column")
        say(f"  {name:<16} {columns}, {count_text(contract.expectations, 'expectation')}")
    say(f"Next: edit it, then `stagegate lint {spec}` and `stagegate validate {version} --spec {spec}`.")


def trends(
    dataset: Annotated[str, Parameter(name="DATASET")],
    /,
    *,
    last: Annotated[
        int, Parameter(metavar="N", validator=Number(gte=1, lte=MOST_VERSIONS), help="How many versions, at most.")
    ] = 25,
    column: Annotated[str, Parameter(metavar="COLUMN", help="All figures of one column, also those that stay.")] = "",
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Show how the figures of a dataset's last versions went.

    Figures that stay the same and have no bound in a suite are left out.

    For example:

    - `stagegate trends nycflights`
    - `stagegate trends nycflights --column dep_delay --last 50`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    known = read_trends(places.workspace(), dataset, last)
    if json:
        print_json(known)
        return
    shown, more = moving(known, column)
    targets = dict.fromkeys(target for version in known.versions for target in version.decisions)
    rows = [("decisions of " + target, decision_text(known.versions, target), *[""] * 4) for target in targets]
    rows += [(trend.name, sparkline_text(trend), *texts(trend)) for trend in shown]
    say(f"{count_text(len(known.versions), 'version')} of {dataset}, the oldest first")
    print_rows(("FIGURE", "BY VERSION", "FIRST", "LAST", "LEAST TO MOST", "THE SUITE ACCEPTS"), rows)
    if targets:
        say("; ".join(f"{mark} {outcome}" for outcome, mark in MARKS.items()))
    if more:
        say(f"… and {more:,} more figures; --column shows those of one column, --json all")


def _write(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write all files, or none where one exists and `force` is not set."""
    existing = [folder / name for name in files if (folder / name).exists()]
    if existing and not force:
        raise UsageError(f"{existing[0]} exists", hint="Name another folder by --output, or replace it by --force.")
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # "x" also refuses a file that appeared after the look above.
            with path.open("w" if force else "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
