"""The status of datasets: what each target names, what is proposed, whose turn it is, and which policies are proposed.

The number of the catalog's records that are read for a dataset depends on its targets, not on its versions. A node that
reads a dataset for the first time checks the logs of its refs, once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache, reduce
from typing import Any

from prefect_stagegate.catalog import PolicyEntry, RefEntry, RefHead, gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.refs import REFS, ref_heads
from prefect_stagegate.catalog.version_records import has_version, listed_datasets, require_dataset, staged_spec
from prefect_stagegate.clock import moment, now
from prefect_stagegate.doors import hidden_names, load, plugins
from prefect_stagegate.errors import CatalogError, CorruptRecord, SourceError, StagegateError
from prefect_stagegate.gate.approval_counting import count_answers, why_request_ended
from prefect_stagegate.gate.approval_parameters import APPROVAL, approval_asked_by
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.address import policy_within, spec_beside
from prefect_stagegate.jobs.gating.approve import lapsed_at
from prefect_stagegate.jobs.gating.consent import POLICY_TARGET, agreement, rule_of
from prefect_stagegate.jobs.gating.policy import changes_since, proposed_changes, spec_under
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.jobs.review.inbox_lines import (
    DecisionRecord,
    RequestState,
    TargetFacts,
    line_of,
    policy_line,
    unreadable_line,
)
from prefect_stagegate.model import LATEST, Address, ApprovalRequest, Decision, PolicyChange
from prefect_stagegate.show import Section, sections_of
from prefect_stagegate.show.document import merged
from prefect_stagegate.spec import Gate
from prefect_stagegate.spec.models import VERSION
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

Holders = Callable[[str, str], tuple[str, ...]]
"""The names of the nodes that hold a version complete, by its dataset and digest."""
READERS = 16
"""Datasets that are read at a time: an object store takes milliseconds for each record."""
REQUESTS = 8
"""The newest requests of a target that are read, at most."""


@dataclass(frozen=True, slots=True)
class RefStatus:
    """One ref: `latest`, or a target."""

    ref: str
    digest: str
    """The version that it names; empty for a target before its first promotion."""
    at: str
    """When it was moved to this version."""
    by: str
    waits: tuple[ApprovalRequest, ...] = ()
    """Requests to promote a version to it that wait for an answer, the oldest first, eight at most."""


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """One dataset, with its policy, its refs and its lines of the inbox."""

    dataset: str
    policy: int
    """The number of the adopted policy; 0 before the first."""
    policy_digest: str
    adopted_at: str
    adopted_by: str
    anybody_may_change: bool
    """Whether the adopted policy has no rule that says who must agree to another."""
    refs: tuple[RefStatus, ...]
    """`latest` first, then each target that has a gate or a log and is not hidden, behind those its gate extends."""
    proposed: tuple[PolicyChange, ...]
    """How the policy in the spec of `latest` differs from the adopted one."""
    changed_since: tuple[PolicyChange, ...]
    """What changed since the policy in the spec of `latest` was the adopted one; empty when it never was, or is."""
    policy_requests: tuple[ApprovalRequest, ...]
    """Requests to adopt another policy that can still be answered."""
    lines: tuple[InboxLine, ...]
    """One for each target, in the order of `refs`, and one for the policy when another one is proposed."""
    sections: tuple[Section, ...] = ()
    """What plugins add."""


def inbox(statuses: Sequence[DatasetStatus], unreadable: UnreadableRecords) -> list[InboxLine]:
    """The lines of all datasets, the one that needs somebody most first.

    A dataset whose status can't be read has one line, without a target.
    """
    lines = [line for status in statuses for line in status.lines]
    known = {status.dataset for status in statuses}
    lost = {record.dataset: record for record in unreadable.all if record.dataset and record.dataset not in known}
    lines += [unreadable_line(name, "", record.problem) for name, record in lost.items()]
    return sorted(lines, key=lambda line: line.order)


def status(
    workspace: Workspace,
    dataset: str,
    unreadable: UnreadableRecords,
    *,
    most: int | None = None,
    holders: Holders | None = None,
) -> list[DatasetStatus]:
    """Give the status of one dataset, or of all that are not hidden.

    Those whose policy is damaged are left out and collected.

    Of all datasets, also those are left out whose signed answers can't be verified on this node. With `most`, only the
    first so many of them are read. `holders` gives the names of the nodes that hold a version complete; by default, by
    what is recorded now.

    Raises:
        UnknownDataset: There is no such dataset.
        MissingExtra: What verifies the dataset's signed answers is not installed.
    """
    catalog, time = workspace.catalog, now()
    if dataset:
        require_dataset(catalog, dataset)
    hidden = hidden_names(catalog)
    names = [dataset] if dataset else listed_datasets(catalog, hidden)[:most]
    holders = holders or find_holders(workspace, unreadable)

    def read(name: str) -> tuple[DatasetStatus | None, UnreadableRecords]:
        lost = UnreadableRecords()
        try:
            with lost.skip(name):
                return _DatasetReader(workspace, name, time, holders, hidden, lost).status(), lost
        except StagegateError as error:
            # Nothing here verifies the signatures of its answers: that ends no other dataset's status.
            if dataset or isinstance(error, SourceError):
                raise
            lost.add(error, name)
        return None, lost

    statuses = []
    with ThreadPoolExecutor(READERS, "stagegate-status") as pool:
        for found, lost in pool.map(read, names):
            unreadable.update(lost)
            statuses += [found] if found else []
    return statuses


def status_values(status: DatasetStatus) -> dict[str, Any]:
    """What `stagegate status --json` prints of a dataset: with the command of each line, which its actions imply."""
    values = asdict(replace(status, sections=()))
    del values["sections"]
    values["lines"] = [{**asdict(line), "next_step": line.next_step, "since": line.since} for line in status.lines]
    return reduce(merged, (section.values for section in status.sections), values)


def find_holders(workspace: Workspace, unreadable: UnreadableRecords) -> Holders:
    """Who holds which version complete, as plugins know it. `unreadable` collects the records that can't be read."""
    found = [load(plugin.replicas.holders)(workspace, unreadable) for plugin in plugins() if plugin.replicas]
    return lambda dataset, digest: tuple(name for holders in found for name in holders(dataset, digest))


