"""What is kept of single files makes the same verdicts as reading all files again, and spares reading them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model.measures import NO_VALUES, FileValues
from prefect_stagegate.validations.engines import by_file
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport
from prefect_stagegate.workspace import Workspace


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


SUITE = [
    expect("expect_table_row_count_to_be_between", min_value=3, max_value=20),
    expect("expect_column_values_to_not_be_null", column="number", mostly=0.7),
    expect("expect_column_values_to_be_between", column="number", min_value=-5, max_value=5, mostly=0.8),
    expect("expect_column_values_to_be_in_set", column="word", value_set=["a", "b"], mostly=0.6),
    expect("expect_column_value_lengths_to_be_between", column="word", max_value=2),
    expect("expect_column_mean_to_be_between", column="number", min_value=-1, max_value=1),
    expect("expect_column_stdev_to_be_between", column="number", min_value=1, max_value=4),
    expect("expect_column_sum_to_be_between", column="number", min_value=-10, max_value=10),
    expect("expect_column_min_to_be_between", column="number", min_value=-6),
    expect("expect_column_max_to_be_between", column="number", max_value=6),
    expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="number", column_B="other", or_equal=True),
    expect("expect_column_values_to_be_unique", column="number"),
    expect("expect_column_median_to_be_between", column="number", min_value=-2, max_value=2),
    expect("expect_column_distinct_values_to_be_in_set", column="word", value_set=["a", "b", "c"]),
    expect(
        "expect_column_values_to_be_between",
        column="other",
        min_value=0,
        row_condition='col("word") == "a"',
        condition_parser="great_expectations",
    ),
]
"""Expectations that merge, and some that don't."""
FIGURES = [
    expect(f"expect_column_{figure}_to_be_between", column="number", min_value=0, max_value=8)
    for figure in ("min", "max", "sum", "mean", "stdev")
]
NAN, INF = float("nan"), float("inf")
number = st.one_of(st.none(), st.floats(-8, 8, width=32))
row = st.tuples(number, st.sampled_from(["a", "b", "c", None]), st.integers(-3, 3))
contents = st.lists(row, max_size=6)
delivery = st.lists(st.tuples(st.integers(0, 6), contents), min_size=1, max_size=5, unique_by=lambda item: item[0])


def judge(
    folder: Path, files: Mapping[str, bytes], known: FileValues, suite: list[dict[str, Any]], *, is_merged: bool = True
) -> TableReport:
    view = folder / "view"
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    for name, content in files.items():
        view.mkdir(exist_ok=True)
        (view / name).write_bytes(content)
    # Without digests, DuckDB aggregates all files itself.
    digests = {name: f"blake3:{hash(content)}" for name, content in files.items() if is_merged}
    columns = ["number", "word", "other"]
    job = TableJob("t", "duckdb", {"expectations": suite}, str(view), sorted(files), columns, digests, known)
    (report,) = judge_tables([job], scratch, lambda _: None)
    return report


def parquet(rows: list[tuple[float | None, str | None, int]]) -> bytes:
    frame = pd.DataFrame(rows, columns=["number", "word", "other"])
    return frame.astype({"number": "float64", "word": "str", "other": "int64"}).to_parquet(index=False)


def verdicts(report: TableReport) -> list[tuple[str, str, str]]:
    """All but the examples, which any refused row may be."""
    return [
        (judgement.expectation, judgement.verdict, judgement.problem.partition(", for example")[0])
        for judgement in report.judgements
    ]


