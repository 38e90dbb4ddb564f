"""Compare the columns of a table's files with those that the contract declares, and with each other. Pure.

A file fails when a declared column is missing or has another type. An undeclared column, or one that differs between
files, is a warning: the contract promises nothing about it. Where the contract declares no columns, the files must
agree with one another: a file fails when it lacks a column that at least half of the files have.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.columntypes import COLUMN_TYPES, accepts
from prefect_stagegate.validations.files.text_values import NOTHING, type_named

LISTED = 10
"""Names that one finding lists; it counts the others."""
ALIKE, ALIKE_ALONE = 0.7, 0.6
"""How similar two names must be, 0 to 1, to suggest that one is the other renamed: less for the only new column."""
FAMILIES = (
    *("bool", "int", "float", "decimal", "number", "date", "timestamp", "time", "duration", "binary"),
    *("list", "struct", "map", "string"),
)
"""Names of types in the order in which they are tried: the narrowest that all files keep is suggested."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table, opened."""

    path: str
    schema: pa.Schema
    rows: int
    text: bool = False
    """Its types were inferred from text."""
    quoted: bool = False
    """Its text tells strings from numbers, as JSON does."""
    partitions: frozenset[str] = frozenset()
    """The columns that its folders name; their types were inferred from text, too."""

    def accepts(self, wanted: str, column: str, kind: pa.DataType) -> bool:
        """Whether a column of this file, of type `kind`, keeps the promise `wanted`."""
        in_path = column in self.partitions
        return accepts(wanted, kind, text=self.text or in_path, quoted=self.quoted and not in_path)


@dataclass(frozen=True, slots=True)
class ColumnProblem:
    """A defect of one file's columns; equal in all files that share the defect."""

    problem: str
    fix: str
    outcome: Outcome
    sought: tuple[str, str, pa.DataType] | None = None
    """For values that another type refuses: the column, the name of the type, and how it is read from text."""
    ambiguous: bool = False
    """Whether readers differ in which column a name means."""


def compare(
    table: str, declared: Mapping[str, str], files: Sequence[TableFile], judged: Collection[str] = ()
) -> dict[str, list[ColumnProblem]]:
    """The problems of each file that has any.

    Args:
        table: The table's name, for the texts.
        declared: The contract's type name of each column it promises; may be empty.
        files: The table's files.
        judged: The columns that anything else of the contract names.
    """
    judged = {*declared, *judged}
    usual = _usual_columns(files, ties=not declared)
    # For each declared column, all columns of the files that have it.
    beside = {
        name: {column for file in files if name in file.schema.names for column in file.schema.names}
        for name in declared
    }
    problems = {
        file.path: [
            *_ambiguous(file, judged),
            *_file_problems(table, declared, file, usual, beside, several=len(files) > 1),
        ]
        for file in files
    }
    return {path: of_file for path, of_file in problems.items() if of_file}


def _usual_columns(files: Sequence[TableFile], *, ties: bool = False) -> dict[str, pa.DataType]:
    """The columns of most files, each with its most common type; with `ties` also the columns of just half of them."""
    kinds: dict[str, Counter[pa.DataType]] = defaultdict(Counter)
    for file in files:
        for field in file.schema:
            kinds[field.name][field.type] += 1
    fewest = (len(files) + 1) // 2 if ties else len(files) // 2 + 1
    # The type of columns without any value counts only where there is no other.
    return {
        name: max(counts, key=lambda kind: (kind != NOTHING, counts[kind]))
        for name, counts in kinds.items()
        if counts.total() >= fewest
    }


def _folded(name: str) -> str:
    return name.strip().casefold()


