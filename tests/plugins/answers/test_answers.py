"""Pages for answers without a server: what they show, and that their acts are the commands' jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.doors import Visitor, answer_path
from prefect_stagegate.errors import RefConflict, UnknownRef, UsageError
from prefect_stagegate.jobs.gating.approve import approve, open_request
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt, answer_request, open_requests
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.model import Address, Identity, KnownBy, Outcome
from prefect_stagegate.plugins.answers import proposal_page, request_page, roll_back_page, waiver_page
from tests.support.keys import new_key
from tests.support.scenario import ADA, INES, Scenario
from tests.support.sent_forms import sent

THINGS = Address("things", "latest")
APPROVAL = {"approval": {"count": 1, "from": ["infra"]}}
GATES: dict[str, Any] = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", APPROVAL]},
}
RULE = {"change": APPROVAL}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def waiting(scenario: Scenario) -> dict[str, str]:
    """A version that waits for an approval; gives the names of its request's page."""
    scenario.deliver("one")
    scenario.promote("pilot")
    check(scenario.node(), THINGS, "production")
    asked = open_request(scenario.node(), THINGS, "production")
    return {"dataset": "things", "target": "production", "request": asked.id}


def test_addresses_are_filled_in() -> None:
    path = answer_path("approve", dataset="things", target="production", request="a/b")
    assert path == "/datasets/things/requests/production/a%2Fb"
    assert answer_path("agree", dataset="things", policy=f"sha256:{'0' * 64}").endswith("0" * 64)
    assert answer_path("nothing", dataset="things") == ""


def test_request_shows_who_is_awaited_and_what_changed(scenario: Scenario) -> None:
    scenario.deliver("zero")
    scenario.promote()
    page = request_page.request_page(sent(scenario, waiting(scenario)))
    assert (page.people.missing, page.closed) == ("0 of 1 approval by infra", "")
    assert page.report
    assert ("changes", "1 file changed (3 B)") in page.report.facts


def test_answer_is_for_the_request_that_was_shown(scenario: Scenario) -> None:
    names = waiting(scenario)
    scenario.deliver("two")
    scenario.promote("pilot")
    check(scenario.node(), THINGS, "production")
    request_page.act(sent(scenario, names, answer="approve"))
    newer = names | {"request": open_request(scenario.node(), THINGS, "production").id}
    people = [request_page.request_page(sent(scenario, each)).people for each in (names, newer)]
    assert [len(each.counted) for each in people] == [1, 0]


def test_request_that_ended_says_why(scenario: Scenario) -> None:
    names = waiting(scenario)
    approve(scenario.node(INES), THINGS, "production")
    scenario.promote("production")
    scenario.deliver("two")
    scenario.promote()
    page = request_page.request_page(sent(scenario, names))
    assert "production moved since" in page.closed
    with pytest.raises(UsageError, match="can't be answered: production moved since"):
        request_page.act(sent(scenario, names, answer="approve"))


@pytest.mark.parametrize("answer", ["", "APPROVE", "adopt"])
def test_form_says_what_it_answers(scenario: Scenario, answer: str) -> None:
    with pytest.raises(UsageError, match="neither approves nor declines"):
        request_page.act(sent(scenario, waiting(scenario), answer=answer))


@pytest.mark.parametrize("name", ["nobody", "..", "a/b", "", "../../policy"])
def test_unknown_request_has_no_page(scenario: Scenario, name: str) -> None:
    names = waiting(scenario) | {"request": name}
    with pytest.raises(UnknownRef, match="There is no request"):
        request_page.request_page(sent(scenario, names))


def test_failed_check_is_waived_for_a_while(scenario: Scenario) -> None:
    digest = scenario.deliver("one", license="CC-BY-NC-4.0").digest
    check(scenario.node(), THINGS, "pilot")
    names = {"dataset": "things", "target": "pilot", "version": digest[7:], "check": "license"}
    assert waiver_page.waiver_page(sent(scenario, names)).evidence.outcome is Outcome.FAIL
    with pytest.raises(UsageError, match="needs an end"):
        waiver_page.act(sent(scenario, names, reason="a holiday", until="99d"))
    with pytest.raises(UsageError, match="would not count"):
        waiver_page.act(sent(scenario, names, ADA, reason="a holiday", until="7d"))
    waiver_page.act(sent(scenario, names, reason="a holiday", until="7d"))
    (waiver,) = waiver_page.waiver_page(sent(scenario, names)).waivers
    assert (waiver.approver.name, waiver.reason) == (INES.name, "a holiday")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_check_without_an_outcome_has_no_page(scenario: Scenario) -> None:
    digest = scenario.deliver("one").digest
    names = {"dataset": "things", "target": "pilot", "version": digest[7:], "check": "license"}
    with pytest.raises(UnknownRef, match="no outcome of 'license'"):
        waiver_page.waiver_page(sent(scenario, names))


