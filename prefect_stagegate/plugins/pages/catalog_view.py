"""A catalog as the pages read it: through copies, with what was derived from unchanging records kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from prefect_stagegate.catalog import Catalog, RefAction, RefEntry, gate_records, withdrawn
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.catalog.version_records import listed_datasets, read_seal, staged_spec
from prefect_stagegate.doors import Visitor, hidden_names, require_allowed
from prefect_stagegate.errors import GateFailed, StagegateError
from prefect_stagegate.jobs.review.decisions import RecordedDecision, decision_line
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.jobs.review.status import DatasetStatus, Holders, find_holders, inbox, status
from prefect_stagegate.model import LATEST, DecisionOutcome, Evidence, Identity
from prefect_stagegate.plugins.pages.copies import CopiedRecords
from prefect_stagegate.plugins.pages.kept import Bounded, Refreshed
from prefect_stagegate.redaction import redact
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace, no_passphrase

T = TypeVar("T")
DERIVED = 200_000
"""Derived values that are kept, about 1 kB each: rows of versions, entries of logs."""
HOLDERS_FRESH = 5.0
"""Seconds for which is believed who holds which version, and what listings leave out."""
OVERVIEW_FRESH, OVERVIEW_STALE = 10.0, 300.0
"""Seconds for which the overview is believed, and after which no older one is shown."""
EVENTS = 12
"""Events that the overview has."""
NEWEST = 3
"""Versions of a dataset whose decisions are among its events."""
FIRST_SECONDS = 5.0
"""Seconds that a page waits for the first overview, before it shows a part of it."""
STATUS_SECONDS = 300
"""Seconds, and at most twice as many, after which a status is derived again although no record is new: 80 ms of CPU."""
READERS = 8
"""Versions, or datasets, that are read at a time."""


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """What lists tell of one version."""

    digest: str
    files: int = 0
    bytes: int = 0
    decisions: tuple[RecordedDecision, ...] = ()
    """The newest decision of each target's gate."""
    drift: float | None = None
    """The largest distance of a column from the accepted version; None where `drift` measured none."""
    problem: str = ""
    """Why the version's records can't be read."""


@dataclass(frozen=True, slots=True)
class CatalogEvent:
    """A move of a target, or a decision that did not accept."""

    at: str
    dataset: str
    target: str
    what: str
    """A `RefAction`, or a decision's outcome."""
    digest: str
    who: str
    why: str = ""
    decision: str = ""
    """The decision's id; empty for a move."""


@dataclass(frozen=True, slots=True)
class DatasetPassage:
    """The way of a dataset's versions from its sources through its targets."""

    status: DatasetStatus
    sources: tuple[str, ...] = ()
    """The URLs of the sources of `latest`."""
    withdrawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By a version's digest, the targets that withdrew it."""
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By target, why the version that it names, or that comes next, can't be promoted to it, and what to do."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What all datasets are at."""

    datasets: tuple[str, ...]
    """Their names, sorted."""
    passages: Mapping[str, DatasetPassage]
    """Those of the datasets that were read and whose policy can be read."""
    lines: tuple[InboxLine, ...]
    """The inbox: the line that needs somebody most first."""
    events: tuple[CatalogEvent, ...]
    """What happened last, the newest first."""
    unreadable: UnreadableRecords
    unread: int = 0
    """Datasets that were not read yet: after its start, the server checks all logs once."""


_QUIET = frozenset((DecisionOutcome.ACCEPTED.value, "unreadable"))
"""Decisions that are no events: a promotion follows an acceptance."""


_Known: TypeAlias = tuple[DatasetPassage | None, UnreadableRecords, list[CatalogEvent]]
"""What is known of one dataset; without a passage when its policy can't be read."""


class _ProcessMemory(dict[str, str]):
    """Which entries of logs this process checked. Not the node's: pages may be seconds behind other processes."""

    def note(self, name: str, note: str) -> None:
        """Remember a text under a name."""
        self[name] = note

    def noted(self, name: str) -> str | None:
        """The text that was remembered under a name; None without one."""
        return self.get(name)


