"""Targets that people hold and release, by commands and on a page, watched or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefect_stagegate.doors import answer_path
from prefect_stagegate.errors import GateFailed, UnknownRef, UsageError
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.watch import hold_page
from prefect_stagegate.plugins.watch.watch_records import why_held
from prefect_stagegate.plugins.watch.watching import hold_target
from tests.support.scenario import ADA, INES, Scenario
from tests.support.sent_forms import sent

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
