"""Answers signed with people's own SSH keys, which the policy's `allowed_signers` names and `ssh-keygen` verifies."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from prefect_stagegate.catalog.gate_records import put_answer, read_answers, read_requests
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import ExitCode, GateFailed, StagegateError, UsageError
from prefect_stagegate.gate.records.answers import SSHSIG, answer_act, sign_act, signed_moment
from prefect_stagegate.gate.records.signing import SigningKey, read_signing_key
from prefect_stagegate.gate.records.ssh_signatures import (
    NAMESPACE,
    SshKey,
    verification_line,
    verify_ssh_signature,
)
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt, answer_request, open_requests
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.waive import waive
from prefect_stagegate.jobs.review.attestations import AttestationVerdict, verify_attestation
from prefect_stagegate.model import Address, Approval, ApprovalRequest, Decision, DecisionOutcome, Identity
from prefect_stagegate.model.canonical import canonical
from tests.support.scenario import ADA, INES, Scenario
from tests.support.versions import policy_log

pytestmark = pytest.mark.system  # ssh-keygen and ssh-agent, of Debian's openssh-client

THINGS, PILOT = Address("things"), Address("things", "pilot")
OLEG, EVE = Identity("oleg@example.org", "declared"), Identity("eve@example.org", "declared")
INFRA = {"infra": f"{INES.name}, {OLEG.name}", "governance": "legal@example.org"}


class SshScenario(Scenario):
    """A scenario whose people have SSH keys, and whose gate `pilot` asks for answers that these sign."""

    def key(self, who: str, *options: str) -> SshKey:
        """A person's key, made when it is first needed."""
        path = self.folder / who
        if not path.exists():
            ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", who, "-f", str(path), *options)
        return SshKey(path)

    def pem_of(self, who: str) -> SigningKey:
        """A person's SSH key, written as a key in PEM."""
        path = self.key(who).path
        private = load_ssh_private_key(path.read_bytes(), None)
        pem = path.with_name(f"{who}.pem")
        pem.touch(0o600)
        pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return read_signing_key(pem, lambda _: "")

    def signer(self, principals: str, who: str, options: str = "") -> str:
        """A line of `allowed_signers`."""
        public = self.key(who).path.with_name(f"{who}.pub").read_text().strip()
        return f"{principals} {options}{' ' if options else ''}{public}\n"

    def ask(self, *signers: str, text: str = "one", **asks: Any) -> Decision:
        """Deliver a version whose gate asks for signed answers of `infra`, and check it."""
        self.deliver(text, **self.policy(*signers, **asks))
        decision = check(self.node(), THINGS, "pilot")
        assert decision.outcome is DecisionOutcome.WAITING, decision.checks
        return decision

    def policy(self, *signers: str, groups: Sequence[str] = ("infra",), **asks: Any) -> dict[str, Any]:
        """Keys of a spec whose gate asks for signed answers of groups."""
        approval = {"from": list(groups), "signed": True, "allowed_signers": "".join(signers), **asks}
        return {"gates": {"pilot": {"require": ["license", {"approval": approval}]}}, "owners": INFRA}

    def answer(self, who: Identity, key: str, **how: Any) -> Approval:
        return approve(self.node(who), THINGS, "pilot", key=self.key(key), **{"reason": "seen", **how})

    def request(self) -> ApprovalRequest:
        """The newest request for `pilot`."""
        return read_requests(self.node().catalog, "things", "pilot")[-1]

    def forged(self, who: Identity, key: str) -> Approval:
        """An answer as somebody signs it past the commands."""
        request = self.request()
        reply = Approval(request.id, Identity(who.name, "signature"), True, "seen", stamp(now()))
        return replace(reply, envelope=sign_act(answer_act(request, reply), self.key(key)))

    def put(self, reply: Approval) -> None:
        """Write an answer into the catalog, whether it may count or not."""
        put_answer(self.node().catalog, self.request(), reply)

    def ssh_keygen_accepts(self, reply: Approval, signers: str, request: ApprovalRequest | None = None) -> bool:
        """Whether `ssh-keygen -Y verify` accepts an answer, by the line that the documentation has."""
        request, folder = request or self.request(), self.folder / "verified"
        folder.mkdir(exist_ok=True)
        (folder / "allowed_signers").write_text(signers)
        (folder / "answer").write_bytes(canonical(answer_act(request, reply).statement))
        (folder / "answer.sig").write_text(reply.envelope[SSHSIG])
        line = verification_line(reply.approver.name, signed_moment(answer_act(request, reply)), "answer", "answer.sig")
        ended = subprocess.run(["/bin/sh", "-c", line], cwd=folder, capture_output=True, check=False)
        return ended.returncode == 0

    def part(self, what: str = "people") -> tuple[AttestationVerdict, str]:
        """A part of the verified attestation of `pilot`."""
        (part,) = [part for part in verify_attestation(self.node(), "things@pilot") if part.what == what]
        return part.verdict, part.why


