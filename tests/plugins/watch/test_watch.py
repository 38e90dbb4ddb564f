"""Watching versions after their promotion: what is asked again, and what a failure does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from prefect import State

from prefect_stagegate.errors import GateFailed, SpecError, UsageError
from prefect_stagegate.flows import watch as watch_flow
from prefect_stagegate.jobs.gating.check import check, check_version, resolve_for_gate
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.watch import watching
from prefect_stagegate.plugins.watch.holding import hold_target, release_target
from prefect_stagegate.plugins.watch.watch_records import WatchAnswer
from prefect_stagegate.plugins.watch.watching import watch_round, watched_target
from tests.support.kills import Killed, killed_at
from tests.support.scenario import Scenario, dataset_name
from tests.support.told import events_about
from tests.support.verdicts import say, verdict_check

PRODUCTION = Address("things", "production")


@pytest.fixture(autouse=True)
def _verdict() -> Iterator[None]:
    with verdict_check():
        yield


class Watch(Scenario):
    """A scenario with a watched target."""

    def __init__(self, folder: Path, dataset: str = "things", **keys: Any) -> None:
        watch = {"checks": ["verdict"], "on_failure": "roll_back", **keys}
        super().__init__(folder, dataset, gates={"production": {"require": ["nonempty", "verdict"], "watch": watch}})
        say(folder, {})

    def says(self, digest: str, outcome: str) -> None:
        """Say what it finds of one version."""
        say(self.folder, {digest: outcome})

    def release(self, text: str) -> str:
        """Deliver and promote a version."""
        self.deliver(text)
        return self.promote()

    def round(self) -> WatchAnswer:
        """A round, due or not."""
        answer = watch_round(self.node(), watched_target(self.node(), PRODUCTION))
        assert answer
        return answer

    @property
    def is_due(self) -> bool:
        return watched_target(self.node(), PRODUCTION).is_due

    @property
    def actions(self) -> list[str]:
        """What the target's log did."""
        return [entry.action.value for entry in self.node().catalog.history(self.dataset, "production")]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def test_version_that_still_passes_stays(watch: Watch) -> None:
    first, due = watch.release("a,b\n1,2\n"), [watch.is_due]
    answer = watch.round()
    assert (answer.outcome, answer.action.value, answer.digest) == (Outcome.PASS, "none", first)
    assert answer.checks == (("verdict", Outcome.PASS, "loss is pass"),)
    assert [*due, watch.is_due] == [True, False]
    assert watch.actions == ["promote"]


def test_failing_version_goes_back_once_with_proof(watch: Watch) -> None:
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    watch.says(second, "fail")
    answer = watch.round()
    assert (answer.action.value, answer.returned_to) == ("rolled back", first)
    assert watch.head("production") == first
    assert watch.actions == ["promote", "promote", "withdraw", "rollback"]
    withdrawal, back = watch.node().catalog.history(watch.dataset, "production")[-2:]
    assert "verdict" in withdrawal.reason
    assert withdrawal.attestation
    assert "loss is fail" in back.reason
    assert watch.run("history", "things@production", "--verify") == 0
    assert watch.round().outcome is Outcome.PASS
    assert watch.actions == ["promote", "promote", "withdraw", "rollback"]
    with pytest.raises(GateFailed, match="refused"):
        promote(watch.node(), Address("things", second), "production")


def test_failure_after_a_rollback_holds_the_target(watch: Watch) -> None:
    watch.release("a,b\n1,2\n")
    second, third = watch.release("a,b\n3,4\n"), watch.release("a,b\n5,6\n")
    watch.says(third, "fail")
    assert watch.round().returned_to == second
    watch.says(second, "fail")
    answer = watch.round()
    assert (answer.action.value, answer.returned_to) == ("held", "")
    assert "it fails after a rollback, too" in answer.why
    assert watch.head("production") == second
    assert watch.round().action.value == "none", "it was told once"


def test_held_target_takes_no_version_until_released(tmp_path: Path) -> None:
    watch = Watch(tmp_path, on_failure="hold")
    first = watch.release("a,b\n1,2\n")
    watch.says(first, "fail")
    assert watch.round().action.value == "held"
    assert watch.head("production") == first
    with pytest.raises(GateFailed, match=r"held since .*loss is fail") as refused:
        watch.release("a,b\n3,4\n")
    assert "stagegate watch release things@production" in refused.value.hint
    with pytest.raises(UsageError, match="reason"):
        release_target(watch.node(), PRODUCTION, " ")
    release_target(watch.node(), PRODUCTION, "the labels were mended")
    assert watch.promote() == watch.head("production") != first
    with pytest.raises(UsageError, match="not held"):
        release_target(watch.node(), PRODUCTION, "again")


