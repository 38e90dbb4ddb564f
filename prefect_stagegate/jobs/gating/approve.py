"""Approving: record requests for an approval, the flow runs that wait for it, and the answers.

    request_approval (by `check`) → request ← wait (by a flow run, which suspends itself)
                                       ↑
                                    answers, from the command line or from Prefect's form: the same record

An answer counts for one version, under one policy, until the target moves on from what it named at the request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from prefect_stagegate.catalog import Catalog, RefAction, RefEntry, gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import has_version, require_dataset
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.errors import CorruptRecord, UsageError
from prefect_stagegate.gate.approval_counting import who_may, why_not_counted, why_request_ended
from prefect_stagegate.gate.approval_parameters import APPROVAL, ApprovalParameters, approval_asked_by
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.overrides import outcomes_shown, waived_since
from prefect_stagegate.gate.records.answers import PersonKey, answer_act, request_act, sign_act, signer_of
from prefect_stagegate.jobs.address import judged_spec, stored_spec
from prefect_stagegate.jobs.gating.policy import spec_under
from prefect_stagegate.model import Address, Approval, ApprovalRequest, Decision, Severity, Wait, check_name, person_key
from prefect_stagegate.spec import Gate
from prefect_stagegate.units import count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


def request_for(workspace: Workspace, dataset: str, digest: str, target: str, policy: str) -> ApprovalRequest | None:
    """The newest request for a version whose answers count under a policy; None when there is none."""
    head = workspace.catalog.ref(dataset, target)
    requests = reversed(gate_records.read_requests(workspace.catalog, dataset, target))
    return next(
        (
            request
            for request in requests
            if request.digest == digest
            and not _why_ended(request, policy, head)
            and not why_dated_back(workspace.catalog, request)
        ),
        None,
    )


def why_dated_back(catalog: Catalog, request: ApprovalRequest) -> str:
    """Why a request's time must be wrong: no policy had its gate before. Empty when it may be right."""
    for entry in policy_log(catalog, request.dataset).entries():
        with suppress(CorruptRecord, UsageError):  # this release can't read that policy, or it lacks the gate
            if spec_under(entry.policy, request.dataset).gate(request.target).policy != request.policy:
                continue
            # By a clock set back, an expired key would be valid at the time of the request.
            if request.at < stamp(moment(entry.at) - CLOCKS_DIFFER):
                return f"it is dated {request.at}, before its policy was adopted at {entry.at}, so a clock is wrong"
            return ""
    return ""


def _why_ended(request: ApprovalRequest, policy: str, head: RefEntry | None) -> str:
    """Why answers to a request no longer count under the gate's current policy; empty while they do."""
    return why_request_ended(request, policy=policy, named=head.digest if head else "", moves=head.seq if head else 0)


def request_approval(workspace: Workspace, decision: Decision, key: PersonKey | None = None) -> ApprovalRequest:
    """Return the open request for the approval that a decision waits for; record one when there is none.

    With a key, whoever asks signs it.

    Raises:
        UsageError: The decision is a trial's.
    """
    if not decision.adopted:
        raise UsageError(
            f"The decision about {decision.dataset}@{decision.digest} for {decision.target} is a trial's, so it can't "
            "be approved",
            hint="Check without a spec of your own, or adopt its policy with `stagegate policy adopt SPEC`.",
            dataset=decision.dataset,
        )
    about = (decision.dataset, decision.digest, decision.target, decision.policy)
    request = request_for(workspace, *about)
    # Answers to a lapsed request are refused, and those to outcomes before a waiver don't count: a new one comes.
    shown = outcomes_shown(decision.checks)
    is_over = request is None or lapsed_at(workspace, request) or waived_since(request.shown, decision.checks)
    if request is None or is_over or _is_unbound(request, shown) or is_replaced(workspace, request, key):
        head = workspace.catalog.ref(decision.dataset, decision.target)
        request = gate_records.put_request(
            workspace.catalog,
            *about,
            signer_of(workspace.identity, key),
            after=head.seq if head else 0,
            shown=shown,
            sign=request_signer(key),
        )
    return request


def _is_unbound(request: ApprovalRequest, checks: Collection[str]) -> bool:
    """Whether answers to a request would never end: it lacks the target's last move, or what was shown of the checks.

    So do those of earlier releases, whose answers go on counting, and those that somebody wrote past the commands.
    """
    return request.after is None or bool(not request.shown and checks)


def is_replaced(workspace: Workspace, request: ApprovalRequest, key: PersonKey | None) -> bool:
    """Whether somebody who asks with a key makes a request of their own: nobody signed this one, or answered it."""
    return bool(key) and not (request.envelope or gate_records.read_answers(workspace.catalog, request))


def request_signer(key: PersonKey | None) -> Callable[[ApprovalRequest], Mapping[str, Any]] | None:
    """Signs a request with a key; None without one."""
    return (lambda request: sign_act(request_act(request), key)) if key else None


