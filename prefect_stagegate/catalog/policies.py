"""The log of a dataset's policy: its gates and contract, with who adopted them, when and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.catalog.log import State
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Approval, ApprovalRequest, Identity


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One adoption of a policy."""

    seq: int
    """The entry's number, from 1, without gaps."""
    dataset: str
    policy: Mapping[str, Mapping[str, Any]]
    """The policy keys of the canonical spec."""
    who: Identity
    at: str
    reason: str = ""
    request: ApprovalRequest | None = None
    """The request to those who had to agree; None where nobody had to."""
    approvals: tuple[Approval, ...] = ()
    """Their answers."""
    before: str = ""
    """`sha256:<hex>` of the entry before as stored; empty for the first."""
    heads: Mapping[str, int] | None = None
    """The number of each target's newest entry at the adoption; None where an earlier release wrote it."""

    def is_before(self, target: str, seq: int) -> bool:
        """Whether it was surely adopted before a target's log got its entry `seq`."""
        return self.heads is not None and self.heads.get(target, 0) < seq

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the policy, by which decisions name it."""
        return digest_of(self.policy)


def adopted_as(policies: Sequence[PolicyEntry], digest: str) -> PolicyEntry | None:
    """The newest adoption of a policy by its digest; None when it was never adopted."""
    return next((entry for entry in reversed(policies) if entry.digest == digest), None)


Consent = Callable[[Mapping[str, Any], PolicyEntry], str]
"""Returns why an entry can't follow a policy (its keys `policy` and `owners`); empty when it can."""


def prove_adoption(dataset: str, consent: Consent | None, entry: PolicyEntry, state: State) -> State:
    """Check that an entry of the log of a dataset's policy may follow the entries before it.

    The state holds the rule of the newest policy (its keys `policy` and `owners`).
    """
    if entry.dataset != dataset:
        raise CorruptRecord(f"it belongs to {entry.dataset}")
    if consent and (why := consent(state.get("rule", {}), entry)):
        raise CorruptRecord(why)
    rule = {key: entry.policy[key] for key in ("policy", "owners") if key in entry.policy}
    return {"rule": rule}
