"""A dataset's policy: adopt the first, propose another, agree to it, adopt it, and compare policies.

    stage ──first specs with gates──▶ draft ──(a target's first version, a signed rule, or adopt)──▶ adopted
    adopt ──▶ request ──(people agree, where the adopted policy has a rule)──▶ adopted

Only the policy in the catalog's log counts: no spec that somebody brings replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog import PolicyEntry, gate_records
from prefect_stagegate.catalog.policies import adopt_policy, policy_log
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.errors import CorruptRecord, RefConflict, StagegateError, UsageError
from prefect_stagegate.jobs.address import POLICY_KEYS, SpecLike, policy_name, policy_of, read_recorded, read_spec
from prefect_stagegate.jobs.gating.consent import (
    POLICY_TARGET,
    agreement,
    change_parameters,
    is_signed,
    rule_of,
    why_unchangeable,
)
from prefect_stagegate.model import LATEST, Approval, ApprovalRequest, Direction, Identity, PolicyChange
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import digest_text
from prefect_stagegate.workspace import Workspace

if TYPE_CHECKING:
    from prefect_stagegate.gate.records.answers import PersonKey

FEWEST_DIGITS = 12
"""The fewest digits that abbreviate the digest of what a request asks for."""
WRITTEN_OTHERWISE = "written otherwise, without a difference that this release can name"
FIRST = "the first staging adopts the policy of its spec"
REPLACED = "staged before any target named a version"


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result of an attempt to adopt a policy."""

    dataset: str
    digest: str
    """`sha256:<hex>` of the policy to adopt."""
    seq: int
    """Its number in the log; 0 while people must agree."""
    changes: tuple[PolicyChange, ...]
    """How it differs from the one before; empty for the first."""
    request: ApprovalRequest | None = None
    """The request to agree to it; None where the policy before has no rule."""
    missing: str = ""
    """Why it is not adopted yet; empty once it is."""
    is_new: bool = True
    """False when it was in force already, and nothing was changed."""


def adopted(workspace: Workspace, dataset: str) -> PolicyEntry:
    """The adopted policy of a dataset.

    Raises:
        UsageError: There is no such dataset, or it adopted none yet.
    """
    require_dataset(workspace.catalog, dataset)
    if adoption := policy_log(workspace.catalog, dataset).head():
        return adoption
    raise UsageError(
        f"{dataset} adopted no policy yet",
        hint="The first staging of a spec with gates adopts one, and `stagegate policy adopt SPEC --reason TEXT`.",
        dataset=dataset,
    )


def adopt_first_policy(workspace: Workspace, spec: Spec) -> tuple[PolicyChange, ...]:
    """Adopt a spec's policy when the spec has gates and the dataset adopted no policy yet, or only drafts.

    A draft was adopted by staging, has no rule that asks for signatures, and no target named a version under it.

    Returns:
        How the spec's policy differs from the adopted one; empty when it is that, or none was adopted.

    Raises:
        UsageError: Too few people could ever agree to another policy by the rule of this one.
        CatalogError: The record can't be written.
    """
    head = policy_log(workspace.catalog, spec.dataset).head()
    if not head and not spec.gates:
        return ()
    policy = policy_of(spec)
    if head and (head.policy == policy or not spec.gates or not _is_draft(workspace, head)):
        return changes(head.policy, policy, spec.dataset)
    # Before it is adopted: afterwards nobody could replace it any more.
    _require_changeable(policy, spec.dataset)
    reason = REPLACED if head else FIRST
    try:
        adopt_policy(workspace.catalog, spec.dataset, policy, head=head, who=workspace.identity, reason=reason)
    except RefConflict:  # another staging adopted its policy first, so this one is a proposal
        return proposed_changes(workspace, spec)
    return ()


def _is_draft(workspace: Workspace, head: PolicyEntry) -> bool:
    is_staged = head.reason in (FIRST, REPLACED) and not is_signed(rule_of(head.policy))
    return is_staged and not set(workspace.catalog.folders(REFS, head.dataset)) - {LATEST}


def proposed_changes(workspace: Workspace, spec: Spec) -> tuple[PolicyChange, ...]:
    """How a spec's policy differs from the one that its dataset adopted; empty when it adopted none."""
    adoption = policy_log(workspace.catalog, spec.dataset).head()
    return changes(adoption.policy, policy_of(spec), spec.dataset) if adoption else ()


def changes_since(workspace: Workspace, spec: Spec) -> tuple[PolicyChange, ...]:
    """What changed since a spec's policy was the adopted one; empty when it never was, or still is."""
    policy, adopted = policy_of(spec), [entry.policy for entry in policy_log(workspace.catalog, spec.dataset).entries()]
    return changes(policy, adopted[-1], spec.dataset) if policy in adopted else ()


def difference(workspace: Workspace, spec: SpecLike) -> tuple[PolicyChange, ...]:
    """How a spec's policy differs from the one that its dataset adopted; all of it when it adopted none."""
    loaded = read_spec(spec)
    adoption = policy_log(workspace.catalog, loaded.dataset).head()
    return changes(adoption.policy if adoption else {}, policy_of(loaded), loaded.dataset)


