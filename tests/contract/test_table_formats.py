"""Every format of a table's files means the same rows, whichever engine or query reads them."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from prefect_stagegate.model import Entry
from prefect_stagegate.spec import ContractSpec, TableSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.files.file_probes import ProbedFiles, probe_files
from prefect_stagegate.validations.queries.duck import MEMORY_MIB, bounded, queries
from prefect_stagegate.validations.table_files import examine
from prefect_stagegate.validations.worker.judge import judge_tables
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, RefusedRows, TableJob, TableReport
from tests.support.parquet_footers import false_statistics
from tests.support.text_tables import table_of

Write = Callable[[pa.Table], bytes]


def _by(write: Callable[[pa.Table, io.BytesIO], object]) -> Write:
    def bytes_of(table: pa.Table) -> bytes:
        buffer = io.BytesIO()
        write(table, buffer)
        return buffer.getvalue()

    return bytes_of


def _json_lines(table: pa.Table) -> bytes:
    lines = pa.Table.to_pandas(table).to_json(orient="records", lines=True)
    return str(lines).encode()


def _stream(table: pa.Table, buffer: io.BytesIO) -> None:
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def _file(table: pa.Table, buffer: io.BytesIO) -> None:
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


FORMATS: dict[str, Write] = {
    ".parquet": _by(pa.parquet.write_table),
    ".csv": _by(pa.csv.write_csv),
    ".jsonl": _json_lines,
    ".ndjson.gz": lambda table: gzip.compress(_json_lines(table)),
    ".json": _json_lines,
    ".arrow": _by(_stream),
    ".feather": _by(lambda table, buffer: pa.feather.write_feather(table, buffer, compression="lz4")),
    ".2.arrow": _by(_file),
}
ENGINES = ("duckdb", "pandas")
JANUARY = pa.table({"distance": [100, -5], "tail": ["N1", None]})
FEBRUARY = pa.table({"distance": [-7, 300], "tail": ["N2", "N1"]})


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


def entries(view: Path, files: list[str]) -> list[Entry]:
    return [Entry(file, (view / file).stat().st_size, f"blake3:{file}") for file in files]


def probed(view: Path, files: list[str], glob: str) -> tuple[ProbedFiles, TableSpec]:
    spec = ContractSpec.model_validate({"tables": {"t": {"files": glob, "columns": {"distance": "int"}}}})
    return probe_files(view, entries(view, files), spec), spec.tables["t"]


def judge(view: Path, scratch: Path, engine: str, files: list[str], *expectations: dict[str, Any]) -> TableReport:
    scratch.mkdir(parents=True)
    job = TableJob("t", engine, {"expectations": list(expectations)}, str(view), files)
    (report,) = judge_tables([job], scratch, lambda _: None)
    return report


def verdicts(report: TableReport) -> list[str]:
    return [str(judgement.verdict) for judgement in report.judgements]


def write(view: Path, contents: dict[str, bytes]) -> list[str]:
    for name, content in contents.items():
        (view / name).parent.mkdir(parents=True, exist_ok=True)
        (view / name).write_bytes(content)
    return list(contents)


@pytest.mark.parametrize("engine", ENGINES)
def test_text_has_the_types_of_all_rows_of_all_files(tmp_path: Path, engine: str) -> None:
    contents = {"a.csv": b"code,day\n007,2013-01-01\n42,2013-01-02\n", "b.csv": b"code,day\nA7,\n"}
    files = write(tmp_path / "v", contents)
    report = judge(
        tmp_path / "v",
        tmp_path / "s",
        engine,
        files,
        expect("expect_column_values_to_be_in_set", column="code", value_set=["007", "42", "A7"]),
        expect("expect_column_values_to_be_between", column="day", min_value="2013-01-01", max_value="2013-12-31"),
        expect("expect_column_values_to_not_be_null", column="day", mostly=0.3),
    )
    assert verdicts(report) == ["passed"] * 3


def test_types_of_a_large_csv_are_inferred_in_bounded_memory(tmp_path: Path) -> None:
    with bounded(tmp_path) as connection:
        ((limit,),) = connection.sql("SELECT current_setting('memory_limit')").fetchall()
        ((scratch,),) = connection.sql("SELECT current_setting('temp_directory')").fetchall()
    assert limit in (f"{MEMORY_MIB:.1f} MiB", f"{MEMORY_MIB / 1024:.1f} GiB")
    assert not Path(scratch).exists()


def test_verdict_does_not_depend_on_the_zone_of_the_node(tmp_path: Path) -> None:
    half_past = datetime(2013, 1, 1, 0, 30, tzinfo=UTC)
    pa.parquet.write_table(pa.table({"moment": [half_past]}), tmp_path / "a.parquet")
    program = f"""
