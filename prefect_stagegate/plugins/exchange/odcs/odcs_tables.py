"""The tables of an ODCS contract: their files, columns and suites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.plugins.exchange.odcs.metrics import Subject, unique_together
from prefect_stagegate.plugins.exchange.odcs.odcs_columns import (
    Expectation,
    NoCounterpart,
    column_expectations,
    column_name,
    column_type,
)
from prefect_stagegate.plugins.exchange.odcs.quality import rule_expectation
from prefect_stagegate.plugins.exchange.odcs.service import FreshnessPromise
from prefect_stagegate.spec.parsed_document import ParsedDocument, SpecProblem
from prefect_stagegate.spec.suites import ArgumentProblems, canonical_expectation, check_expectation
from prefect_stagegate.spec.yamltree import Loc

if TYPE_CHECKING:
    from open_data_contract_standard.model import (
        CustomProperty,
        DataQuality,
        OpenDataContractStandard,
        SchemaObject,
        SchemaProperty,
    )

PROPERTY = "stagegate"
"""The custom property that holds what the standard has no key for."""
TABLE_KEYS = ("files", "engine", "time", "suite")
"""The keys that it may have at a table."""
PATH = re.compile(r"[/*]|\.(parquet|csv|tsv|json|jsonl|ndjson|feather|arrow|orc)(\.\w+)?$")
"""What makes a physical name a path or glob: a slash, a star, or the ending of a file."""


@dataclass(slots=True)
class ContractReading:
    """One contract that is read."""

    file: ParsedDocument
    is_partial: bool
    argument_problems: ArgumentProblems | None
    left_out: list[SpecProblem] = field(default_factory=list)

    def leave_out(self, promise: NoCounterpart) -> None:
        """Note a promise without a counterpart; a problem of the file unless the spec wants a part."""
        if self.is_partial:
            # Reported and taken out again, because `report` finds the line.
            self.file.report(promise.loc, promise.reason)
            self.left_out.append(self.file.problems.pop())
        else:
            self.file.report(promise.loc, f"{promise.reason}; `partial: true` beside `odcs` leaves it out")

    def expectations(self, outcomes: Iterator[tuple[Loc, Expectation | NoCounterpart]]) -> list[Expectation]:
        """The expectations among the outcomes, checked as those of a suite."""
        stated = []
        for loc, outcome in outcomes:
            if isinstance(outcome, NoCounterpart):
                self.leave_out(outcome)
                continue
            check_expectation(self.file, loc, outcome, self.argument_problems)
            stated.append(canonical_expectation(outcome))
        return stated


def contract_tables(
    document: ParsedDocument,
    reading: ContractReading,
    contract: OpenDataContractStandard,
    beside: Mapping[str, Any],
    levels: list[FreshnessPromise],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each table of the contract that has files, with what the spec writes beside it."""
    times = _times(reading, contract, levels)
    names: set[str] = set()
    for index, table in enumerate(contract.schema_ or []):
        name, loc = table.name or "", ("schema", index)
        if name in names:
            reading.file.report((*loc, "name"), f"another table is called {name!r}, too")
        names.add(name)
        written = beside.get(name, {})
        if not isinstance(written, dict):
            continue  # the spec's model says what is wrong with it
        if "columns" in written:
            document.report(("contract", "tables", name, "columns"), "stand in the data contract; leave them out here")
        promised = _table(reading, table, loc)
        kept = _kept(reading, table, loc)
        # From the weakest to the strongest: a promise, what this program wrote into the contract, and what the spec
        # writes.
        values = {**times.get(name, {}), **promised, **kept, **{k: v for k, v in written.items() if v is not None}}
        values |= _suite(name, promised.get("suite"), kept.get("suite"), written.get("suite"))
        if not values.get("files"):
            hint = f"no files are known for this table: write `contract.tables.{name}.files` in the spec"
            reading.leave_out(NoCounterpart(loc, hint))
            continue
        yield name, values


def _suite(name: str, promised: Any, kept: Any, written: Any) -> dict[str, Any]:
    """The suite of a table: the contract's expectations, then those that the spec adds."""
    if promised is None and kept is None and written is None:
        return {}
    added = written if isinstance(written, dict) else {}
    heading = {**(kept if isinstance(kept, dict) else {}), **added}
    items = [*(promised or {}).get("expectations", []), *added.get("expectations", [])]
    return {"suite": {"name": name, **heading, "expectations": items}}


