"""A failure that somebody answers for lets a version through for a while, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import WAIVERS
from prefect_stagegate.cli import main
from prefect_stagegate.clock import now
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.gating import waive as waiving
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.waive import revoke_waiver, waive
from prefect_stagegate.jobs.inspect import waivers
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome, Identity, Outcome
from prefect_stagegate.show import build_report
from prefect_stagegate.spec import load_spec
from prefect_stagegate.units import parse_since, parse_until
from prefect_stagegate.workspace import Workspace
from tests.support.gates import preview_check
from tests.support.renderings import to_text
from tests.support.scenario import ADA, INES, Scenario

THINGS = Address("things")
DENIED = {"license": "CC-BY-NC-4.0"}
WEEK = timedelta(days=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/data.csv").write_text("one")
    return tmp_path


def node(folder: Path, who: Identity = ADA) -> Workspace:
    return open_workspace(folder / "cache", folder / "catalog", identity=who)


def staged(folder: Path, require: list[Any] | None = None, *, adopted: bool = False, **changes: Any) -> Any:
    scenario = Scenario(folder, gates={"pilot": {"require": require or ["license", "owner"]}}, **DENIED)
    loaded = load_spec(scenario.spec(**changes), known_checks=known_checks())
    stage(node(folder), loaded)
    if adopted:
        adopt(node(folder), loaded, reason="for the test")
    return loaded


def waived(folder: Path, who: Identity = INES, span: timedelta = WEEK, name: str = "license") -> Any:
    return waive(node(folder, who), THINGS, "pilot", name, reason="the owner agreed by mail", until=now() + span)


def test_waived_failure_is_reported_and_the_version_accepted(
    folder: Path,
) -> None:
    spec = staged(folder)
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    waiver = waived(folder)
    decision = check(node(folder), THINGS, "pilot")
    assert decision.accepted
    assert decision.expires == waiver.until
    assert [result.outcome for result in decision.checks] == [Outcome.WAIVED, Outcome.PASS]
    text = to_text(build_report(decision, spec))
    assert "waived by ines@example.org (declared) until" in text
    assert "the owner agreed by mail" in text
    promote(node(folder), THINGS, "pilot")
    predicate = node(folder).catalog.history("things", "pilot")[-1].attestation["predicate"]
    assert predicate["result"] == "WARNED"
    assert predicate["stagegate"]["decision"]["checks"][0]["ruling"]["waiver"]["reason"] == "the owner agreed by mail"
    assert waivers(node(folder), "things", decision.digest) == [waiver]
    assert find_ready(node(folder), Address("things", "pilot")).chosen


def contract(*columns: str) -> dict[str, Any]:
    """A contract by which no value of these columns is missing."""
    suite = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column}} for column in columns]
    return {"tables": {"data": {"files": "*.csv", "suite": {"expectations": suite}}}}


def test_waiver_ends_with_the_contract_that_it_was_for(folder: Path) -> None:
    (folder / "nas/data.csv").write_text("a,b\n1,\n,2\n")
    staged(folder, ["expectations"], contract=contract("a"))
    check(node(folder), THINGS, "pilot")
    waived(folder, name="expectations")
    assert check(node(folder), THINGS, "pilot").accepted
    staged(folder, ["expectations"], contract=contract("a", "b"), adopted=True)
    decision = check(node(folder), THINGS, "pilot")
    assert (decision.outcome, decision.checks[0].outcome) == (DecisionOutcome.REFUSED, Outcome.FAIL)
    waived(folder, name="expectations")
    assert check(node(folder), THINGS, "pilot").accepted


@pytest.mark.parametrize("until", ["9999", "soon", "2099-01-01"])
def test_waiver_with_a_time_out_of_range_stops_nobody(folder: Path, until: str) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    forged = replace(waived(folder), id="forged", until=until)
    node(folder).catalog.add(WAIVERS, forged, forged.dataset, forged.digest, forged.target)
    decision = check(node(folder), THINGS, "pilot")
    assert decision.accepted
    ruling = decision.checks[0].ruling
    assert ruling is not None
    assert ruling.waiver != forged


def test_nobody_passes_a_gate_by_a_waiver_of_their_own(folder: Path) -> None:
    staged(folder)
    with pytest.raises(UsageError, match="never checked"):
        waived(folder)
    check(node(folder), THINGS, "pilot")
    for name in ("ada", " Ada"):
        with pytest.raises(UsageError, match="requested the promotion"):
            waived(folder, Identity(name, "declared"))
    waived(folder)
    assert check(node(folder, INES), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    assert check(node(folder), THINGS, "pilot").accepted


def test_digest_approval_and_unrequired_checks_can_t_be_waived(folder: Path) -> None:
    staged(folder, require=["license", "digest", "approval"])
    check(node(folder), THINGS, "pilot")
    for name in ("digest", "approval"):
        with pytest.raises(UsageError, match=f"{name} can't be waived"):
            waived(folder, name=name)
    with pytest.raises(UsageError, match=r"requires no check 'licence'.*Did you mean 'license'"):
        waived(folder, name="licence")


def test_only_a_recorded_failure_can_be_waived(folder: Path) -> None:
    staged(folder, require=["license", "owner", "expectations"])
    check(node(folder), THINGS, "pilot")
    for name, outcome in (("owner", "pass"), ("expectations", "inconclusive")):
        with pytest.raises(UsageError, match=f"{name} did not fail in the last decision of pilot: {outcome}"):
            waived(folder, name=name)
    waived(folder)
    check(node(folder), THINGS, "pilot")
    assert waived(folder).check == "license"  # for longer: it is waived, and still fails


def test_waiver_needs_a_reason_and_an_end_within_30_days(folder: Path) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    with pytest.raises(UsageError, match="longer than 30 days"):
        waived(folder, span=timedelta(days=30, minutes=1))
    with pytest.raises(UsageError, match="which is in the past"):
        waived(folder, span=timedelta(seconds=-1))
    with pytest.raises(UsageError, match="needs a reason"):
        waive(node(folder, INES), THINGS, "pilot", "license", reason=" ", until=now() + WEEK)
    assert waived(folder, span=timedelta(days=30)).check == "license"


def test_ends_are_durations_days_or_times() -> None:
    at = datetime(2026, 3, 1, 3, tzinfo=UTC)
    assert parse_until("7d", at) == at + WEEK
    assert parse_until("2026-03-05", at) == datetime(2026, 3, 6, tzinfo=UTC)
    assert parse_until("2026-03-05T12:00+01:00", at) == datetime(2026, 3, 5, 11, tzinfo=UTC)
    assert parse_since("7d", at) == at - WEEK
    assert parse_since("2026-03-05", at) == datetime(2026, 3, 5, tzinfo=UTC)
    for never in ("99999999999d", "9999-12-31", "0001-01-01x"):
        with pytest.raises(UsageError, match="is not an end"):
            parse_until(never, at)
    with pytest.raises(UsageError, match="is not an end"):
        parse_until("soon", at)


def test_expired_waiver_ends_only_what_rests_on_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    waived(folder)
    before = check(node(folder), THINGS, "pilot")
    promote(node(folder), THINGS, "pilot")
    later = now() + WEEK
    for module in ("check", "promote"):
        monkeypatch.setattr(f"prefect_stagegate.jobs.gating.{module}.now", lambda: later)
    with pytest.raises(GateFailed, match="expired"):
        promote(node(folder), THINGS, "pilot")
    readiness = find_ready(node(folder), Address("things", "pilot"))
    assert readiness.chosen is None
    assert readiness.candidates[0].against_version == ("license",)
    after = check(node(folder), THINGS, "pilot")
    assert after.outcome is DecisionOutcome.REFUSED
    assert after.checks[1] == before.checks[1]  # the owner's evidence is the same record


def test_revoked_waiver_ends_earlier_acceptances_too(folder: Path) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    waived(folder)
    assert check(node(folder), THINGS, "pilot").accepted
    (gone,) = revoke_waiver(node(folder), THINGS, "pilot", "license", reason="they changed their mind")
    with pytest.raises(GateFailed, match=r"no longer counts: ada .* revoked it"):
        promote(node(folder), THINGS, "pilot")
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    assert waivers(node(folder), "things", gone.digest) == [gone]
    with pytest.raises(UsageError, match="No waiver of license holds"):
        revoke_waiver(node(folder), THINGS, "pilot", "license", reason="again")


def test_waiver_that_a_fast_clock_revoked_ends_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    waived(folder)
    with monkeypatch.context() as patched:
        patched.setattr(waiving, "now", lambda: now() + timedelta(hours=1))
        revoke_waiver(node(folder), THINGS, "pilot", "license", reason="they changed their mind")
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.REFUSED


def test_another_version_and_other_parameters_are_not_waived(folder: Path) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    waived(folder)
    staged(folder, require=[{"license": {"allow": ["MIT"]}}, "owner"], adopted=True)
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    staged(folder, adopted=True)
    assert check(node(folder), THINGS, "pilot").accepted
    (folder / "nas/data.csv").write_text("two, and longer")
    staged(folder)
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.REFUSED


def test_an_inconclusive_check_can_t_be_waived_through(folder: Path) -> None:
    staged(folder, require=["license", "cache_integrity"], license="CC0-1.0")
    for path in (folder / "cache").glob("views/*"):
        path.rename(folder / "elsewhere")
    assert check(node(folder), THINGS, "pilot").outcome is DecisionOutcome.INCONCLUSIVE
    with pytest.raises(UsageError, match="can't be waived"):
        waived(folder, name="cache_integrity")


def test_a_noisy_check_has_to_pass_several_times_in_a_row(folder: Path) -> None:
    staged(folder, require=[{"space": {"warn": 1.0, "fail": 1.0, "consecutive": 3}}], license="CC0-1.0")
    decisions = [check(node(folder), THINGS, "pilot") for _ in range(3)]
    assert [decision.outcome for decision in decisions] == [DecisionOutcome.INCONCLUSIVE] * 2 + [
        DecisionOutcome.ACCEPTED
    ]
    assert "1 of 3 passes in a row" in decisions[0].checks[0].full_summary
    assert [planned_check.state for planned_check in preview_check(node(folder), THINGS, "pilot")] == ["current"]


def test_the_command_waives_shows_and_revokes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    staged(folder)
    check(node(folder), THINGS, "pilot")
    monkeypatch.setenv("STAGEGATE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(folder / "catalog"))
    words = ["waive", "things", "--gate", "pilot", "--check", "license", "--reason", "agreed", "--identity", "ines"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "A waiver needs an end" in capsys.readouterr().err
    main([*words, "--until", "7d", "--json"])
    (granted,) = json.loads(capsys.readouterr().out)
    assert (granted["check"], granted["approver"]["name"], granted["requester"]) == ("license", "ines", "ada")
    main(["show", "things"])
    assert "license at pilot: waived by ines (declared) until" in capsys.readouterr().out
    main([*words, "--revoke"])
    assert "revoked by ines (declared): agreed" in capsys.readouterr().out
