"""Parameters of suites: what they are replaced by, and what is refused at which line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SpecError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.spec.parameters import SuiteParameters, fill, names, parameter_problems
from prefect_stagegate.validations.suite_parameters import SuiteFacts, fill_suite, misused, parameters_of

STAGED = "2026-01-31T03:00:00.000000Z"
PARAMETERS = parameters_of("flights", {"flights": 90, "planes": 7}, SuiteFacts(STAGED, {"flights": 100}))


def test_parameters_take_values_at_any_depth() -> None:
    arguments = {
        "column": "time",
        "max_value": "${as_of}",
        "ranges": [{"low": "${previous.rows * 0.5}", "high": "${ previous.rows * 1.25 }"}, "${rows.planes}"],
        "regex": "^a${2}$",
        "other": "$${as_of}",
    }
    assert fill(arguments, PARAMETERS) == {
        "column": "time",
        "max_value": STAGED,
        "ranges": [{"low": 50, "high": 125}, 7],
        "regex": "^a${2}$",
        "other": "${as_of}",
    }


def test_values_in_a_query_are_literals() -> None:
    hostile = SuiteParameters({"as_of": "x' OR '1'='1", "rows.planes": 7}, {})
    query = "SELECT * FROM {batch} WHERE t > ${as_of} AND n < ${rows.planes * 2} AND s <> '$${x}'"
    assert fill({"unexpected_rows_query": query}, hostile)["unexpected_rows_query"] == (
        "SELECT * FROM {batch} WHERE t > 'x'' OR ''1''=''1' AND n < 14 AND s <> '${x}'"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"value": "${previous.row}"}, "there is no parameter ${previous.row}: did you mean 'previous.rows'?"),
        ({"value": "${rows.plans}"}, "there is no parameter ${rows.plans}: did you mean 'rows.planes'?"),
        ({"value": "${as_of * 2}"}, "as_of is a time, and only numbers are multiplied"),
        ({"value": "${previous.rows * 0}"}, "the factor must be a number above 0"),
        ({"value": "${previous.rows * inf}"}, "the factor must be a number above 0"),
        ({"value": "${previous.rows * x}"}, "the factor must be a number above 0"),
        ({"value": "at ${as_of}"}, "${as_of} must be the whole value, or stand in an SQL query"),
        ({"unexpected_rows_query": "SELECT ${user}"}, "there is no parameter ${user}"),
    ],
)
def test_wrong_use_of_a_parameter_is_refused(arguments: dict[str, Any], problem: str) -> None:
    ((argument, told),) = parameter_problems(arguments, names(["planes"]))
    assert argument == next(iter(arguments))
    assert problem in told


def test_expectation_without_a_value_is_named_and_not_judged() -> None:
    suite = {
        "expectations": [
            {"type": "grows", "kwargs": {"min_value": "${previous.rows}"}, "severity": "warning"},
            {"type": "plain", "kwargs": {"column": "x"}},
            {"type": "before", "kwargs": {"column": "x", "max_value": "${as_of}"}},
        ]
    }
    filled = fill_suite(suite, parameters_of("t", {"t": 1}, SuiteFacts(STAGED, {}, "pilot names no other version")))
    assert [item["type"] for item in filled.suite["expectations"]] == ["plain", "before"]
    assert filled.used == {"as_of": STAGED}
    (judgement,) = filled.not_applicable
    assert (judgement.expectation, judgement.verdict, judgement.severity) == ("grows", "not-applicable", "warning")
    assert judgement.problem == "${previous.rows} has no value: pilot names no other version"


def test_what_is_no_expectation_is_left_to_the_worker() -> None:
    suite = {"expectations": ["text", {"type": "t", "kwargs": ["x"]}, {"kwargs": {}}]}
    assert fill_suite(suite, PARAMETERS).suite == suite
    assert not list(misused("t", suite, ["t"]))


def test_time_has_no_zone_where_the_column_has_none() -> None:
    suite = {"expectations": [{"type": "t", "kwargs": {"column": name, "max_value": "${as_of}"}} for name in "ab"]}
    filled = fill_suite(suite, PARAMETERS, {"a"})
    assert [item["kwargs"]["max_value"] for item in filled.suite["expectations"]] == [STAGED.removesuffix("Z"), STAGED]


# ── in files ────────────────────────────────────────────────────────────────────────────────────────────────────

SPEC = """\
stagegate: 1
dataset: d
sources: [{url: data/}]
contract:
  tables:
    flights:
      files: "*.parquet"
      suite: [suites/common.yaml, suites/flights.yaml, {expectations: [{type: expect_column_to_exist}]}]
