from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from prefect_stagegate.errors import SpecError
from prefect_stagegate.model import Evidence, Finding, Outcome
from prefect_stagegate.spec import ContractSpec, TableSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.contract_checks import CHECKS
from prefect_stagegate.validations.contract_evidence import MOST_FINDINGS, gather
from prefect_stagegate.validations.expectation_findings import expectation_findings
from prefect_stagegate.validations.files.facts import Facts
from prefect_stagegate.validations.files.file_probes import ProbedFiles
from prefect_stagegate.validations.observations import Observations, worst
from prefect_stagegate.validations.table_files import ContractTable, examine
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, RefusedRows, TableReport

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


def unreadable(files: int, *bad: str) -> tuple[ContractTable, Observations]:
    """A table of which some files can't be opened."""
    examined, probed = table(files)
    for name in bad:
        del probed.facts[name]
        probed.defects[name] = Finding(name, "truncated", "Write it again.")
    examined = examine("t", examined.spec, probed)
    judged = TableReport("t", (judgement("critical", ExpectationVerdict.PASSED),))
    return examined, Observations(probed, [examined], {"t": judged} if examined.rows else {})


@pytest.mark.parametrize("check", ["schema", "expectations"])
def test_unreadable_file_leaves_the_other_checks_undecided(check: str) -> None:
    _, observations = unreadable(3, "01.parquet")
    answer = {item.check: item for item in gather(observations, digest="sha256:0", at="now")}[check]
    assert answer.outcome is Outcome.INCONCLUSIVE
    (finding,) = answer.findings
    assert (finding.subject, finding.fix) == ("01.parquet", "Write it again.")
    assert finding.problem.startswith("truncated, so its ")


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_names_files_that_it_could_not_open(check: str) -> None:
    _, observations = unreadable(12, *(f"{number:02}.parquet" for number in range(12)))
    (answer,) = [item for item in gather(observations, digest="sha256:0", at="now") if item.check == check]
    assert answer.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
    named = [finding for finding in answer.findings if finding.problem.startswith("truncated")]
    assert [finding.subject for finding in named[:2]] == ["00.parquet", "01.parquet"]
    assert all(finding.fix == "Write it again." for finding in named)
    assert check == "coverage" or "7 more files of 12" in " ".join(finding.problem for finding in answer.findings)
    assert not any(f"`{other}`" in finding.fix for other in CHECKS for finding in answer.findings)


def test_coverage_names_the_file_whose_columns_are_wrong() -> None:
    spec = TableSpec.model_validate({"files": "*.parquet", "columns": {"x": "int"}})
    names = {"a.parquet": Facts(SCHEMA, 1), "b.parquet": Facts(pa.schema([("x", pa.string())]), 1)}
    probed = ProbedFiles(2, 2, {spec.files: list(names)}, names, {})
    observations = Observations(probed, [examine("t", spec, probed)], {})
    (coverage,) = [item for item in gather(observations, digest="sha256:0", at="now") if item.check == "coverage"]
    (finding,) = coverage.findings
    assert (coverage.outcome, finding.subject) == (Outcome.FAIL, "b.parquet")
    assert finding.problem == "column x is string, the contract says int, so its rows were not judged"


LOOKED_AT: dict[str, tuple[dict[str, Facts | None], dict[str, TableReport]]] = {
    "no file": ({}, {}),
    "no file that opens": ({"a.csv": None}, {}),
    "no row": ({"a.csv": Facts(SCHEMA, 0)}, {}),
    "no file read to its end": ({"a.csv": Facts(SCHEMA, 5)}, {"t": TableReport("t", (), (("a.csv", "cut"),))}),
    "no expectation evaluated": ({"a.csv": Facts(SCHEMA, 5)}, {"t": TableReport("t", ())}),
    "no report": ({"a.csv": Facts(SCHEMA, 5)}, {}),
}
"""What a validation may find: facts by file (None: it can't be opened), and reports by table."""


@pytest.mark.parametrize("looked_at", LOOKED_AT)
@pytest.mark.parametrize("columns", [{}, {"x": "int"}], ids=["undeclared", "declared"])
@pytest.mark.parametrize("check", CHECKS)
def test_nothing_looked_at_never_passes(check: str, columns: dict[str, str], looked_at: str) -> None:
    facts, reports = LOOKED_AT[looked_at]
    spec = TableSpec.model_validate({"files": "*.csv", "suite": SUITE, "columns": columns})
    readable = {name: found for name, found in facts.items() if found}
    defects = {name: Finding(name, "ragged", "Write it again.") for name in facts if name not in readable}
    probed = ProbedFiles(len(facts), len(facts), {spec.files: list(facts)}, readable, defects)
    observations = Observations(probed, [examine("t", spec, probed)], reports)
    (answer,) = [item for item in gather(observations, digest="sha256:0", at="now") if item.check == check]
    # What a check did look at may pass: columns where a file opened, rows where one has some.
    seen = {"schema": bool(readable), "nonempty": any(found.rows for found in readable.values())}
    seen["coverage"] = bool(readable) and looked_at != "no file read to its end"
    if not seen.get(check, False):
        assert answer.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
        assert any(finding.fix for finding in answer.findings)


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
