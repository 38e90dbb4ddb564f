"""Targets that people hold and release, by commands and on a page, watched or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import answer_path
from prefect_stagegate.errors import GateFailed, UnknownRef, UsageError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.plugins.watch import hold_page
from prefect_stagegate.plugins.watch.holding import hold_of, hold_target, release_target, why_held
from prefect_stagegate.plugins.watch.watch_records import HOLDS, Hold
from tests.support.keys import login_at, new_key
from tests.support.scenario import ADA, INES, Scenario, dataset_name
from tests.support.sent_forms import sent
from tests.support.told import events_about

PRODUCTION = Address("things", "production")
NAMES = {"dataset": "things", "target": "production"}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """A target without `watch` that names the second of two versions."""
    made = Scenario(tmp_path, gates={"production": {"require": ["nonempty"]}})
    for text in ("one", "two"):
        made.deliver(text)
        made.promote()
    return made


def hold(scenario: Scenario, word: str, reason: str) -> int:
    """Run `watch hold` or `watch release` as Ines."""
    return scenario.run("watch", word, str(PRODUCTION), "--reason", reason, identity=INES.name)


def test_target_is_held_by_hand_until_released(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    served = scenario.head("production")
    assert hold(scenario, "hold", "labels are mended") == 0
    assert capsys.readouterr().out == "things@production is held\n"
    scenario.deliver("three")
    with pytest.raises(GateFailed, match=r"held since .*, by ines@example\.org.*: labels are mended"):
        scenario.promote()
    assert scenario.head("production") == served
    assert "labels are mended" in why_held(scenario.node(), "things")(served)
    assert hold(scenario, "release", "they were mended") == 0
    assert scenario.promote() == scenario.head("production") != served


def test_report_says_that_an_unwatched_target_is_held(scenario: Scenario) -> None:
    assert hold(scenario, "hold", "labels are mended") == 0
    page = scenario.folder / "page.md"
    scenario.run("check", str(PRODUCTION), "--gate", "production", "--render", f"markdown={page}")
    assert "labels are mended" in page.read_text()


def test_target_held_by_hand_may_be_rolled_back(scenario: Scenario) -> None:
    hold_target(scenario.node(), PRODUCTION, "labels are mended")
    assert rollback(scenario.node(), PRODUCTION, reason="loss went up").digest == scenario.head("production")


@pytest.mark.parametrize("address", ["things", "things@latest", "things@production~1"])
def test_only_targets_are_held(scenario: Scenario, address: str) -> None:
    with pytest.raises(UsageError, match="names no target"):
        hold_target(scenario.node(), Address.parse(address), "labels are mended")


def test_mistyped_target_is_not_held(scenario: Scenario) -> None:
    with pytest.raises(UnknownRef, match="productoin"):
        hold_target(scenario.node(), Address("things", "productoin"), "labels are mended")


def test_hold_that_stands_names_who_holds(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    hold_target(scenario.node(ADA), PRODUCTION, "labels are mended")
    assert hold(scenario, "hold", "me too") == 2
    assert "is held already, by ada" in capsys.readouterr().err
    assert hold(scenario, "release", " ") == 2
    assert scenario.run("watch", "release", str(PRODUCTION), "--reason", "mended", "--json") == 0
    assert json.loads(capsys.readouterr().out)["why"] == "mended"


def test_only_those_who_may_waive_hold_and_release(tmp_path: Path) -> None:
    asked = Scenario(tmp_path, gates={"production": {"require": ["nonempty", {"approval": {"from": ["infra"]}}]}})
    asked.deliver("one")
    asked.promote()
    with pytest.raises(UsageError, match="was not held: not an address of infra"):
        hold_target(asked.node(ADA), PRODUCTION, "let me")
    hold_target(asked.node(INES), PRODUCTION, "labels are mended")
    with pytest.raises(UsageError, match="was not released: not an address of infra"):
        hold_page.act(sent(asked, NAMES, ADA, answer="release", reason="let me"))
    assert why_held(asked.node(), "things")(asked.head("production"))


def test_page_holds_and_releases_as_its_visitor(scenario: Scenario) -> None:
    page = hold_page.hold_page(sent(scenario, NAMES))
    assert (page.move.digest, page.hold) == (scenario.head("production"), None)
    for answer in ("hold", "release"):
        with pytest.raises(UsageError, match=f"A {answer} needs a reason"):
            hold_page.act(sent(scenario, NAMES, answer=answer, reason=" "))
        path = hold_page.act(sent(scenario, NAMES, answer=answer, reason="labels are mended"))
        assert path == answer_path("hold", **NAMES)
        held = hold_page.hold_page(sent(scenario, NAMES)).hold
        assert [held and (held.who, held.why)] == [(INES, "labels are mended") if answer == "hold" else None]


def test_page_refuses_other_answers(scenario: Scenario) -> None:
    with pytest.raises(UsageError, match="neither holds nor releases"):
        hold_page.act(sent(scenario, NAMES, reason="labels are mended"))


@pytest.mark.parametrize("name", ["latest", "..", "a/b", "production~1", "staging", "sha256:00"])
def test_page_is_of_targets_alone(scenario: Scenario, name: str) -> None:
    with pytest.raises((UsageError, UnknownRef)):
        hold_page.hold_page(sent(scenario, NAMES | {"target": name}))


# ── what a release must prove ───────────────────────────────────────────────────────────────────────────────────────


class ProvedScenario(Scenario):
    """A target whose gate Ines may overrule: by a login, or by her key."""

    def __init__(self, folder: Path, way: str) -> None:
        self.key = new_key(folder / "key.pem")
        self.ines: Any = login_at(self.key, INES.name) if way == "login" else self.key
        proofs: dict[str, Any] = {
            "signature": {"keys": {INES.name: self.key.public}},
            "login": {"logins": {"keys": [self.key.public]}},
        }
        rule = {"approval": {"from": ["infra"], "proof": way, **proofs[way]}}
        gates = {"production": {"require": ["nonempty"], "watch": {"checks": ["nonempty"]}}}
        super().__init__(folder, gates=gates, policy={"overrides": rule})
        self.deliver("one")
        self.promote()

    def hold(self) -> Hold:
        return hold_target(self.node(INES), PRODUCTION, "labels are mended", self.ines)

    def release(self) -> Hold:
        return release_target(self.node(INES), PRODUCTION, "they were mended", self.ines)

    def forge(self, who: Identity = INES, envelope: Mapping[str, Any] | None = None) -> None:
        """Write a release into the catalog by hand."""
        self.copy(Hold(False, "forged", "", who, stamp(now()), envelope or {}))

    def copy(self, record: Hold) -> None:
        """Write a record behind those that are there."""
        self.node().catalog.add(HOLDS, record, "things", "production")

    def is_held(self) -> bool:
        return hold_of(self.node(), "things", "production") is not None


@pytest.fixture(params=["login", "signature"])
def proved(tmp_path: Path, request: pytest.FixtureRequest) -> ProvedScenario:
    return ProvedScenario(tmp_path, request.param)


def test_forged_release_lifts_no_hold(proved: ProvedScenario, capsys: pytest.CaptureFixture[str]) -> None:
    held = proved.hold()
    proved.forge(Identity(INES.name, "signature"), held.envelope)
    proved.forge(Identity(INES.name, "login"))
    why = r"labels are mended; a release by ines@example\.org does not count"
    proved.deliver("two")
    with pytest.raises(GateFailed, match=why):
        proved.promote()
    capsys.readouterr()
    for words in (["status"], ["watch", "--dry-run"]):
        assert proved.run(*words, "--json") in (0, 4)
        assert "a release by ines@example.org does not count" in capsys.readouterr().out
    assert proved.release().who.source in ("login", "signature")
    assert not proved.is_held()
    assert proved.promote() == proved.head("production")


def test_release_of_an_earlier_hold_lifts_no_later_one(proved: ProvedScenario) -> None:
    first, release = proved.hold(), proved.release()
    proved.copy(first)
    assert proved.is_held(), "whoever writes to the catalog may hold"
    proved.copy(release)
    assert not proved.is_held()
    proved.hold()
    for record in (release, first, release):
        proved.copy(record)
    assert proved.is_held()
    proved.release()
    assert not proved.is_held()


def test_release_that_an_earlier_version_signed_counts(tmp_path: Path) -> None:
    scenario = ProvedScenario(tmp_path, "signature")
    scenario.hold()
    release = Hold(False, "mended", "", Identity(INES.name, "signature"), stamp(now()))
    about = {"act": "Hold", "catalog": scenario.node().catalog.id, "dataset": "things", "target": "production"}
    signed = scenario.key.sign({**about, **asdict(release)}, "application/vnd.prefect-stagegate.answer+json")
    release = replace(release, envelope=signed)
    scenario.copy(release)
    assert not scenario.is_held()
    scenario.hold()
    scenario.copy(release)
    assert scenario.is_held()


def test_stricter_policy_asks_for_a_release_again(scenario: Scenario) -> None:
    for word in ("hold", "release"):
        assert hold(scenario, word, "labels are mended") == 0
    assert hold_of(scenario.node(), "things", "production") is None
    gates = {"production": {"require": ["nonempty", {"approval": {"proof": "os-user"}}]}}
    adopt(scenario.node(), scenario.spec(gates=gates), reason="stricter")
    held = hold_of(scenario.node(), "things", "production")
    assert held
    assert held.why.endswith("known by declared; this gate wants os-user")


def test_page_shows_names_as_they_are_proved(scenario: Scenario) -> None:
    claimed = Identity(INES.name, "login")
    scenario.deliver("three")
    check(scenario.node(), Address("things"), "production")
    promote(scenario.node(claimed), Address("things"), "production")
    hold_target(scenario.node(claimed), PRODUCTION, "labels are mended")
    page = hold_page.hold_page(sent(scenario, NAMES))
    assert page.hold
    assert {page.move.who, page.hold.who} == {INES}


# ── who is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_says_that_a_target_is_held(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    before = scenario.run("status")
    hold(scenario, "hold", "labels are mended")
    capsys.readouterr()
    assert scenario.run("status") == before
    text, command = capsys.readouterr().out, "stagegate watch release things@production --reason TEXT"
    assert "things@production is held since " in text
    assert f"\nNext: {command}\n" in text
    assert scenario.run("status", "things", "--json") == before
    (status,) = json.loads(capsys.readouterr().out)
    held = status["holds"]["production"]
    assert (held["why"], held["who"]["name"], held["next_step"]) == ("labels are mended", INES.name, command)
    hold(scenario, "release", "they were mended")
    capsys.readouterr()
    scenario.run("status")
    assert "held since" not in capsys.readouterr().out


@pytest.mark.usefixtures("prefect_server")
def test_hold_by_hand_is_an_event(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    scenario = Scenario(tmp_path, dataset_name(request), gates={"production": {"require": ["nonempty"]}})
    scenario.deliver("one")
    scenario.promote()
    for word in ("hold", "release"):
        assert scenario.run("watch", word, f"{scenario.dataset}@production", "--reason", "labels are mended") == 0
    (event,) = events_about(f"stagegate.dataset.{scenario.dataset}")
    assert (event["event"], event["resource"]["stagegate.target"]) == ("stagegate.watch.answered", "production")
    assert event["payload"]["action"] == "held"
    assert event["payload"]["reason"] == "ada (declared): labels are mended"
