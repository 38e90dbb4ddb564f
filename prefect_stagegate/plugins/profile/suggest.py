"""Writing a contract for a version from the profiles of its tables, as a spec for a person to edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import UsageError, ValidationError, nearest_hint
from prefect_stagegate.jobs.address import resolve
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.profile.duplicates import is_key
from prefect_stagegate.plugins.profile.parts import profile_table
from prefect_stagegate.plugins.profile.profiling import kept_profiles, table_files, withheld_columns
from prefect_stagegate.plugins.profile.suggested_checks import Suggestion, key_candidates, suggest
from prefect_stagegate.spec.csv_dialect import AS_USUAL
from prefect_stagegate.spec.yamltree import yaml_text
from prefect_stagegate.validations.files.file_probes import probe_files
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.found_dialect import SAMPLE_BYTES, find_dialect
from prefect_stagegate.validations.files.text_files import separator
from prefect_stagegate.validations.queries.duck import Queries, queries
from prefect_stagegate.validations.queries.relations import TableFiles
from prefect_stagegate.validations.table_files import ContractTable, examine
from prefect_stagegate.validations.table_schema import common_types
from prefect_stagegate.workspace import ResolvedVersion, Workspace

MOST_KEYS = 20
"""Columns of a table that are tried as keys: each takes a query."""
WIDEST = 1_000_000
"""Characters of a line that YAML would break: so that none is broken."""


@dataclass(frozen=True, slots=True)
class TableContract:
    """What is suggested for one table."""

    name: str
    rows: int
    types: Mapping[str, str]
    untyped: Mapping[str, str]
    """Why the other columns have no type."""
    suggestions: Sequence[Suggestion]
    question: str = ""
    """What a person must say of its text files."""

    @property
    def expectations(self) -> int:
        """How many expectations are suggested."""
        return sum(bool(suggestion.type) for suggestion in self.suggestions)


@dataclass(frozen=True, slots=True)
class SuggestedContract:
    """A spec with suggested tables."""

    version: ResolvedVersion
    tables: Mapping[str, TableContract]

    @property
    def spec_name(self) -> str:
        """The name of the spec's file."""
        return f"{self.version.dataset}.yaml"

    def files(self) -> dict[str, str]:
        """The spec and a file for each suite: their texts by relative path."""
        suites = {_suite_path(name): _lines(_suite(table)) for name, table in self.tables.items()}
        return {self.spec_name: _lines(self._spec(inline=False)), **suites}

    def text(self) -> str:
        """The spec with its suites inside."""
        return _lines(self._spec(inline=True))

    def _spec(self, *, inline: bool) -> Iterator[str]:
        canonical = self.version.spec.canonical()
        contract, gates = canonical.pop("contract", {}), canonical.pop("gates", {})
        yield f"# Suggested by `stagegate contract suggest` from the profile of {self.version.dataset}"
        yield f"# {self.version.digest}. Edit every bound that you know better; the reason stands above it."
        yield "# The gates require `expectations`, so that the suites count."
        yield from _yaml({**canonical, "gates": {name: _with_expectations(gate) for name, gate in gates.items()}})
        yield "contract:"
        yield "  tables:"
        for name, table in contract.get("tables", {}).items():
            suggested = self.tables.get(name)
            yield from [f"    # {suggested.question}"] if suggested and suggested.question else []
            yield f"    {_scalar(name)}:"
            left_out = ("columns", "suite") if suggested else ()
            yield from _indented(6, _yaml({key: value for key, value in table.items() if key not in left_out}))
            if suggested:
                yield from _indented(6, _columns(suggested))
                yield f"      suite:{'' if inline else f' {_scalar(_suite_path(name))}'}"
                yield from _indented(8, _suite(suggested) if inline else ())
        yield from _indented(2, _yaml({key: value for key, value in contract.items() if key != "tables"}))


