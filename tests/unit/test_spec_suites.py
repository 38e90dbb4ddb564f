"""Suites: read from their files, put into the spec, and refused at their own lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SpecError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.spec import load_spec

SPEC = """\
stagegate: 1
dataset: d
sources: [{url: data/}]
contract:
  tables:
    flights:
      files: "*.parquet"
      suite: suites/flights.yaml
"""


def suite_of(tmp_path: Path, suite: str) -> dict[str, Any] | None:
    return load_spec(write(tmp_path, suite), known_checks={}).contract.tables["flights"].suite


def write(tmp_path: Path, suite: str) -> Path:
    (tmp_path / "suites").mkdir(exist_ok=True)
    (tmp_path / "suites/flights.yaml").write_text(suite)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path / "spec.yaml"


def problems_of(file: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(file, known_checks={})
    return [problem.removeprefix(f"{file.parent}/") for problem in caught.value.problems]


def test_exported_suite_is_kept_without_its_ids(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path,
        """
        name: f
        id: 06406765-3746-4599-9987-895983c39fb2
        notes: null
        meta: {great_expectations_version: 1.24.1}
        expectations:
          - type: expect_column_values_to_be_between
            kwargs: {column: a, min_value: 1.0, max_value: null}
            meta: {}
            notes: agreed
            description: words
            id: a82e5976-47bc-49ff-aff7-f66f3be48bf8
            severity: warning
          - type: expect_table_row_count_to_be_between
        """,
    )

    assert suite == {
        "name": "f",
        "meta": {"great_expectations_version": "1.24.1"},
        "expectations": [
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "a", "min_value": 1.0, "max_value": None},
                "notes": "agreed",
                "description": "words",
                "severity": "warning",
            },
            {"type": "expect_table_row_count_to_be_between", "kwargs": {}},
        ],
    }


def test_a_suite_without_a_name_is_called_as_its_table(tmp_path: Path) -> None:
    assert suite_of(tmp_path, "expectations: []") == {"name": "flights", "expectations": []}


def test_dates_and_words_of_a_suite_stay_text(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path,
        """
        expectations:
          - type: t
            kwargs: {value_set: [NO, on, 12:30, 2013-01-01, 1_000], strict: true, n: 010, x: 1e3}
        """,
    )

    assert suite is not None
    assert suite["expectations"][0]["kwargs"] == {
        "value_set": ["NO", "on", "12:30", "2013-01-01", "1_000"],
        "strict": True,
        "n": 10,
        "x": 1000.0,
    }


def test_a_suite_may_be_written_inline(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("suites/flights.yaml", "{expectations: [{type: t}]}"))

    suite = load_spec(spec, known_checks={}).contract.tables["flights"].suite

    assert suite == {"name": "flights", "expectations": [{"type": "t", "kwargs": {}}]}


def test_an_inline_suite_is_refused_at_the_spec_s_line(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("suites/flights.yaml", "\n        expectations:\n          - kwargs: {}"))

    assert problems_of(spec) == [
        "spec.yaml:10: contract.tables.flights.suite.expectations[0].type: is required but missing"
    ]


@pytest.mark.parametrize(
    ("suite", "problems"),
    [
        ("- a", ["suites/flights.yaml:1: is not a suite: a suite is a mapping with `name` and `expectations`"]),
        ("just text", ["suites/flights.yaml:1: is not a suite: a suite is a mapping with `name` and `expectations`"]),
        ("", ["suites/flights.yaml:1: is empty"]),
        ("name: f", ["suites/flights.yaml:1: expectations: is required but missing"]),
        (
            "name: f\nexpectations: {type: t}",
            ["suites/flights.yaml:2: expectations: must be a list, not a mapping"],
        ),
        (
            "expectations:\n- t\n- kwargs: {}\n- {type: t, severity: crit}\n- {type: t, kwarg: {}}\n- {type: 7}",
            [
                "suites/flights.yaml:2: expectations[0]: must be a mapping of keys to values, not text",
                "suites/flights.yaml:3: expectations[1].type: is required but missing",
                "suites/flights.yaml:4: expectations[2].severity: 'crit' is not known; did you mean 'critical'?",
                "suites/flights.yaml:5: expectations[3].kwarg: unknown key; did you mean 'kwargs'?",
                "suites/flights.yaml:6: expectations[4].type: must be text, not a number; put it in quotes",
            ],
        ),
        (
            "expectations: [{type: t, type: u}]",
            ["suites/flights.yaml:1: expectations[0].type: is given twice; line 1 has it already"],
        ),
        ("expectations: [", ["suites/flights.yaml:1: not valid YAML: "]),
    ],
)
def test_what_is_wrong_with_a_suite_is_told_at_its_own_line(tmp_path: Path, suite: str, problems: list[str]) -> None:
    reported = problems_of(write(tmp_path, suite))

    assert len(reported) == len(problems)
    assert all(problem.startswith(wanted) for problem, wanted in zip(reported, problems, strict=True))


def test_missing_suite_is_told_at_its_line_with_the_nearest_file(tmp_path: Path) -> None:
    file = write(tmp_path, "expectations: []")
    (tmp_path / "suites/flights.yaml").rename(tmp_path / "suites/flight.yaml")

    assert problems_of(file) == [
        f"spec.yaml:8: contract.tables.flights.suite: {tmp_path}/suites/flights.yaml does not exist; "
        "did you mean 'flight.yaml'?"
    ]


@pytest.mark.parametrize(
    ("suite", "what"),
    [("7", "a suite's file"), ("[7]", "a suite's file"), ("[]", "1 to 20 suites"), ("suites", "directory")],
)
def test_a_suite_that_is_no_file_is_told(tmp_path: Path, suite: str, what: str) -> None:
    file = write(tmp_path, "expectations: []")
    file.write_text(SPEC.replace("suites/flights.yaml", suite))

    (problem,) = problems_of(file)
    assert problem.startswith("spec.yaml:8: contract.tables.flights.suite")
    assert what in problem


def test_problems_of_the_spec_come_before_its_suites_problems(tmp_path: Path) -> None:
    file = write(tmp_path, "name: f")
    file.write_text(SPEC + "      engin: pandas\n")

    assert problems_of(file) == [
        "spec.yaml:9: contract.tables.flights.engin: unknown key; did you mean 'engine'?",
        "suites/flights.yaml:1: expectations: is required but missing",
    ]


# ── what a suite may name and say: told at its line, without Great Expectations ─────────────────────────────────

MISTAKEN = """\
expectations:
- type: expect_colum_to_exist
  kwargs: {column: x}