def _table(reading: ContractReading, table: SchemaObject, loc: Loc) -> dict[str, Any]:
    """The columns of a table, and the suite of what it promises."""
    properties = table.properties or []
    names = {column.name or "": column_name(column) for column in properties}
    if table.relationships:
        reading.leave_out(NoCounterpart((*loc, "relationships"), "no check follows a relationship"))
    types = {column_name(column): column_type(column) for column in properties}
    columns = {name: kind for name, kind in types.items() if kind}
    keys = _key_expectations(properties)
    implied = [
        item
        for position, column in enumerate(properties)
        for item in reading.expectations(_at(loc, position, column, keys))
    ]
    stated = reading.expectations(_rules(table, loc, names))
    items = [*_unstated(implied, stated), *stated]
    return {**({"columns": columns} if columns else {}), **({"suite": {"expectations": items}} if items else {})}


def _unstated(implied: list[Expectation], stated: list[Expectation]) -> list[Expectation]:
    """What keys of properties promise and no rule states: a promise that stands twice is expected once."""
    seen = {_promise(item) for item in stated}
    single = {_promise(item): item for item in implied}
    return [item for promise, item in single.items() if promise not in seen]


def _promise(item: Expectation) -> bytes:
    return canonical([item.get("type"), item["kwargs"]])


def _at(
    loc: Loc, position: int, column: SchemaProperty, keys: Mapping[int, list[Expectation]]
) -> Iterator[tuple[Loc, Expectation | NoCounterpart]]:
    """What one property promises, with the place of each promise."""
    here = (*loc, "properties", position)
    for outcome in [*keys.get(position, []), *column_expectations(column, here)]:
        yield here, outcome


def _key_expectations(properties: list[SchemaProperty]) -> dict[int, list[Expectation]]:
    """What the primary key promises, by the position of the property: no nulls, and no two rows alike."""
    parts = [position for position, column in enumerate(properties) if column.primaryKey]
    promised = {
        position: [
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column_name(properties[position])}}
        ]
        for position in parts
    }
    if parts:
        ordered = sorted(parts, key=lambda position: properties[position].primaryKeyPosition or 0)
        # The key as a whole is unique, so one column of it carries the expectation.
        promised[parts[-1]].append(unique_together([column_name(properties[position]) for position in ordered]))
    return promised


def _rules(
    table: SchemaObject, loc: Loc, names: Mapping[str, str]
) -> Iterator[tuple[Loc, Expectation | NoCounterpart]]:
    """The quality rules of a table's properties, then those of the table."""
    for position, column in enumerate(table.properties or []):
        subject = Subject(column_name(column), names)
        yield from _outcomes(column.quality, (*loc, "properties", position, "quality"), subject)
    yield from _outcomes(table.quality, (*loc, "quality"), Subject("", names))


def _outcomes(
    rules: list[DataQuality] | None, loc: Loc, subject: Subject
) -> Iterator[tuple[Loc, Expectation | NoCounterpart]]:
    for index, rule in enumerate(rules or []):
        yield (*loc, index), rule_expectation(rule, (*loc, index), subject)


def _kept(reading: ContractReading, table: SchemaObject, loc: Loc) -> dict[str, Any]:
    """What the contract says of a table's files: our custom property, else a physical name that is a path."""
    path = {"files": table.physicalName} if table.physicalName and PATH.search(table.physicalName) else {}
    kept = custom_property(table.customProperties)
    values = {"files": kept} if isinstance(kept, str) else kept if isinstance(kept, dict) else {}
    for key in values:
        if key not in TABLE_KEYS:
            reading.file.report(
                (*loc, "customProperties"), f"{PROPERTY} has no key {key!r}; {did_you_mean(key, TABLE_KEYS)}"
            )
    return {**path, **{key: value for key, value in values.items() if key in TABLE_KEYS}}


def custom_property(properties: list[CustomProperty] | None) -> Any:
    """The value of our custom property; None where there is none."""
    return next((item.value for item in properties or [] if item.property == PROPERTY), None)


def _times(
    reading: ContractReading, contract: OpenDataContractStandard, levels: list[FreshnessPromise]
) -> dict[str, dict[str, Any]]:
    """The column of each table that says when a record arose, as the latency names it."""
    times: dict[str, dict[str, Any]] = {}
    for level in levels:
        for element in level.elements:
            table, column = _element(contract.schema_ or [], element)
            if column:
                times.setdefault(table, {"time": column})
            else:
                promise = NoCounterpart((*level.loc, "element"), f"the contract has no column {element!r}")
                reading.leave_out(promise)
    return times


def _element(tables: list[SchemaObject], element: str) -> tuple[str, str]:
    """The table and the column that `table.column` names; both empty where there is none."""
    name, _, property_name = element.rpartition(".")
    candidates = [table for table in tables if name in (table.name, table.physicalName)] if name else tables
    # A column without its table is clear only where there is one table. None is guessed.
    if len(candidates) != 1:
        return "", ""
    names = {column.name: column_name(column) for column in candidates[0].properties or []}
    return candidates[0].name or "", names.get(property_name, "")