def _with_expectations(gate: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add `expectations` to a gate, unless it has the check or inherits the requirements of another gate."""
    require = gate.get("require", [])
    if gate.get("extends") or any(item == "expectations" or "expectations" in item for item in require):
        return gate
    return {**gate, "require": [*require, "expectations"]}


def suggest_contract(
    workspace: Workspace, version: str | Address, *, table: str = "", progress: Callable[[str], None] | None = None
) -> SuggestedContract:
    """Suggest columns and suites for the tables of a version, all of which the version keeps.

    The version is brought to this node. Its kept profiles are used; a table without one is read.

    Args:
        workspace: Cache and catalog.
        version: The version's address; `latest` without a ref.
        table: The one table to suggest a contract for; empty for all.
        progress: Called with lines for people while the work goes on.

    Raises:
        UsageError: There is no such version or table, or the contract has no table.
        ValidationError: A table can't be read.
    """
    resolved = resolve(workspace, version)
    tables = resolved.spec.contract.tables
    if not tables:
        hint = (
            "Name them under `contract`, adopt that policy, and try again: `stagegate init` finds tables in a folder."
        )
        raise UsageError("The contract has no tables", hint=hint, dataset=resolved.dataset)
    if table and table not in tables:
        hint = nearest_hint(table, tables)
        raise UsageError(f"The contract has no table {table!r}", hint=hint, dataset=resolved.dataset)
    progress = progress or (lambda _: None)
    with present(workspace, resolved.dataset, resolved.digest, "suggest") as view:
        found = {name: _dialect(workspace, resolved, view, name) for name in tables}
        tables = {
            name: spec.model_copy(update={"csv": spec.csv.model_copy(update=found[name][0])})
            for name, spec in tables.items()
        }
        contract = resolved.spec.contract.model_copy(update={"tables": tables})
        resolved = replace(resolved, spec=resolved.spec.model_copy(update={"contract": contract}))
        entries = read_manifest(workspace.catalog, resolved.dataset, resolved.digest).entries()
        probed = probe_files(view, entries, contract)
        suggested = {}
        for name in [table] if table else tables:
            about = f"table {name} of {resolved.dataset}@{resolved.digest}"
            with queries(about, view, discreet=True) as database:
                opened = examine(name, tables[name], probed)
                if defect := next((probed.defects[path] for path in opened.listed if path in probed.defects), None):
                    raise ValidationError(f"{about} can't be read: {defect.subject}: {defect.problem}", hint=defect.fix)
                table_contract = _suggest_table(workspace, resolved, view, database, opened, progress)
                suggested[name] = replace(table_contract, question=found[name][1])
    return SuggestedContract(resolved, suggested)


def _dialect(workspace: Workspace, version: ResolvedVersion, view: Path, table: str) -> tuple[dict[str, Any], str]:
    """How a table's text files are written, and what to ask, where the spec does not say it."""
    texts = [file for file in table_files(workspace, version, [table])[table] if form(Path(file)) == "csv"]
    if version.spec.contract.tables[table].csv != AS_USUAL.csv or not texts:
        return {}, ""
    return find_dialect(map(partial(_begin, view), texts), separator(Path(texts[0]), AS_USUAL.csv))


def _begin(view: Path, file: str) -> bytes:
    with (view / file).open("rb") as data:
        return data.read(SAMPLE_BYTES)


def _suggest_table(
    workspace: Workspace,
    version: ResolvedVersion,
    view: Path,
    database: Queries,
    table: ContractTable,
    progress: Callable[[str], None],
) -> TableContract:
    files = table_files(workspace, version, [table.name])[table.name]
    read = TableFiles(view, list(files), table.spec.reading)
    profile = kept_profiles(workspace, version, [table.name]).get(table.name)
    if profile is None:
        withheld = withheld_columns(version.spec, table.name)
        profile = profile_table(database, read, files, withheld=withheld, progress=progress).profile
    candidates = key_candidates(profile)[:MOST_KEYS]
    progress(f"looking for keys among {', '.join(candidates) or 'no column'}")
    keys = [name for name in candidates if is_key(database, read, name)]
    types, untyped = common_types(table.opened)
    return TableContract(table.name, profile.rows, types, untyped, suggest(profile, keys, types, table.spec.engine))


def _columns(table: TableContract) -> Iterator[str]:
    yield "columns:" if table.types else "columns: {}"
    for name, kind in table.types.items():
        yield f"  {_scalar(name)}: {kind}"
    for name, reason in table.untyped.items():
        yield f"  # {_scalar(name)}: {reason}"


def _suite(table: TableContract) -> Iterator[str]:
    yield "expectations:" if table.expectations else "expectations: []"
    column = ""
    for suggestion in table.suggestions:
        if suggestion.column != column:
            column = suggestion.column
            yield f"  # ── {_scalar(column)}"
        yield f"  # {suggestion.reason}"
        if suggestion.type:
            yield f"  - type: {suggestion.type}"
            yield f"    kwargs: {_scalar(dict(suggestion.kwargs))}"


def _suite_path(table: str) -> str:
    """The suite's file beside the spec. A table's name may be no name of a file, so it is written with safe letters."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else f"%{ord(letter):x}" for letter in table)
    return f"suites/{safe}.yaml"


def _yaml(value: Mapping[str, Any]) -> list[str]:
    """The lines of a mapping in YAML; none for an empty one."""
    return yaml_text(dict(value), width=WIDEST).split("\n") if value else []


def _scalar(value: Any) -> str:
    """A value in one line of YAML."""
    # As the only item of a list: a word with a bracket or comma is quoted then.
    return yaml_text([value], width=WIDEST, one_line=True)[1:-1]


def _indented(spaces: int, lines: Iterable[str]) -> Iterator[str]:
    return (" " * spaces + line for line in lines)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
