"""Approving: record who asks for a promotion and which flow runs wait for it, and answer.

    ask (by `check`) → request ← wait (by a flow run that is suspended meanwhile)
                          ↑
                       answers, from the command line or from Prefect's form: the same record

An answer counts for one version, under one policy, as long as the target still names what it named when somebody asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address, Approval, Decision, Identity, Request, Wait, check_name, person_key
from prefect_stagegate.operations.address import read_spec
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.approval import ANSWER_PAYLOAD, signed_answer
from prefect_stagegate.readiness.signing import SigningKey


def request_for(where: Workspace, dataset: str, digest: str, target: str, policy: str) -> Request | None:
    """The newest request whose answers count for a version under a policy: not one from before the target moved on.

    While the target names the version itself, whatever let it in still counts.
    """
    head = where.catalog.ref(dataset, target)
    moves = head.seq if head else 0
    there = head is not None and head.digest == digest
    requests = where.catalog.requests(dataset, target)
    return next(
        (
            one
            for one in reversed(requests)
            if (one.digest, one.policy) == (digest, policy) and (there or one.after in (None, moves))
        ),
        None,
    )


def ask(where: Workspace, decision: Decision) -> Request:
    """The request for what a decision waits for; recorded when there is none that can still be answered."""
    about = (decision.dataset, decision.digest, decision.target, decision.policy)
    request = request_for(where, *about)
    if request is None or lapsed(where, request):
        head = where.catalog.ref(decision.dataset, decision.target)
        request = where.catalog.put_request(*about, where.identity, after=head.seq if head else 0)
    return request


def wait(where: Workspace, decision: Decision, flow_run: str, timeout: timedelta) -> tuple[Request, Wait]:
    """Record that a flow run waits for the answer that a decision waits for, and until when.

    Args:
        where: The catalog, and who asks where nobody did.
        decision: What the gate said.
        flow_run: The run's id.
        timeout: How long it waits; a run that waits already, and is asked to again, waits no longer for it.
    """
    request = ask(where, decision)
    known = next((one for one in where.catalog.waits(request) if one.flow_run == flow_run), None)
    if known and known.until > stamp(now()):
        return request, known
    return request, where.catalog.put_wait(request, flow_run, now() + timeout)


def waiting_runs(where: Workspace, request: Request) -> tuple[Wait, ...]:
    """The flow runs that wait for an answer now."""
    return tuple(one for one in where.catalog.waits(request) if one.until > stamp(now()))


def lapsed(where: Workspace, request: Request) -> str:
    """When the last of the flow runs that waited for a request gave up; empty while one waits, or when none did.

    A request that was declined did not lapse: whoever declined it may think better of it.
    """
    end = max((one.until for one in where.catalog.waits(request)), default="")
    if not end or end > stamp(now()):
        return ""
    return end if all(given.approved for given in where.catalog.approvals(request)) else ""


def open_request(where: Workspace, address: Address, to: str) -> Request:
    """The newest request for a target, or the newest for one version when the address names it.

    Raises:
        UsageError: Nobody asked, or nobody waits for an answer any more.
    """
    check_name("target", to)
    where.catalog.require_dataset(address.dataset)
    digest = where.catalog.resolve(address) if address.ref else ""
    requests = where.catalog.requests(address.dataset, to)
    found = next((one for one in reversed(requests) if digest in ("", one.digest)), None)
    if found is None:
        raise UsageError(
            f"Nobody asked to promote {address} to {to}",
            hint=f"`stagegate check {address} --gate {to}` records a request when only an approval is missing.",
            dataset=address.dataset,
        )
    if end := lapsed(where, found):
        version = f"{found.dataset}@{found.digest}"
        raise UsageError(
            f"The request to promote {version} to {to} lapsed at {end}, so it can't be answered",
            hint=f"Run the flow again, or `stagegate check {version} --gate {to}`: either asks anew.",
            dataset=address.dataset,
        )
    return found


def approve(
    where: Workspace,
    address: Address,
    to: str,
    *,
    approved: bool = True,
    reason: str = "",
    key: SigningKey | None = None,
) -> Approval:
    """Answer the newest request. What was asked for is what the answer lets through, whatever was staged since.

    Args:
        where: The catalog, and who answers.
        address: The dataset; with a ref or digest, the request for that version.
        to: The target.
        approved: False to decline.
        reason: Kept with the answer; a refusal needs one.
        key: Signs the answer.

    Raises:
        UsageError: Nobody asked, or waits any more, the requester answers, a refusal has no reason, or the policy asks
            for another signature.
    """
    return answer(where, open_request(where, address, to), approved=approved, reason=reason, key=key)


def answer(
    where: Workspace, request: Request, *, approved: bool, reason: str, key: SigningKey | None = None
) -> Approval:
    """Answer one request, in time: that is for the caller to know.

    Raises:
        UsageError: Nobody or the requester answers, a refusal has no reason, or the policy asks for another signature.
    """
    if not person_key(where.identity.name):
        raise UsageError("The answer has no name", hint="Say who answers.")
    if person_key(request.requester.name) == person_key(where.identity.name):
        raise UsageError(
            f"{where.identity.name} asked for it and can't answer",
            hint="Somebody else runs the same command; `--identity NAME` says who.",
            dataset=request.dataset,
        )
    if not approved and not reason.strip():
        raise UsageError("A refusal needs a reason", hint="Give one with --reason.")
    _require_signature(where, request, key)
    if key is None:
        return where.catalog.put_approval(request, where.identity, approved=approved, reason=reason)
    who = Identity(where.identity.name, "signature")
    unsigned = Approval(request.id, who, approved, reason, stamp(now()))
    envelope = key.sign(signed_answer(request, unsigned), ANSWER_PAYLOAD)
    return where.catalog.put_answer(request, replace(unsigned, envelope=envelope))


def _require_signature(where: Workspace, request: Request, key: SigningKey | None) -> None:
    """Raise where an answer would not count: the policy that was asked under names another key for this person."""
    command = f"stagegate approve {request.dataset}@{request.digest} --to {request.target}"
    asked = _asked_of_answers(where, request)
    if not asked.get("signed"):
        return
    person = person_key(where.identity.name)
    known = [public for name, public in asked["keys"].items() if person_key(name) == person]
    if not known:
        raise UsageError(
            f"The gate {request.target} asks for signed answers and has no key for {where.identity.name}",
            hint=f"It has keys for: {', '.join(asked['keys'])}. `--identity NAME` says who you are.",
            dataset=request.dataset,
        )
    if key is None:
        raise UsageError(
            f"The gate {request.target} asks for signed answers",
            hint=f"`{command} --key KEY.pem` signs one.",
            dataset=request.dataset,
        )
    if key.public not in known:
        raise UsageError(
            f"The key is not the one that the gate {request.target} has for {where.identity.name}",
            hint=f"Its policy has {known[0]}, and this is {key.public}.",
            dataset=request.dataset,
        )


def _asked_of_answers(where: Workspace, request: Request) -> Mapping[str, Any]:
    """The parameters of the check `approval` in the policy that was asked under, while that is the current one."""
    stored = where.catalog.spec(request.dataset, request.digest)
    if stored is None or request.target not in stored.get("gates", {}):
        return {}
    gate = read_spec(stored).gate(request.target)
    asked = (one.params for one in gate.requirements if one.check == "approval")
    return next(asked, {}) if gate.policy == request.policy else {}
