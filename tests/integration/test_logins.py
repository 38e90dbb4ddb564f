"""What people do by login: a server signs it, the gate counts it, and the history proves it offline."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.clock import now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt, answer_request
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.waive import revoke_waiver, waive
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Identity
from tests.support.keys import login_at, new_key
from tests.support.scenario import Scenario

THINGS, PILOT = Address("things"), Address("things", "pilot")
SERVER = Identity("www-data", "os-user")
INES, OLEG, BOB = "ines@example.org", "oleg@example.org", "bob@example.org"
DENIED = {"license": "CC-BY-NC-4.0"}


class LoginScenario(Scenario):
    """A gate whose license check can fail, and whose approval Ines or a member of `approvers` gives by login."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.server = new_key(folder / "server.pem")
        logins = {"keys": [self.server.public], "groups": {"infra": ["approvers"]}}
        self.rule = {"from": ["infra"], "proof": "login", "logins": logins}
        gates = {"pilot": {"require": ["license", "owner", {"approval": self.rule}]}}
        owners = {"infra": INES, "data": "d@example.org", "governance": "g@example.org"}
        super().__init__(folder, dataset="things", gates=gates, owners=owners, **keys)

    def login(self, name: str = INES, *groups: str) -> Any:
        return login_at(self.server, name, *groups)

    def check(self, by: str = BOB) -> Decision:
        return check(self.node(SERVER), THINGS, "pilot", asked_by=self.login(by))

    def promoted(self, *texts: str) -> None:
        for text in texts:
            self.deliver(text)
            self.check()
            approve(self.node(SERVER), THINGS, "pilot", key=self.login())
            assert self.check().accepted
            promote(self.node(), THINGS, "pilot")


@pytest.fixture
def scenario(tmp_path: Path) -> LoginScenario:
    return LoginScenario(tmp_path)


def test_history_proves_logins_without_their_server(scenario: LoginScenario) -> None:
    scenario.promoted("one", "two")
    assert not [chain.problems for chain in verify_history(scenario.node()) if chain.problems]
    evidence = next(each for each in scenario.check().checks if each.check == "approval")
    (answer,) = evidence.measured["answers"]
    assert (answer["name"], answer["known_by"]) == (INES, "login")
    assert (answer["issuer"], answer["subject"]) == ("https://login.example.org", f"subject of {INES}")
    assert evidence.measured["requester"] == {"name": BOB, "known_by": "login"}


def test_history_says_how_each_name_was_proved(scenario: LoginScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.promoted("one")
    assert scenario.run("history", "things@pilot") == 0
    text = capsys.readouterr().out
    assert f"requested by {BOB} (login)" in text
    assert f"approved by {INES} (login)" in text


@pytest.mark.parametrize(("part", "why"), [("approvals", "0 of 1 approval"), ("request", "may be one of them")])
def test_history_misses_a_login_that_somebody_took_out(scenario: LoginScenario, part: str, why: str) -> None:
    scenario.promoted("one")
    path = scenario.folder / "catalog/datasets/things/refs/pilot/00000001.json"
    entry = json.loads(path.read_bytes())
    signed = entry["attestation"]["predicate"]["stagegate"][part]
    (signed[0] if part == "approvals" else signed)["envelope"] = {}
    path.write_text(json.dumps(entry))
    reader = scenario.node(cache="elsewhere")  # it remembers no entry
    problems = [problem for chain in verify_history(reader) for problem in chain.problems]
    assert "its signed approval does not hold" in problems[0]
    assert why in problems[0]


def test_client_that_only_says_login_is_refused(scenario: LoginScenario) -> None:
    scenario.deliver("one")
    scenario.check()
    with pytest.raises(UsageError, match="known by declared; this gate wants login") as refused:
        approve(scenario.node(Identity(INES, "login")), THINGS, "pilot")
    assert "--identity" not in f"{refused.value} {refused.value.hint}"
    with pytest.raises(UsageError, match="known by os-user; this gate wants login"):
        approve(scenario.node(Identity(INES, "os-user")), THINGS, "pilot")


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        ({}, "ada"),
        ({"from": ["infra"]}, "ada"),
        ({"from": ["infra"]}, "mallory"),
        ({"from": ["infra"], "proof": "os-user", "count": 2}, INES),
        ({"proof": "os-user"}, INES),
    ],
)
def test_no_refusal_suggests_another_name(tmp_path: Path, rule: dict[str, Any], who: str) -> None:
    owners = {"infra": f"{INES}, {OLEG}, pat@example.org", "governance": "g@example.org"}
    scenario = Scenario(tmp_path, gates={"pilot": {"require": [{"approval": rule}]}}, owners=owners)
    scenario.deliver("one")
    check(scenario.node(), THINGS, "pilot")
    with pytest.raises(UsageError, match="can't answer for pilot") as refused:
        approve(scenario.node(Identity(who, "declared")), THINGS, "pilot")
    assert "--identity" not in f"{refused.value.message} {refused.value.hint}"


