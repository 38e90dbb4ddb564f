"""`stagegate init`: write a first spec for a source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import load_block
from prefect_stagegate.cli.printing import say, write_output
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.first_spec import LISTED, write_first_spec
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.units import count_text

STDOUT = "-"


def init(
    *sources: Annotated[str, Parameter(name="FOLDER|URL")],
    endpoint_url: Annotated[str, Parameter(metavar="URL")] = "",
    dataset: Annotated[str, Parameter(metavar="NAME")] = "",
    output: Annotated[str, Parameter(name=["--output", "-o"], metavar="FILE", allow_leading_hyphen=True)] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a first spec for folders or URLs, with a pilot gate that passes.

    It lists the sources, and takes files with like names for one table. CSV files of one folder with the same header
    are one table, too: it reads the first line of at most 100 of them. Columns come from Parquet's footers. Several
    sources go into a folder each. Comments say what to fill in.

    For example:

    - `stagegate init /mnt/nas/flights`
    - `stagegate init s3://lake/flights/ /mnt/nas/weather --endpoint-url http://minio:9000`
    - `stagegate init s3://lake/flights/ --dataset nycflights --output specs/nycflights.yaml`

    Parameters
    ----------
    sources
        Folders, or sources' URLs. A relative folder is written relative to the spec's file.
    endpoint_url
        The server of `s3://` sources, written into the spec; by default the environment's.
    dataset
        The dataset's name; by default the last part of the first URL.
    output
        The file to write; by default NAME.yaml, and `-` is standard output.
    force
        Replace a file that exists.
    """
    if not sources:
        raise UsageError("Name a folder or a URL", hint="`stagegate init FOLDER`")
    folder = "" if output == STDOUT else os.path.realpath(Path(output).parent)
    urls = dict(_named(source, folder) for source in sources)
    settings = Settings.from_environment(os.environ)
    first = write_first_spec(urls, settings, load_block, dataset=dataset, endpoint=endpoint_url)
    path = None if output == STDOUT else Path(output or f"{first.dataset}.yaml")
    if path and path.exists() and not force:
        raise UsageError(f"{path} exists", hint="Name another by --output, or replace it by --force.")
    write_output(first.text, path, "The spec")
    if path is None:
        return
    objects = count_text(first.objects, "object") if first.whole else f"the first {LISTED:,} objects"
    say(f"{path}: {count_text(len(first.tables), 'table')} in {objects}")
    for name, glob in first.tables.items():
        say(f"  {name:<16} {glob}")
    say(f"Next: fill in the owners, then `stagegate lint {path}` and `stagegate stage {path}`.")


def _named(source: str, folder: str) -> tuple[str, str]:
    """A source's URL or absolute path, and how a spec in this folder names it; empty for a spec in no folder."""
    if "://" in source:
        return source, source
    path = os.path.normpath(Path(source).absolute())  # with links as they are: they may lead elsewhere tomorrow
    return path, os.path.relpath(path, folder) if folder and not Path(source).is_absolute() else path
