"""How a name is known: the order, what a policy asks for, and that a login counts only as a server signed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prefect_stagegate.gate.approval_counting import count_answers, people_needed, requester_of, why_unanswerable
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.records.answers import (
    ANSWER_PAYLOAD,
    LOGIN_PAYLOAD,
    ServerLogin,
    answer_act,
    prove_act,
    request_act,
    sign_act,
    signer_of,
)
from prefect_stagegate.gate.records.signing import SigningKey
from prefect_stagegate.model import PROOFS, Approval, ApprovalRequest, Identity, is_proof_enough
from tests.support.keys import new_key

ADA, INES = Identity("ada@example.org", "os-user"), Identity("ines@example.org", "declared")
REQUEST = ApprovalRequest("r1", "things", "sha256:1", "pilot", "sha256:2", ADA, "2026-03-01T03:00:00.000000Z", after=0)
ISSUER, LOGGED_IN = "https://login.example.org", "2026-03-01T03:30:00.000000Z"
AT = "2026-03-01T04:00:00.000000Z"
OWNERS = {"infra": "ines@example.org"}


@pytest.fixture
def server(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "server.pem")


def login_of(server: SigningKey, name: str = INES.name, **changes: Any) -> ServerLogin:
    fields = {"issuer": ISSUER, "subject": f"subject of {name}", "at": LOGGED_IN, "groups": ("staff",), **changes}
    return ServerLogin(server, name, **fields)


def answer(login: ServerLogin, request: ApprovalRequest = REQUEST, **changes: Any) -> Approval:
    fields = {"approved": True, "reason": "", "at": AT, **changes}
    reply = Approval(request.id, signer_of(Identity("www", "os-user"), login), **fields)
    return replace(reply, envelope=sign_act(answer_act(request, reply), login))


def rule(server: SigningKey, *, groups: dict[str, Any] | None = None, **changes: Any) -> ApprovalParameters:
    logins = {"keys": [server.public], "groups": groups or {}}
    return ApprovalParameters.model_validate({"proof": "login", "logins": logins, "from": ["infra"], **changes})


def why_ignored(parameters: ApprovalParameters, *replies: Approval) -> str:
    tally = count_answers(REQUEST, replies, parameters, OWNERS)
    return "; ".join(why for _, why in tally.ignored)


def test_proofs_are_ordered_from_the_weakest() -> None:
    assert PROOFS == ("declared", "os-user", "prefect-form", "prefect-actor", "login", "signature")
    assert [is_proof_enough(proof, "login") for proof in PROOFS] == [False, False, False, False, True, True]


# ── what a policy asks for ──────────────────────────────────────────────────────────────────────────────────────────


def test_default_proof_leaves_no_trace_in_a_policy() -> None:
    written = ApprovalParameters.model_validate({"proof": "declared"}).model_dump(mode="json")
    assert written == {"count": 1, "from": [], "signed": False, "keys": {}}


def test_proof_by_signature_implies_signed() -> None:
    keys = {INES.name: "ed25519:" + "0f" * 32}
    parameters = ApprovalParameters.model_validate({"proof": "signature", "keys": keys})
    assert parameters.signed
    assert parameters.model_dump(mode="json")["proof"] == "signature"
    assert ApprovalParameters.model_validate(parameters.model_dump(mode="json")) == parameters
    assert ApprovalParameters(signed=True, keys=keys).proof == "signature"
    assert "proof" not in ApprovalParameters(signed=True, keys=keys).model_dump(mode="json")


@pytest.mark.parametrize(
    ("approval", "problem"),
    [
        ({"proof": "login"}, r"need `logins\.keys`"),
        ({"logins": {"groups": {"infra": ["a"]}}}, r"need `logins\.keys`"),
        ({"proof": "signature"}, "`signed` needs the `keys`"),
        ({"proof": "signature", "signed": False}, "`signed: true` goes with `proof: signature` alone"),
        ({"proof": "os-user", "signed": True, "keys": {"a": "ed25519:" + "0" * 64}}, "`signed: true` goes with"),
        ({"proof": "prefect-actor"}, "no record proves an actor"),
        ({"proof": "oidc"}, "Input should be 'declared', 'os-user'"),
    ],
)
def test_proof_that_nothing_can_give_is_refused(approval: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ApprovalParameters.model_validate(approval)


# ── logins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_login_that_the_policys_server_signed_counts(server: SigningKey) -> None:
    reply = answer(login_of(server))
    assert reply.approver == Identity(INES.name, "login")
    proof = prove_act(answer_act(REQUEST, reply), rule(server))
    assert (proof.known_by, proof.key) == ("login", server.public)
    assert proof.login
    assert (proof.login.issuer, proof.login.groups) == (ISSUER, ("staff",))
    assert not count_answers(REQUEST, [reply], rule(server), OWNERS).ignored


@pytest.mark.parametrize("proof", PROOFS)
def test_recorded_source_alone_proves_no_login(server: SigningKey, proof: Any) -> None:
    written = Approval("r1", Identity(INES.name, proof), approved=True, reason="", at=AT)
    assert why_ignored(rule(server), written).endswith("; this gate wants login")
    known_by = proof if proof in PROOFS[:3] else "declared"
    assert prove_act(answer_act(REQUEST, written), rule(server)).known_by == known_by


def test_login_of_an_unknown_server_does_not_count(server: SigningKey, tmp_path: Path) -> None:
    forged = answer(login_of(new_key(tmp_path / "other.pem")))
    assert "no server under `logins.keys`" in why_ignored(rule(server), forged)


@pytest.mark.parametrize("field", ["dataset", "digest", "target", "policy", "id", "catalog"])
def test_login_for_another_request_does_not_count(server: SigningKey, field: str) -> None:
    changes: dict[str, Any] = {field: "other"}
    reply = answer(login_of(server), replace(REQUEST, **changes))
    assert "known by declared" in why_ignored(rule(server), replace(reply, request=REQUEST.id))


@pytest.mark.parametrize(
    "changes",
    [
        {"approver": Identity("oleg@example.org", "login")},
        {"approved": False},
        {"reason": "another"},
        {"at": "2026-03-01T05:00:00.000000Z"},
    ],
)
def test_login_proves_only_what_was_signed(server: SigningKey, changes: dict[str, Any]) -> None:
    reply = replace(answer(login_of(server)), **changes)
    owners = {"infra": "ines@example.org, oleg@example.org"}
    ((_, why),) = count_answers(REQUEST, [reply], rule(server), owners).ignored
    assert "no server under `logins.keys` of the policy signed exactly this" in why


def test_answer_signed_by_a_server_key_is_no_login(server: SigningKey) -> None:
    """A login has a payload type of its own: what a key signs as a person's or a node's is none."""
    reply = answer(login_of(server))
    envelope = server.sign(answer_act(REQUEST, reply).statement, ANSWER_PAYLOAD)
    assert "known by declared" in why_ignored(rule(server), replace(reply, envelope=envelope))
    relabelled = {**envelope, "payloadType": LOGIN_PAYLOAD}
    assert "its login can't be read" in why_ignored(rule(server), replace(reply, envelope=relabelled))


def test_groups_of_the_provider_stand_for_a_group_of_owners(server: SigningKey) -> None:
    parameters = rule(server, groups={"infra": ["approvers"]})
    member = answer(login_of(server, "oleg@example.org", groups=("approvers",)))
    assert not why_ignored(parameters, member)
    assert not why_ignored(parameters, answer(login_of(server)))  # her address is among the owners
    stranger = answer(login_of(server, "oleg@example.org", groups=("staff",)))
    assert why_ignored(parameters, stranger) == "not an address of infra"
    added = replace(stranger, envelope=member.envelope)
    assert not why_ignored(parameters, added)  # the very same answer, by the login that is in the group
    renamed = replace(stranger, approver=Identity("pat@example.org", "login"), envelope=member.envelope)
    assert why_ignored(parameters, renamed) == "not an address of infra"


def test_group_at_a_server_counts_for_no_other_group(server: SigningKey) -> None:
    parameters = rule(server, groups={"governance": ["approvers"]})
    member = answer(login_of(server, "oleg@example.org", groups=("approvers",)))
    assert why_ignored(parameters, member) == "not an address of infra"


def test_login_by_another_provider_does_not_count(server: SigningKey) -> None:
    parameters = rule(server, logins={"keys": [server.public], "issuers": ["https://other.example.org"]})
    assert f"the policy takes no logins by {ISSUER}" in why_ignored(parameters, answer(login_of(server)))


def test_proxy_is_an_issuer_by_its_header(server: SigningKey) -> None:
    parameters = rule(server, logins={"keys": [server.public], "issuers": ["header:X-Forwarded-Email"]})
    assert not why_ignored(parameters, answer(login_of(server, issuer="header:X-Forwarded-Email")))
    assert "takes no logins" in why_ignored(parameters, answer(login_of(server, issuer="header:X-User")))


def test_one_login_counts_for_one_person(server: SigningKey) -> None:
    owners = {"infra": "ines@example.org, oleg@example.org"}
    replies = [answer(login_of(server, name, subject="7")) for name in owners["infra"].split(", ")]
    tally = count_answers(REQUEST, replies, rule(server, count=2), owners)
    ((_, why),) = tally.ignored
    assert why == "it is signed with the same key, or by the same login, as the answer of ines@example.org"


def test_members_of_a_providers_group_may_be_enough(server: SigningKey) -> None:
    assert why_unanswerable(rule(server, count=2), OWNERS)
    assert not why_unanswerable(rule(server, count=2, groups={"infra": ["approvers"]}), OWNERS)


# ── what counts least ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", PROOFS[:3])
@pytest.mark.parametrize("recorded", PROOFS[:3])
def test_lower_proof_does_not_count(asked: Any, recorded: Any) -> None:
    reply = Approval("r1", Identity(INES.name, recorded), approved=True, reason="", at=AT)
    why = why_ignored(ApprovalParameters.model_validate({"proof": asked}), reply)
    is_enough = PROOFS.index(recorded) >= PROOFS.index(asked)
    assert why == ("" if is_enough else f"known by {recorded}; this gate wants {asked}")


def test_lower_answer_hides_no_better_one() -> None:
    known = Approval("r1", Identity(INES.name, "os-user"), approved=False, reason="no", at=AT)
    later = Approval("r1", Identity(INES.name, "declared"), approved=True, reason="", at=AT)
    tally = count_answers(REQUEST, [known, later], ApprovalParameters.model_validate({"proof": "os-user"}), OWNERS)
    assert tally.declined == (known,)


# ── who asked ───────────────────────────────────────────────────────────────────────────────────────────────────────


def asked_by(source: Any, login: ServerLogin | None = None) -> ApprovalRequest:
    """A request as it is recorded, with the envelope of a login."""
    request = replace(REQUEST, requester=signer_of(Identity("ada@example.org", source), login))
    return replace(request, envelope=sign_act(request_act(request), login)) if login else request


@pytest.mark.parametrize("asked", PROOFS[:3])
@pytest.mark.parametrize("recorded", PROOFS)
def test_requester_of_lower_proof_costs_one_more_person(asked: Any, recorded: Any) -> None:
    parameters = ApprovalParameters.model_validate({"proof": asked})
    known_by = recorded if recorded in PROOFS[:3] else "declared"
    is_known = PROOFS.index(known_by) >= PROOFS.index(asked)
    replies = [Approval("r1", Identity(name, asked), approved=True, reason="", at=AT) for name in ("ines", "oleg")]
    first, second = (count_answers(asked_by(recorded), replies[:n], parameters, {}) for n in (1, 2))
    doubt = f"; who asked (ada@example.org, {known_by}) may be one of them, so 2 people must agree"
    assert first.missing == ("" if is_known else f"1 of 2 approvals by anybody{doubt}")
    assert first.missing_people == int(not is_known)
    assert not second.missing


def test_requester_who_logged_in_is_another_person(server: SigningKey) -> None:
    reply = answer(login_of(server))
    request = asked_by("os-user", login_of(server, "ada@example.org"))
    replies = [answer(login_of(server), request)]
    assert requester_of(request, rule(server)) == Identity("ada@example.org", "login")
    assert not count_answers(request, replies, rule(server), OWNERS).missing
    assert "(ada@example.org, os-user) may be one" in count_answers(REQUEST, [reply], rule(server), OWNERS).missing


def without_address(server: SigningKey, subject: str) -> ServerLogin:
    return login_of(server, f"{ISSUER}#{subject}", subject=subject, groups=("approvers",))


def signed_request(by: ServerLogin | SigningKey) -> ApprovalRequest:
    request = replace(REQUEST, requester=signer_of(Identity("ada@example.org", "os-user"), by))
    return replace(request, envelope=sign_act(request_act(request), by))


def test_login_without_an_address_may_be_the_requesters(server: SigningKey, tmp_path: Path) -> None:
    ada = new_key(tmp_path / "ada.pem")
    parameters = rule(server, groups={"infra": ["approvers"]}, keys={"ada@example.org": ada.public})
    request = signed_request(ada)
    assert requester_of(request, parameters).source == "signature"
    replies = [answer(without_address(server, subject), request) for subject in ("7", "8")]
    first, second = (count_answers(request, replies[:number], parameters, OWNERS) for number in (1, 2))
    assert first.missing.startswith("0 of 1 approval by infra; whoever logs in without a verified address")
    assert first.missing_people == 1
    assert not second.missing
    # Two logins at one provider are two people.
    request = signed_request(without_address(server, "9"))
    replies = [answer(without_address(server, "7"), request)]
    assert not count_answers(request, replies, parameters, OWNERS).missing


def test_one_person_with_and_without_an_address_counts_once(server: SigningKey) -> None:
    parameters = rule(server, groups={"infra": ["approvers"]}, count=2)
    request = signed_request(login_of(server, "ada@example.org"))
    named, unnamed, third = (
        answer(login, request)
        for login in (login_of(server), without_address(server, "7"), without_address(server, "8"))
    )
    assert count_answers(request, [named, unnamed], parameters, OWNERS).missing_people == 1
    assert not count_answers(request, [named, unnamed, third], parameters, OWNERS).missing


def test_requester_is_doubted_once(server: SigningKey) -> None:
    parameters = rule(server, groups={"infra": ["approvers"]})
    replies = [answer(without_address(server, subject)) for subject in ("7", "8")]
    first, second = (count_answers(REQUEST, replies[:number], parameters, OWNERS) for number in (1, 2))
    assert "1 of 2 approvals by infra; who asked" in first.missing
    assert not second.missing


@pytest.mark.parametrize("changes", [{"envelope": {}}, {"at": AT}, {"digest": "sha256:3"}, {"target": "production"}])
def test_signed_request_that_was_changed_is_declared(server: SigningKey, changes: dict[str, Any]) -> None:
    request = replace(asked_by("os-user", login_of(server, "ada@example.org")), **changes)
    assert requester_of(request, rule(server)).source == "declared"


def test_one_login_never_asks_and_answers(server: SigningKey) -> None:
    request = asked_by("os-user", login_of(server, "ada@example.org", subject="7"))
    tally = count_answers(request, [answer(login_of(server, subject="7"), request)], rule(server), OWNERS)
    ((_, why),) = tally.ignored
    assert why.endswith("by the same login, as the request of ada@example.org")


def test_signed_alone_asks_nothing_of_the_requester(server: SigningKey) -> None:
    """Policies of earlier releases say what they said."""
    keys = {INES.name: server.public}
    assert people_needed(ApprovalParameters(signed=True, keys=keys), ADA) == (1, "")
    assert people_needed(ApprovalParameters.model_validate({"proof": "signature", "keys": keys}), ADA)[0] == 2


def test_too_few_people_for_a_doubtful_requester_are_told() -> None:
    parameters = ApprovalParameters.model_validate({"proof": "os-user", "from": ["infra"]})
    assert not why_unanswerable(parameters, OWNERS, ADA)
    assert why_unanswerable(parameters, OWNERS, Identity("bob", "declared")) == (
        "2 approvals needed from infra; people who may answer: 1; who asked (bob, declared) may be one of them, so 2 "
        "people must agree"
    )


def test_envelope_of_a_request_changes_no_binding(server: SigningKey) -> None:
    request = asked_by("os-user", login_of(server, "ada@example.org"))
    assert "envelope" not in request.signed()
    assert replace(request, envelope={}).signed() == request.signed()