# Each example takes seconds, so that shrinking one would take minutes.
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(deliveries=st.lists(delivery, min_size=2, max_size=3))
def test_merged_counts_judge_as_a_fresh_reading(
    deliveries: list[list[tuple[int, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = NO_VALUES
    for files in deliveries:
        contents = {f"{name}.parquet": parquet(rows) for name, rows in files}
        fresh = judge(tmp_path_factory.mktemp("fresh"), contents, NO_VALUES, SUITE, is_merged=False)
        merged = judge(tmp_path_factory.mktemp("merged"), contents, known, SUITE)
        assert verdicts(merged) == verdicts(fresh)
        known = merged.values


@pytest.mark.parametrize("files", [[[NAN, 9.0], [1.0, 2.0]], [[1.0], [INF, NAN]], [[INF, 1.0], [-INF, 2.0]]])
def test_nan_of_one_file_counts_as_in_one_large_file(tmp_path: Path, files: list[list[float]]) -> None:
    contents = [number_file(values) for values in files]
    apart = judge(tmp_path / "apart", dict(zip(("a.parquet", "b.parquet"), contents, strict=True)), NO_VALUES, FIGURES)
    whole = {"a.parquet": number_file([*files[0], *files[1]])}
    together = judge(tmp_path / "together", whole, NO_VALUES, FIGURES)
    assert verdicts(apart) == verdicts(together)
    assert {judgement.verdict for judgement in apart.judgements} <= {"passed", "failed"}


def number_file(values: list[float]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"number": values}), buffer)
    return buffer.getvalue()


def months(*numbers: int) -> dict[str, bytes]:
    return {f"{number}.parquet": parquet([(number, "a", 0), (1.5, "b", 1)]) for number in numbers}


def test_only_a_new_file_is_read(tmp_path: Path) -> None:
    first = judge(tmp_path / "1", months(1, 2, 3), NO_VALUES, SUITE[:10])
    second = judge(tmp_path / "2", months(2, 3, 4), first.values, SUITE[:10])
    assert (first.read, second.read) == (3, 1)


def test_known_files_pages_are_not_read(tmp_path: Path) -> None:
    """The pages of the known files are spoiled, so reading them would fail."""
    first = judge(tmp_path / "1", months(1, 2), NO_VALUES, SUITE[:10])
    spoiled = {name: content[:4] + bytes(200) + content[204:] for name, content in months(1, 2).items()}
    digests = {name: f"blake3:{hash(content)}" for name, content in months(1, 2, 3).items()}
    view, scratch = tmp_path / "2/view", tmp_path / "2/scratch"
    view.mkdir(parents=True)
    scratch.mkdir()
    for name, content in (months(3) | spoiled).items():
        (view / name).write_bytes(content)
    job = TableJob("t", "duckdb", {"expectations": SUITE[:10]}, str(view), sorted(digests), (), digests, first.values)
    (second,) = judge_tables([job], scratch, lambda _: None)
    assert (second.read, second.unreadable) == (1, [])
    whole = judge(tmp_path / "3", months(1, 2, 3), NO_VALUES, SUITE[:10])
    assert [judgement.verdict for judgement in second.judgements] == [j.verdict for j in whole.judgements]


def test_a_new_expectation_reads_all_files(tmp_path: Path) -> None:
    first = judge(tmp_path / "1", months(1, 2), NO_VALUES, SUITE[:3])
    second = judge(tmp_path / "2", months(1, 2), first.values, SUITE[:4])
    third = judge(tmp_path / "3", months(1, 2), second.values, SUITE[:4])
    assert (second.read, third.read) == (2, 0)


def test_another_release_reads_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = judge(tmp_path / "1", months(1, 2), NO_VALUES, SUITE[:3])
    monkeypatch.setattr(by_file, "ENGINES", {**by_file.ENGINES, "duckdb": "999.0"})
    second = judge(tmp_path / "2", months(1, 2), first.values, SUITE[:3])
    third = judge(tmp_path / "3", months(1, 2), second.values, SUITE[:3])
    assert (second.read, third.read) == (2, 0)


def test_short_values_are_computed_again(tmp_path: Path) -> None:
    first = judge(tmp_path / "1", months(1, 2), NO_VALUES, SUITE[:6])
    short = {digest: [list(values)[:-1] for values in row if values] for digest, row in first.values.files.items()}
    second = judge(tmp_path / "2", months(1, 2), replace(first.values, files=short), SUITE[:6])
    assert second.read == 2
    assert verdicts(second) == verdicts(first)


def test_sums_beyond_64_bits_are_not_kept(tmp_path: Path) -> None:
    content = pd.DataFrame({"number": [2**62] * 3, "word": ["a"] * 3, "other": [1] * 3}).to_parquet(index=False)
    sums = [expect("expect_column_sum_to_be_between", column=column, min_value=0) for column in ("number", "other")]
    first = judge(tmp_path / "1", {"1.parquet": content}, NO_VALUES, sums)
    assert [judgement.verdict for judgement in first.judgements] == ["passed"] * 2
    assert str(3 * 2**62) not in str(first.values)
    assert "[3]" in str(first.values)
    assert judge(tmp_path / "2", {"1.parquet": content}, first.values, sums).read == 1


def test_extremes_of_text_are_not_kept(tmp_path: Path) -> None:
    greatest = expect("expect_column_max_to_be_between", column="word", max_value=1)
    report = judge(tmp_path, {"1.parquet": parquet([(1.0, "Ada Lovelace", 0)])}, NO_VALUES, [greatest])
    assert "Ada" not in str(report.values)


def test_next_version_costs_its_new_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged record costs one whole reading, and `reread` is one."""
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    source = tmp_path / "source"
    source.mkdir()
    spec = {
        "stagegate": 1,
        "dataset": "months",
        "sources": [{"url": str(source)}],
        "contract": {"tables": {"t": {"files": "*.parquet", "suite": {"expectations": SUITE[:10]}}}},
        "gates": {"pilot": {"require": ["expectations"]}},
    }
    for delivered, read in ((months(1, 2, 3), 3), (months(4), 1)):
        for name, content in delivered.items():
            (source / name).write_bytes(content)
        stage(workspace, spec)
        assert files_read(workspace) == {"t": read}
    assert files_read(workspace, reread=True) == {"t": 4}
    (record,) = (tmp_path / "catalog").rglob("values/*.json")
    record.write_text(record.read_text()[:-20])
    assert files_read(workspace) == {"t": 4}
    assert "All files of table t of months are read again" in caplog.text


def files_read(workspace: Workspace, *, reread: bool = False) -> Any:
    return measured(workspace, reread=reread)["files_read"]


def measured(workspace: Workspace, *, reread: bool = False) -> Mapping[str, Any]:
    evidence = {item.check: item for item in validate(workspace, "months", reread=reread).evidence}
    return evidence["expectations"].measured
