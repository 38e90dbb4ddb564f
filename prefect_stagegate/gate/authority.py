"""Who may overrule a gate: waive a failure, revoke evidence, roll back. Pure but for proving signatures.

Where the rule asks how a name is known, that is proved wherever a record counts. Where it does not, a name is compared
with the rule when the record is made, and records of earlier releases go on counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.approval_counting import who_may, why_act_is_void
from prefect_stagegate.gate.approval_parameters import APPROVAL, ApprovalParameters
from prefect_stagegate.gate.records.answers import (
    ANSWER_PAYLOAD,
    Overruling,
    PersonKey,
    SignedAct,
    overruling_act,
    prove_act,
    sign_act,
)
from prefect_stagegate.gate.records.signing import signers
from prefect_stagegate.model import EvidenceRevocation, Identity, Waiver
from prefect_stagegate.spec import Spec

Record = TypeVar("Record", bound=Overruling)


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose waivers, revocations, rollbacks and records of plugins count at one gate.

    Methods take `about` as `overruling_act` does.
    """

    parameters: ApprovalParameters | None
    """The rule; None where anybody may."""
    owners: Mapping[Any, str]
    catalog: Callable[[], str]
    """Gives the catalog's id."""
    allows_waivers: bool = True
    nodes: tuple[str, ...] = ()
    """The keys of which one signs each rollback, where people need not."""

    @property
    def who_may(self) -> str:
        """Whose word counts, for people; empty where anybody's does."""
        return who_may(self.parameters, self.owners) if self.parameters else ""

    def sealed(self, record: Record, key: PersonKey | None, refusal: str, **about: Any) -> Record:
        """A new record, signed where there is a key.

        Raises:
            UsageError: It would not count. The message begins with `refusal`.
            MissingExtra: What verifies its signature is not installed.
        """
        if key:
            record = replace(record, envelope=sign_act(overruling_act(record, self.catalog(), **about), key))
        if why := self._why_void(record, **about):
            raise UsageError(f"{refusal}: {why}", hint=self.who_may)
        return record

    def waivers(self, granted: Iterable[Waiver], requester: str) -> tuple[Waiver, ...]:
        """The waivers that count, of all their records. An end that nobody proved ends none, and none is taken back."""
        counting: dict[str, Waiver] = {}
        for waiver in granted:
            earlier = counting.get(waiver.id)
            if not (earlier and earlier.revoked) and self.counts(waiver, requester=requester):
                counting[waiver.id] = waiver if self._is_ended(waiver) else replace(waiver, revoked=None)
        return tuple(counting.values())

    def revocations(self, recorded: Iterable[EvidenceRevocation]) -> tuple[EvidenceRevocation, ...]:
        """The revocations of evidence that count."""
        return tuple(revocation for revocation in recorded if self.counts(revocation))

    def _is_ended(self, waiver: Waiver) -> bool:
        return waiver.revoked is not None and self.counts(waiver.revoked, waiver=waiver.id)

    def counts(self, record: Overruling, **about: Any) -> bool:
        """Whether a record counts; see `why_ignored`."""
        return not self.why_ignored(record, **about)

    def why_ignored(self, record: Overruling, **about: Any) -> str:
        """Why a record does not count; empty where it does, as by a declared name where nobody asks how it is known."""
        is_asked = isinstance(record, Waiver) and not self.allows_waivers
        is_asked = is_asked or (self.parameters is not None and self.parameters.proof != "declared")
        is_asked = is_asked or (isinstance(record, RefEntry) and bool(self.nodes))
        return self._why_void(record, **about) if is_asked else ""

    def proved_name(self, record: Overruling, **about: Any) -> Identity:
        """Who made a record, as far as it is proved."""
        act = self._act(record, **about)
        return Identity(act.who, prove_act(act, self.parameters or ApprovalParameters()).known_by)

    def _act(self, record: Overruling, **about: Any) -> SignedAct:
        # Only signatures are bound to the catalog, whose id a reader may not be able to make.
        return overruling_act(record, self.catalog() if record.envelope else "", **about)

    def _why_void(self, record: Overruling, **about: Any) -> str:
        if isinstance(record, Waiver) and not self.allows_waivers:
            return "the policy allows no waivers"
        if isinstance(record, RefEntry) and self.nodes:
            statement = overruling_act(record, self.catalog()).statement
            if not signers(record.envelope, statement, ANSWER_PAYLOAD, self.nodes):
                return "no key of `policy.node_keys` signed the rollback; STAGEGATE_SIGNING_KEY names that of a node"
        if self.parameters is None:
            return ""
        return why_act_is_void(self._act(record, **about), self.parameters, self.owners)


def authority_of(spec: Spec, target: str, catalog: Callable[[], str]) -> Authority:
    """Who may overrule the gate of a target: by `policy.overrides`, else those whose answers the gate counts."""
    requirements = spec.gate(target).requirements if target in spec.gates else ()
    rule = next((requirement.params for requirement in requirements if requirement.check == APPROVAL), None)
    if spec.policy.overrides:
        rule = spec.policy.overrides.approval
    parameters = None if rule is None else ApprovalParameters.model_validate(rule)
    nodes = () if parameters and parameters.wants_envelope else spec.policy.node_keys
    return Authority(parameters, spec.owners, catalog, spec.policy.waivers != "none", nodes)