def _ambiguous(file: TableFile, judged: Collection[str]) -> Iterator[ColumnProblem]:
    """The names that stand in a file twice, and those beside a judged one that some readers take for it."""
    names = Counter(file.schema.names)
    for name, count in names.items():
        if count > 1:
            problem = f"column {name} stands {count} times in it, and readers differ in which one they read"
            yield ColumnProblem(problem, "Give each its own name at its source.", Outcome.FAIL, ambiguous=True)
        elif not name and file.text:
            problem = "its header has a column without a name, which each reader calls otherwise"
            yield ColumnProblem(problem, "Name it at its source.", Outcome.WARN)
        elif name != name.strip() and file.text:
            problem = f'its header has a blank beside a name, so readers call the column "{name}"'
            yield ColumnProblem(problem, "Write the header without blanks around its names.", Outcome.WARN)
    folded = {_folded(name): name for name in judged}
    for name in names:
        if (other := folded.get(_folded(name), name)) != name and other in names:
            problem = f'column "{name}" beside {other}: only a blank or the case tells them apart'
            yield ColumnProblem(problem, "Rename one of them at its source.", Outcome.FAIL, ambiguous=True)


def _file_problems(
    table: str,
    declared: Mapping[str, str],
    file: TableFile,
    usual: Mapping[str, pa.DataType],
    beside: Mapping[str, set[str]],
    *,
    several: bool,
) -> list[ColumnProblem]:
    # Of columns with one name, the first is judged; `_ambiguous` names them.
    kinds: dict[str, pa.DataType] = {}
    for field in file.schema:
        kinds.setdefault(field.name, field.type)
    # New columns that were already suggested as a renamed one.
    taken: set[str] = set()
    problems = []
    for name, wanted in declared.items():
        if name not in kinds:
            free = [column for column in kinds if column not in taken and column not in declared]
            if spelled := next((column for column in free if _folded(column) == _folded(name)), ""):
                taken.add(spelled)
                problems.append(_missing(name, wanted, f'"{spelled}"', everywhere=False))
                continue
            # A column that stands beside `name` in another file can't be `name` renamed.
            new = [column for column in free if column not in beside[name]]
            renamed = alike(name, [column for column in new if file.accepts(wanted, column, kinds[column])])
            taken.add(renamed)
            problems.append(_missing(name, wanted, renamed, everywhere=several and not beside[name]))
        elif not file.accepts(wanted, name, kinds[name]):
            problem = f"column {name} is {kinds[name]}, the contract says {wanted}"
            fix = f"Write {name} as {wanted}, or declare its new type under `columns:`."
            sought = (name, wanted, read_as) if (read_as := type_named(wanted)) != NOTHING else None
            problems.append(ColumnProblem(problem, fix, Outcome.FAIL, sought))
    # The columns beside the declared ones are compared with those of the other files.
    rest = {column: kind for column, kind in kinds.items() if column not in declared and column not in taken}
    expected = {column: kind for column, kind in usual.items() if column not in declared and column not in taken}
    return problems + _differing(
        table, rest, expected, text=file.text, broken=Outcome.WARN if declared else Outcome.FAIL
    )


def alike(name: str, others: Sequence[str]) -> str:
    """The one of other columns that is probably `name` renamed; empty for none."""
    near = difflib.get_close_matches(name, others, n=1, cutoff=ALIKE if len(others) > 1 else ALIKE_ALONE)
    return near[0] if near else ""


def _missing(name: str, wanted: str, renamed: str, *, everywhere: bool) -> ColumnProblem:
    problem, fix = f"column {name} ({wanted}) is missing", f"Write the file again with {name}."
    if renamed:
        problem, fix = f"{problem}; {renamed} is new: renamed?", f"Rename {renamed} back to {name} at its source."
    if renamed and everywhere:
        problem = f"no file has the contract's column {name} ({wanted}): did you mean {renamed!r}?"
        fix = f"Correct the name under `columns:`. If the data changed: {fix}"
    return ColumnProblem(problem, fix, Outcome.FAIL)


