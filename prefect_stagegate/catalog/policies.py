"""The log of a dataset's policy: its gates and contract, with who adopted them, when and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog.log import State
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import LATEST, Approval, ApprovalRequest, Identity
from prefect_stagegate.model.canonical import digest_of

if TYPE_CHECKING:
    from prefect_stagegate.catalog.catalog import Catalog
    from prefect_stagegate.catalog.log import Log


@dataclass(frozen=True)  # without slots, see `__post_init__`
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
    envelope: Mapping[str, Any] | None = None
    """The signature of whoever adopted it, as in `Approval`; None if unsigned."""

    def __post_init__(self) -> None:
        if not self.envelope:
            # As in `ApprovalRequest`: then records and documents are as those of earlier releases.
            vars(self).pop("envelope", None)

    def is_before(self, target: str, seq: int) -> bool:
        """Whether it was surely adopted before a target's log got its entry `seq`."""
        return self.heads is not None and self.heads.get(target, 0) < seq

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the policy, by which decisions name it."""
        return digest_of(self.policy)


POLICIES = Record("stagegate.policy", PolicyEntry)


def policy_log(catalog: Catalog, dataset: str) -> Log[PolicyEntry]:
    """The log of a dataset's policy: damaged, too, if a policy was adopted without the required agreement."""
    name, history = f"the policy of {dataset}", f"stagegate policy history {dataset}"
    return catalog.log(POLICIES, dataset, name=name, history=history, prove=partial(prove_adoption, catalog, dataset))


def adopted_as(policies: Sequence[PolicyEntry], digest: str) -> PolicyEntry | None:
    """The newest adoption of a policy by its digest; None when it was never adopted."""
    return next((entry for entry in reversed(policies) if entry.digest == digest), None)


def adopted_policy(catalog: Catalog, dataset: str, digest: str) -> Mapping[str, Any]:
    """A policy that a dataset adopted, by its digest; empty when it never did."""
    entry = adopted_as(catalog.policies(dataset), digest)
    # It may be newer than what was read.
    entry = entry or adopted_as(policy_log(catalog, dataset).entries(), digest)
    return entry.policy if entry else {}


def adopt_policy(  # noqa: PLR0913 - one parameter a field
    catalog: Catalog,
    dataset: str,
    policy: Mapping[str, Any],
    *,
    head: PolicyEntry | None,
    who: Identity,
    reason: str,
    request: ApprovalRequest | None = None,
    approvals: Sequence[Approval] = (),
    sign: Callable[[PolicyEntry], Mapping[str, Any]] | None = None,
) -> PolicyEntry:
    """Adopt a policy, if the log still ends with `head`. `sign` gives the entry's envelope.

    Raises:
        RefConflict: Another policy was adopted since `head` was read; nothing was changed.
    """
    seq = head.seq + 1 if head else 1
    # Without a policy before, no target has an entry that counts.
    targets = set(catalog.folders(REFS, dataset)) - {LATEST} if head else ()
    heads = {target: catalog.ref_log(dataset, target).count() for target in targets}
    entry = PolicyEntry(seq, dataset, policy, who, stamp(now()), reason, request, tuple(approvals), heads=heads)
    entry = replace(entry, envelope=sign(entry)) if sign else entry
    return policy_log(catalog, dataset).append(entry)


Consent = Callable[[Mapping[str, Any], PolicyEntry], str]
"""Returns why an entry can't follow a policy (its keys `policy` and `owners`); empty when it can."""


def prove_adoption(catalog: Catalog, dataset: str, entry: PolicyEntry, state: State) -> State:
    """Check that an entry of the log of a dataset's policy may follow the entries before it.

    The state holds the rule of the newest policy (its keys `policy` and `owners`).
    """
    if entry.request and not entry.request.is_of(catalog.id):
        raise CorruptRecord("its request was made in another catalog")
    if entry.dataset != dataset:
        raise CorruptRecord(f"it belongs to {entry.dataset}")
    if catalog.consent and (why := catalog.consent(state.get("rule", {}), entry)):
        raise CorruptRecord(why)
    rule = {key: entry.policy[key] for key in ("policy", "owners") if key in entry.policy}
    return {"rule": rule}
