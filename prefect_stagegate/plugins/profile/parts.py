"""A table's profile from the parts that an earlier validation kept and the files that are new.

Files are known by the digests of their rows (`partitions.row_digests`). A part is the profile of one file, or of
several where a table has too many files to keep each of them: all parts together hold at most `MOST_NUMBERS` numbers. A
part is used again when all its files are still in the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from prefect_stagegate.plugins.profile.combine import combine, with_categories, without_names
from prefect_stagegate.plugins.profile.figures import is_read_whole, kind_of, read_part
from prefect_stagegate.plugins.profile.profiles import (
    ALGORITHM,
    LEVELS,
    NO_PARTS,
    ProfilePart,
    ProfileParts,
    TableProfile,
    files_digest,
)
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.partition_columns import partition_types, row_digests
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.relations import TableFiles

RELEASE = f"{ALGORITHM} duckdb {duckdb.__version__}"
MOST_NUMBERS = 1_000_000
"""Numbers in all kept parts of a table: about 15 MB of JSON."""
MOST_COLUMNS = 1_000
"""Columns that are profiled; a table's others are skipped by name."""
SAMPLE = 1_000_000
"""Rows of a table that quantiles are computed from, shared by its files."""
SAMPLE_OF_PART = (10_000, 100_000)
"""The fewest and the most of one part, if it has as many."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """A table's profile, and what to keep for the next one."""

    profile: TableProfile
    parts: ProfileParts
    read: int
    """Files that were read."""


def profile_table(
    queries: Queries,
    table: TableFiles,
    files: Mapping[str, str],
    *,
    known: ProfileParts = NO_PARTS,
    withheld: Collection[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Profiled:
    """Profile a table, reading only files that no known part has.

    Args:
        queries: An open database.
        table: The table's files.
        files: The digest of each file's bytes, by its path in the dataset.
        known: What an earlier profile kept.
        withheld: Columns that may hold personal data, in any case. A name that no column has withholds all of them.
        progress: Called with a line for people after each part.

    Raises:
        ValidationError: A file can't be read.
    """
    if not files:
        return Profiled(TableProfile(files=files_digest([])), known, 0)
    files = row_digests(files, table.reading)
    table = replace(table, files=list(files), partitions=partition_types(files))
    kinds = queries.columns(queries.relation(table))
    withheld = _withheld(kinds, withheld)
    nested = {name: kind for name, kind in kinds.items() if kind_of(kind) is None}
    profiled = [name for name in kinds if name not in nested]
    types = {name: kinds[name] for name in profiled[:MOST_COLUMNS]}
    kept = _usable(known, table, files, types, withheld)
    fresh = _read(queries, table, files, kept, types, withheld, progress)
    parts = [*kept, *fresh]
    profile = with_categories(combine([part.profile for part in parts]), known.names)
    skipped = nested | {name: kinds[name] for name in profiled[MOST_COLUMNS:]}
    profile = replace(profile, skipped=skipped, order=tuple(types), files=files_digest(list(files.values())))
    names = {name: column.names for name, column in profile.columns.items() if column.names}
    used = {part.files for part in parts}
    earlier = known.parts if known.release == RELEASE else ()
    others = [part for part in earlier if part.files not in used and _fits(part, types, withheld)]
    return Profiled(
        profile,
        ProfileParts(RELEASE, tuple(_bounded(parts, others[: len(parts)])), names),
        sum(len(part.files) for part in fresh),
    )


def _withheld(columns: Collection[str], named: Collection[str]) -> set[str]:
    """The columns to withhold: all where a name may be misspelled."""
    folded = {name.casefold() for name in named}
    if folded - {name.casefold() for name in columns}:
        return set(columns)
    return {name for name in columns if name.casefold() in folded}


def _usable(
    known: ProfileParts,
    table: TableFiles,
    files: Mapping[str, str],
    types: Mapping[str, str],
    withheld: Collection[str],
) -> list[ProfilePart]:
    """The known parts whose files are all in the table, each file once."""
    if known.release != RELEASE:
        return []
    left = Counter(files.values())
    # The types of text files depend on all of them, so they are read together or not at all.
    read_whole = is_read_whole(table)
    usable = []
    for part in known.parts:
        held = Counter(part.files)
        # Not by comparing the counters: that looks at all files of the table, for each of as many parts.
        there = held == left if read_whole else all(left[digest] >= count for digest, count in held.items())
        if there and _fits(part, types, withheld):
            usable.append(part)
            left.subtract(held)
    return usable


def _fits(part: ProfilePart, types: Mapping[str, str], withheld: Collection[str]) -> bool:
    """Whether a part has the table's columns with figures of full length, and withholds what is to be withheld."""
    columns = part.profile.columns
    return {name: column.type for name, column in columns.items()} == types and all(
        column.withheld == (name in withheld) and len(column.quantiles) in (0, LEVELS)
        for name, column in columns.items()
    )


def _read(
    queries: Queries,
    table: TableFiles,
    files: Mapping[str, str],
    kept: Sequence[ProfilePart],
    types: Mapping[str, str],
    withheld: Collection[str],
    progress: Callable[[str], None],
) -> list[ProfilePart]:
    """Profile the files that no kept part has: each on its own as far as there is room, else several together."""
    covered = Counter(digest for part in kept for digest in part.files)
    missing = []
    for file, digest in files.items():
        if covered[digest]:
            covered[digest] -= 1
        else:
            missing.append(file)
    room = MOST_NUMBERS - sum(part.weight for part in kept)
    most_parts = max(1, room // (len(types) * (LEVELS + 100) or 1))
    size = len(missing) if is_read_whole(table) else -(-len(missing) // most_parts)
    fewest, most = SAMPLE_OF_PART
    sample = max(fewest, min(most, SAMPLE // len(files)))
    parts = []
    for start in range(0, len(missing), max(1, size)):
        part = replace(table, files=missing[start : start + size])
        profile = read_part(queries, part, types, withheld=withheld, sample=sample * len(part.files))
        parts.append(ProfilePart(tuple(files[file] for file in part.files), profile))
        progress(f"profiled {start + len(part.files):,} of {count_text(len(missing), 'file')}")
    return parts


def _bounded(parts: Sequence[ProfilePart], others: Sequence[ProfilePart]) -> Iterator[ProfilePart]:
    """The parts to keep: the table's largest first, then those of another version, until there is no room.

    Files of a part that is not kept are read again with the next new ones, in one part, which then is larger.
    """
    room = MOST_NUMBERS
    for part in [*sorted(parts, key=lambda part: -part.profile.rows), *others]:
        if part.weight <= room:
            room -= part.weight
            yield replace(part, profile=without_names(part.profile))