def ssh_keygen(*arguments: str) -> None:
    subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True)


def forget_verified() -> None:
    """Have signatures verified again, as a new process does."""
    verify_ssh_signature.cache_clear()


def ignored(decision: Decision) -> str:
    """Why the approval's answers do not count."""
    (approval,) = [result for result in decision.checks if result.check == "approval"]
    return " ".join(f"{finding.subject}: {finding.problem}" for finding in approval.findings)


@pytest.fixture
def scenario(tmp_path: Path) -> SshScenario:
    return SshScenario(tmp_path)


# ── who may answer ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_ssh_signed_answer_opens_the_gate(scenario: SshScenario) -> None:
    signers = scenario.signer(INES.name, "ines")
    scenario.ask(signers)
    with pytest.raises(UsageError, match=r"not signed with the key that .*--ssh-key FILE"):
        approve(scenario.node(INES), THINGS, "pilot", reason="seen")
    reply = scenario.answer(INES, "ines")
    assert scenario.ssh_keygen_accepts(reply, signers)
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.accepted
    (approval,) = [result for result in decision.checks if result.check == "approval"]
    (answer,) = approval.measured["answers"]
    assert (answer["known_by"], answer["key"][:7]) == ("signature", "SHA256:")
    promote(scenario.node(), THINGS, "pilot")
    verdict, why = scenario.part()
    assert (verdict, why.rpartition("; ")[2]) == (AttestationVerdict.HOLDS, "approved by ines@example.org (signature)")


def test_waiver_is_signed_with_an_ssh_key(scenario: SshScenario) -> None:
    scenario.deliver("one", license="CC-BY-NC-4.0", **scenario.policy(scenario.signer(INES.name, "ines")))
    check(scenario.node(), THINGS, "pilot")
    until = now() + timedelta(days=1)
    with pytest.raises(UsageError, match="would not count: it is not signed with the key"):
        waive(scenario.node(INES), THINGS, "pilot", "license", reason="agreed", until=until, key=scenario.key("eve"))
    waive(scenario.node(INES), THINGS, "pilot", "license", reason="agreed", until=until, key=scenario.key("ines"))
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING


def test_key_outside_allowed_signers_is_refused(scenario: SshScenario) -> None:
    signers = scenario.signer(INES.name, "ines")
    scenario.ask(signers)
    with pytest.raises(
        UsageError, match=r"ines@example\.org can't answer for pilot: .* allowed_signers has no such key"
    ):
        scenario.answer(INES, "eve")
    with pytest.raises(
        UsageError, match=r"oleg@example\.org can't answer for pilot: .* allowed_signers has no such key"
    ):
        scenario.answer(OLEG, "ines")
    with pytest.raises(UsageError, match=r"eve@example\.org can't answer for pilot: not an address of infra"):
        scenario.answer(EVE, "ines")
    for who, key in ((INES, "eve"), (OLEG, "ines")):
        reply = scenario.forged(who, key)
        assert not scenario.ssh_keygen_accepts(reply, signers)
        scenario.put(reply)
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "ines@example.org (signature): the answer does not count" in ignored(decision)
    assert "oleg@example.org (signature): the answer does not count" in ignored(decision)


