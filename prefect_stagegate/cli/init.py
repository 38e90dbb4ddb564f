"""`stagegate init`: write a first spec for a source."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import load_block, say
from prefect_stagegate.errors import UsageError
from prefect_stagegate.operations.first_spec import LISTED, write_first_spec
from prefect_stagegate.settings import Settings
from prefect_stagegate.units import count_text

STDOUT = "-"


def init(
    source: Annotated[str, Parameter(name="FOLDER|URL")],
    /,
    *,
    dataset: Annotated[str, Parameter(metavar="NAME")] = "",
    output: Annotated[str, Parameter(name=["--output", "-o"], metavar="FILE", allow_leading_hyphen=True)] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a first spec for a folder or URL, with a pilot gate that passes.

    It lists the source, and takes files with like names for one table. CSV files of one folder with the same header are
    one table, too: it reads the first line of at most 100 of them, and of no other file. Comments say what to fill in.

    For example:

    - `stagegate init /mnt/nas/flights`
    - `stagegate init s3://lake/flights/ --dataset nycflights --output specs/nycflights.yaml`

    Parameters
    ----------
    source
        A folder, or a source's URL.
    dataset
        The dataset's name; by default the last part of the URL.
    output
        The file to write; by default NAME.yaml, and `-` is standard output.
    force
        Replace a file that exists.
    """
    # Paths in a spec are relative to its file, which `--output` may put into another folder.
    url = source if "://" in source else str(Path(source).absolute())
    first = write_first_spec(url, Settings.from_environment(os.environ), load_block, dataset=dataset)
    if output == STDOUT:
        sys.stdout.write(first.text)
        return
    path = Path(output or f"{first.dataset}.yaml")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(first.text)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="Name another by --output, or replace it by --force.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    objects = count_text(first.objects, "object") if first.whole else f"the first {LISTED:,} objects"
    say(f"{path}: {count_text(len(first.tables), 'table')} in {objects}")
    for name, glob in first.tables.items():
        say(f"  {name:<16} {glob}")
    say(f"Next: fill in the owners, then `stagegate lint {path}` and `stagegate stage {path}`.")
