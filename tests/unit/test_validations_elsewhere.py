"""What an engine does not know is judged by another one, or is inconclusive by name; pandas reads few columns."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_stagegate.validations.engines import pandas_engine
from prefect_stagegate.validations.records import Judgement, RefusedRows, TableJob
from prefect_stagegate.validations.worker import elsewhere
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.suites import build

REGEX = {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "tail", "regex": "^N"}}
QUERY = {
    "type": "unexpected_rows_expectation",
    "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch} WHERE distance < 0"},
}
BETWEEN: dict[str, Any] = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "distance", "min_value": -10},
}


def judge(folder: Path, engine: str, *expectations: dict[str, Any], rows: int = 2) -> list[Judgement]:
    view, scratch = folder / "view", folder / "scratch"
    view.mkdir()
    scratch.mkdir()
    pd.DataFrame({"distance": [-1, 1], "tail": ["N1", "X"], "other": [1, 2]}).to_parquet(view / "a.parquet")
    suite = {"expectations": list(expectations)}
    job = TableJob("t", engine, suite, str(view), ["a.parquet"], ["distance", "tail", "other"], rows=rows)
    (report,) = judge_tables([job], scratch, lambda _: None)
    return list(report.judgements)


def test_pattern_on_duckdb_is_judged_by_pandas(tmp_path: Path) -> None:
    regex, between = judge(tmp_path, "duckdb", REGEX, BETWEEN)
    assert (str(between.verdict), between.engine) == ("passed", "")
    assert (str(regex.verdict), regex.engine, regex.places) == (
        "failed",
        "pandas",
        [RefusedRows("a.parquet", 1, "pattern A")],
    )


def test_what_no_engine_knows_is_inconclusive_by_name(tmp_path: Path) -> None:
    like = {
        "type": "expect_column_values_to_match_like_pattern",
        "kwargs": {"column": "tail", "like_pattern": "N%"},
    }
    unknown, between = judge(tmp_path, "duckdb", like, BETWEEN)
    assert (str(between.verdict), str(unknown.verdict), unknown.engine) == ("passed", "errored", "")
    assert "expect_column_values_to_match_like_pattern" in unknown.problem
    assert "tail NOT LIKE 'N%'" in unknown.fix


def test_query_of_a_table_on_pandas_runs_on_duckdb(tmp_path: Path) -> None:
    (query,) = judge(tmp_path, "pandas", QUERY)
    assert (str(query.verdict), query.engine, query.places) == ("failed", "duckdb", [RefusedRows("a.parquet", 1)])


def test_pattern_over_a_large_table_is_inconclusive(tmp_path: Path) -> None:
    (regex,) = judge(tmp_path, "duckdb", REGEX, rows=elsewhere.MOST_VALUES + 1)
    assert str(regex.verdict) == "errored"
    assert "pandas knows it, and would hold 20,000,001 values, more than 20,000,000" in regex.problem
    assert "regexp_matches" in regex.fix


def test_pandas_reads_only_the_columns_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = pandas_engine._read

    def reads(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
        read.append(columns)
        return real(path, columns)

    monkeypatch.setattr(pandas_engine, "_read", reads)
    condition = {"row_condition": {"type": "comparison", "column": {"name": "other"}, "operator": ">", "parameter": 1}}
    judge(tmp_path, "pandas", {**BETWEEN, "kwargs": {**BETWEEN["kwargs"], **condition}})
    assert read == [{"distance", "other"}]


@pytest.mark.parametrize(
    ("kind", "kwargs", "columns"),
    [
        ("expect_column_values_to_not_be_null", {"column": "a"}, {"a"}),
        ("expect_column_pair_values_to_be_equal", {"column_A": "a", "column_B": "b"}, {"a", "b"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"]}, {"a", "b"}),
        ("expect_table_row_count_to_equal", {"value": 1}, set()),
        ("expect_table_columns_to_match_set", {"column_set": ["a"]}, None),
        (
            "expect_column_max_to_be_between",
            {"column": "a", "row_condition": "b > 1", "condition_parser": "pandas"},
            None,
        ),
    ],
)
def test_columns_that_an_expectation_needs(kind: str, kwargs: dict[str, Any], columns: set[str] | None) -> None:
    built = build("t", {"expectations": [{"type": kind, "kwargs": kwargs}]})
    assert built.problems == []
    assert elsewhere.needed_columns(built.expectations) == columns