def test_signature_for_another_version_does_not_count(scenario: SshScenario) -> None:
    signers = scenario.signer(INES.name, "ines")
    scenario.ask(signers)
    reply, first = scenario.answer(INES, "ines"), scenario.request()
    scenario.ask(signers, text="two")
    second = scenario.request()
    assert first.digest != second.digest
    assert scenario.ssh_keygen_accepts(reply, signers, first)
    assert not scenario.ssh_keygen_accepts(reply, signers, second)
    scenario.put(replace(reply, request=second.id))
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "ines@example.org" in ignored(decision)


def test_answer_ends_when_the_target_moved_on(scenario: SshScenario) -> None:
    signers = scenario.signer(INES.name, "ines")
    first = scenario.ask(signers).digest
    scenario.answer(INES, "ines")
    scenario.ask(signers, text="two")
    scenario.answer(INES, "ines")
    check(scenario.node(), THINGS, "pilot")
    promote(scenario.node(), THINGS, "pilot")
    # The first version's answer is as good as ever for ssh-keygen, but its request ended.
    assert check(scenario.node(), Address("things", first), "pilot").outcome is DecisionOutcome.WAITING


def test_expired_key_is_refused_by_name(scenario: SshScenario) -> None:
    yesterday = now() - timedelta(days=1)
    signers = scenario.signer(INES.name, "ines", f'valid-before="{yesterday:%Y%m%d%H%M%S}Z"')
    scenario.ask(signers)
    with pytest.raises(UsageError, match=r"ines@example\.org can't answer for pilot: .*key has expired"):
        scenario.answer(INES, "ines")
    reply = scenario.forged(INES, "ines")
    assert not scenario.ssh_keygen_accepts(reply, signers)


def test_answer_dated_back_does_not_revive_a_key(scenario: SshScenario) -> None:
    hour_ago, request_time = now() - timedelta(hours=1), stamp(now() - timedelta(hours=2))
    signers = scenario.signer(INES.name, "ines", f'valid-before="{hour_ago:%Y%m%d%H%M%S}Z"')
    scenario.ask(signers)
    reply = scenario.forged(INES, "ines")
    reply = replace(reply, at=request_time)
    statement = canonical(answer_act(scenario.request(), reply).statement)
    scenario.put(replace(reply, envelope={SSHSIG: scenario.key("ines").sign(statement)}))
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "key has expired" in ignored(decision)


@pytest.mark.parametrize("form", ["%Y%m%dT%H%M%SZ", "%G-W%V-%uT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%f+00:00"])
def test_other_form_of_time_does_not_revive_a_key(scenario: SshScenario, form: str) -> None:
    week_ago = now() - timedelta(days=7)
    scenario.ask(scenario.signer(INES.name, "ines", f'valid-before="{week_ago:%Y%m%d}Z"'))
    reply = replace(scenario.forged(INES, "ines"), at=(now() - timedelta(days=40)).strftime(form))
    statement = canonical(answer_act(scenario.request(), reply).statement)
    scenario.put(replace(reply, envelope={SSHSIG: scenario.key("ines").sign(statement)}))
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "it has no time that this release writes" in ignored(decision)


def test_request_dated_back_does_not_revive_a_key(scenario: SshScenario) -> None:
    week_ago = now() - timedelta(days=7)
    scenario.ask(scenario.signer(INES.name, "ines", f'valid-before="{week_ago:%Y%m%d}Z"'))
    (path,) = (scenario.folder / "catalog/datasets/things/approvals/pilot").glob("*/request.json")
    request = json.loads(path.read_bytes())
    # As a node writes it whose clock is set back.
    path.write_text(json.dumps({**request, "at": stamp(now() - timedelta(days=40))}))
    reply = replace(scenario.forged(INES, "ines"), at=stamp(now() - timedelta(days=40)))
    statement = canonical(answer_act(scenario.request(), reply).statement)
    scenario.put(replace(reply, envelope={SSHSIG: scenario.key("ines").sign(statement)}))
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    with pytest.raises(UsageError, match="key has expired"):
        scenario.answer(INES, "ines")


