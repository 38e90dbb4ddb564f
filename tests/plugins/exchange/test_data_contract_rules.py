"""The queries that metrics and operators of a data contract become, run by DuckDB on rows whose figures are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from open_data_contract_standard.model import DataQuality

from prefect_stagegate.plugins.exchange.odcs.metrics import Subject
from prefect_stagegate.plugins.exchange.odcs.odcs_columns import NoCounterpart
from prefect_stagegate.plugins.exchange.odcs.quality import rule_expectation

ROWS = "a,s\n1,x\n1,x\n2,y\n3,\n4,n/a\n,x\n,q\n7,x\n8,x\n9,x\n"
"""Ten rows. Of `a`, two are missing and one value stands twice; of `s`, one is empty, one `n/a`, one `q`."""
RULES: list[tuple[dict[str, Any], bool]] = [
    ({"metric": "nullValues", "mustBe": 2}, True),
    ({"metric": "nullValues", "mustNotBe": 2}, False),
    ({"metric": "nullValues", "mustBeLessThan": 20, "unit": "percent"}, False),
    ({"metric": "nullValues", "mustBeLessOrEqualTo": 20, "unit": "percent"}, True),
    ({"metric": "nullValues", "mustBeBetween": [1, 2]}, True),
    ({"metric": "nullValues", "mustNotBeBetween": [1, 2]}, False),
    ({"metric": "missingValues", "mustBe": 3, "arguments": {"missingValues": [None, 9]}}, True),
    ({"metric": "invalidValues", "mustBeLessThan": 1, "arguments": {"validValues": [1, 2, 3, 4, 7, 8, 9]}}, True),
    ({"metric": "invalidValues", "mustBeGreaterThan": 1, "arguments": {"validValues": [1, 2, 3, 4, 7]}}, True),
    ({"metric": "duplicateValues", "mustBe": 1}, True),
    ({"metric": "duplicateValues", "mustBeLessThan": 10, "unit": "percent"}, False),
    ({"type": "sql", "query": "SELECT max({property}) FROM {object}", "mustBe": 9}, True),
    ({"type": "sql", "query": "SELECT max({property}) FROM {object} WHERE a > 99", "mustBeLessThan": 9}, False),
    ({"type": "sql", "query": "SELECT count(*) FROM things WHERE a < 3;", "mustBeGreaterOrEqualTo": 4}, False),
]
"""Rules of the column `a`, and whether they hold. An unknown figure breaks a rule."""
TEXT_RULES: list[tuple[dict[str, Any], bool]] = [
    ({"metric": "missingValues", "mustBe": 2, "arguments": {"missingValues": [None, "", "n/a"]}}, True),
    ({"metric": "invalidValues", "mustBe": 2, "arguments": {"pattern": "^[xy]$"}}, True),
    ({"metric": "invalidValues", "mustBeLessThan": 2, "arguments": {"pattern": "^[xyq]"}}, True),
]
TABLE_RULES: list[tuple[dict[str, Any], bool]] = [
    ({"metric": "rowCount", "mustNotBe": 10}, False),
    ({"metric": "rowCount", "mustBeGreaterThan": 9.5}, True),
    ({"metric": "duplicateValues", "mustBeLessThan": 1, "arguments": {"properties": ["a", "s"]}}, False),
    ({"metric": "duplicateValues", "mustBeLessThan": 2, "arguments": {"properties": ["a", "s"]}}, True),
]


@pytest.fixture(scope="module")
def rows() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        values = [tuple(cell or None for cell in line.split(",")) for line in ROWS.splitlines()[1:]]
        connection.execute("CREATE TABLE things (a INTEGER, s VARCHAR)")
        connection.executemany("INSERT INTO things VALUES (?, ?)", values)
        yield connection


def holds(connection: duckdb.DuckDBPyConnection, rule: dict[str, Any], column: str) -> bool:
    """Whether the rule's query returns no row, filled in as Great Expectations does."""
    stated = rule_expectation(DataQuality(**rule), (), Subject(column, {"a": "a", "s": "s"}))
    assert not isinstance(stated, NoCounterpart)
    query = stated["kwargs"]["unexpected_rows_query"].format(batch="things")
    return not connection.execute(query).fetchall()


@pytest.mark.parametrize(("rule", "passes"), RULES)
def test_rule_of_a_number(rows: duckdb.DuckDBPyConnection, rule: dict[str, Any], passes: bool) -> None:
    assert holds(rows, rule, "a") is passes


@pytest.mark.parametrize(("rule", "passes"), TEXT_RULES)
def test_rule_of_a_text(rows: duckdb.DuckDBPyConnection, rule: dict[str, Any], passes: bool) -> None:
    assert holds(rows, rule, "s") is passes


@pytest.mark.parametrize(("rule", "passes"), TABLE_RULES)
def test_rule_of_a_table(rows: duckdb.DuckDBPyConnection, rule: dict[str, Any], passes: bool) -> None:
    assert holds(rows, rule, "") is passes