class CatalogView:
    """What the pages read. All methods may raise `CatalogError`.

    Args:
        workspace: The catalog to show, and the settings.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._shared, shared = workspace, workspace.catalog
        self._copies = CopiedRecords(shared.records)
        self.catalog = Catalog(self._copies, memory=_ProcessMemory(), consent=shared.consent, proof=shared.proof)
        self.workspace = replace(workspace, catalog=self.catalog)
        self._derived = Bounded(DERIVED)
        self._readers = ThreadPoolExecutor(READERS, "stagegate-pages")
        # Of its own, so that a dataset's page does not wait for all datasets.
        self._overview_readers = ThreadPoolExecutor(READERS // 2, "stagegate-overview")
        background = self._background = ThreadPoolExecutor(2, "stagegate-background")
        self._holders = Refreshed(self._find_holders, background, fresh=HOLDERS_FRESH)
        """Read once for many datasets."""
        self._hidden = Refreshed(lambda: hidden_names(self.catalog), background, fresh=HOLDERS_FRESH)
        """What listings leave out; the records about it are no dataset's."""
        self._begun: list[_Known] = []
        """What the reading of the overview that goes on has read so far."""
        self._recent: dict[Callable[[Workspace], Any], Refreshed[Any]] = {}
        self._overview = Refreshed(self._read_overview, background, fresh=OVERVIEW_FRESH, stale=OVERVIEW_STALE)

    def workspace_of(self, visitor: Visitor) -> Workspace:
        """The catalog without copies, which are seconds old and can't be written, for who is logged in."""
        shared = self._shared.catalog
        # A catalog of their own: it keeps what it read of policies, and other threads read meanwhile.
        own = Catalog(shared.records, memory=shared.memory, consent=shared.consent, proof=shared.proof)
        identity = Identity(visitor.name, "declared")  # the visitor's key says how it is proved
        return replace(self._shared, catalog=own, identity=identity, ask_passphrase=no_passphrase)

    def begin(self) -> None:
        """Begin to read what all datasets are at."""
        with suppress(TimeoutError, StagegateError):  # pages that need it say why
            self._overview.get_with_age(first=0)

    def overview(self) -> tuple[Overview, float]:
        """What all datasets are at, and how many seconds ago that was read; soon after the start, a part of it."""
        try:
            return self._overview.get_with_age(first=FIRST_SECONDS)
        except TimeoutError:
            names = listed_datasets(self.catalog)
            return self._overview_of(names, list(self._begun)), 0.0

    def recent(self, make: Callable[[Workspace], T], **times: float) -> T:
        """What `make` made of the workspace a moment ago; `times` are those of a `Refreshed`."""
        kept = self._recent.setdefault(make, Refreshed(lambda: make(self.workspace), self._background, **times))
        value: T = kept.get()
        return value

    def status(self, dataset: str) -> DatasetStatus | None:
        """What one dataset is at; None when its policy can't be read."""
        return self.status_with_losses(dataset)[0]

    def status_with_losses(self, dataset: str) -> tuple[DatasetStatus | None, UnreadableRecords]:
        """What one dataset is at, and the records about it that can't be read."""
        return self._status(dataset, 2 * STATUS_SECONDS)

    def kept(self, dataset: str, name: Hashable, make: Callable[[], T]) -> T:
        """What was made of a dataset's unchanging records, made again once the dataset has other records."""
        return self._derived.get_or_make((dataset, self._copies.generation(dataset), name), make)

    def holders(self) -> tuple[Holders, UnreadableRecords]:
        """Who holds which version complete, and the records about it that can't be read."""
        return self._holders.get()

    def _find_holders(self) -> tuple[Holders, UnreadableRecords]:
        unreadable = UnreadableRecords()
        return find_holders(self.workspace, unreadable), unreadable

    def log(self, dataset: str, ref: str) -> list[RefEntry]:
        """The entries of a ref's log, the oldest first, checked, and without their attestations."""

        def read() -> list[RefEntry]:
            return [replace(entry, attestation={}) for entry in self.catalog.history(dataset, ref)]

        return self.kept(dataset, ("log", ref), read)

    def targets(self, dataset: str) -> dict[str, list[str]]:
        """The targets that decided on each version, by its digest."""

        def read() -> dict[str, list[str]]:
            targets: dict[str, list[str]] = {}
            for digest, target in gate_records.decided_versions(self.catalog, dataset):
                targets.setdefault(digest, []).append(target)
            return targets

        return self.kept(dataset, "targets", read)

    def figures(self, dataset: str, digests: list[str]) -> list[VersionFigures]:
        """What lists tell of some versions, in their order."""
        targets = self.targets(dataset)

        def read(digest: str) -> VersionFigures:
            try:
                name = ("figures", digest)
                return self.kept(dataset, name, lambda: self._figures(dataset, digest, targets.get(digest, [])))
            except StagegateError as error:
                # Not kept: the store may answer the next time.
                return VersionFigures(digest, problem=error.message)

        return list(self._readers.map(read, digests))

    def decisions(self, dataset: str, digest: str) -> list[RecordedDecision]:
        """All decisions about a version, the newest first."""

        def read() -> list[RecordedDecision]:
            return sorted(
                (
                    decision_line(dataset, digest, target, statement)[0]
                    for target in self.targets(dataset).get(digest, [])
                    for statement in gate_records.read_attestations(self.catalog, dataset, digest, target)
                ),
                key=lambda line: line.at,
                reverse=True,
            )

        return self.kept(dataset, ("decisions", digest), read)

    def _figures(self, dataset: str, digest: str, targets: list[str]) -> VersionFigures:
        sums = read_seal(self.catalog, dataset, digest)
        statements = [
            (target, gate_records.newest_attestation(self.catalog, dataset, digest, target)) for target in targets
        ]
        decisions = tuple(decision_line(dataset, digest, target, known)[0] for target, known in statements if known)
        drift = _furthest(gate_records.read_evidence(self.catalog, dataset, digest))
        return VersionFigures(digest, sums.files, sums.bytes, decisions, drift)

    def _read_overview(self) -> Overview:
        names, begun = listed_datasets(self.catalog), list[_Known]()
        self._begun = begun
        for known in self._overview_readers.map(self._known, names):
            begun.append(known)
        return self._overview_of(names, begun)

    def _known(self, dataset: str) -> _Known:
        # Evidence ends by the clock alone; spread, so that not all datasets are derived again in the same second.
        known, lost = self._status(dataset, STATUS_SECONDS * (1 + hash(dataset) % 100 / 100))
        return (self._passage(known), lost, self._events(dataset)) if known else (None, lost, [])

    def _overview_of(self, names: list[str], read: list[_Known]) -> Overview:
        unreadable = UnreadableRecords()
        for _, lost, _ in read:
            unreadable.update(lost)
        passages = {known.status.dataset: known for known, _, _ in read if known}
        hidden = self._hidden.get()
        moves = (event for _, _, events in read for event in events if f"{event.dataset}@{event.target}" not in hidden)
        events = sorted(moves, key=lambda event: event.at, reverse=True)
        return Overview(
            tuple(names),
            passages,
            tuple(inbox([known.status for known in passages.values()], unreadable)),
            tuple(events[:EVENTS]),
            unreadable,
            len(names) - len(read),
        )

    def _passage(self, status: DatasetStatus) -> DatasetPassage:
        dataset, latest = status.dataset, status.refs[0].digest if status.refs else ""

        def read() -> DatasetPassage:
            withdrawals: dict[str, tuple[str, ...]] = {}
            for ref in self.catalog.folders(REFS, dataset):
                for digest in withdrawn(self.log(dataset, ref)):
                    withdrawals[digest] = (*withdrawals.get(digest, ()), ref)
            spec = (staged_spec(self.catalog, dataset, latest) if latest else None) or {}
            sources = tuple(redact(str(source.get("url", ""))) for source in spec.get("sources", ()))
            held = {line.target: why for line in status.lines if (why := self._why_held(line))}
            return DatasetPassage(status, sources, withdrawals, held)

        with UnreadableRecords().skip(dataset):  # the inbox's lines say which records can't be read
            return replace(self.kept(dataset, "passage", read), status=status)
        return DatasetPassage(status)

    def _why_held(self, line: InboxLine) -> tuple[str, str] | None:
        """Why plugins let no version through to a target, and what to do."""
        version = line.proposed or line.accepted
        try:
            if version and line.target:
                require_allowed("promote", self.workspace, line.dataset, version.digest, line.target)
        except GateFailed as error:
            return error.message, error.hint
        return None

    def _events(self, dataset: str) -> list[CatalogEvent]:
        """The last moves of a dataset's targets, and the decisions about its newest versions that did not accept."""

        def read() -> list[CatalogEvent]:
            refs = [ref for ref in self.catalog.folders(REFS, dataset) if ref != LATEST]
            events = [_event(move) for ref in refs for move in self.log(dataset, ref)[-EVENTS:]]
            staged = list(dict.fromkeys(move.digest for move in reversed(self.log(dataset, LATEST))))
            for digest in staged[:NEWEST]:
                refused = [line for line in self.decisions(dataset, digest) if line.outcome not in _QUIET]
                events += [
                    CatalogEvent(line.at, dataset, line.target, line.outcome, digest, line.requester, line.why, line.id)
                    for line in refused
                ]
            return sorted(events, key=lambda event: event.at)[-EVENTS:]

        with UnreadableRecords().skip(dataset):  # the inbox's lines say which records can't be read
            return self.kept(dataset, "events", read)
        return []

    def _status(self, dataset: str, oldest: float) -> tuple[DatasetStatus | None, UnreadableRecords]:
        """What a dataset is at, derived at most `oldest` seconds ago, or since its last new record."""
        hidden = frozenset(name for name in self._hidden.get() if name.partition("@")[0] == dataset)
        key, unreadable = (dataset, self._copies.generation(dataset), "status", hidden), UnreadableRecords()
        kept: tuple[DatasetStatus, float] | None = self._derived.get(key)
        if kept and time.monotonic() - kept[1] < oldest:
            return kept[0], unreadable
        holders, lost = self._holders.get()
        unreadable.update(lost)
        known = next(iter(status(self.workspace, dataset, unreadable, holders=holders)), None)
        if known and not unreadable.all:
            self._derived.put(key, (known, time.monotonic()))
        return known, unreadable


def _event(move: RefEntry) -> CatalogEvent:
    about = move.withdrawn if move.action is RefAction.WITHDRAW else move.digest
    return CatalogEvent(move.at, move.dataset, move.ref, move.action.value, about, str(move.who), move.reason)


def _furthest(evidence: Iterable[Evidence]) -> float | None:
    """The largest distance of any column that the newest `drift` measured."""
    measured = [record.measured.get("distances") for record in evidence if record.check == "drift"]
    distances = measured[-1] if measured and isinstance(measured[-1], Mapping) else {}
    # A record may be anybody's.
    return max((float(each) for each in distances.values() if isinstance(each, int | float)), default=None)
