from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from prefect_stagegate.errors import SpecError
from prefect_stagegate.model import Evidence, Finding, Outcome
from prefect_stagegate.spec import ContractSpec, TableSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.evidence import MOST_FINDINGS, gather
from prefect_stagegate.validations.expectations import expectation_findings
from prefect_stagegate.validations.files.facts import Facts
from prefect_stagegate.validations.files.files import ProbedFiles
from prefect_stagegate.validations.observations import Observations, worst
from prefect_stagegate.validations.records import ExpectationVerdict, Judgement, RefusedRows, TableReport
from prefect_stagegate.validations.tables import ContractTable, examine

SCHEMA = pa.schema([("x", pa.int64())])
SUITE = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x"}}]}


def table(files: int = 3, rows: int = 10) -> tuple[ContractTable, ProbedFiles]:
    spec = TableSpec.model_validate({"files": "*.parquet", "suite": SUITE, "columns": {"x": "int"}})
    names = [f"{number:02}.parquet" for number in range(files)]
    probed = ProbedFiles(files, files, {spec.files: names}, {name: Facts(SCHEMA, rows) for name in names}, {})
    return examine("t", spec, probed), probed


def judgement(severity: str, verdict: ExpectationVerdict, places: Sequence[RefusedRows] = ()) -> Judgement:
    return Judgement("expect_it", "x", severity, verdict, "3 of 30 rows break it", "Mend it.", places)


def evidence(*judgements: Judgement, defects: int = 0) -> dict[str, Evidence]:
    examined, probed = table()
    for number in range(defects):
        probed.defects[f"bad-{number}"] = Finding(f"bad-{number}", "truncated", "Write it again.")
    observations = Observations(probed, [examined], {"t": TableReport("t", judgements)})
    return {item.check: item for item in gather(observations, digest="sha256:0", at="now")}


@pytest.mark.parametrize(
    ("severity", "verdict", "outcome"),
    [
        ("critical", ExpectationVerdict.PASSED, Outcome.PASS),
        ("critical", ExpectationVerdict.FAILED, Outcome.FAIL),
        ("warning", ExpectationVerdict.FAILED, Outcome.WARN),
        ("info", ExpectationVerdict.FAILED, Outcome.PASS),
        ("critical", ExpectationVerdict.ERRORED, Outcome.INCONCLUSIVE),
        ("warning", ExpectationVerdict.ERRORED, Outcome.INCONCLUSIVE),
        ("info", ExpectationVerdict.ERRORED, Outcome.PASS),
    ],
)
def test_severity_and_verdict_give_the_outcome(severity: str, verdict: ExpectationVerdict, outcome: Outcome) -> None:
    assert evidence(judgement(severity, verdict))["expectations"].outcome is outcome


def test_the_worst_finding_decides() -> None:
    assert worst([Outcome.PASS, Outcome.WARN, Outcome.INCONCLUSIVE, Outcome.FAIL]) is Outcome.FAIL
    assert worst([Outcome.WARN, Outcome.INCONCLUSIVE]) is Outcome.INCONCLUSIVE
    assert worst([]) is Outcome.PASS


def test_an_info_that_fails_is_noted() -> None:
    (finding,) = evidence(judgement("info", ExpectationVerdict.FAILED))["expectations"].findings
    assert (finding.outcome, finding.subject) == (Outcome.PASS, "t.x")
    assert finding.problem.startswith("noted: ")


def test_findings_are_bounded_and_the_rest_counted() -> None:
    coverage = evidence(judgement("critical", ExpectationVerdict.PASSED), defects=MOST_FINDINGS + 7)["coverage"]
    assert len(coverage.findings) == MOST_FINDINGS + 1
    assert coverage.findings[-1].problem == "7 more findings"
    assert coverage.measured["findings"] == MOST_FINDINGS + 7


def test_refused_rows_in_all_files_are_one_finding() -> None:
    examined, _ = table()
    places = [RefusedRows(f"{number:02}.parquet", 3 - number, "-1") for number in range(3)]
    report = TableReport("t", [judgement("critical", ExpectationVerdict.FAILED, places)])
    (finding,) = expectation_findings(examined, report)
    assert finding.subject == "t.x"
    assert finding.problem == "6 rows break expect_it in 3 of 3 files, most of them in 00.parquet (3), for example -1"


