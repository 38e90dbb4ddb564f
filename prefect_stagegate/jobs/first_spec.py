"""A first spec for sources: what lies there, as tables and files, with a pilot gate that passes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from json import dumps
from pathlib import PurePosixPath
from textwrap import indent
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from prefect_stagegate.errors import MissingExtra, SourceError, UsageError
from prefect_stagegate.jobs.staging.open_sources import open_spec_source
from prefect_stagegate.model import NAME_LENGTH, SourceObject
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.patterns import matcher
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.spec import SourceSpec
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.spec.yamltree import yaml_text
from prefect_stagegate.validations.files.calls import release
from prefect_stagegate.validations.files.found_dialect import SAMPLE_BYTES, find_dialect
from prefect_stagegate.validations.files.probes import TABLE_PROBES
from prefect_stagegate.validations.table_schema import TableFile, common_types
from prefect_stagegate.workspace import ResolveCredentials

HEADER_BYTES = 16_384
"""Bytes of a text file that are read for its header, which is its first line."""
HEADERS = 100
"""The most files whose headers are read; where there are more, only their names say which make a table."""
PROBES = {
    **dict.fromkeys((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"), "image"),
    **dict.fromkeys((".aiff", ".flac", ".mp3", ".ogg", ".wav"), "audio"),
    **dict.fromkeys((".npy", ".npz"), "numpy"),
    ".safetensors": "safetensors",
    ".tar": "tar",
    ".txt": "text",
}
"""The probe that opens a file, by its ending."""
TEXT_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""The endings of files whose first line is their header."""
LISTED = 10_000
"""Objects that are looked at; a larger source is described by its first ones."""
FOOTER_BYTES = 262_144
"""Bytes of a Parquet file that are read for its footer, at its end."""
MOST_TABLES = 20
"""Tables that a first spec names; those with the most files come first."""


@dataclass(frozen=True, slots=True)
class FirstSpec:
    """A spec's text, and what it was made of."""

    dataset: str
    text: str
    objects: int
    tables: dict[str, str]
    """The glob of each table."""
    whole: bool
    """Whether all objects of the sources were looked at."""


def write_first_spec(
    urls: Mapping[str, str], settings: Settings, resolve: ResolveCredentials, *, dataset: str = "", endpoint: str = ""
) -> FirstSpec:
    """List sources and describe them as a spec.

    Args:
        urls: How the spec names each source, by its folder's path or its URL.
        settings: This process's settings.
        resolve: Turns the name of a block into storage options.
        dataset: The dataset's name; by default the last part of the first URL.
        endpoint: The URL of the server that has the buckets of `s3://` sources; empty for the environment's.

    Raises:
        UsageError: A URL can't be used, or has no objects.
        SourceError: A source can't be listed.
    """
    sources, endings, objects, whole = list[dict[str, Any]](), set[str](), 0, True
    counts, unlike, columns = dict[str, int](), list[str](), dict[str, dict[str, str]]()
    dialects = dict[str, tuple[dict[str, Any], str]]()
    for url, written in urls.items():
        name = _name(PurePosixPath(url.rstrip("/")).name) or "dataset"
        dataset = dataset or name
        # A folder each: files of two sources may have one path.
        folder = f"{name}/" if len(urls) > 1 else ""
        options = {"endpoint_url": endpoint} if endpoint and "://" in url else {}
        sources.append(_filled(url=written, into=folder, options=options))
        try:
            described = SourceSpec(url=url, options=options)
        except ValidationError as error:
            raise UsageError(f"{url!r} can't be a source: {error.errors()[0]['msg']}", hint="Rename it.") from error
        with closing(open_spec_source(described, settings, resolve)) as source:
            # One more than is described tells whether the source has more.
            listed = list(islice(source.list(), LISTED + 1))
            if not listed:
                raise UsageError(f"{url} has no objects", hint="Name the folder or prefix that holds the data.")
            files = _by_glob(sorted(listed[:LISTED], key=lambda item: item.key), folder)
            unlike += _join_by_header(source, files)
            parquet = [glob for glob in files if glob.endswith(".parquet")]
            columns |= {glob: _columns(source, files[glob]) for glob in parquet[:MOST_TABLES]}
            texts = [glob for glob in files if glob.endswith(TEXT_ENDINGS)]
            dialects |= {glob: _dialect(source, folder, listed[:LISTED], glob) for glob in texts[:MOST_TABLES]}
        counts |= {glob: len(items) for glob, items in files.items()}
        others = (item.key for item in listed[:LISTED] if not _table_ending(item.key))
        endings |= {_escaped(PurePosixPath(key).suffix) for key in others} - {""}
        objects, whole = objects + len(listed[:LISTED]), whole and len(listed) <= LISTED
    tables = _tables(counts, dataset)
    found = {name: dialects.get(glob, ({}, "")) for name, glob in tables.items()}
    contract = {
        name: _filled(files=glob, csv=found[name][0], columns=columns.get(glob)) for name, glob in tables.items()
    }
    questions = (f"Table {name}: {question}" for name, (_, question) in found.items() if question)
    notes = [*_unlike_lines(unlike), *questions]
    if dialects:
        notes.append(
            f"CSV names no types. `stagegate contract suggest {dataset}` finds columns once a version is staged."
        )
    text = "".join(f"{line}\n" for line in _lines(dataset, sources, contract, sorted(endings), notes))
    return FirstSpec(dataset, text, objects, tables, whole)


