"""Whether enough people agreed to an erasure, where the policy asks for that in `policy.erasure`.

    request ──(people answer with `stagegate erase --approve`)──▶ erasure, with the request and its answers

A request names the digest of what it proposes. Another policy ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefect_stagegate.catalog import Catalog, PolicyEntry, gate_records
from prefect_stagegate.catalog.policies import adopted_as, policy_log
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.approval_counting import AnswerTally, count_answers, why_unanswerable
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.records.answers import PersonKey
from prefect_stagegate.jobs.gating.approve import record_answer
from prefect_stagegate.jobs.gating.policy import matches
from prefect_stagegate.jobs.review.inbox import ActionKind, PendingAction
from prefect_stagegate.jobs.review.inbox_lines import remaining_people
from prefect_stagegate.model import Approval, ApprovalRequest, Entry
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
PROPOSED = Record("retention.proposed", Erasure)
"""What requests ask to erase, by its digest."""


def erase_or_ask(
    workspace: Workspace, dataset: str, versions: tuple[str, ...], entries: tuple[Entry, ...], reason: str
) -> tuple[ApprovalRequest | None, str]:
    """Record an erasure, or where the adopted policy has a rule, a request to agree to it.

    What is all erased already is not recorded again. The same request again gives the one that is open.

    Returns:
        The request, and why nothing is erased yet; empty once it is.

    Raises:
        UsageError: There is no reason, or too few people could ever agree.
        CatalogError: The catalog can't be read or written.
    """
    require_reason(reason)
    catalog, head = workspace.catalog, policy_log(workspace.catalog, dataset).head()
    erased = {blob for erasure in erasures_of(catalog, dataset) for blob in erasure.digests}
    if erased.issuperset(entry.digest for entry in entries):
        return None, ""
    if head is None or erasure_rule(head.policy) is None:
        record_erasure(workspace, dataset, versions, entries, reason)
        return None, ""
    proposed = Erasure(0, versions, entries, short_line(reason), workspace.identity, stamp(now()))
    request = next((each for each in open_requests(workspace, head) if each.digest == proposed.digest), None)
    if request is None:
        if why := why_unanswerable(_parameters(head), head.policy.get("owners", {}), workspace.identity):
            hint = "Somebody else can ask, or another policy can name more people under `owners`."
            raise UsageError(f"Too few people could agree to this erasure: {why}", hint=hint, dataset=dataset)
        catalog.create(PROPOSED, proposed, dataset, proposed.digest)
        facts = (proposed.digest, TARGET, head.digest, workspace.identity)
        request = gate_records.put_request(catalog, dataset, *facts, after=head.seq)
    return request, _settled(workspace, head, request)


def open_requests(workspace: Workspace, head: PolicyEntry) -> list[ApprovalRequest]:
    """The requests under the policy in force that are not recorded as erasures, the oldest first."""
    requests = gate_records.read_requests(workspace.catalog, head.dataset, TARGET)
    done = {erasure.request.id for erasure in workspace.catalog.all(ERASURES, head.dataset) if erasure.request}
    return [each for each in requests if (each.after, each.policy) == (head.seq, head.digest) and each.id not in done]


def find_request(workspace: Workspace, dataset: str, digest: str) -> tuple[ApprovalRequest, Erasure]:
    """An open request by its digest, of which 12 digits are enough, and what it asks to erase.

    Raises:
        UsageError: No request that is open has it, or several have.
    """
    head = policy_log(workspace.catalog, dataset).head()
    requests = {each.digest: each for each in reversed(open_requests(workspace, head) if head else [])}
    matching = [request for known, request in requests.items() if matches(known, digest.rstrip("…"))]
    if len(matching) != 1:
        known = ", ".join(map(digest_text, requests))
        raise UsageError(
            f"No request to erase entries of {dataset} that is open has the digest {digest}",
            hint=f"Open: {known}." if known else "`stagegate erase DATASET --files GLOB --reason TEXT` records one.",
            dataset=dataset,
        )
    return matching[0], _proposed(workspace, matching[0])


def answer_request(
    workspace: Workspace, request: ApprovalRequest, *, approved: bool, reason: str, key: PersonKey | None = None
) -> str:
    """Agree to an open request, or decline it. The last answer that it needs records the erasure.

    Once enough people agreed, nothing is answered, and the erasure is recorded if a killed call did not.

    Returns:
        Why nothing is erased yet; empty once it is.

    Raises:
        UsageError: The answer would not count, or a refusal has no reason.
    """
    catalog, dataset = workspace.catalog, request.dataset
    head = adopted_as(policy_log(catalog, dataset).entries(), request.policy)
    assert head is not None  # noqa: S101 - the request is open
    if not approved or _tally(head, request, gate_records.read_answers(catalog, request)).why_open:
        facts = (f"an erasure of {dataset}", _parameters(head), head.policy.get("owners", {}))
        record_answer(workspace, request, *facts, approved=approved, reason=reason.strip(), key=key)
    return _settled(workspace, head, request)


def _settled(workspace: Workspace, head: PolicyEntry, request: ApprovalRequest) -> str:
    """Record the erasure once enough people agreed. Returns why it is not recorded yet."""
    answers = tuple(gate_records.read_answers(workspace.catalog, request))
    if missing := _tally(head, request, answers).why_open:
        return missing
    asked = _proposed(workspace, request)
    facts = (asked.versions, asked.entries, asked.reason)
    record_erasure(workspace, head.dataset, *facts, request=request, approvals=answers)
    return ""


def is_agreed(erasure: Erasure, policies: Sequence[PolicyEntry], catalog: Catalog) -> bool:
    """Whether an erasure has the answers that the policy asked for at its time, as the policy's log has it.

    Without signatures, times are declared, as names are.
    """
    request = erasure.request
    if request is None:
        since = stamp(moment(erasure.at) - CLOCKS_DIFFER)
        before = [entry for entry in policies if entry.at <= since]
        return not before or erasure_rule(before[-1].policy) is None
    asked = (request.after, request.policy, request.digest)
    head = next((entry for entry in policies if asked == (entry.seq, entry.digest, erasure.digest)), None)
    if head is None or erasure_rule(head.policy) is None:
        return False
    # Another dataset may have the same bytes under the same policy.
    if (request.dataset, request.target) != (head.dataset, TARGET) or not request.is_of(catalog.id):
        return False
    return not _tally(head, request, erasure.approvals).why_open


def pending_erasures(workspace: Workspace, head: PolicyEntry) -> Iterator[PendingAction]:
    """What waits for somebody because of requests to erase; see `Plugin.pending`."""
    for request in open_requests(workspace, head) if erasure_rule(head.policy) is not None else ():
        tally = _tally(head, request, gate_records.read_answers(workspace.catalog, request))
        if tally.declined:
            continue  # whoever asked was told, and may ask for something else
        proposed, asker = _proposed(workspace, request), request.requester.name
        what = f"{count_text(len(proposed.entries), 'entry', 'entries')}: {proposed.reason}"
        people = remaining_people(head.policy.get("owners", {}), tally)
        yield PendingAction(
            ActionKind.AGREE,
            people if tally.missing else (Person("whoever asked", asker),),
            request.at,
            f"{asker} asks to erase {what}" if tally.missing else f"agreed to, but not recorded: {what}",
            f"stagegate erase {request.dataset} --approve {digest_text(request.digest)}",
            request.digest,
            excluded=asker if tally.missing else "",
        )


def _tally(head: PolicyEntry, request: ApprovalRequest, answers: Sequence[Approval]) -> AnswerTally:
    return count_answers(request, answers, _parameters(head), head.policy.get("owners", {}))


def _parameters(head: PolicyEntry) -> ApprovalParameters:
    return ApprovalParameters.model_validate(erasure_rule(head.policy))


def _proposed(workspace: Workspace, request: ApprovalRequest) -> Erasure:
    proposed = workspace.catalog.require(PROPOSED, request.dataset, request.digest)
    if proposed.digest != request.digest:
        raise corrupt(PROPOSED.path(request.dataset, request.digest), "proposes something else")
    return proposed
