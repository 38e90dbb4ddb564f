"""Any contract comes back from the standard's form as it was, and any rule of the standard becomes one SELECT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefect_stagegate.errors import SpecError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.plugins.exchange.odcs import odcs_document
from prefect_stagegate.plugins.exchange.odcs.operators import CONDITIONS
from prefect_stagegate.plugins.exchange.odcs.standard import schema_errors
from prefect_stagegate.spec import load_spec
from prefect_stagegate.spec.vocabulary import COLUMN_TYPES
from prefect_stagegate.spec.yamltree import yaml_text

words = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\x7f"), min_size=1, max_size=12)
globs = st.sampled_from(["*.csv", "**/*.parquet", "data", "a/b.parquet"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
severities = st.sampled_from(["critical", "warning", "info"])
columns = st.sampled_from(["a", "b", "odd name", "ü"])


def expectation(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "kwargs": st.fixed_dictionaries(arguments),
            "severity": severities,
            "description": words,
            "notes": words,
            "meta": st.dictionaries(words, values, max_size=2),
        },
    )


kinds = st.sampled_from(["expect_column_values_to_not_be_null", "expect_column_values_to_be_unique", "anything"])
expectations = st.builds(
    lambda kind, item: {"type": kind, **item},
    kinds,
    expectation(column=columns) | expectation(column=columns, extra=values) | expectation(),
)
suites = st.fixed_dictionaries(
    {"expectations": st.lists(expectations, max_size=4)},
    optional={"name": words, "notes": words, "meta": st.dictionaries(words, values, max_size=2)},
)
tables = st.fixed_dictionaries(
    {"files": globs},
    optional={
        "suite": suites,
        "engine": st.sampled_from(["duckdb", "pandas"]),
        "columns": st.dictionaries(columns, st.sampled_from(COLUMN_TYPES), max_size=4),
        "time": columns,
    },
)
contracts = st.fixed_dictionaries(
    {"tables": st.dictionaries(words, tables, max_size=3)},
    optional={"files": st.lists(st.fixed_dictionaries({"match": globs, "probes": st.just(["csv"])}), max_size=2)},
)


def spec_of(contract: dict[str, Any]) -> dict[str, Any]:
    return {"stagegate": 1, "dataset": "d", "sources": [{"url": "file:///data/"}], "contract": contract}


@settings(max_examples=60, deadline=None)
@given(contracts)
@example({"tables": {"0E0": {"files": "*.csv", "suite": {"expectations": [], "name": "1e3"}}}})
def test_contract_survives_the_standard(contract: dict[str, Any]) -> None:
    spec = load_spec(spec_of(contract), known_checks={})
    document = odcs_document(spec)
    assert schema_errors(document) == []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "contract.yaml")
        path.write_text(yaml_text(document), encoding="utf-8")
        again = load_spec(spec_of({"odcs": str(path)}), known_checks={})
    assert again.contract == spec.contract


numbers = st.integers(-5, 200) | st.floats(-1e6, 1e6)
operators = st.sampled_from(list(CONDITIONS)).flatmap(
    lambda operator: st.fixed_dictionaries(
        {operator: st.lists(numbers, min_size=2, max_size=2, unique=True) if "Between" in operator else numbers}
    )
)
texts = st.text(max_size=8) | st.none() | numbers | st.booleans()
metrics = st.one_of(
    st.just({"metric": "nullValues"}),
    st.just({"metric": "duplicateValues"}),
    st.builds(lambda v: {"metric": "missingValues", "arguments": {"missingValues": v}}, st.lists(texts, min_size=1)),
    st.builds(lambda v: {"metric": "invalidValues", "arguments": {"validValues": v}}, st.lists(texts, min_size=1)),
    st.builds(lambda p: {"metric": "invalidValues", "arguments": {"pattern": p}}, st.text(max_size=8)),
    st.just({"type": "sql", "query": "SELECT count({property}) FROM {object} WHERE '{x}' > ''"}),
)


@settings(max_examples=100, deadline=None)
@given(metrics, operators, st.sampled_from([None, "rows", "percent"]), st.text(min_size=1, max_size=6))
def test_rules_become_one_select_or_a_refusal(
    metric: dict[str, Any], operator: dict[str, Any], unit: str | None, name: str
) -> None:
    rule = {**metric, **operator, **({"unit": unit} if unit else {})}
    schema = [{"name": "t", "properties": [{"name": name, "logicalType": "string", "quality": [rule]}]}]
    contract = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "d", "version": "1", "schema": schema}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "contract.yaml").write_text(yaml.safe_dump(contract, allow_unicode=True), encoding="utf-8")
        spec = spec_of({"odcs": "contract.yaml", "tables": {"t": {"files": "*.csv"}}})
        Path(folder, "spec.yaml").write_text(yaml.safe_dump(spec))
        problems, stated = read(f"{folder}/spec.yaml")
    # A name or pattern may be no text of YAML or no pattern of RE2; a query of ours is never refused.
    assert not [problem for problem in problems if "unexpected_rows_query" in problem]
    assert len(stated) == (0 if problems else 1)


def read(path: str) -> tuple[tuple[str, ...], list[Any]]:
    """The problems of a spec, and the expectations of its table where it has none."""
    try:
        suite = read_spec(path).contract.tables["t"].suite
    except SpecError as error:
        return error.problems, []
    return (), (suite or {})["expectations"]
