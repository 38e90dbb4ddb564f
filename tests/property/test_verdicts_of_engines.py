"""Each engine gives the verdicts of two oracles on random data: plain pandas, and plain SQL of DuckDB.

Where engines differ, docs/contracts.md says so under Engines, and the oracle follows it. `STATE_EXAMPLES` makes it
longer.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prefect_stagegate.quoting import literal
from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.worker_messages import TableJob

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "3"))
"""Each takes seconds."""
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("x", pa.float64()),
        ("price", pa.decimal128(30, 2)),
        ("word", pa.string()),
        ("moment", pa.timestamp("us", tz="UTC")),
    ]
)
NUMBERS = [-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1]
PRICES = [Decimal("-3.99"), Decimal("0.10"), Decimal(0), Decimal(2)]
WORDS = ["", "a", "a\n", "B1", "é", "٣", "%_", "it's", "NaN", "NA"]
REGEXES = ["^a$", r"^\w+$", r"\d", "[^a-z]", "^$", r"\s"]
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
TIMES = [NOON + timedelta(hours=hours) for hours in (-36, -12, 0, 12)]
VALUES: dict[str, list[Any]] = {"id": NUMBERS, "price": PRICES, "word": WORDS, "moment": TIMES}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Expected:
    """What an engine has to say to an expectation."""

    kind: str
    kwargs: dict[str, Any]
    verdict: str
    refused: int | None = None


@dataclass(frozen=True)
class Question:
    """A figure of one column, which each oracle computes, and what to expect of it."""

    column: str
    sql: str
    by_pandas: Callable[[pd.Series], Any]
    """The figure of the column's values, None for missing ones."""
    expected: Callable[[Any, pd.Series], Expected]
    """What to expect, from the figure and the column."""


def present(column: pd.Series) -> pd.Series:
    return column[[value is not None for value in column]]