def test_held_target_may_be_rolled_back(tmp_path: Path) -> None:
    watch = Watch(tmp_path, on_failure="hold")
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    watch.says(second, "fail")
    assert watch.round().action.value == "held"
    assert rollback(watch.node(), PRODUCTION, reason="by hand").digest == first


def test_hold_by_hand_stops_no_return(watch: Watch) -> None:
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    hold_target(watch.node(), PRODUCTION, "labels are mended")
    resolved = resolve_for_gate(watch.node(), Address("things", second), "production")
    watch.says(second, "fail")
    check_version(watch.node(), *resolved, again=["verdict"])
    assert not watch.is_due
    assert watch.run("watch", str(PRODUCTION), "--now") == 1
    assert watch.head("production") == first


def test_only_version_that_fails_is_held(watch: Watch) -> None:
    first = watch.release("a,b\n1,2\n")
    watch.says(first, "fail")
    answer = watch.round()
    assert (answer.action.value, watch.head("production")) == ("held", first)
    assert "no earlier version" in answer.why
    assert not watch.is_due


def test_tell_says_it_once_and_changes_nothing(tmp_path: Path) -> None:
    watch = Watch(tmp_path, on_failure="tell")
    watch.release("a,b\n1,2\n")
    second = watch.release("a,b\n3,4\n")
    watch.says(second, "fail")
    assert [watch.round().action.value for _ in range(3)] == ["told", "none", "none"]
    assert watch.actions == ["promote", "promote"]


def test_inconclusive_rounds_are_told_at_the_third(watch: Watch) -> None:
    watch.release("a,b\n1,2\n")
    second = watch.release("a,b\n3,4\n")
    watch.says(second, "inconclusive")
    answers = [watch.round() for _ in range(5)]
    assert [answer.action.value for answer in answers] == ["none", "none", "told", "none", "none"]
    assert {answer.outcome for answer in answers} == {Outcome.INCONCLUSIVE}
    assert watch.actions == ["promote", "promote"]


