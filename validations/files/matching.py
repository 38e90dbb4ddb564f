"""Which files a contract names, and which probes each of them gets."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from prefect_stagegate.model import Entry, Finding
from prefect_stagegate.patterns import matcher
from prefect_stagegate.sources.selection.object_selection import rank, sampled
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations.files.calls import ProbeCall
from prefect_stagegate.validations.files.probes import UNIQUE, table_probe

TABLE_FILE = "table"
"""Stands for the probe that opens a table's file, which depends on the file's format."""
TWO_DIALECTS = ProbeCall("two-dialects")
"""Refuses a file that two tables read in two ways."""


@dataclass(frozen=True, slots=True)
class MatchedFiles:
    """The files that a contract names."""

    listed: int
    """Entries of the version, named by the contract or not."""
    bytes: int
    """Their bytes."""
    matches: dict[str, list[str]]
    """The paths that each glob of the contract names; an empty list where it names none."""
    calls: list[tuple[Entry, list[ProbeCall]]]
    """The files to probe."""
    not_drawn: int
    """Files that a sample left out."""
    duplicates: dict[str, Finding]
    """The files with the bytes of an earlier one, where the contract forbids it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A glob, and what is asked of its files."""

    glob: str
    calls: Sequence[ProbeCall]
    unique: bool = False
    share: Fraction | None = None
    limit: int | None = None

    def drawn(self, paths: list[str]) -> Collection[str] | None:
        """The paths to probe; None for all of them."""
        if self.share is None and self.limit is None:
            return None
        drawn = paths if self.share is None else [path for path in paths if sampled(path, self.share)]
        # A sample of few files may be empty, and what nobody opened must not pass.
        most = len(paths) if self.limit is None else self.limit
        return set(_smallest(drawn or _smallest(paths, 1), most))


def _smallest(paths: list[str], count: int) -> list[str]:
    return heapq.nsmallest(count, paths, key=lambda path: (rank(path), path)) if count < len(paths) else paths


def match_files(entries: Iterable[Entry], contract: ContractSpec) -> MatchedFiles:
    """Find the files that some glob of the contract names, each with the probes of all its globs."""
    rules = list(_rules(contract))
    tests = {rule.glob: matcher(rule.glob) for rule in rules}
    matched: dict[str, list[Entry]] = {glob: [] for glob in tests}
    listed = size = 0
    for entry in entries:
        listed += 1
        size += entry.size
        for glob, test in tests.items():
            if test(entry.path):
                matched[glob].append(entry)
    matches = {glob: [entry.path for entry in of_glob] for glob, of_glob in matched.items()}
    drawn = [(rule, rule.drawn(matches[rule.glob])) for rule in rules]
    left_out = {path for rule, paths in drawn if paths is not None for path in matches[rule.glob] if path not in paths}
    calls = list(_calls(drawn, matched))
    duplicates = {
        finding.subject: finding for rule in rules if rule.unique for finding in find_duplicates(matched[rule.glob])
    }
    return MatchedFiles(listed, size, matches, calls, len(left_out), duplicates)


def _rules(contract: ContractSpec) -> Iterator[_Rule]:
    for table in contract.tables.values():
        yield _Rule(table.files, [ProbeCall(TABLE_FILE, {"csv": table.csv})])
    for item in contract.files:
        calls = [ProbeCall.from_spec(probe) for probe in item.probes if probe != UNIQUE]
        unique = UNIQUE in item.probes
        if unique:
            yield _Rule(item.match, (), unique)
        if calls:
            yield _Rule(item.match, calls, share=item.sample, limit=item.limit)


def _calls(
    drawn: Iterable[tuple[_Rule, Collection[str] | None]], matched: dict[str, list[Entry]]
) -> Iterator[tuple[Entry, list[ProbeCall]]]:
    """The files with the probes of all rules that drew them, each file and probe once."""
    entries: dict[str, Entry] = {}
    calls: dict[str, list[ProbeCall]] = {}
    for rule, paths in drawn:
        for entry in matched[rule.glob]:
            if paths is None or entry.path in paths:
                entries[entry.path] = entry
                its = calls.setdefault(entry.path, [])
                its += [call for call in _for_file(rule, entry.path, its) if call not in its]
    return ((entry, calls[path]) for path, entry in entries.items())


def _for_file(rule: _Rule, path: str, earlier: Sequence[ProbeCall]) -> Iterator[ProbeCall]:
    """The probes that a rule asks for; those of tables come first, and know how a text file is written."""
    known = next((call.settings for call in earlier if call.name == "csv"), None)
    for call in rule.calls:
        name = table_probe(path) if call.name == TABLE_FILE else call.name
        settings = call.settings if name == "csv" else {} if call.name == TABLE_FILE else call.settings
        if known is None or name != "csv":
            yield ProbeCall(name, settings)
        elif settings and settings != known:
            yield TWO_DIALECTS


def find_duplicates(entries: Iterable[Entry]) -> Iterator[Finding]:
    """The files whose bytes an earlier file has, by their digests in the manifest."""
    first: dict[str, str] = {}
    for entry in entries:
        path = first.setdefault(entry.digest, entry.path)
        if path != entry.path:
            yield Finding(entry.path, f"has the same bytes as {path}", "Remove one of them at the source.")