def changes(before: Mapping[str, Any], after: Mapping[str, Any], dataset: str) -> tuple[PolicyChange, ...]:
    """How one policy of a dataset differs from another; empty only when they are equal."""
    if before == after:
        return ()
    from prefect_stagegate.gate.policy_changes import (
        policy_changes,  # late: it loads all checks, and staging comes here
    )

    try:
        old, new = (spec_under(policy, dataset) for policy in (before, after))
    except CorruptRecord as error:
        return (PolicyChange("policy", error.message, Direction.LOOSENED),)
    differences = policy_changes(old, new)
    named = {difference.subject.split()[0].rstrip("s") for difference in differences}
    # Gates may be equal as this release reads them although they are written otherwise; of the rest nobody knows.
    unnamed = tuple(
        PolicyChange(key, WRITTEN_OTHERWISE, Direction.CHANGED if key == "gates" else Direction.LOOSENED)
        for key in POLICY_KEYS
        if before.get(key) != after.get(key) and key.rstrip("s") not in named
    )
    return differences + unnamed


def spec_under(policy: Mapping[str, Any], dataset: str) -> Spec:
    """A spec with only a policy, and one source that nobody opens.

    Raises:
        CorruptRecord: This release can't read the policy.
    """
    canonical = {"stagegate": 1, "dataset": dataset, "sources": [{"url": "file:///"}], **policy}
    name = policy_name(policy, dataset)
    return read_recorded(canonical, name[0].upper() + name[1:], dataset)


def adopted_spec(workspace: Workspace, dataset: str) -> Spec:
    """A spec with only the adopted policy; without gates where none was adopted.

    Raises:
        CorruptRecord: This release can't read the policy.
    """
    adoption = policy_log(workspace.catalog, dataset).head()
    return spec_under(adoption.policy if adoption else {}, dataset)


def adopt(workspace: Workspace, spec: SpecLike, *, reason: str, key: PersonKey | None = None) -> Adoption:
    """Adopt a spec's policy for its dataset, or request the approvals that it needs.

    The rule of the adopted policy says who must agree. Without a rule anybody may adopt. Once they agreed, the same
    call adopts the policy. With a key, whoever asks signs the request.

    Raises:
        UsageError: There is no reason, the spec has no gates, or too few people could ever agree by its rule.
        RefConflict: Somebody adopted another policy meanwhile; nothing was changed.
    """
    loaded = read_spec(spec)
    policy, dataset = policy_of(loaded), loaded.dataset
    require_dataset(workspace.catalog, dataset)
    if not reason.strip():
        raise UsageError("A change of policy needs a reason", hint="Give one with --reason.", dataset=dataset)
    if not loaded.gates:
        raise UsageError(f"The spec of {dataset} has no gates, so it has no policy to adopt", dataset=dataset)
    _require_changeable(policy, dataset)
    head = policy_log(workspace.catalog, dataset).head()
    # Store the policy first: requests and answers name it by its digest.
    digest = digest_of(policy)
    workspace.catalog.create(gate_records.PROPOSALS, dict(policy), dataset, digest)
    if head and head.digest == digest:
        return Adoption(dataset, digest, head.seq, (), is_new=False)
    differences = changes(head.policy, policy, dataset) if head else ()
    request: ApprovalRequest | None = None
    answers: tuple[Approval, ...] = ()
    # The rule of the policy in force decides, not that of the new one, which would excuse itself.
    if head and rule_of(head.policy) is not None:
        request = _request(workspace, head, digest, key)
        answers = tuple(gate_records.read_answers(workspace.catalog, request))
        if missing := agreement(head.policy, request, answers).why_open:
            return Adoption(dataset, digest, 0, differences, request, missing)
    entry = adopt_policy(
        workspace.catalog,
        dataset,
        policy,
        head=head,
        who=workspace.identity,
        reason=reason.strip(),
        request=request,
        approvals=answers,
        sign=_adoption_signer(workspace, key),
    )
    return Adoption(dataset, digest, entry.seq, differences, request)


def open_requests(workspace: Workspace, dataset: str) -> list[ApprovalRequest]:
    """The requests to replace the policy in force, the oldest first. An adoption ends all earlier requests.

    One that is dated before the policy in force is left out: by a clock set back, an expired key would be valid.
    """
    from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER  # late: it loads all checks, see `changes`

    head = policy_log(workspace.catalog, dataset).head()
    seq, since = (head.seq, stamp(moment(head.at) - CLOCKS_DIFFER)) if head else (0, "")
    requests = gate_records.read_requests(workspace.catalog, dataset, POLICY_TARGET)
    return [request for request in requests if request.after == seq and request.at >= since]


