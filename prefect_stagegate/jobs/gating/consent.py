"""Whether enough people agreed to a change of policy, by the rule of the policy that it replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog import PolicyEntry
from prefect_stagegate.model import RECORDED, Approval, ApprovalRequest

if TYPE_CHECKING:
    from prefect_stagegate.gate.approval_counting import AnswerTally
    from prefect_stagegate.gate.approval_parameters import ApprovalParameters

POLICY_TARGET = "_policy"
"""Takes the target's place in requests to adopt a policy. No target's name begins with an underscore."""


def rule_of(policy: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The parameters of the approval that a policy requires before another replaces it; None when it has no rule."""
    rule: Mapping[str, Any] | None = policy.get("policy", {}).get("change", {}).get("approval")
    return rule


def change_parameters(policy: Mapping[str, Any]) -> ApprovalParameters:
    """The parameters of the approval that a policy with a rule requires before another replaces it."""
    from prefect_stagegate.gate.approval_parameters import ApprovalParameters  # late: it loads all checks

    return ApprovalParameters.model_validate(rule_of(policy))


def is_signed(rule: Mapping[str, Any] | None) -> bool:
    """Whether a rule wants answers that are signed, by the person or by the server of a login."""
    return rule is not None and bool(rule.get("signed") or rule.get("proof", "declared") not in RECORDED)


def why_unchangeable(policy: Mapping[str, Any]) -> str:
    """Why too few people could ever agree by a policy's rule; empty when enough could, or it has no rule."""
    if rule_of(policy) is None:
        return ""
    from prefect_stagegate.gate.approval_counting import why_unanswerable  # late: it loads all checks

    why = why_unanswerable(change_parameters(policy), policy.get("owners", {}))
    return why and f"its rule can't be met: {why}"


def agreement(policy: Mapping[str, Any], request: ApprovalRequest, answers: Sequence[Approval]) -> AnswerTally:
    """Count the answers to a request by the rule of the policy in force.

    Args:
        policy: The policy in force, which has a rule; its keys `policy` and `owners` are read.
        request: The request to adopt another policy.
        answers: The answers to the request, the oldest first; the last of each person counts.
    """
    from prefect_stagegate.gate.approval_counting import count_answers  # late, as above

    return count_answers(request, answers, change_parameters(policy), policy.get("owners", {}))


def consent(before: Mapping[str, Any], entry: PolicyEntry) -> str:
    """Why an entry of the policy's log can't follow the one before.

    Args:
        before: The keys `policy` and `owners` of the policy before; empty for the first entry.
        entry: The entry.

    Returns:
        Empty when it can follow. Else this release can't read the entry's rule, or the rule before wants more answers.
    """
    if not _is_readable(entry.policy):
        return "this release can't read its rule"
    rule = rule_of(before)
    # A draft while no target had an entry: names without signatures are only declared, and hold nobody off.
    is_free = rule is None or (entry.heads == {} and not is_signed(rule))
    missing = "" if is_free else _missing(before, entry)
    return missing and f"the required people did not agree: {missing}"


def _is_readable(policy: Mapping[str, Any]) -> bool:
    """Whether a policy has no rule, or one that this release can read."""
    try:
        if rule_of(policy) is not None:
            change_parameters(policy)
    except (AttributeError, ValueError):
        return False
    return True


def _missing(before: Mapping[str, Any], entry: PolicyEntry) -> str:
    """Why an entry lacks the answers that the rule of the policy before wants; empty when it has them."""
    request = entry.request
    about = (entry.dataset, entry.digest, POLICY_TARGET)
    if request is None or (request.dataset, request.digest, request.target) != about:
        return "it has no request for this policy"
    if request.after != entry.seq - 1:
        return "another policy was adopted after its request"
    return agreement(before, request, entry.approvals).why_open
