"""How two policies differ: what lets more versions through is called loosened, and no difference stays hidden."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.clock import stamp
from prefect_stagegate.gate.approval_counting import count_answers
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.records.replay import replay
from prefect_stagegate.jobs.gating.policy import changes, spec_under
from prefect_stagegate.model import (
    Approval,
    ApprovalRequest,
    Decision,
    DecisionOutcome,
    Direction,
    Evidence,
    Identity,
    Outcome,
)
from prefect_stagegate.testing.contexts import DIGEST, NOW

HOURS = st.integers(1, 9).map(lambda hours: f"{hours}h")
SEVERITIES = st.sampled_from(["blocking", "blocking", "warning", "info"])
MEASURED = st.fixed_dictionaries(
    {"age_seconds": st.integers(0, 36_000), "stood_seconds": st.integers(0, 36_000), "ratio": st.floats(0, 3)}
)
LIMITS: dict[str, Any] = {
    "freshness": st.tuples(HOURS, HOURS).map(sorted).map(lambda both: {"warn": both[0], "fail": both[1]}),
    "cache_fit": st.tuples(st.floats(0.1, 2), st.floats(0.1, 2))
    .map(sorted)
    .map(lambda both: {"warn": both[1], "fail": both[0]}),
    "soak": HOURS.map(lambda period: {"for": period}),
    "rollback": HOURS.map(lambda warn: {"warn": warn}),
}
PEOPLE = ("ana@example.org", "ben@example.org", "cy@example.org")
GROUPS = ("infra", "governance")


@st.composite
def gate(draw: st.DrawFn) -> list[Any]:
    names = draw(st.lists(st.sampled_from(sorted(LIMITS)), unique=True, min_size=1))
    return [{name: draw(LIMITS[name]) | {"severity": draw(SEVERITIES)}} for name in names]


def policies() -> st.SearchStrategy[dict[str, Any]]:
    return gate().map(lambda require: {"gates": {"below": {"require": ["digest"]}, "pilot": {"require": require}}})


def directions(old: dict[str, Any], new: dict[str, Any]) -> set[Direction]:
    return {change.direction for change in changes(old, new, "things")}


@given(policies(), policies(), MEASURED)
def test_a_gate_that_accepts_more_is_called_loosened(
    old: dict[str, Any], new: dict[str, Any], measured: dict[str, Any]
) -> None:
    checks = tuple(
        Evidence(name, Outcome.PASS, "", "data", measured=measured, binding={"parameters": "others"}, at=stamp(NOW))
        for name in LIMITS
    )
    decision = Decision("things", DIGEST, "pilot", DecisionOutcome.ACCEPTED, checks, "", "", stamp(NOW))
    before, after = (replay(decision, spec_under(policy, "things").gate("pilot")) for policy in (old, new))
    if after.accepted and not before.accepted:
        assert Direction.LOOSENED in directions(old, new)
    assert (old == new) == (not changes(old, new, "things"))


@st.composite
def approval(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.lists(st.sampled_from(GROUPS), unique=True))
    required = draw(st.lists(st.sampled_from(PEOPLE), unique=True, max_size=1))
    return {"count": draw(st.integers(1, 2)), "from": groups, "required": required}


OWNERS = st.fixed_dictionaries(
    {group: st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True).map(", ".join) for group in GROUPS}
)


@given(approval(), approval(), OWNERS, OWNERS, st.sets(st.sampled_from(PEOPLE)))
def test_an_approval_that_counts_more_is_called_loosened(
    old: dict[str, Any], new: dict[str, Any], owners: dict[str, str], others: dict[str, str], agree: set[str]
) -> None:
    request = ApprovalRequest("1", "things", DIGEST, "pilot", "", Identity("dora", "declared"), stamp(NOW))
    replies = [Approval("1", Identity(name, "declared"), True, "", stamp(NOW)) for name in sorted(agree)]
    before, after = (
        not count_answers(request, replies, ApprovalParameters.model_validate(asks), known).missing
        for asks, known in ((old, owners), (new, others))
    )
    if after and not before:
        first = {"gates": {"pilot": {"require": [{"approval": old}]}}, "owners": owners}
        second = {"gates": {"pilot": {"require": [{"approval": new}]}}, "owners": others}
        assert Direction.LOOSENED in directions(first, second)


def told(old: dict[str, Any], new: dict[str, Any]) -> set[tuple[str, str]]:
    return {(change.difference, change.direction.value) for change in changes(old, new, "things")}


def requiring(*require: Any) -> dict[str, Any]:
    return {"gates": {"pilot": {"require": list(require)}}}


def test_check_that_blocks_nothing_is_not_called_required() -> None:
    added = told(requiring("license"), requiring("license", {"owner": {"severity": "info"}}))
    assert added == {("owner is reported as info, and blocks nothing", "changed")}


def test_all_of_a_new_gate_is_shown() -> None:
    key = "ed25519:" + "0" * 64
    asks = {"approval": {"from": ["infra"], "signed": True, "keys": {"ada": key}}}
    assert told({}, requiring({"license": {"severity": "warning"}}, asks)) == {
        ("is new, so versions can be promoted to it", "loosened"),
        ("license is reported as warning, and blocks nothing", "changed"),
        (f'approval is required: from ["infra"], signed true, keys {{"ada":"{key}"}}', "tightened"),
    }


def test_group_that_need_not_agree_any_more_is_loosened() -> None:
    anybody = told(requiring({"approval": {"from": ["infra"]}}), requiring("approval"))
    assert anybody == {('approval: from ["infra"] → []', "loosened")}