def test_failure_that_passes_the_second_time_moves_nothing(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.release("a,b\n1,2\n")
    second = watch.release("a,b\n3,4\n")
    watch.says(second, "fail")

    def mended(*args: Any, **options: Any) -> Any:
        say(watch.folder, {})
        return check_version(*args, **options)

    monkeypatch.setattr(watching, "check_version", mended)
    answer = watch.round()
    assert (answer.outcome, answer.action.value) == (Outcome.INCONCLUSIVE, "none")
    assert watch.actions == ["promote", "promote"]


def test_round_goes_on_where_a_killed_one_stopped(watch: Watch) -> None:
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    watch.round()
    watch.says(second, "fail")
    # What a round leaves that is killed between its two moves: the version is withdrawn, and the target still names it.
    watched = watched_target(watch.node(), PRODUCTION)
    assert not watched.is_due
    resolved = resolve_for_gate(watch.node(), Address("things", second), "production")
    check_version(watch.node(), *resolved, again=["verdict"])
    assert watch.actions[-1] == "withdraw"
    assert watch.is_due
    assert watch.round().returned_to == first


def test_round_killed_at_any_write_is_finished_by_the_next(tmp_path: Path) -> None:
    for write in range(100):
        (folder := tmp_path / str(write)).mkdir()
        watch = Watch(folder)
        first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
        watch.says(second, "fail")
        try:
            with killed_at(folder, write) as done:
                watch.round()
        except Killed:
            watch.round()
        assert watch.head("production") == first
        assert sorted(watch.actions) == ["promote", "promote", "rollback", "withdraw"]
        assert watch.run("history", "things@production", "--verify") == 0
        if len(done) < write:
            break
    assert write > 5, "a round writes its beginning, evidence, a decision, two entries and its answer"


def test_damaged_version_is_no_place_to_return_to(watch: Watch) -> None:
    first, second, third = (watch.release(f"a,b\n{row},2\n") for row in range(3))
    manifests = watch.folder / "catalog/datasets/things/manifests"
    damaged = manifests / f"{second.removeprefix('sha256:')}.parquet"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    watch.says(third, "fail")
    assert watch.round().returned_to == first


def test_two_watchers_ask_once(watch: Watch) -> None:
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    watch.says(second, "fail")
    barrier = Barrier(4)

    def ask(_: int) -> WatchAnswer | None:
        node = watch.node()
        watched = watched_target(node, PRODUCTION)
        barrier.wait(30)
        return watch_round(node, watched)

    with ThreadPoolExecutor(4) as pool:
        answers = [answer for answer in pool.map(ask, range(4)) if answer]
    assert [answer.returned_to for answer in answers if answer.returned_to] == [first]
    assert watch.actions == ["promote", "promote", "withdraw", "rollback"]


def test_version_that_was_replaced_meanwhile_is_left_alone(watch: Watch) -> None:
    watch.release("a,b\n1,2\n")
    second = watch.release("a,b\n3,4\n")
    watched = watched_target(watch.node(), PRODUCTION)
    third = watch.release("a,b\n5,6\n")
    watch.says(second, "fail")
    answer = watch_round(watch.node(), watched)
    assert answer
    assert "not rolled back" in answer.why
    assert watch.head("production") == third


def test_check_that_the_gate_lacks_is_inconclusive(tmp_path: Path) -> None:
    watch = Watch(tmp_path, checks=["verdict", "freshness"])
    watch.release("a,b\n1,2\n")
    answer = watch.round()
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert ("freshness", Outcome.INCONCLUSIVE, "the gate does not require it") in answer.checks


def test_version_past_its_time_is_asked_as_later_says(tmp_path: Path) -> None:
    watch = Watch(tmp_path, lasting="1m", later="7d")
    watch.release("a,b\n1,2\n")
    watched = watched_target(watch.node(), PRODUCTION)
    assert (watched.keys.every.total_seconds(), watched.is_due) == (3600, True)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"checks": []}, "must not be empty"),
        ({"evry": "1h"}, "'every'"),
        ({"every": "5s"}, "must be at least 1m, not 5s"),
        ({"on_failure": "rollback"}, "'roll_back'"),
    ],
)
def test_spec_says_what_is_wrong_with_watch(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    watch = Watch(tmp_path, **keys)
    watch.write("a,b\n1,2\n")
    with pytest.raises(SpecError) as refused:
        stage(watch.node(), watch.spec())
    assert problem in str(refused.value)


def test_watch_is_part_of_the_policy(watch: Watch) -> None:
    watch.release("a,b\n1,2\n")
    gates = watch.spec()["gates"]
    gates["production"]["watch"]["on_failure"] = "tell"
    (change,) = adopt(watch.node(), watch.spec(gates=gates), reason="less").changes
    assert change.subject == "gate production"
    assert change.difference == 'watch {"checks":["verdict"],"on_failure":"roll_back"} → {"checks":["verdict"]}'
    assert watched_target(watch.node(), PRODUCTION).keys.on_failure == "tell"


def test_command_tells_plan_outcome_and_exit_code(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    capsys.readouterr()
    assert watch.run("watch", "--dry-run") == 0
    assert "things@production" in capsys.readouterr().out
    assert watch.run("watch") == 0
    assert "things@production: pass" in capsys.readouterr().out
    assert watch.run("watch") == 0
    assert "Nothing was due" in capsys.readouterr().out
    watch.says(second, "fail")
    assert watch.run("watch", "things@production", "--now", "--json") == 1
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["action"], answer["returned_to"]) == ("rolled back", first)
    assert watch.run("watch", "release", "things@production", "--reason", "none") == 2
    page = watch.folder / "page.md"
    assert watch.run("check", f"things@{second}", "--gate", "production", "--render", f"markdown={page}") == 1
    assert "Watched since its promotion" in page.read_text()


def test_target_without_watch_is_refused(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["nonempty"]}})
    scenario.deliver("a,b\n1,2\n")
    scenario.promote()
    with pytest.raises(UsageError, match="is not watched"):
        watched_target(scenario.node(), PRODUCTION)
    assert check(scenario.node(), PRODUCTION, "production").accepted


@pytest.mark.usefixtures("prefect_server")
def test_flow_tells_a_rollback_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    watch = Watch(tmp_path, dataset=dataset_name(request))
    first, second = watch.release("a,b\n1,2\n"), watch.release("a,b\n3,4\n")
    watch.says(second, "fail")
    for count, outcome in enumerate(("failed", "completed", "completed")):
        state: State[Any] = watch_flow(**watch.on, return_state=True)
        assert state.type.value.lower() == outcome, state
        answers: Any = state.result(raise_on_failure=False)
        assert len(answers) == (count < 2), "each version is asked once an hour"
    emitted = {event["event"]: event for event in events_about(f"stagegate.dataset.{watch.dataset}", 3)}
    assert sorted(emitted) == ["stagegate.ref.moved", "stagegate.version.withdrawn", "stagegate.watch.answered"]
    answered = emitted["stagegate.watch.answered"]
    assert answered["resource"]["stagegate.target"] == "production"
    expected = {"outcome": "fail", "action": "rolled back", "digest": second, "returned_to": first}
    assert {name: answered["payload"][name] for name in expected} == expected
