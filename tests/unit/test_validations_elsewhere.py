"""What an engine does not know is judged by another one, or is inconclusive by name; pandas reads few columns."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from great_expectations.expectations.expectation import ColumnMapExpectation
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_stagegate.validations.engines import pandas_engine
from prefect_stagegate.validations.engines.duckdb_patterns import as_re2
from prefect_stagegate.validations.worker import elsewhere
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.suite_objects import build
from prefect_stagegate.validations.worker.worker_messages import Judgement, RefusedRows, TableJob

DATES = {
    "type": "expect_column_values_to_match_strftime_format",
    "kwargs": {"column": "tail", "strftime_format": "N%d"},
}
QUERY = {
    "type": "unexpected_rows_expectation",
    "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch} WHERE distance < 0"},
}
BETWEEN: dict[str, Any] = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "distance", "min_value": -10},
}


class ExpectColumnValuesToBeOdd(ColumnMapExpectation):
    """An expectation whose metric no engine has."""

    map_metric = "column_values.odd"


def judge(folder: Path, engine: str, *expectations: dict[str, Any]) -> list[Judgement]:
    view, scratch = folder / "view", folder / "scratch"
    view.mkdir()
    scratch.mkdir()
    pd.DataFrame({"distance": [-1, 1], "tail": ["N1", "X"], "other": [1, 2]}).to_parquet(view / "a.parquet")
    suite = {"expectations": list(expectations)}
    job = TableJob("t", engine, suite, str(view), ["a.parquet"], ["distance", "tail", "other"], rows={"a.parquet": 2})
    (report,) = judge_tables([job], scratch, lambda _: None)
    return list(report.judgements)


def test_what_duckdb_does_not_know_is_judged_by_pandas(tmp_path: Path) -> None:
    dates, between = judge(tmp_path, "duckdb", DATES, BETWEEN)
    assert (str(between.verdict), between.engine) == ("passed", "")
    assert (str(dates.verdict), dates.engine, dates.places) == (
        "failed",
        "pandas",
        [RefusedRows("a.parquet", 1, "pattern A")],
    )


def test_what_no_engine_knows_is_inconclusive_by_name(tmp_path: Path) -> None:
    odd = {"type": "expect_column_values_to_be_odd", "kwargs": {"column": "distance"}}
    unknown, between = judge(tmp_path, "duckdb", odd, BETWEEN)
    assert (str(between.verdict), str(unknown.verdict), unknown.engine) == ("passed", "errored", "")
    assert "no engine knows expect_column_values_to_be_odd" in unknown.problem
    assert "unexpected_rows_expectation" in unknown.fix


def test_query_of_a_table_on_pandas_runs_on_duckdb(tmp_path: Path) -> None:
    (query,) = judge(tmp_path, "pandas", QUERY)
    assert (str(query.verdict), query.engine, query.places) == ("failed", "duckdb", [RefusedRows("a.parquet", 1)])


def test_table_too_large_for_pandas_is_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "MOST_VALUES", 1)
    (dates,) = judge(tmp_path, "duckdb", DATES)
    assert str(dates.verdict) == "errored"
    assert "pandas knows it, and would hold 2 values, more than 1" in dates.problem


PATTERNS: list[tuple[str, dict[str, Any], int]] = [
    ("match_regex", {"regex": "^N"}, 1),
    ("not_match_regex", {"regex": "^N"}, 1),
    ("match_regex_list", {"regex_list": ["^N", "1$"], "match_on": "all"}, 1),
    ("match_regex_list", {"regex_list": ["^N", "X"]}, 0),
    ("not_match_regex_list", {"regex_list": ["^N", "X"]}, 2),
    ("match_like_pattern", {"like_pattern": "N_"}, 1),
    ("not_match_like_pattern", {"like_pattern": "N%"}, 1),
    ("match_like_pattern_list", {"like_pattern_list": ["N_", "%X"], "match_on": "any"}, 0),
    ("not_match_like_pattern_list", {"like_pattern_list": ["N_", "%X"]}, 2),
    ("not_match_like_pattern", {"like_pattern": "N!_", "escape": "!"}, 0),
]


def test_patterns_are_judged_by_duckdb_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "MOST_VALUES", 0)
    suite = [
        {"type": f"expect_column_values_to_{kind}", "kwargs": {"column": "tail", **kwargs}}
        for kind, kwargs, _ in PATTERNS
    ]
    judged = judge(tmp_path, "duckdb", *suite)
    assert [judgement.refused for judgement in judged] == [refused for *_, refused in PATTERNS]
    assert {judgement.engine for judgement in judged} == {""}
    assert judged[0].places == [RefusedRows("a.parquet", 1, "pattern A")]


def test_pattern_that_re2_does_not_know_is_refused_by_name() -> None:
    kwargs = {"column": "tail", "regex_list": ["^N", "(?<!a)b"]}
    suite = {"expectations": [{"type": "expect_column_values_to_match_regex_list", "kwargs": kwargs}]}
    (problem,) = build("t", suite).problems
    assert "expectations[0]: expect_column_values_to_match_regex_list: argument 'regex_list': DuckDB's RE2" in problem
    assert "(?<; write it without, or set `engine: pandas`" in problem
    assert build("t", suite, "pandas").problems == []


@pytest.mark.parametrize(("mostly", "told"), [(98, "98; did you mean 0.98?"), ("98", "'98'")])
def test_share_above_one_is_refused_at_load(mostly: object, told: str) -> None:
    kwargs = {"column": "tail", "mostly": mostly}
    (problem,) = build(
        "t", {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": kwargs}]}
    ).problems
    assert problem.endswith(f"argument 'mostly': must be at most 1, not {told}")


@pytest.mark.parametrize(
    ("bounds", "whole"),
    [
        ({"min_value": 3.7, "max_value": 5.2}, (4, 5)),
        ({"min_value": 3.7, "max_value": 5.2, "strict_min": True, "strict_max": True}, (3, 6)),
        ({"min_value": 3.0, "max_value": 5.0}, (3, 5)),
    ],
)
def test_fraction_in_a_bound_of_counts_takes_no_row_more(bounds: dict[str, Any], whole: tuple[int, int]) -> None:
    kind = "expect_column_unique_value_count_to_be_between"
    (made,) = build("t", {"expectations": [{"type": kind, "kwargs": {"column": "x", **bounds}}]}).expectations
    assert (made.min_value, made.max_value) == whole  # type: ignore[attr-defined]


def test_fraction_of_an_exact_count_is_refused() -> None:
    suite = {"expectations": [{"type": "expect_table_row_count_to_equal", "kwargs": {"value": 3.7}}]}
    (problem,) = build("t", suite).problems
    assert problem.endswith("argument 'value': must be a whole number, not 3.7")


def test_bounds_that_do_not_compare_are_refused_at_load() -> None:
    bounds = {"min_value": "2026-03-01T00:00:00Z", "max_value": "2026-03-02T00:00:00"}
    suite = {"expectations": [{**BETWEEN, "kwargs": {"column": "at", **bounds}}]}
    (problem,) = build("t", suite).problems
    assert "table t" in problem
    assert "arguments 'min_value' and 'max_value' do not compare" in problem


alphabet = st.sampled_from([*"aB1_ .\n", "é", "٣", "\v", "\xa0", "-"])
atom = st.sampled_from(
    [*"aB1_.-é", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"[\w-]", r"[^\d\]]", r"[]\s]", r"[a\[]", r"\$"]
)
piece = st.tuples(atom, st.sampled_from(["", "*", "+?", "{2}", "{,2}"])).map("".join)
branch = st.tuples(
    st.sampled_from(["", "^"]), st.lists(piece, max_size=4).map("".join), st.sampled_from(["", "$", r"\Z"])
)
patterns = st.lists(branch.map("".join), min_size=1, max_size=2).map("|".join)


@settings(max_examples=60)
@given(patterns, st.lists(st.text(alphabet, max_size=5), min_size=1, max_size=8))
def test_duckdb_finds_what_python_searches(pattern: str, texts: list[str]) -> None:
    found = duckdb.execute("SELECT regexp_matches(unnest(?::VARCHAR[]), ?)", [texts, as_re2(pattern)]).fetchall()
    assert [match for (match,) in found] == [bool(re.search(pattern, text)) for text in texts]


@pytest.mark.parametrize(
    ("engine", "regex", "verdict"),
    [
        ("duckdb", "^(N1|[[:alpha:]])$", "passed"),
        ("pandas", "^(N1|[[:alpha:]])$", "passed"),
        ("pandas", "^(?=.)(N1|[[:alpha:]])$", "failed"),
    ],
)
def test_posix_classes_are_read_by_re2_alone(engine: str, regex: str, verdict: str, tmp_path: Path) -> None:
    kwargs = {"column": "tail", "regex": regex}
    (judgement,) = judge(tmp_path, engine, {"type": "expect_column_values_to_match_regex", "kwargs": kwargs})
    assert str(judgement.verdict) == verdict


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
