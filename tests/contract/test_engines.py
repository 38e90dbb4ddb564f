"""What every engine promises: a new one needs its line in `ENGINES` and has to pass this file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.worker_messages import (
    ExpectationVerdict,
    Judgement,
    RefusedRows,
    TableJob,
    TableReport,
)

PARAMS = [pytest.param(name, marks=[pytest.mark.system] if name == "spark" else []) for name in sorted(ENGINES)]
Run = Callable[..., TableReport]


@pytest.fixture(params=PARAMS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Judge the files of one table, given as frames by name, in this process."""

    def judge(
        files: dict[str, pd.DataFrame | pa.Table | bytes],
        *expectations: dict[str, Any],
        rows: dict[str, int] | None = None,
    ) -> TableReport:
        view, scratch = tmp_path / "view", tmp_path / "scratch"
        scratch.mkdir()
        for name, content in files.items():
            write(view / name, content)
        columns = ["distance", "tail"]
        suite = {"expectations": list(expectations)}
        digests = {name: f"blake3:{name}" for name in files}
        counted = {name: len(content) for name, content in files.items()} if rows is None else rows
        if any(isinstance(content, bytes) for content in files.values()):
            counted = {}
        job = TableJob("trips", request.param, suite, str(view), list(files), columns, digests, rows=counted)
        (report,) = judge_tables([job], scratch, print)
        return report

    return judge


