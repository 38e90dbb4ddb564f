"""Expectations of installed packages: a suite names their types, and only their entry points lead to code."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_stagegate.errors import SpecError
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.lint import lint
from prefect_stagegate.spec import vocabulary
from tests.support.scenario import Scenario

AIRPORTS = """
from great_expectations.expectations.core import ExpectColumnValuesToBeInSet

class ExpectColumnValuesToBeAirports(ExpectColumnValuesToBeInSet):
    value_set: list = ["JFK", "LGA", "EWR"]
"""
THIEF = """
from great_expectations.expectations.core import ExpectColumnValuesToNotBeNull

class ExpectColumnToExist(ExpectColumnValuesToNotBeNull):
    pass
"""


def install(site: Path, package: str, source: str, kind: str, place: str) -> None:
    """What pip leaves of a distribution that has one module."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[prefect_stagegate.expectations]\n{kind} = {package}:{place}\n")
    (site / f"{package}.py").write_text(source)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    site = tmp_path / "site"
    install(site, "airports", AIRPORTS, "expect_column_values_to_be_airports", "ExpectColumnValuesToBeAirports")
    install(site, "late", "raise SystemExit('no licence')", "expect_licence", "ExpectLicence")
    install(site, "thief", THIEF, "expect_things", "ExpectColumnToExist")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    monkeypatch.syspath_prepend(site)
    vocabulary.expectations.cache_clear()
    monkeypatch.setattr(vocabulary, "expectations", vocabulary.expectations.__wrapped__)
    return Scenario(tmp_path, "flights")


def expect(kind: str, **kwargs: object) -> dict[str, object]:
    return {"tables": {"flights": {"files": "*.csv", "suite": {"expectations": [{"type": kind, "kwargs": kwargs}]}}}}


@pytest.mark.system
def test_expectation_of_an_installed_package_judges_rows(here: Scenario) -> None:
    contract = expect("expect_column_values_to_be_airports", column="origin")
    here.deliver("origin\nJFK\nLGA\n", contract=contract)
    lint(str(here.spec_file(contract=contract)))
    assert validate(here.node(), "flights").passed

    here.deliver("origin\nJFK\nXXX\n", contract=contract)
    evidence = {item.check: item for item in validate(here.node(), "flights").evidence}["expectations"]
    assert evidence.outcome == "fail"
    assert "1 of 2 rows break expect_column_values_to_be_airports" in evidence.findings[0].problem


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expect_licence", "the plugin late can't be loaded: SystemExit: no licence"),
        ("expect_things", "the plugin thief replaces expect_column_to_exist of Great Expectations"),
    ],
)
def test_broken_package_is_inconclusive_by_name(here: Scenario, tmp_path: Path, kind: str, reason: str) -> None:
    contract = expect(kind, column="origin")
    suite = contract["tables"]["flights"]["suite"]["expectations"]  # type: ignore[index]
    suite.append({"type": "expect_column_to_exist", "kwargs": {"column": "origin"}})
    here.deliver("origin\nJFK\n", contract=contract)
    validation = validate(here.node(), "flights", data_docs=tmp_path / "docs")
    assert [result.verdict for result in validation.tables[0].expectations] == ["errored", "passed"]
    assert len(list((tmp_path / "docs/validations").rglob("*.html"))) == 1
    evidence = {item.check: item for item in validation.evidence}["expectations"]
    assert (evidence.outcome, evidence.measured["evaluated"], evidence.measured["failed"]) == ("inconclusive", 1, 0)
    (finding,) = evidence.findings
    assert reason in finding.problem
    assert "pip uninstall" in finding.fix
    with pytest.raises(SpecError, match=reason):
        lint(str(here.spec_file(contract=contract)))


def test_type_without_a_package_names_no_code(here: Scenario) -> None:
    contract = expect("airports:ExpectColumnValuesToBeAirports", column="origin")
    with pytest.raises(SpecError, match="there is no expectation 'airports:Expect"):
        lint(str(here.spec_file(contract=contract)))