def _filled(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value}


def _columns(source: Source, items: Sequence[SourceObject]) -> dict[str, str]:
    """The columns that the footers of a table's first and last Parquet file have in common; none if one is too long."""
    files = []
    for item in (items[0], items[-1]):
        buffer = bytearray(min(item.size, FOOTER_BYTES))
        try:
            source.read_into(item, item.size - len(buffer), memoryview(buffer))
            files.append(TableFile(item.key, pq.read_schema(pa.BufferReader(buffer)), 0))
        except (SourceError, pa.ArrowException, OSError):
            return {}  # staging reports it, or the check `schema`
    return common_types(files)[0]


def _lines(
    dataset: str, sources: Sequence[Any], tables: Mapping[str, Any], endings: Sequence[str], notes: Iterable[str]
) -> Iterator[str]:
    yield f"# Written by `stagegate init`. Next: stagegate lint {dataset}.yaml, then stagegate stage {dataset}.yaml"
    yield "stagegate: 1"
    yield f"dataset: {dataset}"
    yield "# license: CC-BY-4.0  # an SPDX id; the check `license` asks for it"
    yield "# Who is told when a check fails. Fill in an address each."
    yield f"# owners: {{{', '.join(f'{name}: {name}@example.org' for name in get_args(Owner))}}}"
    yield yaml_text({"sources": sources})
    yield "contract:"
    if tables:
        yield "  # A table is all files that its glob names. Columns and a suite say what its rows must be."
        yield from (f"  # {line}" for line in notes)
        yield indent(yaml_text({"tables": tables}), "  ")
    if endings:
        yield "  files:"
    for ending in endings:
        probe, note = _probe(ending)
        yield f"    - {{match: {dumps(f'**/*{ending}', ensure_ascii=False)}, probes: [{probe}]}}{note}"
    yield "gates:"
    yield "  pilot:"
    yield f"    require: [{'schema, ' if tables else ''}nonempty, coverage, cache_fit]"
    yield "  # production:"
    yield "  #   extends: pilot"
    yield "  #   require: [digest, {approval: {count: 1, from: [infra], proof: os-user}}]"
    yield "# Who must agree to other gates, once a target names a version. Until then, edit and stage again."
    yield "# A name that somebody only declares, by --identity, does not count; `login` and `signature` prove more."
    yield "policy: {change: {approval: {count: 1, proof: os-user}}}"


def _probe(ending: str) -> tuple[str, str]:
    """The probe of files with this ending, and a comment on what a better one needs."""
    probe = PROBES.get(ending.lower(), "nonempty")
    try:
        release(probe)
    except MissingExtra as error:
        return "nonempty", f"  # or [{probe}], which opens them. {error.hint}"
    return probe, ""


def _unlike_lines(unlike: Iterable[str]) -> Iterator[str]:
    """What to do about files of one folder that are a table each, since their headers differ."""
    for glob in unlike:
        joined = dumps(glob.replace("*", "{one,other}", 1), ensure_ascii=False)
        yield f"The headers of {dumps(glob, ensure_ascii=False)} differ, so its files are a table each. To join some of"
        yield f"them, give them the same header, and one table: {{files: {joined}}}"


