"""Put the contract of an ODCS file into a spec: its tables with their suites, its owners, its freshness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_stagegate.plugins.exchange.odcs.odcs_columns import NoCounterpart
from prefect_stagegate.plugins.exchange.odcs.odcs_tables import ContractReading, contract_tables, custom_property
from prefect_stagegate.plugins.exchange.odcs.service import FreshnessPromise, owners_of, service_levels, with_freshness
from prefect_stagegate.plugins.exchange.odcs.standard import read_contract
from prefect_stagegate.spec.parsed_document import ParsedDocument, UnreadableDocument, read_beside
from prefect_stagegate.spec.suites import ArgumentProblems

if TYPE_CHECKING:
    from open_data_contract_standard.model import OpenDataContractStandard

LeftOut = tuple[str, ...]
"""What a spec with `partial: true` leaves out: file, line, key and reason of each promise."""


def inline_odcs(
    document: ParsedDocument, values: dict[str, Any], argument_problems: ArgumentProblems | None = None
) -> tuple[dict[str, Any], LeftOut]:
    """The spec's values with the contract in place of its file's name; reports what is wrong with the contract.

    Raises:
        MissingExtra: The library of the standard is not installed.
    """
    contract = values["contract"]
    name, is_partial, tables = contract.get("odcs"), contract.get("partial", False), contract.get("tables") or {}
    if name is None and is_partial is True:
        document.report(("contract", "partial"), "leaves out parts of a data contract, and `odcs` names none")
    # A value of another type is left for the spec's model, which says what is wrong with it.
    if not isinstance(name, str) or not isinstance(is_partial, bool) or not isinstance(tables, dict):
        return values, ()
    rest = {key: value for key, value in contract.items() if key not in ("odcs", "partial")}
    return _with_contract(document, {**values, "contract": rest}, name, is_partial, argument_problems)


def _with_contract(
    document: ParsedDocument,
    values: dict[str, Any],
    name: str,
    is_partial: bool,
    argument_problems: ArgumentProblems | None,
) -> tuple[dict[str, Any], LeftOut]:
    file = _read(document, name)
    # Values of a file with flaws in its YAML may be cut, and the standard's complaints about them would mislead.
    contract = read_contract(file) if file and not file.problems else None
    if file is None or contract is None:
        document.problems.extend(file.problems if file else [])
        return values, ()
    reading = ContractReading(file, is_partial, argument_problems)
    merged = _merged(document, values, reading, contract)
    document.problems.extend(file.problems)
    return merged, tuple(map(str, reading.left_out))


def _read(document: ParsedDocument, name: str) -> ParsedDocument | None:
    try:
        file = read_beside(document, name)
    except UnreadableDocument as error:
        document.report(("contract", "odcs"), str(error))
        return None
    if not isinstance(file.values, dict) and not file.problems:
        file.report((), "is not a data contract: it is a mapping with `apiVersion`, `kind` and `schema`")
    return file


def _merged(
    document: ParsedDocument, values: dict[str, Any], reading: ContractReading, contract: OpenDataContractStandard
) -> dict[str, Any]:
    """The spec's values with those of the contract; what the spec writes itself wins."""
    written: dict[str, Any] = values["contract"]
    owners = values.get("owners", {})
    levels = _levels(reading, contract)
    tables = dict(contract_tables(document, reading, contract, written.get("tables") or {}, levels))
    beside = written.get("files") or []
    files = [*_files(contract), *beside] if isinstance(beside, list) else beside
    return {
        **values,
        "owners": {**owners_of(contract), **owners} if isinstance(owners, dict) else owners,
        "contract": {
            **written,
            "tables": {**(written.get("tables") or {}), **tables},
            **({"files": files} if files else {}),
        },
        **({"gates": with_freshness(values["gates"], levels)} if "gates" in values else {}),
    }


def _levels(reading: ContractReading, contract: OpenDataContractStandard) -> list[FreshnessPromise]:
    levels = []
    for level in service_levels(contract):
        if isinstance(level, NoCounterpart):
            reading.leave_out(level)
        else:
            levels.append(level)
    return levels


def _files(contract: OpenDataContractStandard) -> list[Any]:
    """The probes of files that a contract written here keeps."""
    kept = custom_property(contract.customProperties)
    files = kept.get("files") if isinstance(kept, dict) else None
    return files if isinstance(files, list) else []
