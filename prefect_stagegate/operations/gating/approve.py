"""Approving: record who asks for a promotion and which flow runs wait for it, and answer.

    ask (by `check`) → request ← wait (by a flow run that is suspended meanwhile)
                          ↑
                       answers, from the command line or from Prefect's form: the same record

An answer counts for one version, under one policy, as long as the target still names what it named when somebody asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address, Approval, Decision, Identity, Request, Wait, check_name, person_key
from prefect_stagegate.operations.address import judged_spec, stored_spec
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.checks.approval import (
    ANSWER_PAYLOAD,
    signed_answer,
    why_answer_is_void,
    why_request_ended,
)
from prefect_stagegate.readiness.checks.approval import ApprovalParameters as Asked
from prefect_stagegate.readiness.context import addresses_of
from prefect_stagegate.readiness.records.signing import SigningKey
from prefect_stagegate.spec import Gate
from prefect_stagegate.unreadable import UnreadableRecords


def request_for(workspace: Workspace, dataset: str, digest: str, target: str, policy: str) -> Request | None:
    """The newest request whose answers count for a version under a policy: not one from before the target moved on."""
    named, moves = _named(workspace, dataset, target)
    requests = (one for one in reversed(workspace.catalog.requests(dataset, target)) if one.digest == digest)
    return next((one for one in requests if not why_request_ended(one, policy=policy, named=named, moves=moves)), None)


def _named(workspace: Workspace, dataset: str, target: str) -> tuple[str, int]:
    """The version that a target names, and the number of its last move; empty and 0 before the first."""
    head = workspace.catalog.ref(dataset, target)
    return (head.digest, head.seq) if head else ("", 0)


def ask(workspace: Workspace, decision: Decision) -> Request:
    """The request for what a decision waits for; recorded when there is none that can still be answered.

    Raises:
        UsageError: The decision is a trial's.
    """
    if not decision.adopted:
        raise UsageError(
            f"The decision about {decision.dataset}@{decision.digest} for {decision.target} is a trial's, so nobody is "
            "asked to approve it",
            hint="Check without a spec of your own, or adopt its policy with `stagegate policy adopt SPEC`.",
            dataset=decision.dataset,
        )
    about = (decision.dataset, decision.digest, decision.target, decision.policy)
    request = request_for(workspace, *about)
    if request is None or lapsed(workspace, request):
        head = workspace.catalog.ref(decision.dataset, decision.target)
        request = workspace.catalog.put_request(*about, workspace.identity, after=head.seq if head else 0)
    return request


def wait(workspace: Workspace, decision: Decision, flow_run: str, timeout: timedelta) -> tuple[Request, Wait]:
    """Record that a flow run waits for the answer that a decision waits for, and until when.

    Args:
        workspace: The catalog, and who asks where nobody did.
        decision: What the gate said.
        flow_run: The run's id.
        timeout: How long it waits; a run that waits already, and is asked to again, waits no longer for it.
    """
    request = ask(workspace, decision)
    known = next((one for one in workspace.catalog.waits(request) if one.flow_run == flow_run), None)
    if known and known.until > stamp(now()):
        return request, known
    return request, workspace.catalog.put_wait(request, flow_run, now() + timeout)


def waiting_runs(workspace: Workspace, request: Request) -> tuple[Wait, ...]:
    """The flow runs that wait for an answer now."""
    return tuple(one for one in workspace.catalog.waits(request) if one.until > stamp(now()))


def lapsed(workspace: Workspace, request: Request) -> str:
    """When the last of the flow runs that waited for a request gave up; empty while one waits, or when none did.

    A request that was declined did not lapse: whoever declined it may think better of it.
    """
    end = max((one.until for one in workspace.catalog.waits(request)), default="")
    if not end or end > stamp(now()):
        return ""
    return end if all(given.approved for given in workspace.catalog.approvals(request)) else ""


def waiting_requests(
    workspace: Workspace, dataset: str, target: str, unreadable: UnreadableRecords
) -> Iterator[Request]:
    """The requests for a target that nobody answered and whose answers would still count.

    Args:
        workspace: The catalog.
        dataset: The dataset.
        target: A target that its adopted policy has a gate for.
        unreadable: Collects the specs that can't be read; the requests for their versions are left out.
    """
    (named, moves), adoption = _named(workspace, dataset, target), workspace.catalog.policy(dataset)
    newest = {
        (one.digest, one.policy): one
        for one in workspace.catalog.requests(dataset, target)
        if not why_request_ended(one, policy=one.policy, named=named, moves=moves)
    }
    for request in newest.values():
        if workspace.catalog.approvals(request) or lapsed(workspace, request):
            continue
        if not workspace.catalog.has_version(dataset, request.digest):
            continue  # nobody can promote it
        with unreadable.skip(dataset):
            spec = judged_spec(workspace.catalog, dataset, request.digest, adoption)
            if spec.gate(target).policy == request.policy:
                yield request


def open_request(workspace: Workspace, address: Address, to: str) -> Request:
    """The newest request for a target, or the newest for one version when the address names it.

    Raises:
        UsageError: Nobody asked, or nobody waits for an answer any more.
    """
    check_name("target", to)
    workspace.catalog.require_dataset(address.dataset)
    digest = workspace.catalog.resolve(address) if address.ref else ""
    requests = workspace.catalog.requests(address.dataset, to)
    found = next((one for one in reversed(requests) if digest in ("", one.digest)), None)
    if found is None:
        raise UsageError(
            f"Nobody asked to promote {address} to {to}",
            hint=f"`stagegate check {address} --gate {to}` records a request when only an approval is missing.",
            dataset=address.dataset,
        )
    if end := lapsed(workspace, found):
        version = f"{found.dataset}@{found.digest}"
        raise UsageError(
            f"The request to promote {version} to {to} lapsed at {end}, so it can't be answered",
            hint=f"Run the flow again, or `stagegate check {version} --gate {to}`: either asks anew.",
            dataset=address.dataset,
        )
    return found


def approve(
    workspace: Workspace,
    address: Address,
    to: str,
    *,
    approved: bool = True,
    reason: str = "",
    key: SigningKey | None = None,
) -> Approval:
    """Answer the newest request. What was asked for is what the answer lets through, whatever was staged since.

    Args:
        workspace: The catalog, and who answers.
        address: The dataset; with a ref or digest, the request for that version.
        to: The target.
        approved: False to decline.
        reason: Kept with the answer; a refusal needs one.
        key: Signs the answer.

    Raises:
        UsageError: Nobody asked, or waits any more, the requester answers, a refusal has no reason, or the policy asks
            for another signature.
    """
    return answer(workspace, open_request(workspace, address, to), approved=approved, reason=reason, key=key)


def answer(
    workspace: Workspace, request: Request, *, approved: bool, reason: str, key: SigningKey | None = None
) -> Approval:
    """Answer one request, in time: that is for the caller to know.

    Raises:
        UsageError: A refusal has no reason, or the answer would not count; the message says why.
    """
    spec = stored_spec(workspace, request.dataset, request.digest)
    gate, owners = spec.gate(request.target), spec.owners
    _require_open(workspace, request, gate)
    given = written_answer(workspace, request, approved=approved, reason=reason, key=key)
    parameters = Asked.model_validate(next((one.params for one in gate.requirements if one.check == "approval"), {}))
    if why := why_answer_is_void(given, request, parameters, owners):
        who = f"{workspace.identity.name} can't answer for {request.target}"
        raise UsageError(f"{who}: {why}", hint=_who_can(request, parameters, owners), dataset=request.dataset)
    return workspace.catalog.put_answer(request, given)


def _require_open(workspace: Workspace, request: Request, gate: Gate) -> None:
    """Raise where nobody asks any more what a request asks."""
    named, moves = _named(workspace, request.dataset, request.target)
    why = why_request_ended(request, policy=gate.policy, named=named, moves=moves)
    newer = None if why else request_for(workspace, request.dataset, request.digest, request.target, gate.policy)
    if newer and newer.id != request.id:
        why = f"{newer.requester.name} asked again at {newer.at}"
    if why:
        version = f"{request.dataset}@{request.digest}"
        raise UsageError(
            f"The request of {request.at} to promote {version} to {request.target} ended: {why}",
            hint=f"`stagegate check {version} --gate {request.target}` asks again what is still to be asked.",
            dataset=request.dataset,
        )


def written_answer(
    workspace: Workspace, request: Request, *, approved: bool, reason: str, key: SigningKey | None
) -> Approval:
    """The answer as it is recorded, signed where there is a key.

    Raises:
        UsageError: A refusal has no reason, or nobody's name is given.
    """
    if not person_key(workspace.identity.name):
        raise UsageError("The answer has no name", hint="Say who answers.", dataset=request.dataset)
    if not approved and not reason.strip():
        raise UsageError("A refusal needs a reason", hint="Give one with --reason.", dataset=request.dataset)
    who = Identity(workspace.identity.name, "signature") if key else workspace.identity
    given = Approval(request.id, who, approved, reason, stamp(now()))
    return replace(given, envelope=key.sign(signed_answer(request, given), ANSWER_PAYLOAD)) if key else given


def _who_can(request: Request, parameters: Asked, owners: Mapping[Any, str]) -> str:
    """Whose answers count, and how they are given."""
    people = [f"{group} ({', '.join(addresses_of(owners, group)) or 'nobody'})" for group in parameters.groups]
    named = f"The gate asks {', '.join(people)}. " if people else "Somebody else answers. "
    keyed = (
        f"It has keys for {', '.join(parameters.keys)}; `--key KEY.pem` signs the answer. " if parameters.signed else ""
    )
    version = f"{request.dataset}@{request.digest}"
    return f"{named}{keyed}`stagegate approve {version} --to {request.target} --identity NAME` says who you are."