def write(path: Path, content: pd.DataFrame | pa.Table | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
        return
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".csv":
        content.to_csv(path, index=False, na_rep="NA")
    elif path.suffix == ".json":
        content.to_json(path, orient="records", lines=True)
    else:
        content.to_parquet(path, index=False)


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


def only(report: TableReport) -> Judgement:
    (judgement,) = report.judgements
    return judgement


MONTHS = {
    "2013-01.parquet": pd.DataFrame({"distance": [100, 200], "tail": ["N1", "N2"]}),
    "2013-02.parquet": pd.DataFrame({"distance": [-7, 300, -7], "tail": ["N3", None, "N1"]}),
    "2013-03.parquet": pd.DataFrame({"distance": [400], "tail": ["N5"]}),
}


def test_all_files_are_judged_and_not_only_the_last(run: Run) -> None:
    report = run(MONTHS, expect("expect_table_row_count_to_equal", value=6))
    assert only(report).verdict is ExpectationVerdict.PASSED


def test_refused_rows_are_counted_by_file_with_an_example(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_values_to_be_between", column="distance", min_value=0)))
    assert judgement.verdict is ExpectationVerdict.FAILED
    assert judgement.places == [RefusedRows("2013-02.parquet", 2, "-7")]
    assert "2 of 6 rows" in judgement.problem


def test_missing_values_are_counted_by_file(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_values_to_not_be_null", column="tail")))
    assert judgement.places == [RefusedRows("2013-02.parquet", 1)]


def test_what_is_twice_in_two_files_is_not_unique(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_values_to_be_unique", column="tail")))
    assert judgement.verdict is ExpectationVerdict.FAILED
    assert {row.file for row in judgement.places} == {"2013-01.parquet", "2013-02.parquet"}


def test_a_pair_of_columns_is_located_too(run: Run) -> None:
    files = {"a.parquet": pd.DataFrame({"low": [1], "high": [2]}), "b.parquet": pd.DataFrame({"low": [3], "high": [2]})}
    expectation = expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="high", column_B="low")
    assert only(run(files, expectation)).places == [RefusedRows("b.parquet", 1, "2, 3")]


def test_passes_and_failures_have_figures_and_seconds(run: Run) -> None:
    report = run(
        MONTHS,
        expect("expect_column_values_to_be_in_set", column="tail", value_set=["N1"]),
        expect("expect_column_values_to_be_between", column="distance", max_value=1000),
        expect("expect_column_max_to_be_between", column="distance", max_value=1000),
    )
    tails, rows, longest = report.judgements
    assert (tails.rows, tails.refused, set(tails.shown.examples)) == (6, 3, {"N2", "N3", "N5"})
    assert tails.recorded.examples == ("pattern A9",)
    assert (rows.verdict, rows.rows, rows.refused) == (ExpectationVerdict.PASSED, 6, 0)
    assert (longest.verdict, longest.shown.observed) == (ExpectationVerdict.PASSED, "400")
    assert all(judgement.seconds for judgement in report.judgements)


def test_only_the_columns_of_the_data_are_there(run: Run) -> None:
    report = run(MONTHS, expect("expect_table_columns_to_match_set", column_set=["distance", "tail"]))
    assert only(report).verdict is ExpectationVerdict.PASSED


def test_an_aggregate_speaks_of_the_whole_table(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_max_to_be_between", column="distance", max_value=399)))
    assert (judgement.verdict, judgement.places) == (ExpectationVerdict.FAILED, [])
    assert "400" in judgement.problem


def test_quantiles_are_judged_though_numpy_answers(run: Run) -> None:
    ranges = {"quantiles": [0.1, 0.9], "value_ranges": [[-1000, 1000], [0, 1]]}
    judgement = only(
        run(MONTHS, expect("expect_column_quantile_values_to_be_between", column="distance", quantile_ranges=ranges))
    )
    assert judgement.verdict is ExpectationVerdict.FAILED


def quantile_between(share: float, low: float, high: float) -> dict[str, Any]:
    ranges = {"quantiles": [share], "value_ranges": [[low, high]]}
    return expect("expect_column_quantile_values_to_be_between", column="x", quantile_ranges=ranges)


def test_each_quantile_of_a_column_has_its_own_value(run: Run) -> None:
    shares = {0: 10, 0.4: 20, 0.7: 30, 1: 40}
    report = run(
        {"a.parquet": pa.table({"x": [40, 10, 20, None, 30]})},
        *(quantile_between(share, value, value) for share, value in shares.items()),
        quantile_between(0.7, 40, 40),
    )
    assert [judgement.verdict.value for judgement in report.judgements] == ["passed"] * len(shares) + ["failed"]


def test_sum_of_no_values_keeps_no_bound(run: Run) -> None:
    none = pa.table({"x": pa.array([None], pa.float64())})
    judgement = only(run({"a.parquet": none}, expect("expect_column_sum_to_be_between", column="x", max_value=1)))
    assert judgement.verdict is ExpectationVerdict.FAILED


def test_sum_beyond_64_bits_does_not_start_over(run: Run) -> None:
    huge = pa.table({"x": pa.array([2**62] * 3, pa.int64())})
    judgement = only(run({"a.parquet": huge}, expect("expect_column_sum_to_be_between", column="x", min_value=2**63)))
    assert judgement.verdict is ExpectationVerdict.PASSED


def test_extremes_of_zoned_times_compare_with_bounds(run: Run) -> None:
    noon = pa.table({"at": pa.array([datetime(2026, 3, 1, 12)], pa.timestamp("us", "Europe/Berlin"))})  # noqa: DTZ001
    bounds = {"column": "at", "min_value": "2026-03-01T12:00:00Z", "max_value": "2026-03-01T13:00:00+01:00"}
    judgement = only(run({"a.parquet": noon}, expect("expect_column_max_to_be_between", **bounds)))
    assert judgement.verdict is ExpectationVerdict.PASSED


def test_commonest_decimal_is_found_in_a_set(run: Run) -> None:
    prices = pa.table({"price": pa.array([Decimal("0.10")], pa.decimal128(9, 2))})
    kind, arguments = "expect_column_most_common_value_to_be_in_set", {"column": "price", "value_set": [0.1]}
    assert only(run({"a.parquet": prices}, expect(kind, **arguments))).verdict is ExpectationVerdict.PASSED


def test_a_missing_column_is_an_error_and_no_failure(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_values_to_not_be_null", column="distanse")))
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert judgement.problem == "not evaluated: the table has no column distanse: did you mean 'distance'?"


def test_expectation_without_a_result_spares_the_others(run: Run) -> None:
    report = run(
        MONTHS,
        expect("expect_column_mean_to_be_between", column="tail", min_value=0),
        expect("expect_column_min_to_be_between", column="distance", min_value=0),
    )
    verdicts = {judgement.column: judgement.verdict for judgement in report.judgements}
    assert verdicts == {"tail": ExpectationVerdict.ERRORED, "distance": ExpectationVerdict.FAILED}
    assert report.unreadable == []


def test_another_type_of_column_is_a_failure_and_no_crash(run: Run) -> None:
    judgement = only(run(MONTHS, expect("expect_column_values_to_be_of_type", column="distance", type_="DateType")))
    assert (judgement.verdict, judgement.places) == (ExpectationVerdict.FAILED, [])


def test_files_are_matched_by_the_names_of_their_columns(run: Run) -> None:
    files = {
        "a.parquet": pd.DataFrame({"x": [1], "y": [-1]}),
        "b.parquet": pd.DataFrame({"y": [-2], "x": [2], "z": [0]}),
    }
    assert (
        only(run(files, expect("expect_column_values_to_be_between", column="x", min_value=0))).verdict
        is ExpectationVerdict.PASSED
    )


def test_csv_is_read_with_a_header_and_na_as_missing(run: Run) -> None:
    files = {"a.csv": pd.DataFrame({"speed": [1.5, None]}), "b.csv": pd.DataFrame({"speed": [-2.5, 3.0]})}
    report = run(
        files,
        expect("expect_column_values_to_be_between", column="speed", min_value=0),
        expect("expect_column_values_to_not_be_null", column="speed"),
    )
    assert [judgement.places for judgement in report.judgements] == [
        [RefusedRows("b.csv", 1, "-2.5")],
        [RefusedRows("a.csv", 1)],
    ]


def test_files_with_hostile_names_are_read_and_named(run: Run) -> None:
    files = {
        "it's [1] *new*/50%_a;b.parquet": pd.DataFrame({"x": [-1]}),
        "it's 1 xnewx/50%_a;b.parquet": pd.DataFrame({"x": [1]}),
        "year=2013/x?.parquet": pd.DataFrame({"x": [-3]}),
    }
    judgement = only(run(files, expect("expect_column_values_to_be_between", column="x", min_value=0)))
    assert {row.file for row in judgement.places} == {"it's [1] *new*/50%_a;b.parquet", "year=2013/x?.parquet"}


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_file_named_like_a_pattern_is_read_once(run: Run, ending: str) -> None:
    names = ("{a,b}", "{b,a}", "a", "b", "[1]", "1", "*", "?", "b\\c", "^x/[!1]/{c}", "d e,f", "é#%20+&")
    files = {f"{name}.{ending}": pd.DataFrame({"x": range(number + 1)}) for number, name in enumerate(names)}
    judgement = only(run(files, expect("expect_table_row_count_to_equal", value=sum(map(len, files.values())))))
    assert (judgement.verdict, judgement.problem) == (ExpectationVerdict.PASSED, "")


def test_other_rows_than_the_probe_counted_are_inconclusive(run: Run) -> None:
    rows = {"2013-01.parquet": 2, "2013-02.parquet": 9, "2013-03.parquet": 1}
    judgement = only(run(MONTHS, expect("expect_column_values_to_not_be_null", column="distance"), rows=rows))
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert "2013-02.parquet has 9 rows, and the engine reads 3" in judgement.problem


def test_list_column_blames_only_its_own_expectation(run: Run) -> None:
    files = {"a.parquet": pd.DataFrame({"x": [1, 2], "many": [[1, 2], []]})}
    report = run(
        files,
        expect("expect_column_values_to_be_in_set", column="many", value_set=["a"]),
        expect("expect_column_values_to_be_unique", column="many"),
        expect("expect_column_values_to_be_between", column="many", min_value=0),
        expect("expect_column_values_to_not_be_null", column="many"),
        expect("expect_column_values_to_be_between", column="x", min_value=0),
        expect("expect_column_distinct_values_to_be_in_set", column="many", value_set=["a"]),
    )
    verdicts = [(judgement.column, judgement.verdict) for judgement in report.judgements]
    assert verdicts[4] == ("x", ExpectationVerdict.PASSED)
    assert report.unreadable == []
    assert not any("the table could not be read" in judgement.problem for judgement in report.judgements)


LARGEST = 2**63 - 1
HUGE = {"a.parquet": pa.table({"id": pa.array([LARGEST, LARGEST - 1, None]), "small": pa.array([1, 2, None])})}


def test_bounds_of_huge_whole_numbers_are_exact(run: Run) -> None:
    report = run(
        HUGE,
        expect("expect_column_values_to_be_between", column="id", max_value=LARGEST - 1),
        expect("expect_column_values_to_be_between", column="id", min_value=LARGEST - 1, max_value=LARGEST),
        expect("expect_column_max_to_be_between", column="id", min_value=LARGEST, max_value=LARGEST),
        expect("expect_column_max_to_be_between", column="id", max_value=LARGEST - 1),
        expect("expect_column_values_to_be_unique", column="id"),
        expect("expect_column_values_to_be_in_set", column="id", value_set=[LARGEST]),
        expect("expect_column_values_to_be_between", column="small", min_value=2),
    )
    refused = [judgement.refused for judgement in report.judgements]
    assert refused == [1, 0, None, None, 0, 1, 1]
    assert [judgement.verdict.value for judgement in report.judgements[2:4]] == ["passed", "failed"]
    assert {judgement.recorded.observed for judgement in report.judgements[2:4]} == {"9223372036854775807"}


def test_extremes_of_decimals_compare_as_the_suite_writes_them(run: Run) -> None:
    prices = pa.array([Decimal("0.10"), Decimal("123456789012345678.00")], pa.decimal128(30, 2))
    report = run(
        {"a.parquet": pa.table({"price": prices})},
        expect("expect_column_min_to_be_between", column="price", min_value=0.1, max_value=0.1),
        expect("expect_column_max_to_be_between", column="price", max_value=123456789012345677),
        expect("expect_column_max_to_be_between", column="price", min_value=123456789012345678),
    )
    assert [judgement.verdict.value for judgement in report.judgements] == ["passed", "failed", "passed"]


def test_day_and_time_bound_one_column(run: Run) -> None:
    times = [datetime(2026, 3, 1), datetime(2026, 3, 1, 12), datetime(2026, 3, 1, 12, 1)]  # noqa: DTZ001
    between = {"column": "at", "min_value": "2026-03-01", "max_value": "2026-03-01T12:00:00"}
    report = run(
        {"a.parquet": pd.DataFrame({"at": times})},
        expect("expect_column_values_to_be_between", **between),
        expect("expect_column_max_to_be_between", **between),
    )
    values, largest = report.judgements
    assert (values.refused, largest.verdict) == (1, ExpectationVerdict.FAILED)


def test_file_with_corrupt_pages_is_named_and_the_rest_judged(run: Run, tmp_path: Path) -> None:
    good = pd.DataFrame({"x": range(20_000)})
    write(tmp_path / "good.parquet", good)
    corrupt = bytearray((tmp_path / "good.parquet").read_bytes())
    corrupt[200:20_000] = b"\xff" * 19_800
    report = run(
        {"a.parquet": good, "b.parquet": bytes(corrupt)},
        expect("expect_column_sum_to_be_between", column="x", max_value=0),
    )
    assert [file for file, _ in report.unreadable] == ["b.parquet"]
    assert "199990000" in only(report).problem


def test_a_pattern_that_tries_every_way_is_judged_at_once(run: Run) -> None:
    """Both match patterns in linear time: DuckDB by RE2, pandas by Arrow's, or one of them would not end here."""
    query = "SELECT * FROM {batch} WHERE NOT regexp_matches(tail, '(a+)+b')"
    report = run(
        {"a.parquet": pd.DataFrame({"tail": ["a" * 60] * 3})},
        expect("expect_column_values_to_match_regex", column="tail", regex="(a+)+b"),
        expect("unexpected_rows_expectation", unexpected_rows_query=query),
    )
    assert ExpectationVerdict.FAILED in {judgement.verdict for judgement in report.judgements}