def proposed_by(workspace: Workspace, request: ApprovalRequest) -> tuple[PolicyChange, ...]:
    """How the policy that a request proposes differs from the adopted one."""
    head = policy_log(workspace.catalog, request.dataset).head()
    proposal = gate_records.read_proposal(workspace.catalog, request.dataset, request.digest)
    return changes(head.policy if head else {}, proposal, request.dataset)


def adoptions(workspace: Workspace, dataset: str) -> list[tuple[PolicyEntry, tuple[PolicyChange, ...]]]:
    """Every adoption of a dataset, the oldest first, each with how it differs from the one before.

    Who adopted is known as the rule of the policy before proves it.
    """
    entries = policy_log(workspace.catalog, dataset).entries()
    first: list[tuple[PolicyEntry, tuple[PolicyChange, ...]]] = [(entry, ()) for entry in entries[:1]]
    return first + [
        (_proved(workspace, before.policy, after), changes(before.policy, after.policy, dataset))
        for before, after in pairwise(entries)
    ]


def _proved(workspace: Workspace, before: Mapping[str, Any], entry: PolicyEntry) -> PolicyEntry:
    if not entry.envelope or rule_of(before) is None:
        return entry
    from prefect_stagegate.gate.records.answers import adoption_act, prove_act  # late: it loads all checks

    with suppress(StagegateError):  # nothing here verifies this kind of signature
        proof = prove_act(adoption_act(entry, workspace.catalog.id), change_parameters(before))
        return replace(entry, who=Identity(entry.who.name, proof.known_by))
    return entry


def answer_request(
    workspace: Workspace,
    dataset: str,
    *,
    approved: bool,
    reason: str,
    digest: str = "",
    key: PersonKey | None = None,
) -> tuple[ApprovalRequest, Approval]:
    """Agree to a proposed policy, or decline it.

    Args:
        workspace: The catalog, and who answers.
        dataset: The dataset.
        approved: False to decline.
        reason: Kept with the answer; a refusal needs one.
        digest: At least 12 digits of the proposed policy's digest; needed only when several policies are proposed.
        key: Signs the answer.

    Raises:
        UsageError: No policy is proposed, several are and `digest` is empty, the answer would not count, or a refusal
            has no reason.
    """
    from prefect_stagegate.jobs.gating.approve import record_answer  # late: it loads all checks, see `changes`

    head = policy_log(workspace.catalog, dataset).head()
    requests = [request for request in open_requests(workspace, dataset) if matches(request.digest, digest)]
    if not requests or head is None or rule_of(head.policy) is None:
        raise UsageError(
            f"There is no request to adopt another policy for {dataset}",
            hint="`stagegate policy adopt SPEC --reason TEXT` records one.",
            dataset=dataset,
        )
    request = requests[-1]
    if any(other.digest != request.digest for other in requests):
        proposals = (f"{digest_text(other.digest)} by {other.requester}, {other.at[:19]}Z" for other in requests)
        raise UsageError(
            f"Several policies are proposed for {dataset}: {'; '.join(proposals)}",
            hint="Name one with --policy DIGEST.",
            dataset=dataset,
        )
    facts = (f"the policy of {dataset}", change_parameters(head.policy), head.policy.get("owners", {}))
    return request, record_answer(workspace, request, *facts, approved=approved, reason=reason.strip(), key=key)


def matches(digest: str, prefix: str) -> bool:
    """Whether a digest begins with the digits that a user typed; an empty prefix matches any."""
    digits = prefix.removeprefix("sha256:")
    return not prefix or (len(digits) >= FEWEST_DIGITS and digest.removeprefix("sha256:").startswith(digits))


def _adoption_signer(workspace: Workspace, key: PersonKey | None) -> Callable[[PolicyEntry], Mapping[str, Any]] | None:
    if key is None:
        return None
    from prefect_stagegate.gate.records.answers import adoption_act, sign_act  # late: it loads all checks

    return lambda entry: sign_act(adoption_act(entry, workspace.catalog.id), key)


def _require_changeable(policy: Mapping[str, Any], dataset: str) -> None:
    if why := why_unchangeable(policy):
        raise UsageError(
            f"Under the policy of this spec nobody could ever adopt another policy for {dataset}: {why}",
            hint="Name more people under `owners`, with keys where answers are signed, or ask for fewer approvals.",
            dataset=dataset,
        )


def _request(workspace: Workspace, head: PolicyEntry, digest: str, key: PersonKey | None) -> ApprovalRequest:
    """Return the open request for a policy; record one when there is none, or where a key replaces an unsigned one."""
    from prefect_stagegate.gate.records.answers import signer_of  # late: it loads all checks, see `changes`
    from prefect_stagegate.jobs.gating.approve import is_replaced, request_signer

    requests = [request for request in open_requests(workspace, head.dataset) if request.digest == digest]
    if requests and not is_replaced(workspace, requests[-1], key):
        return requests[-1]
    return gate_records.put_request(
        workspace.catalog,
        head.dataset,
        digest,
        POLICY_TARGET,
        head.digest,
        signer_of(workspace.identity, key),
        after=head.seq,
        sign=request_signer(key),
    )