def _by_glob(objects: Iterable[SourceObject], folder: str) -> dict[str, list[SourceObject]]:
    """The files that look like one table's by their names, by a glob of their paths in this folder."""
    files: dict[str, list[SourceObject]] = {}
    for item in objects:
        if _table_ending(item.key):
            files.setdefault(folder + _glob(item.key), []).append(item)
    return files


def _join_by_header(source: Source, files: dict[str, list[SourceObject]]) -> list[str]:
    """Join the text files of one folder into one table when all of them have the same header.

    Returns:
        The globs of folders whose files have different headers.
    """
    folders: dict[str, list[str]] = {}
    for glob in files:
        folder, _, name = glob.rpartition("/")
        if glob.endswith(TEXT_ENDINGS) and "**" not in glob:
            folders.setdefault(f"{folder}/*{_table_ending(name)}".removeprefix("/"), []).append(glob)
    unlike, left = [], HEADERS
    for joined, globs in folders.items():
        # Counted before the test below: a folder is read as a whole or not at all.
        left -= len(globs)
        if len(globs) == 1 or left < 0:
            continue
        headers = {_header(source, files[glob][0]) for glob in globs}
        if len(headers) > 1 or "" in headers:
            unlike.append(joined)
        else:
            files[joined] = [item for glob in globs for item in files.pop(glob)]
    return unlike


def _header(source: Source, item: SourceObject) -> str:
    """The first line of a file; empty where it has none, or can't be read."""
    # Spreadsheets write a byte-order mark, which would make equal headers differ.
    lines = _begin(source, item, HEADER_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    return lines[0].strip() if lines else ""


def _begin(source: Source, item: SourceObject, most: int) -> bytes:
    """The first bytes of a file; none where it can't be read."""
    buffer = bytearray(min(item.size, most))
    try:
        source.read_into(item, 0, memoryview(buffer))
    except SourceError:
        return b""  # staging reports it
    return bytes(buffer)


def _dialect(source: Source, folder: str, objects: Iterable[SourceObject], glob: str) -> tuple[dict[str, Any], str]:
    """How the text files of a table are written, and what to ask; of many files, some of all its parts are read."""
    matches = matcher(glob)
    files = [item for item in objects if matches(folder + item.key)]
    some = files[:: -(-len(files) // HEADERS) or 1]
    return find_dialect((_begin(source, item, SAMPLE_BYTES) for item in some), "\t" if ".tsv" in glob else ",")


def _tables(counts: Mapping[str, int], dataset: str) -> dict[str, str]:
    """The globs of tables by name, those with the most files first; `dataset` where a glob gives no name."""
    tables: dict[str, str] = {}
    for glob in sorted(counts, key=lambda glob: (-counts[glob], glob))[:MOST_TABLES]:
        begin = glob[: -len(_table_ending(glob))].partition("*")[0]
        name = _name(begin) or dataset
        while name in tables:
            name += "-2"
        tables[name] = glob
    return tables


def _glob(key: str) -> str:
    """The glob of a table's files: numbers in a name tell its files apart, and so do partitions.

    >>> _glob("flights/2013-01.parquet"), _glob("airlines.csv"), _glob("trips/year=2013/part-0.parquet")
    ('flights/*.parquet', 'airlines.csv', 'trips/**/*.parquet')
    """
    *folders, name = key.split("/")
    ending = _table_ending(name)
    stem = name[: -len(ending)]
    begin = re.split(r"[-_.]*\d", stem)[0]
    partition = next((number for number, folder in enumerate(folders) if "=" in folder), None)
    if partition is not None:
        return "/".join([*map(_escaped, folders[:partition]), "**", f"*{ending}"])
    pattern = _escaped(stem) if begin == stem else f"{_escaped(begin)}*"
    return "/".join([*map(_escaped, folders), f"{pattern}{ending}"])


def _escaped(name: str) -> str:
    """A name with `?` for what a glob would take for a pattern."""
    return re.sub(r"[*?\[\]{}\\]", "?", name)


def _table_ending(key: str) -> str:
    """What the key ends with where that is a table's format; the longest such ending."""
    # A `.json` is more often one document than a table of lines.
    endings = (ending for ending in TABLE_PROBES if not f"{ending}.".startswith(".json."))
    return max(filter(key.lower().endswith, endings), key=len, default="")


def _name(text: str) -> str:
    """A name as datasets and tables have it.

    >>> _name("NYC Flights_2013")
    'nyc-flights-2013'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:NAME_LENGTH].strip("-")