class _DatasetReader:
    """Reads the status of one dataset; each listing and each record once."""

    def __init__(
        self,
        workspace: Workspace,
        dataset: str,
        time: datetime,
        holders: Holders,
        hidden: Collection[str],
        unreadable: UnreadableRecords,
    ) -> None:
        self._workspace, self._dataset, self._time, self._holders = workspace, dataset, time, holders
        self._hidden = hidden
        self._catalog, self._unreadable = workspace.catalog, unreadable
        self._adoption = policy_log(self._catalog, dataset).head()
        self._policy: Mapping[str, Any] = self._adoption.policy if self._adoption else {}
        self._gates: Mapping[str, Any] = self._policy.get("gates", {})
        self._numbers: dict[str, Mapping[str, int]] = {}
        """How many decisions each target's gate made about a version."""
        self._decisions: dict[tuple[str, str], DecisionRecord] = {}
        """The newest decision of a target's gate about a version."""
        self._problems: dict[str, str] = {}
        """Why the log of a ref can't be read."""

    def status(self) -> DatasetStatus:
        adoption, heads = self._adoption, self._heads()
        spec = cache(lambda: spec_under(self._policy, self._dataset))  # read only where a request is open
        refs, lines = [], []
        gates = sorted(self._gates, key=lambda target: (len(_chain(self._gates, target)), target))
        for ref in dict.fromkeys((LATEST, *gates, *heads, *self._problems)):
            if f"{self._dataset}@{ref}" in self._hidden:
                continue
            head = heads.get(ref)
            requests = self._requests(ref, head, lambda ref=ref: spec().gate(ref))  # type: ignore[misc]
            refs.append(_ref_status(ref, head, requests))
            if ref != LATEST or ref in self._problems:
                lines.append(self._line(ref, heads, requests))
        proposed, changed_since = self._policy_changes(adoption, heads.get(LATEST))
        policy_requests = self._policy_requests(adoption) if adoption else []
        is_proposed = bool(proposed) and not changed_since
        places = [plugin.pending for plugin in plugins() if plugin.pending] if adoption else []
        pending = [action for place in places for action in load(place)(self._workspace, adoption)]
        owners = self._policy.get("owners", {})
        of_policy = policy_line(self._dataset, policy_requests, owners, is_proposed=is_proposed, more=pending)
        return DatasetStatus(
            dataset=self._dataset,
            policy=adoption.seq if adoption else 0,
            policy_digest=adoption.digest if adoption else "",
            adopted_at=adoption.at if adoption else "",
            adopted_by=str(adoption.who) if adoption else "",
            anybody_may_change=adoption is not None and rule_of(adoption.policy) is None,
            refs=tuple(refs),
            proposed=proposed,
            changed_since=changed_since,
            policy_requests=tuple(state.request for state in policy_requests),
            lines=(*lines, *([of_policy] if of_policy else [])),
            sections=sections_of("status", self._workspace, Address(self._dataset)),
        )

    def _heads(self) -> dict[str, RefHead]:
        """What each ref names; the refs whose logs can't be read are noted."""
        lost = UnreadableRecords()
        heads = ref_heads(self._catalog, self._dataset, lost)
        self._unreadable.update(lost)
        if lost.all:
            for ref in self._catalog.folders(REFS, self._dataset):
                if ref not in heads:
                    self._problems[ref] = next(
                        (record.problem for record in lost.all if f"@{ref} " in record.problem), lost.all[0].problem
                    )
        return heads

    def _line(self, target: str, heads: Mapping[str, RefHead], requests: Sequence[RequestState]) -> InboxLine:
        if target in self._problems:
            return unreadable_line(self._dataset, target, self._problems[target])
        head, newest = heads.get(target), heads.get(LATEST)
        below = _extends(self._gates.get(target))
        source_head = heads.get(below) if below else newest
        # Nothing is at the gate below: `latest` is proposed only where the gate was asked about it.
        if source_head is None and newest and target in self._decision_numbers(newest.entry.digest):
            source_head = newest
        # What any target took back comes next nowhere. Whoever asks for it again names it.
        if source_head and any(source_head.entry.digest in other.withdrawals for other in heads.values()):
            source_head = None
        source = source_head.move if source_head else None
        problem, accepted, record = "", None, None
        try:
            accepted = self._acceptance(target, head) if head else None
            if head and (source is None or target not in self._gates or source.digest == head.entry.digest):
                record = self._decision(target, head.entry.digest, accepted)
            elif source:
                record = self._decision(target, source.digest)
        except CatalogError as error:
            self._unreadable.add(error, self._dataset)
            problem = error.message
        facts = TargetFacts(
            dataset=self._dataset,
            target=target,
            owners=self._policy.get("owners", {}),
            adopted=self._adoption.digest if self._adoption else "",
            adopted_at=self._adoption.at if self._adoption else "",
            has_gate=target in self._gates,
            head=head,
            source=source,
            accepted=accepted,
            decision=record,
            withdrawal=self._withdrawal(target, head) if head else None,
            requests=requests,
            held_by=self._holders(self._dataset, head.entry.digest) if head else (),
            problem=problem,
        )
        return line_of(facts, self._time, self._workspace.settings.expiry_warning)

    def _withdrawal(self, target: str, head: RefHead) -> RefEntry | None:
        """The entry that withdrew the version that a target names; None when none did."""
        if not head.withdrawals.get(head.entry.digest):
            return None
        if head.entry.withdrawn == head.entry.digest:
            return head.entry
        entries = self._catalog.ref_log(self._dataset, target).before(head.entry)
        return next((entry for entry in entries if entry.withdrawn == head.entry.digest), None)

    def _acceptance(self, target: str, head: RefHead) -> Decision:
        """The newest acceptance of the version that a target names: that of its promotion, or a later one."""
        first = decision_of(head.move.attestation)
        newest = self._decision(target, head.entry.digest, first)
        return newest.decision if newest and newest.decision.accepted else first

    def _decision(self, target: str, digest: str, known: Decision | None = None) -> DecisionRecord | None:
        """The newest decision of a target's gate about a version; None when there is none but the known one."""
        number = self._decision_numbers(digest).get(target, 0)
        # The log holds a copy of the decision that the version was promoted by, so a single one need not be read.
        if number <= (1 if known is not None else 0):
            return None
        if (target, digest) not in self._decisions:
            statement = gate_records.read_attestation(self._catalog, self._dataset, digest, target, number)
            self._decisions[target, digest] = DecisionRecord(decision_of(statement), statement)
        return self._decisions[target, digest]

    def _decision_numbers(self, digest: str) -> Mapping[str, int]:
        if digest not in self._numbers:
            self._numbers[digest] = gate_records.decision_numbers(self._catalog, self._dataset, digest)
        return self._numbers[digest]

    def _requests(self, target: str, head: RefHead | None, gate: Callable[[], Gate]) -> list[RequestState]:
        """The requests for a target that can still be answered, the newest of each version and policy first."""
        # Without a gate no version can be promoted, so no answer would count.
        if target in self._problems or not _asks_for_approval(self._gates, target):
            return []
        states: dict[tuple[str, str], RequestState] = {}
        # The target's move ended all requests before it.
        since = moment(head.move.at) - CLOCKS_DIFFER if head else None
        catalog, dataset = self._catalog, self._dataset
        for record in gate_records.recorded_requests(catalog, dataset, target, since)[:REQUESTS]:
            request = gate_records.read_request(catalog, dataset, target, record.id)
            about = (request.digest, request.policy)
            named, moves = (head.entry.digest, head.entry.seq) if head else ("", 0)
            if about in states or why_request_ended(request, policy=request.policy, named=named, moves=moves):
                continue
            if not has_version(catalog, dataset, request.digest):
                continue  # nobody can promote it
            with self._unreadable.skip(dataset):
                if gate().policy == request.policy:
                    states[about] = self._request_state(record, request, gate())
        return list(states.values())

    def _request_state(
        self, record: gate_records.RecordedRequest, request: ApprovalRequest, gate: Gate
    ) -> RequestState:
        answers = gate_records.read_answers(self._catalog, request) if record.answers else []
        tally = count_answers(request, answers, approval_asked_by(gate), self._policy.get("owners", {}))
        return RequestState(request, tally, lapsed_at(self._workspace, request) if record.waits else "")

    def _policy_requests(self, adoption: PolicyEntry) -> list[RequestState]:
        """The requests to replace the policy in force, the oldest first. An adoption ends all earlier ones."""
        if rule_of(adoption.policy) is None:
            return []  # nobody has to be asked
        states = []
        since = moment(adoption.at) - CLOCKS_DIFFER
        newest = gate_records.recorded_requests(self._catalog, self._dataset, POLICY_TARGET, since)[:REQUESTS]
        for record in reversed(newest):
            request = gate_records.read_request(self._catalog, self._dataset, POLICY_TARGET, record.id)
            if request.after != adoption.seq:
                continue
            answers = gate_records.read_answers(self._catalog, request) if record.answers else []
            states.append(RequestState(request, agreement(adoption.policy, request, answers)))
        return states

    def _policy_changes(
        self, adoption: PolicyEntry | None, latest: RefHead | None
    ) -> tuple[tuple[PolicyChange, ...], tuple[PolicyChange, ...]]:
        """How the policy in the spec of `latest` differs from the adopted one, and what changed since it was that."""
        if latest is None:
            return (), ()
        canonical = staged_spec(self._catalog, self._dataset, latest.entry.digest)
        if canonical is None:
            problem = f"No spec is stored beside {self._dataset}@{digest_text(latest.entry.digest)}"
            self._unreadable.add(
                CorruptRecord(problem, hint=f"Stage {self._dataset} again from its spec."), self._dataset
            )
            return (), ()
        # Reading a spec takes milliseconds, and there is nothing to compare in most.
        is_same = adoption and adoption.policy == policy_within(canonical)
        if is_same and canonical.get("stagegate") == VERSION:
            return (), ()
        spec = spec_beside(self._catalog, self._dataset, latest.entry.digest)
        return proposed_changes(self._workspace, spec), changes_since(self._workspace, spec)


def _ref_status(ref: str, head: RefHead | None, requests: Sequence[RequestState]) -> RefStatus:
    waits = tuple(
        state.request
        for state in reversed(requests)
        if state.tally.missing_people > 0 and not state.tally.declined and not state.lapsed_at
    )
    if head is None:
        return RefStatus(ref, "", "", "", waits)
    return RefStatus(ref, head.entry.digest, head.move.at, str(head.move.who), waits)


def _extends(gate: object) -> str:
    """The gate below of a gate as a policy has it; empty when it extends none."""
    below = gate.get("extends") if isinstance(gate, Mapping) else None
    return below if isinstance(below, str) else ""


def _chain(gates: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    """A target's gate, and those that it extends."""
    chain: dict[str, Mapping[str, Any]] = {}
    while target not in chain and isinstance(gate := gates.get(target), Mapping):
        chain[target] = gate
        target = _extends(gate)
    return list(chain.values())


def _asks_for_approval(gates: Mapping[str, Any], target: str) -> bool:
    """Whether a gate, or one that it extends, requires an approval."""
    required = (check for gate in _chain(gates, target) for check in gate.get("require", ()))
    return any(check == APPROVAL or (isinstance(check, Mapping) and APPROVAL in check) for check in required)