def as_written(value: Any) -> Any:
    """A value as suites write it, and as every engine compares it."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return value.isoformat() if isinstance(value, datetime) else value


def in_sql(value: Any) -> str:
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ {literal(value.isoformat())}"
    return literal(value) if isinstance(value, str) else repr(value)


# ── refused rows ───────────────────────────────────────────────────────────────────────────────────────────────


def rows_that(kind: str, column: str, sql: str, keeps: Callable[[pd.Series], Any], **arguments: Any) -> Question:
    """The number of values that break a condition."""
    kwargs = {"column": column, **arguments}
    return Question(
        column,
        f"count(*) FILTER (NOT ({sql}))",
        lambda values: len(present(values)) - int(sum(keeps(present(values)))),
        lambda refused, _: Expected(f"column_values_to_{kind}", kwargs, "failed" if refused else "passed", refused),
    )


def between(column: str, pair: tuple[Any, Any]) -> Question:
    low, high = sorted(pair)
    sql = f"{column} BETWEEN {in_sql(low)} AND {in_sql(high)}"
    bounds = {"min_value": as_written(low), "max_value": as_written(high)}
    return rows_that("be_between", column, sql, lambda values: values.between(low, high), **bounds)


def at_least(column: str, low: float) -> Question:
    sql = f"{column} >= {low!r}"
    return rows_that("be_between", column, sql, lambda values: (values >= low) | values.isna(), min_value=low)


def in_set(column: str, values: list[Any]) -> Question:
    sql = f"{column} IN ({', '.join(map(in_sql, values))})"
    return rows_that("be_in_set", column, sql, lambda rows: rows.isin(values), value_set=list(map(as_written, values)))


def unique(column: str) -> Question:
    repeated = f"SELECT {column} FROM rows WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    return rows_that("be_unique", column, f"{column} NOT IN ({repeated})", lambda rows: ~rows.duplicated(keep=False))


def matches(regex: str, engine: str) -> Question:
    # Java's classes know ASCII only.
    found = [word for word in WORDS if re.search(regex, word, re.ASCII if engine == "spark" else 0)]
    sql = f"word IN ({', '.join(map(literal, found))})" if found else "false"
    return rows_that("match_regex", "word", sql, lambda words: words.isin(found), regex=regex)


# ── figures within bounds ──────────────────────────────────────────────────────────────────────────────────────


def numbers(column: pd.Series) -> pd.Series:
    """The values that are there, with infinity, which no row has, in place of NaN: NaN is above all others."""
    return pd.Series([math.inf if pd.isna(value) else value for value in present(column)], dtype=object)


def doubles(column: pd.Series) -> pd.Series:
    return numbers(column).astype(float)


def scale(column: pd.Series) -> float:
    """The largest number of a column, and 1 at least: figures are rounded in proportion."""
    return max([1.0, *(abs(float(value)) for value in present(column) if isinstance(value, int | float | Decimal))])


Figure = tuple[Sequence[str], str, Callable[[pd.Series], Any]]
"""The columns that have it, and how each oracle computes it."""
NUMERIC, ORDERED = ("id", "x", "price"), ("id", "x", "price", "moment")
FIGURES: dict[str, Figure] = {
    "column_min": (ORDERED, "min({0})", lambda column: numbers(column).min()),
    "column_max": (ORDERED, "max({0})", lambda column: numbers(column).max()),
    "column_sum": (NUMERIC, "sum({0})", lambda column: numbers(column).sum() if len(present(column)) else None),
    "column_mean": (NUMERIC, "avg({0})", lambda column: doubles(column).mean()),
    "column_median": (NUMERIC, "median({0}::DOUBLE)", lambda column: doubles(column).median()),
    "column_stdev": (
        NUMERIC,
        "if(bool_or(isnan({0}::DOUBLE)), 'nan', stddev_samp(nullif({0}::DOUBLE, 'nan')))",
        lambda column: doubles(column).std(),
    ),
    "column_quantile_values": (
        NUMERIC,
        "quantile_disc({0}::DOUBLE, 0.4)",
        lambda column: np.quantile(doubles(column), 0.4, method="inverted_cdf") if len(present(column)) else None,
    ),
    "column_unique_value_count": (
        SCHEMA.names,
        "count(DISTINCT {0})",
        lambda column: numbers(column).nunique(),
    ),
    "column_proportion_of_unique_values": (
        SCHEMA.names,
        "if(count({0}) = 0, 0, count(DISTINCT {0}) / count({0}))",
        lambda column: numbers(column).nunique() / max(len(present(column)), 1),
    ),
    "column_proportion_of_non_null_values": (
        SCHEMA.names,
        "count({0}) / count(*)",
        lambda column: len(present(column)) / len(column),
    ),
    "table_row_count": (["id"], "count(*)", len),
}
NEAREST: Figure = (
    NUMERIC,
    "list_sort(list({0}::DOUBLE) FILTER ({0} IS NOT NULL))[1 + round_even(0.4 * (count({0}) - 1), 0)::INT]",
    lambda column: doubles(column).quantile(0.4, interpolation="nearest"),
)
"""A quantile on pandas."""
SIDES = ("around", "from", "to", "below", "above")
"""Where bounds lie: around the figure, from it or to it; or below or above it, so that it breaks them."""


def bounds(figure: Any, side: str, slack: Any, step: Any) -> tuple[Any, Any]:
    sides = {
        "around": (figure - slack, figure + slack),
        "from": (figure - slack, None),
        "to": (None, figure + slack),
        "below": (None, figure - step),
        "above": (figure + step, None),
    }
    low, high = map(as_written, sides[side])
    return low, high


def within(kind: str, column: str, side: str, engine: str) -> Question:
    """A figure, and bounds that it keeps or breaks."""
    is_quantile, is_extreme = kind == "column_quantile_values", kind in ("column_min", "column_max")
    _, sql, by_pandas = NEAREST if is_quantile and engine == "pandas" else FIGURES[kind]

    def expected(figure: Any, values: pd.Series) -> Expected:
        verdict = "failed" if figure is None or side in ("below", "above") else "passed"
        # Decimals on pandas have no mean beside a missing value.
        is_partial = 0 < len(present(values)) < len(values)
        if engine == "pandas" and column == "price" and is_partial and kind in ("column_mean", "column_stdev"):
            verdict = "errored"
        # A quantile may be a ten-thousandth off; others are doubles, but for extremes and whole numbers.
        slack: Any = (1e-3 if is_quantile else 1e-9) * scale(values)
        if (kind, column, engine) == ("column_mean", "price", "spark"):
            slack = 1e-6  # Spark's mean of decimals has four places more than they have
        is_whole = isinstance(figure, int) and (kind, engine) != ("column_sum", "spark")
        slack, step = 0 if is_whole or is_extreme else slack, 1 if is_whole else 3 * slack
        if is_extreme and column == "moment":
            figure, slack, step = figure or NOON, timedelta(0), timedelta(hours=1)
        low, high = bounds(as_written(figure or 0) if column == "price" else figure or 0, side, slack, step)
        written = {"column": column, "min_value": low, "max_value": high}
        if is_quantile:
            written = {"column": column, "quantile_ranges": {"quantiles": [0.4], "value_ranges": [[low, high]]}}
        hidden = "column" if kind == "table_row_count" else None
        kwargs = {key: value for key, value in written.items() if key != hidden and value is not None}
        return Expected(f"{kind}_to_be_between", kwargs, verdict)

    return Question(column, sql.format(column), by_pandas, expected)


# ── sets of values ─────────────────────────────────────────────────────────────────────────────────────────────

OCCURRING = "SELECT DISTINCT {0} FROM rows WHERE {0} IS NOT NULL"
COMMONEST = "SELECT {0} FROM rows WHERE {0} IS NOT NULL GROUP BY 1 QUALIFY count(*) = max(count(*)) OVER ()"
SETS: dict[str, tuple[Figure, Callable[[set[Any], set[Any]], bool]]] = {
    "column_distinct_values_to_be_in_set": ((list(VALUES), OCCURRING, set), lambda found, given: found <= given),
    "column_distinct_values_to_contain_set": ((list(VALUES), OCCURRING, set), lambda found, given: found >= given),
    "column_distinct_values_to_equal_set": ((list(VALUES), OCCURRING, set), lambda found, given: found == given),
    "column_most_common_value_to_be_in_set": (
        (["id", "price", "word"], COMMONEST, lambda values: set(values.mode())),  # times are in no set
        lambda found, given: len(found) == 1 and found <= given,
    ),
}


def values_in(kind: str, column: str, number: int, engine: str) -> Question:
    """The values that occur, and a set that lacks one of them, or has another one."""
    (_, sql, by_pandas), holds = SETS[kind]
    value = VALUES[column][number % len(VALUES[column])]

    def expected(figure: Any, _: pd.Series) -> Expected:
        given = set(map(as_written, figure ^ {value} or {value}))
        # Decimals are exact on pandas, and 0.1 is none of them.
        is_exact = engine == "pandas" and column == "price" and "distinct" in kind
        found = figure if is_exact else set(map(as_written, figure))
        kwargs = {"column": column, "value_set": list(given)}
        return Expected(kind, kwargs, "passed" if holds(found, given) else "failed")

    select = f"(SELECT coalesce(list({column}), []) FROM ({sql.format(column)}))"
    return Question(column, select, lambda values: by_pandas(present(values)), expected)


# ── the comparison ─────────────────────────────────────────────────────────────────────────────────────────────


def questions(engine: str) -> st.SearchStrategy[Question]:
    at, numbers = st.just(engine), st.integers(0, 99)
    figures = [
        st.builds(within, st.just(kind), st.sampled_from(columns), st.sampled_from(SIDES), at)
        for kind, (columns, *_) in FIGURES.items()
    ]
    sets = [
        st.builds(values_in, st.just(kind), st.sampled_from(columns), numbers, at)
        for kind, ((columns, *_), _) in SETS.items()
    ]
    return st.one_of(
        st.builds(between, st.just("id"), st.tuples(*[st.sampled_from(NUMBERS)] * 2)),
        st.builds(between, st.just("price"), st.tuples(*[st.integers(-3, 3)] * 2)),
        st.builds(between, st.just("moment"), st.tuples(*[st.sampled_from(TIMES)] * 2)),
        st.builds(between, st.just("x"), st.tuples(*[st.floats(-4, 4)] * 2)),
        st.builds(at_least, st.just("x"), st.floats(-4, 4)),
        st.builds(in_set, st.just("id"), st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3)),
        st.builds(in_set, st.just("word"), st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)),
        st.builds(unique, st.sampled_from(["id", "price", "word", "moment"])),
        st.builds(matches, st.sampled_from(REGEXES), at),
        *figures,
        *sets,
    )


rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.sampled_from(NUMBERS),
        "x": st.none() | st.just(math.nan) | st.floats(-4, 4),
        "price": st.none() | st.sampled_from(PRICES) | st.decimals(-4, 4, places=2),
        "word": st.none() | st.sampled_from(WORDS),
        "moment": st.none() | st.sampled_from(TIMES),
    }
)
files = st.lists(st.lists(rows, min_size=1, max_size=8), min_size=1, max_size=3)


def plain(figure: Any) -> Any:
    """A figure as Python has it; None for NaN, too, for which `numbers` has infinity."""
    if isinstance(figure, list | set):
        return set(figure)
    figure = figure.item() if isinstance(figure, np.generic) else figure
    return None if pd.isna(figure) or figure == math.inf else figure


def figure_of(question: Question, values: pd.Series, rows: duckdb.DuckDBPyConnection) -> Any:
    """The figure on which both oracles agree."""
    (by_sql,) = map(plain, rows.execute(f"SELECT {question.sql} FROM rows LIMIT 1").fetchone() or ())
    by_pandas = plain(question.by_pandas(values))
    are_close = isinstance(by_pandas, float) and by_sql is not None
    if not (are_close and math.isclose(by_pandas, by_sql, rel_tol=1e-9, abs_tol=1e-9 * scale(values))):
        assert by_pandas == by_sql, (question, list(values))
    return by_pandas


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[pytest.mark.system] if name == "spark" else []) for name in sorted(ENGINES)]
)
def test_engine_gives_the_verdicts_of_both_oracles(engine: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Each example takes seconds, so that shrinking one would take minutes.
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(files, st.lists(questions(engine), min_size=16, max_size=24))
    def compare(contents: list[list[Row]], asked: list[Question]) -> None:
        view, scratch = tmp_path_factory.mktemp("view"), tmp_path_factory.mktemp("scratch")
        counted = {f"{number}.parquet": len(content) for number, content in enumerate(contents)}
        for name, content in zip(counted, contents, strict=True):
            pyarrow.parquet.write_table(pa.Table.from_pylist(list(content), SCHEMA), view / name)
        # NaN is missing on pandas.
        table = [
            {
                name: None if engine == "pandas" and isinstance(value, float) and math.isnan(value) else value
                for name, value in row.items()
            }
            for content in contents
            for row in content
        ]
        columns = {name: pd.Series([row[name] for row in table], dtype=object) for name in SCHEMA.names}
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("rows", pa.Table.from_pylist(table, SCHEMA))
            figures = [figure_of(question, columns[question.column], connection) for question in asked]
        expected = [
            question.expected(figure, columns[question.column]) for question, figure in zip(asked, figures, strict=True)
        ]
        suite = {"expectations": [{"type": f"expect_{answer.kind}", "kwargs": answer.kwargs} for answer in expected]}
        digests = {name: f"blake3:{name}" for name in counted}
        job = TableJob("t", engine, suite, str(view), list(counted), SCHEMA.names, digests, rows=counted)
        (report,) = judge_tables([job], scratch, lambda _: None)
        for answer, judgement in zip(expected, report.judgements, strict=True):
            refused = judgement.refused if answer.refused is not None else None
            assert (judgement.verdict, refused) == (answer.verdict, answer.refused), (answer, judgement)

    compare()