def _differing(
    table: str, kinds: Mapping[str, pa.DataType], usual: Mapping[str, pa.DataType], *, text: bool, broken: Outcome
) -> list[ColumnProblem]:
    """How a file's undeclared columns differ from those that most of the table's files have.

    Args:
        table: The table's name, for the texts.
        kinds: The file's undeclared columns.
        usual: Those of most files.
        text: The types were inferred from text, where numbers have no width.
        broken: The outcome for a column that is missing or of another type.
    """
    problems = []
    new, absent = [name for name in kinds if name not in usual], [name for name in usual if name not in kinds]
    for name in tuple(absent):
        if renamed := alike(name, [other for other in new if _alike(kinds[other], usual[name], text=text)]):
            absent.remove(name)
            new.remove(renamed)
            problem = f"lacks column {name}, which most files of {table} have; {renamed} is new: renamed?"
            problems.append(ColumnProblem(problem, f"Rename {renamed} back to {name} at its source.", broken))
    if new:
        fix = f"Drop it at its source, or write it in all files of {table}."
        problems.append(ColumnProblem(f"has {_columns(new)}, which most files of {table} lack", fix, Outcome.WARN))
    if absent:
        fix = f"Write it in all files of {table}."
        problems.append(ColumnProblem(f"lacks {_columns(absent)}, which most files of {table} have", fix, broken))
    for name, kind in usual.items():
        if name in kinds and not _alike(kinds[name], kind, text=text):
            problem = f"column {name} is {kinds[name]}; in most files of {table} it is {kind}"
            known = next((known for known in COLUMN_TYPES if type_named(known) == kind), str(kind))
            problems.append(ColumnProblem(problem, f"Write {name} as {kind}.", broken, (name, known, kind)))
    return problems


def _alike(kind: pa.DataType, other: pa.DataType, *, text: bool) -> bool:
    if text and NOTHING in (kind, other):
        return True
    return bool(kind == other) or (text and accepts("number", kind) and accepts("number", other))


def _columns(names: Sequence[str]) -> str:
    listed = ", ".join(sorted(names)[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    return f"column {listed}" if len(names) == 1 else f"{count_text(len(names), 'column')} ({listed})"


def findings(
    table: str, declared: Mapping[str, str], files: Sequence[TableFile], problems: Mapping[str, Sequence[ColumnProblem]]
) -> list[Finding]:
    """One finding for each problem of each file, or one for the table when all of its files share the problem."""
    by_problem: dict[ColumnProblem, list[str]] = defaultdict(list)
    for path, of_file in problems.items():
        for problem in of_file:
            by_problem[problem].append(path)
    result = []
    for problem, paths in by_problem.items():
        shared = len(paths) == len(files) > 1
        subjects = [f"table {table}"] if shared else paths
        clause = f"{problem.problem} (all {count_text(len(files), 'file')})" if shared else problem.problem
        result += [Finding(subject, clause, problem.fix, problem.outcome) for subject in subjects]
    # A contract that declares no columns at all leaves out nothing.
    if extra := [name for name in _usual_columns(files) if name not in declared] if declared else []:
        clause = f"has {_columns(extra)}, which the contract doesn't declare"
        fix = "Declare the columns that you rely on under `columns:`."
        result.append(Finding(f"table {table}", clause, fix, Outcome.WARN))
    return result


def common_types(files: Sequence[TableFile]) -> tuple[dict[str, str], dict[str, str]]:
    """The types that all files keep, and why the other columns have none, by column."""
    names = dict.fromkeys(name for file in files for name in file.schema.names)
    types, reasons = {}, {}
    for name in names:
        having = [file for file in files if name in file.schema.names]
        kinds = [(file.schema.field(name).type, file.text) for file in having]
        valued = [(kind, text) for kind, text in kinds if kind != pa.null()]
        fitting = (family for family in FAMILIES if all(accepts(family, kind, text=text) for kind, text in valued))
        family = next(fitting, "")
        if len(having) < len(files):
            reasons[name] = f"{count_text(len(files) - len(having), 'file')} of {len(files):,} lack it"
        elif not name.isprintable():
            reasons[name] = "its name has a character that a spec can't have"
        elif not valued:
            reasons[name] = "no file has a value in it"
        elif not family:
            reasons[name] = "its files have no type in common"
        else:
            types[name] = family
    return types, reasons