def test_answer_with_a_time_out_of_range_stops_nobody(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"))
    scenario.put(replace(scenario.forged(OLEG, "eve"), at="9999-12-31T23:59:59-14:00"))
    assert scenario.run("status", "things") == ExitCode.WAITING
    scenario.answer(INES, "ines")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_answer_outlives_its_key(scenario: SshScenario) -> None:
    end = now() + timedelta(seconds=4)
    signers = scenario.signer(INES.name, "ines", f'valid-before="{end:%Y%m%d%H%M%S}Z"')
    scenario.ask(signers)
    reply = scenario.answer(INES, "ines")
    time.sleep(max(0, (end - now()).total_seconds()))
    assert scenario.ssh_keygen_accepts(reply, signers)
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_requester_can_not_answer_under_any_name(scenario: SshScenario) -> None:
    """Under their own name they are refused by it; under another one, by their key."""
    signers = scenario.signer("*", "ada")
    scenario.ask(signers)
    with pytest.raises(UsageError, match="ada can't answer for pilot: ada made the request"):
        scenario.answer(ADA, "ada")
    with pytest.raises(UsageError, match=r"ines@example\.org can't answer for pilot: .*also one of ada, who made the"):
        scenario.answer(INES, "ada")
    reply = scenario.forged(INES, "ada")
    scenario.put(reply)
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    # It is ada's signature for ssh-keygen, too: the pattern gives it any name.
    assert scenario.ssh_keygen_accepts(reply, signers)
    own = scenario.signer(INES.name, "ines") + scenario.signer("ada", "ada")
    assert not scenario.ssh_keygen_accepts(reply, own)


def test_one_key_is_one_person(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer("*@example.org", "ines"), scenario.signer(EVE.name, "eve"), count=2)
    scenario.answer(INES, "ines")
    with pytest.raises(
        UsageError,
        match=r"oleg@example\.org can't answer .*same key, or by the same login, as the answer of ines@example\.org",
    ):
        scenario.answer(OLEG, "ines")
    scenario.put(scenario.forged(OLEG, "ines"))
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "signed with the same key, or by the same login, as the answer of ines@example.org" in ignored(decision)


def test_one_key_in_both_lists_is_one_person(scenario: SshScenario) -> None:
    pem = scenario.pem_of("ines")
    signers = (scenario.signer("*@example.org", "ines"), scenario.signer(EVE.name, "eve"))
    scenario.ask(*signers, count=2, keys={INES.name: pem.public})
    approve(scenario.node(INES), THINGS, "pilot", reason="seen", key=pem)
    with pytest.raises(UsageError, match=r"same key, or by the same login, as the answer of ines@example\.org"):
        scenario.answer(OLEG, "ines")
    scenario.put(scenario.forged(OLEG, "ines"))
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING


def test_requester_s_pem_key_is_refused_as_an_ssh_key(scenario: SshScenario) -> None:
    pem = scenario.pem_of("ada")
    scenario.ask(scenario.signer("*@example.org", "ada"), keys={ADA.name: pem.public})
    with pytest.raises(UsageError, match="its key is also one of ada, who made the request"):
        scenario.answer(INES, "ada")


def test_requester_s_ssh_key_is_refused_as_a_pem_key(scenario: SshScenario) -> None:
    pem = scenario.pem_of("ada")
    scenario.ask(scenario.signer("a*", "ada"), keys={INES.name: pem.public})
    with pytest.raises(UsageError, match="its key is also one of ada, who made the request"):
        approve(scenario.node(INES), THINGS, "pilot", reason="seen", key=pem)


def test_required_approver_must_be_among_those_who_agree(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"), scenario.signer(OLEG.name, "oleg"), required=[INES.name])
    scenario.answer(OLEG, "oleg")
    decision = check(scenario.node(), THINGS, "pilot")
    (approval,) = [result for result in decision.checks if result.check == "approval"]
    assert (decision.outcome, approval.summary) == (DecisionOutcome.WAITING, "ines@example.org must agree")
    scenario.answer(INES, "ines")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_required_approver_who_asks_can_not_wait_for_himself(scenario: SshScenario) -> None:
    scenario.deliver("one", **scenario.policy(scenario.signer(INES.name, "ines"), required=[INES.name]))
    decision = check(scenario.node(INES), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.REFUSED
    assert "Somebody else than ines@example.org has to ask" in str(decision.checks)


def test_signed_decline_outweighs_and_is_hidden_by_nothing(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"), scenario.signer(OLEG.name, "oleg"))
    scenario.answer(OLEG, "oleg", approved=False, reason="March looks wrong")
    scenario.put(Approval(scenario.request().id, OLEG, approved=True, reason="", at=stamp(now())))
    scenario.answer(INES, "ines")
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.REFUSED
    with pytest.raises(GateFailed, match=r"oleg@example\.org \(signature\) declined: March looks wrong"):
        promote(scenario.node(), THINGS, "pilot")


# ── forgeries ───────────────────────────────────────────────────────────────────────────────────────────────────────


EDITED: dict[str, Callable[[dict[str, Any]], None]] = {
    "name": lambda answer: answer["approver"].update(name=OLEG.name),
    "decision": lambda answer: answer.update(approved=False),
    "reason": lambda answer: answer.update(reason="not seen"),
    "time": lambda answer: answer.update(at="2026-01-01T00:00:00.000000Z"),
    "no time": lambda answer: answer.update(at="yesterday"),
    "no signature": lambda answer: answer["envelope"].update(sshsig="AAAA"),
    "a number": lambda answer: answer["envelope"].update(sshsig=1),
    "large": lambda answer: answer["envelope"].update(sshsig="A" * 40_000),
}


@pytest.mark.parametrize("what", EDITED)
def test_ssh_answer_changed_in_the_catalog_does_not_count(scenario: SshScenario, what: str) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"), scenario.signer(OLEG.name, "oleg"))
    scenario.answer(INES, "ines")
    (path,) = (scenario.folder / "catalog/datasets/things/approvals/pilot").glob("*/00000001.json")
    answer = json.loads(path.read_bytes())
    EDITED[what](answer)
    path.write_text(json.dumps(answer))
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING


@pytest.mark.parametrize("namespace", ["git", "file", "stagegate-approval@example.org"])
def test_signature_of_another_namespace_does_not_count(scenario: SshScenario, namespace: str) -> None:
    signers = scenario.signer(INES.name, "ines")
    scenario.ask(signers)
    reply, path = scenario.forged(INES, "ines"), scenario.folder / "statement"
    path.write_bytes(canonical(answer_act(scenario.request(), reply).statement))
    ssh_keygen("-Y", "sign", "-n", namespace, "-f", str(scenario.key("ines").path), str(path))
    reply = replace(reply, envelope={SSHSIG: path.with_name("statement.sig").read_text()})
    assert not scenario.ssh_keygen_accepts(reply, signers)
    scenario.put(reply)
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "namespace does not match" in ignored(decision)


@pytest.mark.parametrize(
    "name",
    [
        "-f/etc/passwd",
        "-Overify-time=20200101",
        "ines@example.org\n",
        "ines@example.org\0",
        "ines@example.org,oleg@example.org",
        "*",
        "",
        "x" * 300,
    ],
)
def test_name_is_no_option_line_or_pattern(scenario: SshScenario, name: str) -> None:
    scenario.ask(scenario.signer(f"{INES.name},{OLEG.name}", "ines"), groups=[])
    with pytest.raises(UsageError, match=r"can't answer for pilot: it is not signed with|The answer has no name"):
        scenario.answer(Identity(name, "declared"), "ines")


def test_trial_policy_s_signers_do_not_count(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"))
    lax = scenario.spec_file("lax.yaml", **scenario.policy(scenario.signer("*", "eve")))
    assert scenario.run("check", "things", "--gate", "pilot", "--spec", str(lax)) != 0
    with pytest.raises(UsageError, match="allowed_signers has no such key"):
        scenario.answer(INES, "eve")


# ── OpenSSH's own rules ─────────────────────────────────────────────────────────────────────────────────────────────


def test_certificate_answers_for_its_principals_only(scenario: SshScenario) -> None:
    authority, ines = scenario.key("authority"), scenario.key("ines")
    ssh_keygen("-q", "-s", str(authority.path), "-I", "id", "-n", INES.name, "-V", "+1d", f"{ines.path}.pub")
    certificate = SshKey(ines.path.with_name("ines-cert.pub"))
    scenario.ask(scenario.signer("*@example.org", "authority", "cert-authority"))
    with pytest.raises(UsageError, match=r"oleg@example\.org can't answer .*name is not a listed principal"):
        approve(scenario.node(OLEG), THINGS, "pilot", reason="seen", key=certificate)
    approve(scenario.node(INES), THINGS, "pilot", reason="seen", key=certificate)
    assert check(scenario.node(), THINGS, "pilot").accepted


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_keys_of_other_types_sign(scenario: SshScenario, kind: str) -> None:
    scenario.key("ines", "-t", kind)
    scenario.ask(scenario.signer(INES.name, "ines"))
    scenario.answer(INES, "ines")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_principal_may_have_spaces_and_a_namespace(scenario: SshScenario) -> None:
    who = Identity("Ines Berg", "declared")
    scenario.ask(scenario.signer('"Ines B*"', "ines", f'namespaces="git,{NAMESPACE}"'), groups=[])
    scenario.answer(who, "ines")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_key_permitted_for_git_alone_is_refused(scenario: SshScenario) -> None:
    scenario.ask(scenario.signer(INES.name, "ines", 'namespaces="git"'))
    with pytest.raises(UsageError, match='key is not permitted for use in signature namespace "stagegate-approval"'):
        scenario.answer(INES, "ines")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An ssh-agent for the test; its socket is in the environment."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    while not socket.exists():
        time.sleep(0.01)
    yield
    process.terminate()
    process.wait()


def test_key_in_an_agent_signs_by_its_public_half(scenario: SshScenario, agent: None) -> None:
    path = scenario.key("ines").path
    scenario.ask(scenario.signer(INES.name, "ines"))
    subprocess.run(["ssh-add", "-q", str(path)], check=True)
    path.unlink()
    words = ("approve", "things", "--to", "pilot", "--reason", "seen", "--ssh-key", f"{path}.pub")
    assert scenario.run(*words, identity=INES.name) == 0
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_passphrase_is_asked_for_at_the_terminal(scenario: SshScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    scenario.key("ines")
    scenario.ask(scenario.signer(INES.name, "ines"))
    ssh_keygen("-q", "-p", "-P", "", "-N", "secret", "-f", str(scenario.folder / "ines"))
    command = f"approve things --to pilot --reason seen --identity {INES.name} --ssh-key {scenario.folder}/ines"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "prefect_stagegate", *command.split()],
        env={**os.environ, **scenario.environment()},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        shown = b""
        while b"Enter passphrase" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"secret\n")
        assert process.wait(60) == 0
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_key_that_can_not_sign_is_an_error(scenario: SshScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "never")
    scenario.ask(scenario.signer(INES.name, "ines"))
    ssh_keygen("-q", "-t", "ed25519", "-N", "secret", "-f", str(scenario.folder / "locked"))
    with pytest.raises(UsageError, match=r"The SSH key .*/locked did not sign: "):
        scenario.answer(INES, "locked")
    with pytest.raises(UsageError, match=r"The SSH key .*/-missing did not sign: .*No such file"):
        approve(scenario.node(INES), THINGS, "pilot", key=SshKey(scenario.folder / "-missing"))
    assert not read_answers(scenario.node().catalog, scenario.request())


# ── what others verify ──────────────────────────────────────────────────────────────────────────────────────────────


def promoted(scenario: SshScenario) -> Path:
    """Promote a version by two signed answers; gives a folder that is not there yet."""
    scenario.ask(scenario.signer(INES.name, "ines"), scenario.signer(OLEG.name, "oleg"), count=2)
    scenario.answer(INES, "ines")
    scenario.answer(OLEG, "oleg")
    assert check(scenario.node(), THINGS, "pilot").accepted
    promote(scenario.node(), THINGS, "pilot")
    return scenario.folder / "answers"


def documented_lines() -> list[str]:
    """The lines with ssh-keygen that the page of approvals has."""
    page = Path("docs/how-to/approve.md").read_text()
    return re.findall(r"^TZ=UTC0 ssh-keygen -Y verify .*$", page, re.MULTILINE)


def test_exported_answers_verify_without_stagegate(scenario: SshScenario, capsys: pytest.CaptureFixture[str]) -> None:
    folder = promoted(scenario)
    assert scenario.run("verify-attestation", "things@pilot", "--export-answers", str(folder)) == 0
    printed = capsys.readouterr().out
    assert printed.count("ssh-keygen -Y verify") == 2
    statement = json.loads((folder / "1.json").read_bytes())
    assert (statement["digest"], statement["approver"], statement["approved"]) == (
        scenario.head("pilot"),
        INES.name,
        True,
    )

    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", folder / "verify.sh"], capture_output=True, text=True, check=False)

    assert verify().stdout.count('Good "stagegate-approval" signature for ') == 2
    # The page's own line, with this answer's time.
    (line,) = documented_lines()
    (at,) = set(re.findall(r"verify-time=\d+", (folder / "verify.sh").read_text().splitlines()[4]))
    line = re.sub(r"verify-time=\d+", at, line)
    assert subprocess.run(["/bin/sh", "-c", line], cwd=folder, check=False).returncode == 0
    (folder / "2.json").write_bytes((folder / "2.json").read_bytes().replace(b"true", b"false"))
    assert verify().returncode != 0
    assert scenario.run("verify-attestation", "things@pilot", "--export-answers", str(folder)) == 2
    assert "has files" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["yesterday", "9999-12-31T23:59:59-14:00"])
def test_export_of_an_answer_without_a_time_writes_nothing(
    scenario: SshScenario, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    folder, attestation = promoted(scenario), tmp_path / "attestation.json"
    assert scenario.run("verify-attestation", "things@pilot", "--export", str(attestation)) == 0
    statement = json.loads(attestation.read_bytes())
    statement["predicate"]["stagegate"]["approvals"][1]["at"] = at
    attestation.write_text(json.dumps(statement))
    capsys.readouterr()
    words = ("verify-attestation", str(attestation), "--export-answers", str(folder))
    assert scenario.run(*words) == ExitCode.USAGE
    assert "An answer of the attestation can't be read" in capsys.readouterr().err
    assert not folder.exists()


def test_verified_attestation_counts_its_answers_again(scenario: SshScenario, tmp_path: Path) -> None:
    promoted(scenario)
    attestation = tmp_path / "attestation.json"
    assert scenario.run("verify-attestation", "things@pilot", "--export", str(attestation)) == 0
    statement = json.loads(attestation.read_bytes())
    replies = statement["predicate"]["stagegate"]["approvals"]
    replies[0]["envelope"], replies[1]["envelope"] = replies[1]["envelope"], replies[0]["envelope"]
    attestation.write_text(json.dumps(statement))
    parts = {part.what: part for part in verify_attestation(scenario.node(), attestation)}
    assert parts["people"].verdict is AttestationVerdict.FAILS
    assert "its approval does not hold: 0 of 2 approvals by infra; ines@example.org: " in parts["people"].why


def test_without_ssh_keygen_nothing_passes(
    scenario: SshScenario, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    promoted(scenario)
    digest = scenario.ask(scenario.signer(INES.name, "ines"), text="two").digest
    scenario.answer(INES, "ines")
    forget_verified()
    monkeypatch.setenv("PATH", str(tmp_path))
    decision = check(scenario.node(), Address("things", digest), "pilot")
    assert decision.outcome is DecisionOutcome.INCONCLUSIVE
    assert "ssh-keygen, which is not installed" in str(decision.checks)
    verdict, why = scenario.part()
    assert verdict is AttestationVerdict.UNKNOWN
    assert "apt-get install openssh-client" in why
    with pytest.raises(StagegateError, match="ssh-keygen, which is not installed"):
        scenario.answer(OLEG, "oleg")


def test_without_ssh_keygen_other_datasets_have_a_status(
    scenario: SshScenario, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.ask(scenario.signer(INES.name, "ines"))
    scenario.answer(INES, "ines")
    scenario.dataset = "fine"
    scenario.stage(gates={"pilot": {"require": ["license"]}})
    forget_verified()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scenario.run("status") == ExitCode.ERROR
    printed = " ".join("".join(capsys.readouterr()).split())
    assert "fine@pilot" in printed
    assert "ssh-keygen, which is not installed" in printed


# ── the policy ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_change_of_policy_takes_ssh_signatures(scenario: SshScenario) -> None:
    rule = {"from": ["governance"], "signed": True, "allowed_signers": scenario.signer("legal@example.org", "legal")}
    keys = {"owners": INFRA, "policy": {"change": {"approval": rule}}}
    scenario.deliver("one", gates={"pilot": {"require": ["license", "owner"]}}, **keys)
    lax = scenario.spec(gates={"pilot": {"require": ["license"]}}, owners=INFRA)
    assert "0 of 1 approval by governance" in adopt(scenario.node(), lax, reason="less").missing
    legal = Identity("legal@example.org", "declared")
    with pytest.raises(UsageError, match="allowed_signers has no such key"):
        answer_request(scenario.node(legal), "things", approved=True, reason="", key=scenario.key("eve"))
    key = str(scenario.key("legal").path)
    assert scenario.run("policy", "approve", "things", "--ssh-key", key, identity=legal.name) == 0
    assert adopt(scenario.node(), lax, reason="less").seq == 2
    forget_verified()
    # A node that never read the log proves the answers again.
    assert policy_log(scenario.node(cache="elsewhere").catalog, "things").head()


def test_proposal_dated_back_is_no_open_request(scenario: SshScenario) -> None:
    rule = {"from": ["governance"], "signed": True, "allowed_signers": scenario.signer("legal@example.org", "legal")}
    scenario.deliver(
        "one", gates={"pilot": {"require": ["license"]}}, owners=INFRA, policy={"change": {"approval": rule}}
    )
    lax = scenario.spec(gates={"pilot": {"require": ["license"]}}, owners=INFRA)
    proposed = adopt(scenario.node(), lax, reason="less").request
    assert open_requests(scenario.node(), "things") == [proposed]
    (path,) = (scenario.folder / "catalog/datasets/things/approvals").glob("_policy/*/request.json")
    request = json.loads(path.read_bytes())
    path.write_text(json.dumps({**request, "at": stamp(now() - timedelta(days=40))}))
    assert not open_requests(scenario.node(), "things")


def test_policy_has_the_signers_of_a_file(scenario: SshScenario, capsys: pytest.CaptureFixture[str]) -> None:
    file = scenario.folder / "allowed_signers"
    file.write_text("# who may answer\n" + scenario.signer(INES.name, "ines"))
    keys = scenario.policy(allowed_signers="allowed_signers")
    spec = scenario.spec_file(**keys)
    scenario.write("one")
    assert scenario.run("stage", str(spec)) == 0
    before = policy_log(scenario.node().catalog, "things").head()
    assert before
    assert file.read_text() in json.dumps(before.policy).encode().decode("unicode_escape")
    file.write_text("# another comment\n" + scenario.signer(OLEG.name, "oleg"))
    capsys.readouterr()
    assert scenario.run("policy", "diff", str(spec)) == 0
    told = capsys.readouterr().out
    assert f"tightened  gate pilot: approval: no longer allows the signer {INES.name} ssh-ed25519 AAAA" in told
    assert f"loosened   gate pilot: approval: allows the signer {OLEG.name} ssh-ed25519 AAAA" in told
    assert "comment" not in told
    # What the node's file says now is nothing to the adopted policy.
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    with pytest.raises(UsageError, match="allowed_signers has no such key"):
        scenario.answer(OLEG, "oleg")
    scenario.answer(INES, "ines")
    assert check(scenario.node(), THINGS, "pilot").accepted
