"""Write a spec's contract as a data contract of the standard, from which the same contract is read again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.plugins.exchange.odcs.odcs_columns import LOGICAL
from prefect_stagegate.plugins.exchange.odcs.odcs_tables import PROPERTY
from prefect_stagegate.plugins.exchange.odcs.standard import WRITTEN
from prefect_stagegate.units import digest_text, parse_duration

if TYPE_CHECKING:
    from prefect_stagegate.spec.models import Spec, TableSpec

FLAGS = {"expect_column_values_to_not_be_null": "required", "expect_column_values_to_be_unique": "unique"}
"""Expectations that the standard has a key of properties for."""
# Reversed, so that of several logical types with one type of ours the first is written: `array` and not `vector`.
_LOGICAL: Mapping[str, str] = {kind: logical for logical, kind in reversed(LOGICAL.items())} | {
    **dict.fromkeys(("tinyint", "smallint", "bigint"), "integer"),
    **{f"{sign}{width}": "integer" for sign in ("int", "uint") for width in (8, 16, 32, 64)},
    **dict.fromkeys(("float", "decimal", "float16", "float32", "float64", "real", "double"), "number"),
    "boolean": "boolean",
    "varchar": "string",
    # The standard's `map` must say what its keys and values are, which a column's type does not.
    "map": "object",
}
"""The standard's type of each of ours; it has none for bytes and durations, which stand as texts of a physical type."""


def odcs_document(spec: Spec) -> dict[str, Any]:
    """The data contract of a spec's contract, owners and freshness, as JSON values.

    Its version is the digest of the contract, so that another contract has another version.
    """
    contract = spec.contract.model_dump(mode="json", exclude_defaults=True)
    levels = _service_levels(spec)
    return {
        "apiVersion": WRITTEN,
        "kind": "DataContract",
        "id": spec.dataset,
        "name": spec.dataset,
        "version": digest_text(digest_of(contract)),
        "status": "active",
        **({"team": {"members": _members(spec)}} if spec.owners else {}),
        "schema": [_table(name, table) for name, table in spec.contract.tables.items()],
        **({"slaProperties": levels} if levels else {}),
        **({"customProperties": [_custom({"files": contract["files"]})]} if spec.contract.files else {}),
    }


def _members(spec: Spec) -> list[dict[str, str]]:
    return [
        {"username": address.strip(), "role": role}
        for role, addresses in spec.owners.items()
        for address in addresses.split(",")
        if address.strip()
    ]


def _custom(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"property": PROPERTY, "value": dict(value)}


def _table(name: str, table: TableSpec) -> dict[str, Any]:
    written = table.model_dump(mode="json", exclude_defaults=True)
    suite = written.get("suite")
    heading = {key: value for key, value in (suite or {}).items() if key != "expectations"}
    if heading.get("name") == name:
        del heading["name"]
    items = (suite or {}).get("expectations", [])
    kept = {key: value for key, value in written.items() if key in ("files", "engine", "time")}
    # An empty suite is kept: without it, the table would promise no expectations at all.
    kept |= {"suite": heading} if heading or (suite is not None and not items) else {}
    return {
        "name": name,
        "logicalType": "object",
        "physicalType": "table",
        "properties": [_property(column, kind, items) for column, kind in table.columns.items()],
        **({"quality": [_rule(item) for item in items]} if items else {}),
        "customProperties": [_custom(kept)],
    }


def _property(column: str, kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """A column, with the flags by which other tools know what the suite says of it."""
    flags = {
        FLAGS[item["type"]]: True
        for item in items
        if item["type"] in FLAGS
        and item["kwargs"] == {"column": column}
        # Other tools read a flag as a hard promise, which an expectation that only warns is not.
        and item.get("severity", "critical") == "critical"
    }
    return {"name": column, "logicalType": _LOGICAL.get(kind, "string"), "physicalType": kind, **flags}


def _rule(item: dict[str, Any]) -> dict[str, Any]:
    """An expectation as a rule of Great Expectations, with its severity and description where others look for them."""
    shown: dict[str, Any] = {key: item[key] for key in ("severity", "description") if key in item}
    return {"type": "custom", "engine": "greatExpectations", **shown, "implementation": item}


def _service_levels(spec: Spec) -> list[dict[str, Any]]:
    """The strictest age that a gate of the spec lets data have, with the columns that it is read from."""
    ages = [
        parse_duration(requirement.params["fail"])
        for target in spec.gates
        for requirement in spec.gate(target).requirements
        if requirement.check == "freshness"
    ]
    if not ages:
        return []
    seconds = int(min(ages) / timedelta(seconds=1))
    value, unit = (seconds // 3600, "h") if seconds % 3600 == 0 else (seconds, "s")
    elements = [f"{name}.{table.time}" for name, table in spec.contract.tables.items() if table.time]
    about = {"element": ", ".join(elements)} if elements else {}
    return [{"property": "latency", "value": value, "unit": unit, **about}]