def test_target_returns_from_what_the_page_showed(scenario: Scenario) -> None:
    digests = []
    for text in ("one", "two", "three"):
        scenario.deliver(text)
        digests.append(scenario.promote("pilot"))
    names = {"dataset": "things", "target": "pilot"}
    page = roll_back_page.roll_back_page(sent(scenario, names))
    assert [entry.digest for entry, _ in page.versions] == [digests[1], digests[0]]
    with pytest.raises(RefConflict, match="by now"):
        roll_back_page.act(sent(scenario, names, to=digests[0], leaving=digests[1], reason="loss went up"))
    with pytest.raises(UsageError, match="from which version"):
        roll_back_page.act(sent(scenario, names, to=digests[0], reason="loss went up"))
    roll_back_page.act(sent(scenario, names, to=digests[0], leaving=digests[2], reason="loss went up"))
    head = scenario.node().catalog.history("things", "pilot")[-1]
    assert (head.action, head.digest, head.who.name) == ("rollback", digests[0], INES.name)


def test_policy_is_agreed_to_and_adopted(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates=GATES, policy=RULE)
    scenario.deliver("one")
    scenario.promote("pilot")
    stricter = scenario.spec(gates=GATES | {"pilot": {"require": ["license", "nonempty"]}})
    digest = adopt(scenario.node(), stricter, reason="more").digest
    names = {"dataset": "things", "policy": digest[7:]}
    page = proposal_page.proposal_page(sent(scenario, names))
    assert page.changes
    assert page.missing
    with pytest.raises(UsageError, match="can't be adopted yet"):
        proposal_page.act(sent(scenario, names, answer="adopt", reason="agreed"))
    proposal_page.act(sent(scenario, names, answer="approve"))
    assert proposal_page.proposal_page(sent(scenario, names)).missing == ""
    assert proposal_page.act(sent(scenario, names, answer="adopt", reason="agreed")) == "/datasets/things/policy"
    assert open_requests(scenario.node(), "things") == []
    assert proposal_page.proposal_page(sent(scenario, names)).request is None


def test_declined_policy_is_not_adopted(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates=GATES, policy=RULE)
    scenario.deliver("one")
    scenario.promote("pilot")
    looser = scenario.spec(gates=GATES | {"pilot": {"require": ["nonempty"]}})
    names = {"dataset": "things", "policy": adopt(scenario.node(), looser, reason="less").digest[7:]}
    answer_request(scenario.node(INES), "things", approved=False, reason="licenses matter")
    with pytest.raises(UsageError, match="licenses matter"):
        proposal_page.act(sent(scenario, names, answer="adopt", reason="agreed"))


def test_record_says_how_the_visitor_is_known(scenario: Scenario) -> None:
    names = waiting(scenario)
    request_page.act(sent(scenario, names, answer="approve", reason=" seen "))
    assert check(scenario.node(), THINGS, "production").accepted
    (answer,) = request_page.request_page(sent(scenario, names)).people.counted
    assert (str(answer.approver), answer.reason) == (str(INES), "seen")


@pytest.mark.parametrize("claimed", ["login", "signature", "prefect-actor"])
def test_names_are_shown_as_they_are_proved(scenario: Scenario, claimed: KnownBy) -> None:
    """Somebody wrote into the catalog that names are known better than they are."""
    ada, ines = Identity(ADA.name, claimed), Identity(INES.name, claimed)
    scenario.deliver("one", license="CC-BY-NC-4.0")
    check(scenario.node(ada), THINGS, "pilot")
    names = {"dataset": "things", "target": "pilot", "version": scenario.head("latest")[7:], "check": "license"}
    waiver_page.act(sent(scenario, names, ines, reason="a holiday", until="7d"))
    (waiver,) = waiver_page.waiver_page(sent(scenario, names)).waivers
    scenario.deliver("two")
    check(scenario.node(ada), THINGS, "pilot")
    promote(scenario.node(ada), THINGS, "pilot")
    check(scenario.node(ada), THINGS, "production")
    asked = open_request(scenario.node(), THINGS, "production")
    names = {"dataset": "things", "target": "production", "request": asked.id}
    assert approve(scenario.node(ines), THINGS, "production").approver.source == claimed
    page = request_page.request_page(sent(scenario, names))
    served = roll_back_page.roll_back_page(sent(scenario, {"dataset": "things", "target": "pilot"})).head
    assert asked.requester.source == claimed
    (answer,) = page.people.counted
    shown = (waiver.approver, page.request.requester, answer.approver)
    assert {(who.name, who.source) for who in (*shown, served.who)} == {
        (ADA.name, "declared"),
        (INES.name, "declared"),
    }


def test_policy_is_proposed_anew_by_the_login(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates=GATES, policy=RULE)
    scenario.deliver("one")
    scenario.promote("pilot")
    stricter = scenario.spec(gates=GATES | {"pilot": {"require": ["license", "nonempty"]}})
    names = {"dataset": "things", "policy": adopt(scenario.node(), stricter, reason="more").digest[7:]}
    request = sent(scenario, names, answer="adopt", reason="more")
    visitor = Visitor(INES.name, new_key(tmp_path / "ines.pem"), "secret")
    with pytest.raises(UsageError, match="can't be adopted yet"):
        proposal_page.act(replace(request, visitor=visitor))
    # Of a request that nobody signed or answered, whoever asks with a key makes one of their own.
    assert [bool(asked.envelope) for asked in open_requests(scenario.node(), "things")] == [False, True]
    asked = proposal_page.proposal_page(sent(scenario, names)).request
    assert asked is not None
    assert asked.requester == Identity(INES.name, "declared")  # the policy has no key for the name