- type: expect_column_values_to_be_between
  kwargs:
    column: x
    min_valu: 0
- type: unexpected_rows_expectation
  kwargs:
    unexpected_rows_query: COPY (SELECT 1) TO 'x.csv'
- type: os.system
- type: expect_column_values_to_be_unique
  kwargs:
    column: x
    condition_parser: pandas
    row_condition: "@pd.io.common.os.mkdir('x') == 0"
- type: expect_column_values_to_be_in_set
  kwargs: {column: x}
"""


def test_what_a_suite_may_not_say_is_told_at_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, MISTAKEN)
    with pytest.raises(SpecError) as caught:
        read_spec(str(file))
    problems = [problem.removeprefix(f"{tmp_path}/suites/flights.yaml:") for problem in caught.value.problems]
    assert problems == [
        "2: expectations[0].type: there is no expectation 'expect_colum_to_exist': "
        "did you mean 'expect_column_to_exist'?",
        "7: expectations[1].kwargs.min_valu: expect_column_values_to_be_between has no such argument: "
        "did you mean 'min_value'?",
        "10: expectations[2].kwargs.unexpected_rows_query: only one SELECT may stand here; this is a COPY statement",
        "11: expectations[3].type: there is no expectation of this type: " + problems[3].partition("this type: ")[2],
        "16: expectations[4].kwargs.row_condition: a condition may only compare columns with values; "
        "this is no comparison: @pd.io.common.os.mkdir('x') == 0",
        "18: expectations[5].kwargs: expect_column_values_to_be_in_set lacks the argument 'value_set'",
    ]


def test_a_type_that_no_column_has_is_told_at_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "expectations: []")
    file.write_text(SPEC + "      columns: {year: itn}\n")
    with pytest.raises(SpecError, match=r"spec\.yaml:9: contract.*year: unknown type 'itn': did you mean 'int'"):
        read_spec(str(file))


def test_a_stored_spec_stays_readable_whatever_its_suite_says(tmp_path: Path) -> None:
    """Who judges by it looks again: `validations.suites`."""
    canonical = load_spec(write(tmp_path, MISTAKEN), known_checks={}).canonical()
    assert read_spec(canonical).canonical() == canonical