def test_member_of_the_providers_group_approves(scenario: LoginScenario) -> None:
    scenario.deliver("one")
    scenario.check()
    with pytest.raises(UsageError, match=r"oleg@example\.org can't answer for pilot: not an address of infra"):
        approve(scenario.node(SERVER), THINGS, "pilot", key=scenario.login(OLEG, "staff"))
    approve(scenario.node(SERVER), THINGS, "pilot", key=scenario.login(OLEG, "approvers"))
    assert scenario.check().accepted


def test_declared_requester_costs_one_more_person(scenario: LoginScenario) -> None:
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    for name, outcome in ((INES, DecisionOutcome.WAITING), (OLEG, DecisionOutcome.ACCEPTED)):
        approve(scenario.node(SERVER), THINGS, "pilot", key=scenario.login(name, "approvers"))
        decision = check(scenario.node(), THINGS, "pilot")
        assert decision.outcome is outcome
    assert not verify_history(scenario.node())[-1].problems


def test_whoever_asks_by_login_replaces_an_unsigned_request(scenario: LoginScenario) -> None:
    scenario.deliver("one")
    check(scenario.node(), THINGS, "pilot")
    scenario.check()
    approve(scenario.node(SERVER), THINGS, "pilot", key=scenario.login())
    assert scenario.check().accepted


def test_waivers_and_revocations_are_proved_by_login(scenario: LoginScenario) -> None:
    scenario.deliver("one", **DENIED)
    assert scenario.check().outcome is DecisionOutcome.REFUSED
    until, node = now() + timedelta(days=2), scenario.node(SERVER)
    with pytest.raises(UsageError, match="would not count: known by declared; this gate wants login"):
        waive(scenario.node(Identity(INES, "declared")), THINGS, "pilot", "license", reason="agreed", until=until)
    waiver = waive(node, THINGS, "pilot", "license", reason="agreed", until=until, key=scenario.login())
    assert waiver.approver == Identity(INES, "login")
    assert scenario.check().outcome is DecisionOutcome.WAITING
    revoke_waiver(node, THINGS, "pilot", "license", reason="fixed", key=scenario.login())
    assert scenario.check().outcome is DecisionOutcome.REFUSED
    assert revoke(node, THINGS, "owner", reason="wrong", key=scenario.login()).who == Identity(INES, "login")


def test_forged_waiver_by_login_does_not_count(scenario: LoginScenario) -> None:
    scenario.deliver("one", **DENIED)
    scenario.check()
    until, other = now() + timedelta(days=2), replace(scenario.login(), key=new_key(scenario.folder / "other.pem"))
    with pytest.raises(UsageError, match=r"no server under `logins\.keys`"):
        waive(scenario.node(SERVER), THINGS, "pilot", "license", reason="agreed", until=until, key=other)
    assert scenario.check().outcome is DecisionOutcome.REFUSED


def test_rollback_by_login_moves_the_target(scenario: LoginScenario) -> None:
    scenario.promoted("one", "two")
    with pytest.raises(UsageError, match="was not rolled back: known by declared"):
        rollback(scenario.node(Identity(INES, "declared")), PILOT, reason="loss went up")
    rollback(scenario.node(SERVER), PILOT, reason="loss went up", key=scenario.login())
    assert not [chain.problems for chain in verify_history(scenario.node()) if chain.problems]
    assert scenario.node().catalog.history("things", "pilot")[-1].who == Identity(INES, "login")


def test_policy_is_adopted_by_login(tmp_path: Path) -> None:
    scenario = LoginScenario(tmp_path)
    rule = {"change": {"approval": scenario.rule}}
    scenario.deliver("one", policy=rule)
    scenario.write("two")
    changed = scenario.spec(policy=rule, gates={"pilot": {"require": ["license"]}})
    waiting = adopt(scenario.node(SERVER), changed, reason="less", key=scenario.login(BOB))
    assert waiting.request
    assert waiting.request.requester == Identity(BOB, "login")
    assert waiting.missing == "0 of 1 approval by infra"
    with pytest.raises(UsageError, match="can't answer for the policy of things: known by declared"):
        answer_request(scenario.node(Identity(INES, "declared")), "things", approved=True, reason="fine")
    answer_request(scenario.node(SERVER), "things", approved=True, reason="fine", key=scenario.login())
    assert adopt(scenario.node(SERVER), changed, reason="less", key=scenario.login(BOB)).seq == 2
