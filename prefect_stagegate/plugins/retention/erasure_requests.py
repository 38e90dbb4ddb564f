"""Whether enough people agreed to an erasure, where the policy asks for that in `policy.erasure`.

    request ──(people answer with `stagegate erase --approve`)──▶ erasure, with the request and its answers

A request names the digest of what it proposes. Another policy ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from prefect_stagegate.catalog import PolicyEntry, gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.approval_counting import (
    AnswerTally,
    count_answers,
    who_may,
    why_not_counted,
    why_unanswerable,
)
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.records.answers import PersonKey
from prefect_stagegate.jobs.gating.approve import build_answer
from prefect_stagegate.jobs.review.inbox import ActionKind, PendingAction
from prefect_stagegate.jobs.review.inbox_lines import RequestState, remaining_people
from prefect_stagegate.model import ApprovalRequest, Entry
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.plugins.retention.erasure import (
    ERASURES,
    Erasure,
    erasure_rule,
    erasures_of,
    record_erasure,
    require_reason,
)
from prefect_stagegate.show import Person
from prefect_stagegate.show.legible import short_line
from prefect_stagegate.units import count_text, digest_text
from prefect_stagegate.workspace import Workspace

TARGET = "_erasure"
"""Takes the target's place in requests to erase. No target's name begins with an underscore."""
FEWEST_DIGITS = 12
"""The fewest digits that abbreviate the digest of a request."""


@dataclass(frozen=True, slots=True)
class ProposedErasure:
    """What a request asks to erase."""

    versions: tuple[str, ...]
    entries: tuple[Entry, ...]
    reason: str

    @property
    def digest(self) -> str:
        """`sha256:<hex>`, by which the request and the answers name it."""
        return digest_of(asdict(self))


PROPOSED = Record("retention.proposed", ProposedErasure)


@dataclass(frozen=True, slots=True)
class ErasureDecision:
    """Whether an erasure is recorded, or who has yet to agree."""

    proposed: ProposedErasure
    request: ApprovalRequest | None = None
    """None where nobody has to agree."""
    missing: str = ""
    """Why it is not recorded yet; empty once it is."""


def erase_or_ask(
    workspace: Workspace, dataset: str, versions: tuple[str, ...], entries: tuple[Entry, ...], reason: str
) -> ErasureDecision:
    """Record an erasure, or where the adopted policy has a rule, a request to agree to it.

    What is all erased already is not recorded again. The same request again gives the one that is open.

    Raises:
        UsageError: There is no reason, or too few people could ever agree.
        CatalogError: The catalog can't be read or written.
    """
    require_reason(reason)
    catalog, proposed = workspace.catalog, ProposedErasure(versions, entries, short_line(reason))
    erased = {blob for erasure in erasures_of(catalog, dataset) for blob in erasure.digests}
    if erased.issuperset(entry.digest for entry in entries):
        return ErasureDecision(proposed)
    head = policy_log(catalog, dataset).head()
    if head is None or erasure_rule(head.policy) is None:
        record_erasure(workspace, dataset, versions, entries, reason)
        return ErasureDecision(proposed)
    request = next((each for each in open_requests(workspace, head) if each.digest == proposed.digest), None)
    if request is None:
        if why := why_unanswerable(_parameters(head), head.policy.get("owners", {}), workspace.identity):
            hint = "Somebody else can ask, or another policy can name more people under `owners`."
            raise UsageError(f"Too few people could agree to this erasure: {why}", hint=hint, dataset=dataset)
        catalog.create(PROPOSED, proposed, dataset, proposed.digest)
        facts = (proposed.digest, TARGET, head.digest, workspace.identity)
        request = gate_records.put_request(catalog, dataset, *facts, after=head.seq)
    return _settled(workspace, head, request, proposed)


def open_requests(workspace: Workspace, head: PolicyEntry) -> list[ApprovalRequest]:
    """The requests under the policy in force that are not recorded as erasures, the oldest first."""
    requests = gate_records.read_requests(workspace.catalog, head.dataset, TARGET)
    done = {erasure.request.id for erasure in workspace.catalog.all(ERASURES, head.dataset) if erasure.request}
    return [each for each in requests if (each.after, each.policy) == (head.seq, head.digest) and each.id not in done]


def find_request(workspace: Workspace, dataset: str, digest: str) -> tuple[ApprovalRequest, ProposedErasure]:
    """An open request by its digest, of which 12 digits are enough, and what it asks to erase.

    Raises:
        UsageError: No request that is open has it, or several have.
    """
    digits, head = digest.removeprefix("sha256:").rstrip("…"), policy_log(workspace.catalog, dataset).head()
    requests = open_requests(workspace, head) if head else []
    matching = {each.digest: each for each in reversed(requests) if each.digest.startswith(f"sha256:{digits}")}
    if len(digits) < FEWEST_DIGITS or len(matching) != 1:
        known = ", ".join(digest_text(each.digest) for each in requests)
        raise UsageError(
            f"No request to erase entries of {dataset} that is open has the digest {digest}",
            hint=f"Open: {known}." if known else "`stagegate erase DATASET --files GLOB --reason TEXT` records one.",
            dataset=dataset,
        )
    (request,) = matching.values()
    return request, _proposed(workspace, request)


def answer_request(
    workspace: Workspace, request: ApprovalRequest, *, approved: bool, reason: str, key: PersonKey | None = None
) -> ErasureDecision:
    """Agree to an open request, or decline it. The last answer that it needs records the erasure.

    Once enough people agreed, nothing is answered, and the erasure is recorded if a killed call did not.

    Raises:
        UsageError: The answer would not count, or a refusal has no reason.
    """
    dataset, head = request.dataset, policy_log(workspace.catalog, request.dataset).head()
    assert head is not None  # noqa: S101 - the request is open
    parameters, owners = _parameters(head), head.policy.get("owners", {})
    recorded = gate_records.read_answers(workspace.catalog, request)
    if not approved or _missing(count_answers(request, recorded, parameters, owners)):
        answer = build_answer(workspace, request, approved=approved, reason=reason.strip(), key=key)
        if why := why_not_counted(answer, recorded, request, parameters, owners):
            who = f"{workspace.identity.name} can't answer for an erasure of {dataset}"
            raise UsageError(f"{who}: {why}", hint=who_may(parameters, owners), dataset=dataset)
        gate_records.put_answer(workspace.catalog, request, answer)
    return _settled(workspace, head, request, _proposed(workspace, request))


def _settled(
    workspace: Workspace, head: PolicyEntry, request: ApprovalRequest, proposed: ProposedErasure
) -> ErasureDecision:
    """Record the erasure once enough people agreed."""
    answers = tuple(gate_records.read_answers(workspace.catalog, request))
    missing = _missing(count_answers(request, answers, _parameters(head), head.policy.get("owners", {})))
    if not missing:
        facts = (proposed.versions, proposed.entries, proposed.reason)
        record_erasure(workspace, head.dataset, *facts, request=request, approvals=answers)
    return ErasureDecision(proposed, request, missing)


def is_agreed(erasure: Erasure, policies: Sequence[PolicyEntry]) -> bool:
    """Whether an erasure has the answers that the policy asked for at its time, as the policy's log has it.

    Without signatures, times are declared, as names are.
    """
    request = erasure.request
    at = moment(request.at if request else erasure.at)
    # Clocks may differ: those that may have been in force.
    since, until = stamp(at - CLOCKS_DIFFER), stamp(at + CLOCKS_DIFFER)
    ends = [*(entry.at for entry in policies[1:]), until]
    heads = [entry for entry, end in zip(policies, ends, strict=True) if entry.at <= until and end >= since]
    if request is None:
        return policies[0].at >= since or any(erasure_rule(head.policy) is None for head in heads)
    proposed = ProposedErasure(erasure.versions, erasure.entries, erasure.reason)
    head = next((head for head in heads if (head.seq, head.digest) == (request.after, request.policy)), None)
    if head is None or erasure_rule(head.policy) is None or request.digest != proposed.digest:
        return False
    return not _missing(count_answers(request, erasure.approvals, _parameters(head), head.policy.get("owners", {})))


def pending_erasures(workspace: Workspace, head: PolicyEntry) -> Iterator[PendingAction]:
    """What waits for somebody because of requests to erase; see `Plugin.pending`."""
    if erasure_rule(head.policy) is None:
        return
    parameters, owners = _parameters(head), head.policy.get("owners", {})
    for request in open_requests(workspace, head):
        tally = count_answers(request, gate_records.read_answers(workspace.catalog, request), parameters, owners)
        if tally.declined:
            continue  # whoever asked was told, and may ask for something else
        proposed = _proposed(workspace, request)
        what = f"{count_text(len(proposed.entries), 'entry', 'entries')}: {proposed.reason}"
        state = RequestState(request, tally.counted, parameters.groups, tally.missing_people, "", tally.awaited)
        yield PendingAction(
            ActionKind.AGREE,
            remaining_people(owners, state) if tally.missing else (Person("whoever asked", request.requester.name),),
            request.at,
            f"{request.requester.name} asks to erase {what}" if tally.missing else f"Agreed to, not recorded: {what}",
            f"stagegate erase {request.dataset} --approve {digest_text(request.digest)}",
            request.digest,
            excluded=request.requester.name if tally.missing else "",
        )


def _missing(tally: AnswerTally) -> str:
    """Why a request is not agreed to; empty when it is."""
    if tally.declined:
        return f"declined by {tally.declined[-1].approver.name}: {tally.declined[-1].reason}"
    return tally.missing


def _parameters(head: PolicyEntry) -> ApprovalParameters:
    return ApprovalParameters.model_validate(erasure_rule(head.policy))


def _proposed(workspace: Workspace, request: ApprovalRequest) -> ProposedErasure:
    proposed = workspace.catalog.require(PROPOSED, request.dataset, request.digest)
    if proposed.digest != request.digest:
        raise corrupt(PROPOSED.path(request.dataset, request.digest), "proposes something else")
    return proposed