"""
ROWS = """\
expectations:
- type: expect_table_row_count_to_be_between
  kwargs: {min_value: "${previous.rows * 0.9}"}
- type: unexpected_rows_expectation
  kwargs:
    unexpected_rows_query: SELECT * FROM {batch} WHERE x > ${previous.rows * 2} OR t > ${as_of}
"""


def spec_of(folder: Path, **suites: str) -> Path:
    (folder / "suites").mkdir()
    for name, text in suites.items():
        (folder / f"suites/{name}.yaml").write_text(text)
    (folder / "spec.yaml").write_text(SPEC)
    return folder / "spec.yaml"


def problems_of(file: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_spec(str(file))
    return [problem.removeprefix(f"{file.parent}/") for problem in caught.value.problems]


def test_problems_of_all_parts_are_told_at_their_lines(tmp_path: Path) -> None:
    common = ROWS.replace("previous.rows * 0.9", "previous.row").replace("${as_of}", "${as_off}")
    assert problems_of(spec_of(tmp_path, common=common)) == [
        f"spec.yaml:8: contract.tables.flights.suite[1]: {tmp_path}/suites/flights.yaml does not exist",
        "spec.yaml:8: contract.tables.flights.suite[2].expectations[0].kwargs: "
        "expect_column_to_exist lacks the argument 'column'",
        "suites/common.yaml:3: expectations[0].kwargs.min_value: "
        "there is no parameter ${previous.row}: did you mean 'previous.rows'?",
        "suites/common.yaml:6: expectations[1].kwargs.unexpected_rows_query: "
        "there is no parameter ${as_off}: did you mean 'as_of'?",
    ]


def test_parts_of_a_suite_are_joined_in_their_order(tmp_path: Path) -> None:
    exists = "expectations: [{type: expect_column_to_exist, kwargs: {column: x}}]\nmeta: {of: flights}"
    file = spec_of(tmp_path, common=ROWS, flights=exists)
    file.write_text(SPEC.replace("expect_column_to_exist", "expect_column_to_exist, kwargs: {column: y}"))
    suite = read_spec(str(file)).contract.tables["flights"].suite
    assert suite is not None
    assert (suite["name"], suite["meta"]) == ("flights", {"of": "flights"})
    assert [item["kwargs"].get("column") for item in suite["expectations"]] == [None, None, "x", "y"]


def test_query_with_a_parameter_must_still_be_a_select(tmp_path: Path) -> None:
    file = spec_of(tmp_path, common=ROWS.replace("SELECT * FROM", "DELETE FROM"), flights=ROWS)
    (problem, *_) = problems_of(file)[1:]
    assert "suites/common.yaml:6" in problem
    assert "this is a DELETE statement" in problem


def test_stored_spec_with_parameters_reads_as_it_was(tmp_path: Path) -> None:
    file = spec_of(tmp_path, common=ROWS, flights=ROWS)
    file.write_text(SPEC.replace(", {expectations: [{type: expect_column_to_exist}]}", ""))
    canonical = read_spec(str(file)).canonical()
    assert "${previous.rows * 0.9}" in str(canonical)
    assert read_spec(canonical).canonical() == canonical