def wait(workspace: Workspace, decision: Decision, flow_run: str, timeout: timedelta) -> tuple[ApprovalRequest, Wait]:
    """Record that a flow run waits for the approval that a decision waits for, and until when.

    A run that waits already keeps its end.
    """
    request = request_approval(workspace, decision)
    current = next((wait for wait in waiting_runs(workspace, request) if wait.flow_run == flow_run), None)
    return request, current or gate_records.put_wait(workspace.catalog, request, flow_run, now() + timeout)


def waiting_runs(workspace: Workspace, request: ApprovalRequest) -> tuple[Wait, ...]:
    """The flow runs that wait for an answer now."""
    return tuple(wait for wait in gate_records.read_waits(workspace.catalog, request) if wait.until > stamp(now()))


def lapsed_at(workspace: Workspace, request: ApprovalRequest) -> str:
    """When the last flow run gave up waiting for a request; empty while one waits, or when none ever did.

    A declined request does not lapse: whoever declined it may still approve it.
    """
    end = max((wait.until for wait in gate_records.read_waits(workspace.catalog, request)), default="")
    if not end or end > stamp(now()):
        return ""
    return end if all(answer.approved for answer in gate_records.read_answers(workspace.catalog, request)) else ""


def waiting_requests(
    workspace: Workspace, dataset: str, target: str, unreadable: UnreadableRecords
) -> Iterator[ApprovalRequest]:
    """The requests for a target that wait for an answer, the newest for each version and policy.

    Requests for versions whose specs can't be read are left out, and the specs collected.
    """
    head, adoption = workspace.catalog.ref(dataset, target), policy_log(workspace.catalog, dataset).head()
    # Requests come the oldest first, so the newest of each version and policy replaces the others.
    newest = {
        (request.digest, request.policy): request
        for request in gate_records.read_requests(workspace.catalog, dataset, target)
        # Whether its policy is still the adopted one takes reading a spec, so that comes last.
        if not _why_ended(request, request.policy, head)
    }
    for request in newest.values():
        if gate_records.read_answers(workspace.catalog, request) or lapsed_at(workspace, request):
            continue
        if not has_version(workspace.catalog, dataset, request.digest):
            continue  # nobody can promote it
        with unreadable.skip(dataset):
            spec = judged_spec(workspace.catalog, dataset, request.digest, adoption)
            if spec.gate(target).policy == request.policy:
                yield request


def open_request(workspace: Workspace, address: Address, to: str) -> ApprovalRequest:
    """The newest request for a target; with a ref or digest in the address, the newest for that version.

    Raises:
        UsageError: There is no request, it lapsed, or the address names no version and others wait, too.
    """
    check_name("target", to)
    require_dataset(workspace.catalog, address.dataset)
    digest = workspace.catalog.resolve(address) if address.ref else ""
    requests = gate_records.read_requests(workspace.catalog, address.dataset, to)
    request = next((request for request in reversed(requests) if digest in ("", request.digest)), None)
    if request is None:
        raise UsageError(
            f"There is no request to promote {address} to {to}",
            hint=f"`stagegate check {address} --gate {to}` records a request when only an approval is missing.",
            dataset=address.dataset,
        )
    if end := lapsed_at(workspace, request):
        version = f"{request.dataset}@{request.digest}"
        raise UsageError(
            f"The request to promote {version} to {to} lapsed at {end}, so it can't be answered",
            hint=f"Run the flow again, or `stagegate check {version} --gate {to}`: either records a new request.",
            dataset=address.dataset,
        )
    if not digest:
        _require_no_other(workspace, request)
    return request


def _require_no_other(workspace: Workspace, request: ApprovalRequest) -> None:
    """Raise when requests for other versions wait for the same target: the newest need not be the one that is meant."""
    waiting = waiting_requests(workspace, request.dataset, request.target, UnreadableRecords())
    others = {other.digest for other in waiting} - {request.digest}
    if others:
        version = f"{request.dataset}@{request.digest}"
        raise UsageError(
            f"{count_text(len(others) + 1, 'version')} of {request.dataset} wait for an answer to go to "
            f"{request.target}; the newest request is for {version}",
            hint=f"`stagegate status` lists them. Name the one that you looked at: "
            f"`stagegate approve {version} --to {request.target}`.",
            dataset=request.dataset,
        )


def require_policy(workspace: Workspace, dataset: str, digest: str) -> None:
    """Raise unless the policy that somebody was shown is the adopted one.

    Raises:
        UsageError: Another policy was adopted, or none.
    """
    adoption = policy_log(workspace.catalog, dataset).head()
    if adoption is None or adoption.digest != digest:
        adopted = digest_text(adoption.digest) if adoption else "none"
        raise UsageError(
            f"The answer is about the policy {digest_text(digest)} of {dataset}, and the adopted one is {adopted}",
            hint=f"`stagegate policy history {dataset}` shows what changed. Then answer again.",
            dataset=dataset,
        )