def test_a_table_without_rows_says_nothing_by_its_suite() -> None:
    examined, _ = table(rows=0)
    (finding,) = expectation_findings(examined, None)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "no rows" in finding.problem


def test_an_empty_file_among_others_is_a_warning() -> None:
    examined, probed = table()
    probed.facts["00.parquet"] = Facts(SCHEMA, 0)
    examined = examine("t", examined.spec, probed)
    observations = Observations(
        probed, [examined], {"t": TableReport("t", [judgement("critical", ExpectationVerdict.PASSED)])}
    )
    nonempty = next(item for item in gather(observations, digest="sha256:0", at="now") if item.check == "nonempty")
    assert (nonempty.outcome, nonempty.findings[0].subject) == (Outcome.WARN, "00.parquet")


def test_all_mistakes_of_a_contract_are_told_at_once(tmp_path: Path) -> None:
    contract = ContractSpec.model_validate({"tables": {"t": {"files": "*", "columns": {"x": "doubel", "y": "intt"}}}})
    with pytest.raises(SpecError) as caught:
        validate(tmp_path, [], contract, dataset="d", digest="sha256:0")
    assert [problem.partition("did you mean ")[2] for problem in caught.value.problems] == ["'double'?", "'int'?"]


@pytest.mark.parametrize("check", ["schema", "expectations"])
def test_unreadable_file_leaves_the_other_checks_undecided(check: str) -> None:
    _, probed = table(files=3)
    del probed.facts["01.parquet"]
    probed.defects["01.parquet"] = Finding("01.parquet", "truncated", "Write it again.")
    spec = TableSpec.model_validate({"files": "*.parquet", "suite": SUITE, "columns": {"x": "int"}})
    judged = TableReport("t", (judgement("critical", ExpectationVerdict.PASSED),))
    observations = Observations(probed, [examine("t", spec, probed)], {"t": judged})
    answer = {item.check: item for item in gather(observations, digest="sha256:0", at="now")}[check]
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert any("1 of 3 files" in finding.problem for finding in answer.findings)


def schema_of(contract_table: dict[str, object], **files: pa.Schema) -> Evidence:
    spec = TableSpec.model_validate({"files": "*.parquet", **contract_table})
    probed = ProbedFiles(
        len(files), 1, {spec.files: list(files)}, {name: Facts(columns, 10) for name, columns in files.items()}, {}
    )
    observations = Observations(probed, [examine("t", spec, probed)], {})
    return next(item for item in gather(observations, digest="sha256:0", at="now") if item.check == "schema")


@pytest.mark.parametrize("columns", [{}, {"x": "int"}])
def test_schema_on_zero_files_is_no_pass(columns: dict[str, str]) -> None:
    evidence = schema_of({"columns": columns})
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "table t has no files: *.parquet matches none" in evidence.summary
    assert evidence.findings[0].fix == "Deliver them, or correct the glob."


def test_files_that_agree_pass_without_declared_columns() -> None:
    evidence = schema_of({}, a=SCHEMA, b=SCHEMA)
    assert (evidence.outcome, evidence.summary) == (Outcome.PASS, "the same columns in 2 files")


def test_schema_names_the_tables_that_it_compared() -> None:
    matches = {"*.parquet": ["a.parquet", "b.parquet"], "*.csv": ["c.csv"]}
    names = [name for paths in matches.values() for name in paths]
    probed = ProbedFiles(3, 3, matches, {name: Facts(SCHEMA, 1) for name in names}, {})
    globs = {"t": "*.parquet", "u": "*.csv"}
    tables = [examine(name, TableSpec.model_validate({"files": glob}), probed) for name, glob in globs.items()]
    results = gather(Observations(probed, tables, {}), digest="sha256:0", at="now")
    (schema,) = [item for item in results if item.check == "schema"]
    assert schema.summary == "the same columns in all files of each table: t (2 files), u (1 file)"


def test_files_that_disagree_fail_without_declared_columns() -> None:
    evidence = schema_of({}, a=SCHEMA, b=SCHEMA, c=pa.schema([("x", pa.string())]))
    assert evidence.outcome is Outcome.FAIL
    assert evidence.summary == "c column x is string; in most files of t it is int64"
