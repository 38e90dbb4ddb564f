from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest

from prefect_stagegate.model import Outcome
from prefect_stagegate.validations import table_schema as schema
from prefect_stagegate.validations.columntypes import accepts
from prefect_stagegate.validations.table_schema import TableFile

FLIGHTS = {"year": pa.int64(), "dep_delay": pa.float64(), "arr_delay": pa.float64()}
DECLARED = {"year": "int", "dep_delay": "double"}


def file(path: str, columns: Mapping[str, pa.DataType], *, text: bool = False) -> TableFile:
    return TableFile(path, pa.schema(list(columns.items())), 1, text)


def renamed(old: str, new: str) -> dict[str, pa.DataType]:
    return {new if name == old else name: kind for name, kind in FLIGHTS.items()}


def problems(*files: TableFile, declared: Mapping[str, str] = DECLARED) -> dict[str, list[tuple[str, Outcome]]]:
    disagreeing = schema.compare("flights", declared, files)
    return {path: [(problem.problem, problem.outcome) for problem in items] for path, items in disagreeing.items()}


def test_files_that_keep_the_contract_have_no_problems() -> None:
    assert problems(file("a", FLIGHTS), file("b", FLIGHTS)) == {}


def test_a_missing_column_fails_its_file_only() -> None:
    by_file = problems(
        file("a", FLIGHTS), file("b", FLIGHTS), file("c", {"dep_delay": pa.float64(), "arr_delay": pa.float64()})
    )
    assert by_file == {"c": [("column year (int) is missing", Outcome.FAIL)]}


def test_a_renamed_column_is_recognised_and_not_called_new_too() -> None:
    by_file = problems(file("a", FLIGHTS), file("b", FLIGHTS), file("c", renamed("dep_delay", "dep_dealy")))
    assert by_file == {"c": [("column dep_delay (double) is missing; dep_dealy is new: renamed?", Outcome.FAIL)]}


WEATHER = {"day": pa.date32(), "temp_max": pa.float64(), "wind": pa.float64()}


@pytest.mark.parametrize("declared", [{}, {"temp_max": "double"}], ids=["undeclared", "declared"])
def test_shortened_name_is_one_finding(declared: Mapping[str, str]) -> None:
    shortened = {"tmax" if name == "temp_max" else name: kind for name, kind in WEATHER.items()}
    files = [*(file(str(year), WEATHER) for year in (2012, 2013)), file("2014", shortened)]
    by_file = schema.compare("weather", declared, files)
    assert list(by_file) == ["2014"]
    (problem,) = by_file["2014"]
    assert problem.problem.endswith("tmax is new: renamed?")
    assert (problem.fix, problem.outcome) == ("Rename tmax back to temp_max at its source.", Outcome.FAIL)


def test_name_that_no_file_has_is_told_of_the_contract() -> None:
    files = [file("a", FLIGHTS), file("b", FLIGHTS)]
    found = schema.findings("flights", {"yeer": "int"}, files, schema.compare("flights", {"yeer": "int"}, files))
    assert found[0].problem == "no file has the contract's column yeer (int): did you mean 'year'? (all 2 files)"
    assert found[0].fix.startswith("Correct the name under `columns:`")


def test_column_beside_the_missing_one_elsewhere_is_no_rename() -> None:
    columns = {name: kind for name, kind in FLIGHTS.items() if name != "dep_delay"}
    assert problems(file("a", FLIGHTS), file("b", columns))["b"][0] == (
        "column dep_delay (double) is missing",
        Outcome.FAIL,
    )


def test_a_renaming_is_recognised_in_a_table_of_one_file() -> None:
    by_file = problems(file("a", renamed("dep_delay", "departure_delay")), declared=DECLARED)
    assert "departure_delay is new: renamed?" in by_file["a"][0][0]


def test_a_column_of_another_type_fails() -> None:
    by_file = problems(file("a", {**FLIGHTS, "year": pa.string()}))
    assert by_file == {"a": [("column year is string, the contract says int", Outcome.FAIL)]}


