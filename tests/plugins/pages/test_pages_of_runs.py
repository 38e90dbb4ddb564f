"""Reports that Prefect runs keep as pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow

from prefect_stagegate.flows import pilot_to_production
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.tasks import check_readiness
from tests.integration.test_telling import EventScenario, run, scenario
from tests.support.told import artifact

__all__ = ["scenario"]
pytestmark = pytest.mark.usefixtures("prefect_server")


def test_trial_takes_no_page_s_place(scenario: EventScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))
    lax = scenario.spec(gates={"production": {"require": ["runbook"]}})
    version = stage(open_workspace(**scenario.on), scenario.spec())
    assert not run(flow(check_readiness.fn), version.address, "production", **scenario.on).accepted
    (page,) = (tmp_path / "reports").rglob("*.html")
    kept = page.read_bytes()
    assert run(flow(check_readiness.fn), version.address, "production", spec=lax, **scenario.on).accepted
    assert page.read_bytes() == kept


def test_run_links_to_pages(scenario: EventScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))
    run(pilot_to_production, scenario.spec(), **scenario.on)

    (page,) = (tmp_path / "reports").glob(f"{scenario.dataset}/production/*.html")
    assert "waits for approval" in page.read_text()
    # As text: no browser follows a file's link from Prefect's page.
    told = artifact(f"{scenario.dataset}-production-decision")["data"]
    assert "Report as a page: file:///" in told
    assert page.name in told

    monkeypatch.setenv("STAGEGATE_REPORTS_URL", "https://ci.example.org/reports/")
    monkeypatch.setenv("STAGEGATE_PAGES_URL", "https://gate.example.org/stagegate/")
    run(pilot_to_production, version=f"{scenario.dataset}@sha256:{page.stem}", **scenario.on)
    shown = artifact(f"{scenario.dataset}-production-decision")["data"]
    assert f"(https://ci.example.org/reports/{scenario.dataset}/production/{page.name})" in shown
    assert f"(https://gate.example.org/stagegate/datasets/{scenario.dataset}/versions/{page.stem})" in shown
