"""Every engine and query reads a table's CSV by one dialect; a file that needs another is refused with its value."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError as InvalidModel

from prefect_stagegate.model import Entry, Finding, Validation
from prefect_stagegate.spec import ContractSpec, TableSpec
from prefect_stagegate.spec.csv_dialect import AS_USUAL, CsvSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.partition_columns import row_digests
from prefect_stagegate.validations.queries.duck import column_types, queries
from prefect_stagegate.validations.queries.relations import TableFiles

GOOD = "day,distance\n2026-03-01,4.2\n2026-03-02,4.4\n"
SWAPPED = "day,distance\n01/04/2026,4.2\n03/04/2026,4.4\n"
TRIPS = {"day": "date", "distance": "double"}
GERMAN = {"dates": "%d.%m.%Y", "times": "%d.%m.%Y %H:%M", "separator": ";", "decimal": ",", "null": ["", "k.A."]}


def run(folder: Path, files: Mapping[str, str | bytes], **table: Any) -> Validation:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    contract = ContractSpec.model_validate({"tables": {"t": {"files": "*", **table}}})
    entries = [Entry(name, (folder / name).stat().st_size, f"blake3:{name}") for name in files]
    return validate(folder, entries, contract, dataset="trips", digest="sha256:0")


def findings(validation: Validation, check: str = "schema") -> list[Finding]:
    (evidence,) = (evidence for evidence in validation.evidence if evidence.check == check)
    return list(evidence.findings)


def problems(validation: Validation, check: str = "schema") -> list[str]:
    return [f"{finding.subject}: {finding.problem}" for finding in findings(validation, check)]


def test_swapped_dates_are_refused_with_value_and_line(tmp_path: Path) -> None:
    files = {f"2026-0{month}.csv": GOOD for month in (1, 2, 3)} | {"2026-04.csv": SWAPPED}
    expected = '2026-04.csv: column day: "01/04/2026" at line 2 is no date %Y-%m-%d (and 1 more)'
    assert problems(run(tmp_path, files, columns=TRIPS)) == [expected]
    assert problems(run(tmp_path, files)) == [expected]


def test_date_of_another_format_in_one_file_is_refused(tmp_path: Path) -> None:
    mixed = GOOD + "03/04/2026,1\n"
    (problem,) = problems(run(tmp_path, {"a.csv": mixed}, columns=TRIPS))
    assert problem == 'a.csv: column day: "03/04/2026" at line 4 is no date %Y-%m-%d'
    (problem,) = problems(run(tmp_path, {"a.csv": mixed}, columns=TRIPS, csv={"dates": "%d/%m/%Y"}))
    assert problem == 'a.csv: column day: "2026-03-01" at line 2 is no date %d/%m/%Y (and 1 more)'


def test_date_of_another_format_in_json_is_refused(tmp_path: Path) -> None:
    lines = '{"day": "2026-03-01"}\n\n{"day": "04-01-2026"}\n'
    (problem,) = problems(run(tmp_path, {"a.jsonl": lines}, columns={"day": "date"}))
    assert problem == 'a.jsonl: column day: "04-01-2026" at line 3 is no date %Y-%m-%d'


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("2026-04-01 10:11:12", "TIMESTAMP"),
        ("2026-04-01T10:11:12.5", "TIMESTAMP"),
        ("2026-04-01T10:11:12Z", "TIMESTAMP WITH TIME ZONE"),
        ("04-01-2026 10:11:12", "VARCHAR"),
        ("2026-02-30 10:11:12", "VARCHAR"),
    ],
)
def test_times_in_json_are_those_of_iso_8601(tmp_path: Path, written: str, kind: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"at": "{written}"}}\n{{"at": null}}\n')
    with queries("t", tmp_path) as database:
        assert column_types(database, TableFiles(tmp_path, ["a.jsonl"], AS_USUAL)) == {"at": kind}
    problem = problems(run(tmp_path, {"a.jsonl": f'{{"at": "{written}"}}\n'}, columns={"at": "timestamp"}))
    assert (problem == []) is (kind != "VARCHAR")


@pytest.mark.parametrize("empty", ["day,distance\n", "day,distance\n2026-03-01,\n", "day,distance\nNA,NA\n"])
def test_column_without_any_value_is_of_no_type(tmp_path: Path, empty: str) -> None:
    for columns in (TRIPS, {}):
        assert problems(run(tmp_path, {"a.csv": GOOD, "b.csv": empty}, columns=columns)) == []
    assert problems(run(tmp_path, {"b.csv": empty}, columns=TRIPS)) == []


def test_json_column_without_any_value_is_of_no_type(tmp_path: Path) -> None:
    files = {"a.jsonl": '{"x": 1.5}\n', "b.jsonl": '{"x": null}\n'}
    assert problems(run(tmp_path, files, columns={"x": "double"})) == []
    assert problems(run(tmp_path, files)) == []


def test_bad_cells_are_named_with_line_value_and_count(tmp_path: Path) -> None:
    cells = GOOD + '2026-03-03,n/a\n2026-03-04,"1,234"\nTOTAL,3\n'
    found = findings(run(tmp_path, {"a.csv": cells}, columns=TRIPS))
    assert [finding.problem for finding in found] == [
        'column day: "TOTAL" at line 6 is no date %Y-%m-%d',
        'column distance: "n/a" at line 4 is no double (and 1 more)',
    ]
    assert "`csv:`" in found[0].fix


def test_line_is_that_of_the_file_behind_quoted_ones(tmp_path: Path) -> None:
    text = 'note,n\n"two\nlines",1\n\n"three\r\nmore\nlines",2\nx,many\n'
    for name, data in {"a.csv": text.encode(), "b.csv.gz": gzip.compress(text.encode())}.items():
        (problem,) = problems(run(tmp_path, {name: data}, columns={"n": "int", "note": "string"}))
        assert problem == f'{name}: column n: "many" at line 8 is no int'


def test_wrong_separator_is_named_with_the_setting(tmp_path: Path) -> None:
    (found,) = findings(run(tmp_path, {"a.csv": GOOD.replace(",", ";")}, columns=TRIPS), "coverage")
    assert found.problem == "its columns are separated by ;, not by a comma"
    assert 'csv: {separator: ";"}' in found.fix


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("day, distance", 'column distance (double) is missing; " distance" is new: renamed?'),
        ("day,distance,distance", "column distance stands 2 times in it"),
        ("day,distance,Distance", 'column "Distance" beside distance'),
        ("day,distance,distance ", 'column "distance " beside distance'),
    ],
)
def test_header_that_readers_take_in_two_ways_is_refused(tmp_path: Path, header: str, told: str) -> None:
    row = ",".join(["2026-03-01", "1", "2"][: header.count(",") + 1])
    assert told in problems(run(tmp_path, {"a.csv": f"{header}\n{row}\n"}, columns=TRIPS))[0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_name_beside_one_of_the_suite_is_refused(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"a": [1], "A": [2]})
    pa.parquet.write_table(table, tmp_path / "b.parquet")
    data = (tmp_path / "b.parquet").read_bytes() if suffix == "parquet" else b"a,A\n1,2\n"
    (tmp_path / "b.parquet").unlink()
    suite = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}]}
    validation = run(tmp_path, {f"b.{suffix}": data}, suite=suite)
    assert problems(validation)[0].startswith(f'b.{suffix}: column "A" beside a')
    assert not validation.passed


def test_mixed_line_ends_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    text = "day,distance\r\n2026-03-01,1\r\n2026-03-02,2\n"
    validation = run(tmp_path, {"a.csv": text}, columns=TRIPS)
    assert problems(validation) == []
    assert validation.tables[0].rows == len(pd.read_csv(tmp_path / "a.csv"))


@pytest.mark.parametrize("engine", ["duckdb", "pandas", pytest.param("spark", marks=pytest.mark.system)])
def test_every_engine_reads_the_declared_dialect(tmp_path: Path, engine: str) -> None:
    files = {
        "a.csv": "day;at;d;code;none\r\n"
        "1.4.2026;01.04.2026 09:30;1,5;007;\r\n"
        "03.04.2026;03.04.2026 10:00;-2,25;k.A.;\n",
        "b.csv": "day;code\n05.04.2026;042\n",
    }
    columns = {"day": "date", "code": "string"}
    kinds = ("max_to_be_between", "min_to_be_between")
    bounds = {"day": ("2026-04-05", "2026-04-01"), "at": ("2026-04-03T10:00:00", "2026-04-01T09:30:00")}
    suite = [
        {"type": f"expect_column_{kind}", "kwargs": {"column": name, "min_value": bound, "max_value": bound}}
        for name, both in {**bounds, "d": (1.5, -2.25)}.items()
        for kind, bound in zip(kinds, both, strict=True)
    ]
    suite.append(
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "code", "value_set": ["007", "042"]}}
    )
    suite.append({"type": "expect_column_values_to_be_null", "kwargs": {"column": "none"}})
    validation = run(tmp_path, files, csv=GERMAN, columns=columns, suite={"expectations": suite}, engine=engine)
    assert {
        item.expectation: item.verdict for item in validation.tables[0].expectations if item.verdict != "passed"
    } == {}


def test_file_of_a_declared_dialect_is_not_called_unreadable(tmp_path: Path) -> None:
    suite = {
        "expectations": [{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "ort", "min_value": 0}}]
    }
    csv = {"separator": ";", "encoding": "latin-1"}
    validation = run(tmp_path, {"a.csv": "ort;n\nKöln;1\n".encode("latin-1")}, csv=csv, suite=suite)
    assert findings(validation, "coverage") == []
    assert validation.tables[0].expectations[0].verdict == "errored"


def test_na_is_a_value_where_the_spec_says_so(tmp_path: Path) -> None:
    suite = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "country"}}]}
    for csv, passed in (({}, False), ({"null": [""]}, True)):
        validation = run(tmp_path, {"a.csv": "country\nDE\nNA\n"}, csv=csv, suite=suite)
        assert (validation.tables[0].expectations[0].verdict == "passed") is passed


@pytest.mark.parametrize(
    ("encoding", "engine"),
    [
        ("latin-1", "duckdb"),
        ("cp1252", "duckdb"),
        ("iso-8859-15", "duckdb"),
        pytest.param("latin-1", "spark", marks=pytest.mark.system),
    ],
)
def test_declared_encoding_is_read(tmp_path: Path, encoding: str, engine: str) -> None:
    suite = {
        "expectations": [
            {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "ort", "value_set": ["Köln"]}}
        ]
    }
    table = {"csv": {"encoding": encoding}, "suite": suite, "engine": engine}
    validation = run(tmp_path, {"a.csv": "ort\nKöln\n".encode(encoding)}, **table)
    assert validation.tables[0].expectations[0].verdict == "passed"
    undeclared = run(tmp_path, {"a.csv": "ort\nKöln\n".encode(encoding)})
    assert "is no UTF-8" in problems(undeclared, "coverage")[0]


@pytest.mark.parametrize(
    "csv",
    [
        {"encoding": "cp437"},
        {"dates": "%d/%m"},
        {"dates": "%d/%q/%Y"},
        {"times": "%H:%M"},
        {"separator": "ab"},
        {"header": False},
    ],
)
def test_dialect_that_says_nothing_clear_is_refused(csv: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel):
        CsvSpec.model_validate(csv)


def test_one_file_is_not_read_in_two_dialects(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    tables = {"t": {"files": "*"}, "u": {"files": "a*", "csv": {"decimal": ","}}}
    contract = ContractSpec.model_validate({"tables": tables})
    entries = [Entry("a.csv", len(GOOD), "blake3:a")]
    validation = validate(tmp_path, entries, contract, dataset="trips", digest="sha256:0")
    assert problems(validation, "coverage") == ["a.csv: two tables read it with different `csv:`"]


def test_values_of_personal_columns_are_not_told(tmp_path: Path) -> None:
    rows = "born,n\nada@example.org,ben@example.org\n"
    told = problems(run(tmp_path, {"a.csv": rows}, columns={"born": "date", "n": "int"}, pii=["born"]))
    assert [problem.partition(": column ")[2].partition(" at ")[0] for problem in told] == [
        "born: (masked)",
        "n: pattern aaa@aaaaaaa.aaa",
    ]


def test_figures_of_another_reading_are_not_used() -> None:
    files = {"a.csv": "blake3:1", "b.jsonl": "blake3:2", "c.parquet": "blake3:3"}
    german = TableSpec.model_validate({"files": "*", "csv": GERMAN}).reading
    usual, other = row_digests(files, AS_USUAL), row_digests(files, german)
    assert usual["c.parquet"] == other["c.parquet"] == "blake3:3"
    assert usual["a.csv"] not in ("blake3:1", other["a.csv"])


def test_table_without_csv_keeps_its_digest() -> None:
    table = {"files": "*.csv"}
    written: dict[str, Any]
    for written in ({}, {"csv": {}}, {"csv": {"dates": "%Y-%m-%d"}}):
        contract = ContractSpec.model_validate({"tables": {"t": {**table, **written}}})
        assert contract.model_dump(mode="json", exclude_defaults=True) == {"tables": {"t": table}}
