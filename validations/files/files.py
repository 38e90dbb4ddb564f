"""Open the files that a contract names, each on its own, so that a bad file does not keep others from being judged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from prefect_stagegate.model import Entry, Finding, Outcome
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.paths import matcher
from prefect_stagegate.validations.files.probes import (
    ALL_PROBES,
    TABLE_PROBES,
    Facts,
    UnreadableFile,
    first_line,
    table_probe,
)

THREADS = 8
"""Files that are opened at a time."""
UNKNOWN_FORMAT = ""
"""What `table_probe` returns for a file that can't be a table's."""
TABLE_FILE = "table"
"""Stands for the probe that opens a table's file, which depends on the file's format."""


@dataclass(frozen=True, slots=True)
class ProbedFiles:
    """The results of opening the files."""

    listed: int
    """Entries of the version, named by the contract or not."""
    bytes: int
    """Their bytes."""
    matches: dict[str, list[str]]
    """The paths that each glob of the contract names; an empty list where it names none."""
    facts: dict[str, Facts]
    """The files that passed all their probes."""
    defects: dict[str, Finding]
    """The files that failed a probe. A fault of this node's copy is inconclusive: it says nothing about the version."""
    digests: dict[str, str] = field(default_factory=dict)
    """The digest of each file that the contract names."""

    @property
    def matched(self) -> int:
        """How many files the contract names."""
        return len(self.facts) + len(self.defects)


def probe_files(view: Path, entries: Iterable[Entry], contract: ContractSpec) -> ProbedFiles:
    """Probe every file that some glob of the contract names: each file once, with the probes of all its globs."""
    globs = _probes_by_glob(contract)
    tests = {glob: matcher(glob) for glob in globs}
    matches: dict[str, list[str]] = {glob: [] for glob in globs}
    matched: list[tuple[Entry, list[str]]] = []
    listed = size = 0
    for entry in entries:
        listed += 1
        size += entry.size
        # A file can match several globs, which may ask for different probes.
        hits = [glob for glob, test in tests.items() if test(entry.path)]
        for glob in hits:
            matches[glob].append(entry.path)
        if hits:
            probes = [probe for glob in hits for probe in globs[glob]]
            matched.append((entry, [table_probe(entry.path) if probe == TABLE_FILE else probe for probe in probes]))
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda item: _probe(view, *item), matched))
    paths = (entry.path for entry, _ in matched)
    facts = {path: result for path, result in zip(paths, results, strict=True) if isinstance(result, Facts)}
    defects = {result.subject: result for result in results if isinstance(result, Finding)}
    digests = {entry.path: entry.digest for entry, _ in matched}
    return ProbedFiles(listed, size, matches, facts, defects, digests)


def _probes_by_glob(contract: ContractSpec) -> dict[str, list[str]]:
    """The probes that the contract asks for, by glob."""
    globs: dict[str, list[str]] = {}
    for table in contract.tables.values():
        globs.setdefault(table.files, []).append(TABLE_FILE)
    for item in contract.files:
        globs.setdefault(item.match, []).extend(item.probes)
    return globs


def _probe(view: Path, entry: Entry, probes: Sequence[str]) -> Facts | Finding:
    """The facts of the table's probe when all probes pass, else the first defect."""
    path = view / entry.path
    try:
        # Look at this node's copy first: its faults must not count against the version.
        if (size := path.stat().st_size) != entry.size:
            return _nodes_fault(
                entry.path, f"this node's copy has {count_text(size, 'byte')}, the manifest says {entry.size:,}"
            )
        if not os.access(path, os.R_OK):
            return _nodes_fault(entry.path, "this node's copy may not be read")
        results = [_run(name, path) for name in dict.fromkeys(probes)]
    except UnreadableFile as error:
        return Finding(entry.path, error.problem, error.fix)
    except OSError as error:
        return _nodes_fault(entry.path, f"this node's copy can't be read: {first_line(error)}")
    return next((facts for facts in results if facts.schema is not None), Facts())


def _run(name: str, path: Path) -> Facts:
    if name == UNKNOWN_FORMAT:
        known = ", ".join(TABLE_PROBES)
        raise UnreadableFile(f"no table's file has this format; known: {known}", "Narrow the table's `files:`.")
    return ALL_PROBES[name](path)


def _nodes_fault(path: str, problem: str) -> Finding:
    return Finding(path, problem, "Run `stagegate verify`, then stage the version again.", Outcome.INCONCLUSIVE)
