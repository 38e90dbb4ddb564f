"""One catalog: how it is opened, and its records of refs, policies, evidence and decisions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import chain, groupby
from typing import Any

from prefect_stagegate.catalog.environments import Environments
from prefect_stagegate.catalog.log import E, Log, LogMemory, State
from prefect_stagegate.catalog.policies import POLICIES, Consent, PolicyEntry, prove_adoption
from prefect_stagegate.catalog.records import Records, open_records
from prefect_stagegate.catalog.refs import REFS, EntryProof, RefAction, RefEntry, prove_move, unproved
from prefect_stagegate.catalog.typed_records import encode
from prefect_stagegate.catalog.version_records import VersionRecords
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CatalogError, UnknownRef, suggest
from prefect_stagegate.model import (
    LATEST,
    Address,
    Identity,
)
from prefect_stagegate.model.canonical import sha256_of
from prefect_stagegate.units import count_text

FORMAT_KEY, ID_KEY = "format", "id"
FORMAT = b"stagegate-catalog 2\n"
"""2: policies have a log, and attestations name the policy that they were made under."""
PROBE_KEY = "probe"
PROBE = b"A store that lets this record be created twice can't hold a catalog.\n"


class Catalog(VersionRecords):
    """The records that all environments share. `open` makes one; every method may raise `CatalogError`."""

    proof: EntryProof | None = None
    """Decides whether an entry of a target's log is proved; None for no such check."""

    def __init__(self, records: Records, *, memory: LogMemory | None = None, consent: Consent | None = None) -> None:
        super().__init__(records)
        self._memory = memory
        self.consent = consent
        self._policies: dict[str, list[PolicyEntry]] = {}

    @classmethod
    def open(
        cls,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        create: bool = True,
        memory: LogMemory | None = None,
        consent: Consent | None = None,
    ) -> Catalog:
        """Open the catalog at a path or URL; create it where there is none.

        Args:
            url: A folder's path, or the URL of an object store.
            options: Storage options of the URL, by fsspec's names.
            create: Whether to create a catalog where there is none.
            memory: Where this node remembers which log entries it checked; None to check all at each read.
            consent: Decides whether the required people agreed to a change of policy; None for no such check.

        Raises:
            CatalogError: There is no catalog, the store can't be reached, holds another format, or lets a record be
                created twice.
        """
        records = open_records(url, options or {})
        # It is written last, so a store that has it was proved.
        stored_format = records.read(FORMAT_KEY)
        if stored_format is None and not create:
            raise CatalogError(
                f"There is no catalog at {records.url}",
                hint="`stagegate stage SPEC` begins one. If you have one, name it with --catalog or STAGEGATE_CATALOG, "
                "and check that its volume is mounted.",
            )
        if stored_format is None:
            _create(records)
        elif stored_format != FORMAT:
            # Without a word of the file, which may be anybody's.
            raise CatalogError(
                f"The catalog {records.url} has another format than {FORMAT.decode().strip()!r}",
                hint="Use the release that wrote it, or another catalog.",
            )
        return cls(records, memory=memory, consent=consent)

    def over(self, wrap: Callable[[Records], Records], memory: LogMemory) -> Catalog:
        """The same catalog, read through a store that wraps its own."""
        copy = Catalog(wrap(self._records), memory=memory, consent=self.consent)
        copy.proof = self.proof
        return copy

    @cached_property
    def environments(self) -> Environments:
        """The environments of decisions."""
        return Environments(self._records)

    @cached_property
    def id(self) -> str:
        """Tells this catalog from others: 32 hex digits, made with it, or later for one of an earlier release."""
        stored = self._records.read(ID_KEY)
        if stored is None:
            _create_id(self._records)
            stored = self._records.read(ID_KEY) or b""
        return stored[:32].decode(errors="replace")

    def ref(self, dataset: str, ref: str) -> RefEntry | None:
        """The newest proved entry of a ref's log, or None when there is none.

        Raises:
            CorruptRecord: The log is damaged, or moved the ref to a version that its gate did not accept.
        """
        log = self.ref_log(dataset, ref)
        head = log.head()
        entries = chain([head], log.before(head)) if head else ()
        return next((entry for entry in entries if not self.why_unproved(entry)), None)

    def followed(self, dataset: str, ref: str) -> RefEntry | None:
        """The newest entry of a ref's log, which must be proved; None when the ref was never moved.

        Raises:
            UnprovedEntry: It is not proved.
        """
        head = self.ref_log(dataset, ref).head()
        if head and (why := self.why_unproved(head)):
            raise unproved(head, why, self.ref(dataset, ref))
        return head

    def moved(self, dataset: str, ref: str) -> int:
        """The number of a ref's newest entry, proved or not; 0 before the first."""
        head = self.ref_log(dataset, ref).head()
        return head.seq if head else 0

    def why_unproved(self, entry: RefEntry) -> str:
        """Why an entry of a ref's log is not proved; empty when it is. The node remembers what was proved."""
        if self.proof is None or entry.ref == LATEST:
            return ""
        # By the keys and the whole entry, which has the hash of the one before.
        note = f"proved {sha256_of(repr(self.proof).encode() + encode(entry))}"
        if self._memory and self._memory.noted(note):
            return ""
        why = self.proof(self, entry)
        # It repeats what the entry before made the ref name.
        if not why and entry.action is RefAction.WITHDRAW and entry.before:
            why = self.why_unproved(next(self.ref_log(entry.dataset, entry.ref).before(entry)))
        if self._memory and not why:
            self._memory.note(note, "yes")
        return why

    def history(self, dataset: str, ref: str) -> list[RefEntry]:
        """All proved entries of a ref's log, the oldest first, checked as by `ref`."""
        return [entry for entry in self.ref_log(dataset, ref).entries() if not self.why_unproved(entry)]

    def ref_log(self, dataset: str, ref: str) -> Log[RefEntry]:
        """The log of a ref."""
        # Once for all entries of a walk.
        self._policies.pop(dataset, None)
        adopted = cache(lambda: [entry.digest for entry in self.policies(dataset)])
        name, prove = f"{dataset}@{ref}", partial(prove_move, dataset, ref, adopted)
        return self.log(REFS, dataset, ref, name=name, history=f"stagegate history {name}", prove=prove)

    def move_ref(  # noqa: PLR0913 - the fields of a log's entry
        self,
        dataset: str,
        ref: str,
        digest: str,
        *,
        head: RefEntry | None,
        action: RefAction,
        who: Identity,
        reason: str = "",
        withdrawn: str = "",
        attestation: Mapping[str, Any] | None = None,
        sign: Callable[[RefEntry], Mapping[str, Any]] | None = None,
    ) -> RefEntry:
        """Make `ref` name `digest`, if its log still ends with `head`. `sign` gives the entry's envelope.

        Raises:
            RefConflict: The ref was moved since `head` was read; nothing was changed.
            UnprovedEntry: Nobody would follow the move; nothing was changed.
        """
        # Behind entries that are not proved.
        last = self.moved(dataset, ref) if ref != LATEST and self.ref(dataset, ref) == head else head.seq if head else 0
        entry = RefEntry(
            seq=last + 1,
            dataset=dataset,
            ref=ref,
            digest=digest,
            action=action,
            who=who,
            at=stamp(now()),
            reason=reason,
            withdrawn=withdrawn,
            # First, so that no entry names an environment that the catalog lacks.
            attestation=self.environments.store(attestation) if attestation else {},
        )
        if sign:
            entry = replace(entry, envelope=sign(entry))
        if why := self.why_unproved(entry):
            raise unproved(entry, why, head)
        return self.ref_log(dataset, ref).append(entry)

    def policy(self, dataset: str) -> PolicyEntry | None:
        """The newest adoption of a policy for a dataset; None when none was adopted yet.

        Raises:
            CorruptRecord: The log is damaged, or a policy was adopted without the required agreement.
        """
        return self.policy_log(dataset).head()

    def policies(self, dataset: str, *, read: bool = False) -> list[PolicyEntry]:
        """All adoptions, the oldest first, checked as by `policy`; with `read`, as read since a ref's log was."""
        if not read or dataset not in self._policies:
            self._policies[dataset] = self.policy_log(dataset).entries()
        return self._policies[dataset]

    def policy_log(self, dataset: str) -> Log[PolicyEntry]:
        """The log of a dataset's policy."""
        name, history = f"the policy of {dataset}", f"stagegate policy history {dataset}"
        return self.log(POLICIES, dataset, name=name, history=history, prove=partial(prove_adoption, self, dataset))

    def log(self, kind: Record[E], *key: str, name: str, history: str, prove: Callable[[E, State], State]) -> Log[E]:
        """The log whose entries are records of a kind, with keys that begin so; see `Log`."""
        return Log(self._records, kind.folder(*key), kind.content, name, history, prove, self._memory)

    def resolve(self, address: Address) -> str:
        """The digest that an address names; without a ref, that of `latest`.

        Raises:
            UnknownDataset: The catalog has no such dataset.
            UnknownRef: The ref was never moved, or not that often; or no version's digest, or more than one, begins so.
        """
        dataset = address.dataset
        if address.digest:
            # Read for its checks: the digest must be that of a version in this catalog.
            return self.sums(dataset, address.digest).digest
        if address.abbreviation:
            self.require_dataset(dataset)
            hint = f"`stagegate ls {dataset}` lists its versions."
            return address.complete(self.versions(dataset), f"The catalog {self.url}", hint)
        ref, back = address.steps
        if back:
            return self._earlier_version(dataset, ref, back)
        ref = ref or LATEST
        entry = self.followed(dataset, ref)
        if entry is None:
            raise self._unknown_ref(dataset, ref)
        return entry.digest

    def _earlier_version(self, dataset: str, ref: str, back: int) -> str:
        """The version that a ref named `back` versions ago. Successive entries with one version count once."""
        self.followed(dataset, ref)
        digests = [digest for digest, _ in groupby(entry.digest for entry in self.history(dataset, ref))]
        if not digests:
            raise self._unknown_ref(dataset, ref)
        if back >= len(digests):
            raise UnknownRef(
                f"{dataset}@{ref} named {count_text(len(digests), 'version')} so far, so there is no {ref}~{back}",
                hint=f"`stagegate history {dataset}@{ref}` shows them.",
                dataset=dataset,
            )
        return digests[-1 - back]

    def require_ref(self, dataset: str, ref: str) -> None:
        """Raise `UnknownRef` or `UnknownDataset` when the ref was never moved."""
        if ref not in self.folders(REFS, dataset):
            raise self._unknown_ref(dataset, ref)

    def _unknown_ref(self, dataset: str, ref: str) -> UnknownRef:
        self.require_dataset(dataset)
        adoption = self.policy(dataset)
        gates = adoption.policy.get("gates", {}) if adoption else {}
        hint = suggest(ref, self.folders(REFS, dataset), "It")
        if ref == LATEST:
            hint += " `stagegate stage SPEC` makes one."
        elif ref in gates:
            hint += (
                f" Nobody promoted a version to {ref} yet: `stagegate check {dataset} --gate {ref}`, then "
                f"`stagegate promote {dataset} --to {ref}`."
            )
        elif gates:
            hint += f" Its policy has gates for: {', '.join(sorted(gates))}."
        return UnknownRef(f"There is no ref `{ref}` of {dataset}", hint=hint, dataset=dataset)


def _create(records: Records) -> None:
    """Create a catalog: check that the store refuses to create a record twice, and only then write the format."""
    records.create(PROBE_KEY, PROBE)
    if records.create(PROBE_KEY, PROBE):
        raise CatalogError(
            f"{records.url} lets a record be created twice, so two promotions could both believe they won",
            hint="Use a store that honours If-None-Match on writes (AWS S3, MinIO, Ceph, SeaweedFS), or a directory.",
        )
    # Now, since whoever makes it later could give it that of another catalog, whose approvals would count.
    _create_id(records)
    # The format comes last: a store that fails the probe never counts as a catalog.
    records.create(FORMAT_KEY, FORMAT)


def _create_id(records: Records) -> None:
    """Give a catalog its id, unless it has one."""
    records.create(ID_KEY, f"{uuid.uuid4().hex}\n".encode())