def test_undeclared_columns_that_differ_by_file_are_warnings() -> None:
    odd = {"year": pa.int64(), "dep_delay": pa.float64(), "arr_delay": pa.float32(), "gate": pa.string()}
    by_file = problems(
        file("a", FLIGHTS), file("b", FLIGHTS), file("c", odd), file("d", dict(list(FLIGHTS.items())[:2]))
    )
    assert {outcome for items in by_file.values() for _, outcome in items} == {Outcome.WARN}
    assert [text for text, _ in by_file["c"]] == [
        "has column gate, which most files of flights lack",
        "column arr_delay is float; in most files of flights it is double",
    ]
    assert [text for text, _ in by_file["d"]] == ["lacks column arr_delay, which most files of flights have"]


def test_problem_of_all_files_is_told_once() -> None:
    files = [file(name, {**FLIGHTS, "year": pa.string()}) for name in "abc"]
    findings = schema.findings("flights", DECLARED, files, schema.compare("flights", DECLARED, files))
    assert [(finding.subject, finding.outcome) for finding in findings] == [
        ("table flights", Outcome.FAIL),
        ("table flights", Outcome.WARN),
    ]
    assert findings[0].problem.endswith("(all 3 files)")
    assert "column arr_delay, which the contract doesn't declare" in findings[1].problem


def disagreements(*files: schema.TableFile) -> list[tuple[str, str, Outcome]]:
    disagreeing = schema.compare("t", {}, files)
    return [(path, problem.problem, problem.outcome) for path, items in disagreeing.items() for problem in items]


def test_undeclared_columns_are_to_be_alike_in_all_files() -> None:
    files = [file(name, {"x": pa.int64(), "y": pa.string()}) for name in "abc"]
    odd = file("d", {"x": pa.float64(), "z": pa.string()})
    assert disagreements(*files) == []
    assert disagreements(*files, odd) == [
        ("d", "has column z, which most files of t lack", Outcome.WARN),
        ("d", "lacks column y, which most files of t have", Outcome.FAIL),
        ("d", "column x is double; in most files of t it is int64", Outcome.FAIL),
    ]


def test_two_files_that_disagree_about_a_column_fail() -> None:
    rows = disagreements(file("a", {"x": pa.int64(), "y": pa.string()}), file("b", {"x": pa.int64()}))
    assert [(path, outcome) for path, _, outcome in rows] == [("b", Outcome.FAIL)]


def test_numbers_in_text_have_no_width_to_agree_on() -> None:
    texts = [
        schema.TableFile(name, pa.schema([("x", kind)]), 1, text=True)
        for name, kind in (("a.csv", pa.int64()), ("b.csv", pa.float64()))
    ]
    assert disagreements(*texts) == []


@pytest.mark.parametrize(
    ("name", "kind", "kept"),
    [
        ("int", pa.uint8(), True),
        ("int", pa.float64(), False),
        ("bigint", pa.int64(), True),
        ("bigint", pa.int32(), False),
        ("double", pa.float64(), True),
        ("double", pa.float32(), False),
        ("float", pa.float32(), True),
        ("number", pa.decimal128(9, 2), True),
        ("decimal", pa.decimal128(9, 2), True),
        ("string", pa.large_string(), True),
        ("string", pa.dictionary(pa.int8(), pa.string()), True),
        ("timestamp", pa.timestamp("us", "UTC"), True),
        ("timestamp", pa.date32(), False),
        ("date", pa.date32(), True),
        ("bool", pa.bool_(), True),
        ("list", pa.list_(pa.int8()), True),
    ],
)
def test_type_names_accept_what_they_say(name: str, kind: pa.DataType, kept: bool) -> None:
    assert accepts(name, kind) is kept


@pytest.mark.parametrize(
    ("name", "kind", "kept"),
    [
        ("double", pa.int64(), True),
        ("smallint", pa.int64(), True),
        ("int", pa.float64(), False),
        ("string", pa.int64(), True),
    ],
)
def test_types_inferred_from_text_have_no_width(name: str, kind: pa.DataType, kept: bool) -> None:
    assert accepts(name, kind, text=True) is kept
