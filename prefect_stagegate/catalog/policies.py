"""The log of a dataset's policy: which gates and contract count for it, who adopted them, when and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.catalog.log import Log, LogMemory, State
from prefect_stagegate.catalog.records import Records
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Approval, Identity, Request


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One adoption of a policy."""

    seq: int
    """Counts from 1, without gaps."""
    dataset: str
    policy: Mapping[str, Mapping[str, Any]]
    """The keys of the spec that are policy, as the canonical spec has them."""
    who: Identity
    at: str
    reason: str = ""
    request: Request | None = None
    """What the people were asked who had to agree; None where nobody had to."""
    approvals: tuple[Approval, ...] = ()
    """Their answers."""
    before: str = ""
    """`sha256:<hex>` of the entry before as stored; empty for the first."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the policy, by which decisions and people name it."""
        return digest_of(self.policy)


def adopted_as(policies: Sequence[PolicyEntry], digest: str) -> PolicyEntry | None:
    """The newest adoption of a policy by its digest; None when it was never adopted."""
    return next((entry for entry in reversed(policies) if entry.digest == digest), None)


Consent = Callable[[Mapping[str, Any], PolicyEntry], str]
"""Why an entry can't follow a policy, of which the keys `policy` and `owners` are given; empty when it can."""


def policy_log(
    records: Records, dataset: str, catalog: str, memory: LogMemory | None, consent: Consent | None
) -> Log[PolicyEntry]:
    """The log of one dataset's policy.

    Args:
        records: The catalog's store.
        dataset: The dataset's name.
        catalog: The catalog's URL.
        memory: Where the node remembers what it checked.
        consent: Judges whether those agreed who had to; None to leave that to others.
    """
    return Log(
        records,
        f"datasets/{dataset}/policy/",
        PolicyEntry,
        f"the policy of {dataset}",
        f"stagegate policy history {dataset}",
        partial(_prove, dataset, consent),
        memory,
        catalog,
    )


def _prove(dataset: str, consent: Consent | None, entry: PolicyEntry, state: State) -> State:
    if entry.dataset != dataset:
        raise CorruptRecord(f"it is of {entry.dataset}")
    if consent and (why := consent(state.get("rule", {}), entry)):
        raise CorruptRecord(why)
    kept = {key: entry.policy[key] for key in ("policy", "owners") if key in entry.policy}
    return {"rule": kept, "digests": [*state.get("digests", ()), entry.digest]}