from pathlib import Path
from prefect_stagegate.validations.queries.duck import MEMORY_MIB, bounded, queries
with queries("a table", Path({str(tmp_path)!r})) as database:
    print(database.rows("SELECT hour(moment), CAST(moment AS VARCHAR) FROM '{tmp_path}/a.parquet'"))
"""
    environment = {**os.environ, "TZ": "America/New_York"}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "[(0, '2013-01-01 00:30:00+00')]\n"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", FORMATS)
def test_format_is_judged_by_file(tmp_path: Path, engine: str, suffix: str) -> None:
    files = write(tmp_path / "v", {f"a{suffix}": FORMATS[suffix](JANUARY), f"b{suffix}": FORMATS[suffix](FEBRUARY)})
    report = judge(
        tmp_path / "v",
        tmp_path / "s",
        engine,
        files,
        expect("expect_column_values_to_be_between", column="distance", min_value=-5),
        expect("expect_column_values_to_not_be_null", column="tail"),
        expect("expect_table_columns_to_match_ordered_list", column_list=["distance", "tail"]),
    )
    between, present, columns = report.judgements
    assert between.places == [RefusedRows(f"b{suffix}", 1, "-7")]
    assert present.places == ([] if suffix == ".csv" and not present.places else [RefusedRows(f"a{suffix}", 1)])
    assert columns.verdict is ExpectationVerdict.PASSED


@pytest.mark.parametrize("suffix", FORMATS)
def test_format_keeps_declared_columns(tmp_path: Path, suffix: str) -> None:
    files = write(tmp_path, {f"a{suffix}": FORMATS[suffix](JANUARY)})
    facts, spec = probed(tmp_path, files, "*")
    table = examine("t", spec, facts)
    assert (facts.defects, table.rows, table.problems) == ({}, 2, {})


@pytest.mark.parametrize("suffix", sorted(FORMATS.keys() - {".csv"}))  # a cut CSV is a shorter CSV
def test_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    content = FORMATS[suffix](JANUARY)
    files = write(tmp_path, {f"a{suffix}": content[: len(content) * 2 // 3]})
    facts, _ = probed(tmp_path, files, "*")
    assert list(facts.defects) == files


def test_number_in_json_is_no_string(tmp_path: Path) -> None:
    files = write(tmp_path, {"a.jsonl": b'{"distance": "far", "id": 7}\n'})
    facts, spec = probed(tmp_path, files, "*")
    problems = examine("t", spec.model_copy(update={"columns": {"id": "string"}}), facts).problems
    assert ["the contract says string" in problem.problem for problem in problems["a.jsonl"]][:1] == [True]


def test_arrow_offset_out_of_bounds_is_a_defect(tmp_path: Path) -> None:
    content = FORMATS[".2.arrow"](pa.table({"s": ["abcdefgh"]}))
    hostile = content.replace(b"\x00\x00\x00\x00\x08\x00\x00\x00", b"\x00\x00\x00\x00\x00\x00\x00\x7f")
    assert hostile != content
    facts, _ = probed(tmp_path, write(tmp_path, {"a.arrow": hostile}), "*")
    assert "can't be read as Arrow" in facts.defects["a.arrow"].problem


# ── folders that are partitions ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", FORMATS)
def test_partition_folders_are_typed_columns(tmp_path: Path, engine: str, suffix: str) -> None:
    folders = ("year=2013/day=2013-01-02/city=New%20York", "year=2014/day=2014-01-02/city=__HIVE_DEFAULT_PARTITION__")
    files = write(tmp_path / "v=1", {f"{folder}/x{suffix}": FORMATS[suffix](JANUARY) for folder in folders})
    report = judge(
        tmp_path / "v=1",
        tmp_path / "s",
        engine,
        files,
        expect("expect_column_max_to_be_between", column="year", min_value=2014, max_value=2014),
        expect("expect_column_values_to_be_between", column="year", max_value=2013),
        expect("expect_column_values_to_be_in_set", column="city", value_set=["New York"]),
        expect("expect_column_values_to_not_be_null", column="city"),
        expect("expect_table_columns_to_match_ordered_list", column_list=["distance", "tail", "year", "day", "city"]),
    )
    assert verdicts(report) == ["passed", "failed", "passed", "failed", "passed"]
    assert report.judgements[1].places == [RefusedRows(files[1], 2, "2014")]


def test_rows_of_unknown_paths_are_not_left_out(tmp_path: Path) -> None:
    """DuckDB writes the path of a name with brackets anew, and leaves out a second slash."""
    files = write(tmp_path / "v", {"a[1].parquet": FORMATS[".parquet"](JANUARY)})
    suite = {"expectations": [expect("expect_column_values_to_be_between", column="distance", min_value=0)]}
    (tmp_path / "s").mkdir()
    job = TableJob("t", "duckdb", suite, f"/{tmp_path}/v", files, digests={files[0]: "blake3:a"})
    (report,) = judge_tables([job], tmp_path / "s", lambda _: None)
    assert verdicts(report) == ["errored"]
    contract = ContractSpec.model_validate({"tables": {"t": {"files": "*.parquet", "suite": suite}}})
    view = Path(f"/{tmp_path}/v")
    validation = validate(view, entries(view, files), contract, dataset="things", digest="sha256:0")
    assert [result.verdict for result in validation.tables[0].expectations] == ["failed"]


def test_partition_column_is_declared_by_type(tmp_path: Path) -> None:
    files = write(tmp_path, {f"month={n}/x.parquet": FORMATS[".parquet"](JANUARY) for n in (1, 12)})
    facts, spec = probed(tmp_path, files, "**/*.parquet")
    declared = spec.model_copy(update={"columns": {"month": "int32", "distance": "int"}})
    assert not examine("t", declared, facts).problems
    wrong = examine("t", spec.model_copy(update={"columns": {"month": "date"}}), facts).problems
    assert set(wrong) == set(files)


def test_partition_column_hides_the_files_own(tmp_path: Path) -> None:
    own = FORMATS[".parquet"](pa.table({"Year": [1, 1], "x": [1, 2]}))
    files = write(tmp_path / "v", {"year=2013/x.parquet": own})
    for engine in ENGINES:
        values = expect("expect_column_values_to_be_in_set", column="year", value_set=[2013])
        names = expect("expect_table_columns_to_match_set", column_set=["x", "year"])
        report = judge(tmp_path / "v", tmp_path / engine, engine, files, values, names)
        assert verdicts(report) == ["passed", "passed"], engine


def test_moved_file_gets_no_kept_values_of_its_old_folder(tmp_path: Path) -> None:
    """The two files have the same bytes, so only their folders tell their years apart."""
    content = FORMATS[".parquet"](JANUARY)
    suite = {"expectations": [expect("expect_column_max_to_be_between", column="year", max_value=2014)]}
    known = None
    results = []
    for number, years in enumerate([(2013, 2014), (2014, 2015), (2013, 2015)]):
        view, scratch = tmp_path / f"v{number}", tmp_path / f"s{number}"
        scratch.mkdir()
        files = write(view, {f"year={year}/x.parquet": content for year in years})
        job = TableJob("t", "duckdb", suite, str(view), files, digests=dict.fromkeys(files, "blake3:same"))
        (report,) = judge_tables([job if known is None else replace(job, known=known)], scratch, lambda _: None)
        known = report.values
        results.append((*verdicts(report), report.read))
    assert results == [("passed", 2), ("failed", 1), ("failed", 1)]


@pytest.mark.parametrize("engine", ENGINES)
def test_false_parquet_statistics_hide_no_row(tmp_path: Path, engine: str) -> None:
    files = write(tmp_path / "v", {"a.parquet": false_statistics(FORMATS[".parquet"](JANUARY), -5, 0)})
    report = judge(
        tmp_path / "v",
        tmp_path / "s",
        engine,
        files,
        expect("expect_column_values_to_be_between", column="distance", min_value=0),
        expect("expect_column_min_to_be_between", column="distance", min_value=0),
        expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE distance < 0"),
        expect(
            "expect_column_values_to_not_be_null",
            column="tail",
            row_condition='col("distance") < 0',
            condition_parser="great_expectations",
        ),
    )
    assert verdicts(report) == ["failed"] * 4
    with queries("t", tmp_path / "v") as database:
        rows = database.relation(table_of(tmp_path / "v", files))
        (order,) = database.rows(f"SELECT distance FROM ({rows}) ORDER BY distance LIMIT 1")
        assert order == (-5,)


def test_nan_in_parquet_is_above_all_numbers(tmp_path: Path) -> None:
    """Arrow leaves NaN out of a file's statistics, so a reader that believes them finds none."""
    tables = [pa.table({"x": pa.array(values)}) for values in ([1.0, 2.0], [float("nan"), 3.0])]
    for number, (first, second) in enumerate((tables, tables[::-1])):
        files = write(
            tmp_path / f"v{number}", {"a.parquet": FORMATS[".parquet"](first), "b.parquet": FORMATS[".parquet"](second)}
        )
        suite = [
            expect("expect_column_values_to_be_between", column="x", max_value=10),
            expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE isnan(x)"),
            *(
                expect(f"expect_column_{figure}_to_be_between", column="x", min_value=0, max_value=10)
                for figure in ("max", "sum", "mean", "stdev")
            ),
            expect("expect_column_min_to_be_between", column="x", min_value=1, max_value=1),
        ]
        job = TableJob("t", "duckdb", {"expectations": suite}, str(tmp_path / f"v{number}"), files)
        for digests in ({}, {file: f"blake3:{file}" for file in files}):
            scratch = tmp_path / f"s{number}{len(digests)}"
            scratch.mkdir()
            (report,) = judge_tables([replace(job, digests=digests)], scratch, lambda _: None)
            assert verdicts(report) == ["failed"] * 6 + ["passed"]