def approve(
    workspace: Workspace,
    address: Address,
    to: str,
    *,
    approved: bool = True,
    reason: str = "",
    key: PersonKey | None = None,
) -> Approval:
    """Answer the newest request. The answer is for the version of the request, whatever was staged since.

    Args:
        workspace: The catalog, and who answers.
        address: The dataset; with a ref or digest, the request for that version.
        to: The target.
        approved: False to decline.
        reason: Kept with the answer; a refusal needs one.
        key: Signs the answer.

    Raises:
        UsageError: There is no request, it lapsed, others wait and the address names none, the requester answers, a
            refusal has no reason, the target serves the version already, or the policy wants another signature.
    """
    return answer(workspace, open_request(workspace, address, to), approved=approved, reason=reason, key=key)


def answer(
    workspace: Workspace,
    request: ApprovalRequest,
    *,
    approved: bool,
    reason: str,
    key: PersonKey | None = None,
) -> Approval:
    """Answer one request. The caller has made sure that it did not lapse.

    Raises:
        UsageError: A refusal has no reason, or the answer would not count; the message says why.
    """
    spec = stored_spec(workspace, request.dataset, request.digest)
    gate = spec.gate(request.target)
    _require_open(workspace, request, gate)
    if approved and all(reply.approved for reply in gate_records.read_answers(workspace.catalog, request)):
        _require_unserved(workspace, request)
    command = f" They run `stagegate approve {request.dataset}@{request.digest} --to {request.target}`."
    facts = (request.target, approval_asked_by(gate), spec.owners)
    return record_answer(workspace, request, *facts, approved=approved, reason=reason, key=key, command=command)


def why_closed(workspace: Workspace, request: ApprovalRequest, gate: Gate) -> str:
    """Why a request ended, or that a newer one replaced it; empty while it is open, or has lapsed."""
    why = _why_ended(request, gate.policy, workspace.catalog.ref(request.dataset, request.target))
    why = why or why_dated_back(workspace.catalog, request)
    blocking = [each.check for each in gate.requirements if each.severity is Severity.BLOCKING]
    if not why and _is_unbound(request, {*blocking} - {APPROVAL}):
        return "it does not say what its answers are about"
    newer = None if why else request_for(workspace, request.dataset, request.digest, request.target, gate.policy)
    if newer and newer.id != request.id:
        return f"{newer.requester.name} made a newer request at {newer.at}"
    return why


def _require_open(workspace: Workspace, request: ApprovalRequest, gate: Gate) -> None:
    """Raise when a request ended, or a newer one replaced it."""
    if why := why_closed(workspace, request, gate):
        version = f"{request.dataset}@{request.digest}"
        raise UsageError(
            f"The request of {request.at} to promote {version} to {request.target} ended: {why}",
            hint=f"`stagegate check {version} --gate {request.target}` records a new request if one is still needed.",
            dataset=request.dataset,
        )


def _require_unserved(workspace: Workspace, request: ApprovalRequest) -> None:
    """Raise when the target moved to the requested version since the request: then nothing waits for an approval."""
    head = workspace.catalog.ref(request.dataset, request.target)
    if head is None or head.digest != request.digest or head.action is RefAction.WITHDRAW:
        return
    if head.seq > (request.after or 0):
        waiting = waiting_requests(workspace, request.dataset, request.target, UnreadableRecords())
        versions = ", ".join(f"{other.dataset}@{other.digest}" for other in waiting)
        raise UsageError(
            f"{request.target} serves {request.dataset}@{request.digest} already, since {head.at[:19]}Z",
            hint=f"What waits for an approval to {request.target}: {versions or 'nothing'}.",
            dataset=request.dataset,
        )


def record_answer(  # noqa: PLR0913 - a request, the rule that it falls under, and an answer
    workspace: Workspace,
    request: ApprovalRequest,
    subject: str,
    parameters: ApprovalParameters,
    owners: Mapping[Any, str],
    *,
    approved: bool,
    reason: str,
    key: PersonKey | None,
    command: str = "",
) -> Approval:
    """Record an answer to a request of any kind; with a key, sign it.

    Messages say `subject`, and the `command` to those who may answer by `parameters` and the groups of `owners`.

    Raises:
        UsageError: A refusal has no reason, the answer has no name, or it would not count; the message says why.
    """
    approver = signer_of(workspace.identity, key)
    if not person_key(approver.name):
        raise UsageError("The answer has no name", hint="Say who answers.", dataset=request.dataset)
    if not approved and not reason.strip():
        raise UsageError("A refusal needs a reason", hint="Give one with --reason.", dataset=request.dataset)
    answer = Approval(request.id, approver, approved, reason, stamp(now()))
    if key:
        answer = replace(answer, envelope=sign_act(answer_act(request, answer), key))
    recorded = gate_records.read_answers(workspace.catalog, request)
    # Reject an answer that would not count, so that nobody believes to have answered.
    if why := why_not_counted(answer, recorded, request, parameters, owners):
        problem = f"{approver.name} can't answer for {subject}: {why}"
        raise UsageError(problem, hint=who_may(parameters, owners) + command, dataset=request.dataset)
    return gate_records.put_answer(workspace.catalog, request, answer)
