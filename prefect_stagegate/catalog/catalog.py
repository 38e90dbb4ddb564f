"""One catalog: how it is opened, the verbs for records of any kind, and how its refs are followed and moved."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import chain, groupby
from typing import Any, TypeVar

from prefect_stagegate.catalog.environments import put_environment
from prefect_stagegate.catalog.log import E, Log, LogMemory, State
from prefect_stagegate.catalog.policies import Consent, PolicyEntry, policy_log
from prefect_stagegate.catalog.records import (
    Records,
    corrupt,
    dataset_of,
    decode,
    encode,
    is_record,
    largest,
    open_records,
)
from prefect_stagegate.catalog.refs import REFS, EntryProof, RefAction, RefEntry, prove_move, unproved, why_unproved
from prefect_stagegate.catalog.version_records import read_seal, require_dataset, version_digests
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record, why_gone
from prefect_stagegate.errors import CatalogError, UnknownRef, suggest
from prefect_stagegate.model import LATEST, Address, Identity
from prefect_stagegate.units import count_text

T = TypeVar("T")
_TOO_LARGE = "/100000000.json"
FORMAT_KEY, ID_KEY = "format", "id"
FORMAT = b"stagegate-catalog 2\n"
"""2: policies have a log, and attestations name the policy that they were made under."""
PROBE_KEY = "probe"
PROBE = b"A store that lets this record be created twice can't hold a catalog.\n"


class Catalog:
    """The records that all environments share. `open` makes one.

    Records are read and written by their kinds and keys. Of numbered ones, the highest number is the newest. Every
    method may raise `CatalogError`, and `CorruptRecord` for a damaged record.
    """

    def __init__(
        self,
        records: Records,
        *,
        memory: LogMemory | None = None,
        consent: Consent | None = None,
        proof: EntryProof | None = None,
    ) -> None:
        self.records, self.url = records, records.url
        self.memory, self.consent, self.proof = memory, consent, proof
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
        proof: EntryProof | None = None,
    ) -> Catalog:
        """Open the catalog at a path or URL; create it where there is none.

        Args:
            url: A folder's path, or the URL of an object store.
            options: Storage options of the URL, by fsspec's names.
            create: Whether to create a catalog where there is none.
            memory: Where this node remembers which log entries it checked; None to check all at each read.
            consent: Decides whether the required people agreed to a change of policy; None for no such check.
            proof: Decides whether an entry of a target's log is proved; None for no such check.

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
        return cls(records, memory=memory, consent=consent, proof=proof)

    @cached_property
    def id(self) -> str:
        """Tells this catalog from others: 32 hex digits, made with it, or later for one of an earlier release."""
        stored = self.records.read(ID_KEY)
        if stored is None:
            _create_id(self.records)
            stored = self.records.read(ID_KEY) or b""
        return stored[:32].decode(errors="replace")

    def get(self, kind: Record[T], *key: str | int) -> T | None:
        """A record; None without one."""
        data = self.records.read(path := kind.path(*key))
        return None if data is None else decode(kind.content, data, path)

    def require(self, kind: Record[T], *key: str | int) -> T:
        """A record, which must be there."""
        if (record := self.get(kind, *key)) is None:
            raise corrupt(kind.path(*key), "is gone")
        return record

    def all(self, kind: Record[T], *key: str | int, newest: int = 0) -> list[T]:
        """All records whose keys begin so, sorted by key, or so many of the last ones."""
        return [self.require(kind, *key, *name.split("/")) for name in self.names(kind, *key)[-newest:]]

    def names(self, kind: Record[T], *key: str | int, after: str = "") -> list[str]:
        """The rest of the keys that begin so, sorted and with slashes; with `after`, those that sort after it."""
        folder = kind.folder(*key)
        paths = self.records.keys(folder, after=folder + after if after else "")
        return [path.removeprefix(folder).removesuffix(".json") for path in paths]

    def numbers(self, kind: Record[T], *key: str | int) -> list[int]:
        """The numbers of the numbered records whose keys begin so, sorted."""
        return list(map(int, filter(str.isdigit, self.names(kind, *key))))

    def folders(self, kind: Record[T], *key: str | int) -> list[str]:
        """What follows a key's beginning in the keys of longer ones, sorted."""
        return self.records.folders(kind.folder(*key))

    def create(self, kind: Record[T], record: T, *key: str | int) -> bool:
        """Store a new record; False, and nothing changed, when its key is taken."""
        return self.records.create(path := kind.path(*key), _encoded(path, record))

    def put(self, kind: Record[T], record: T, *key: str | int) -> None:
        """Store a record, over an earlier one."""
        self.records.replace(path := kind.path(*key), _encoded(path, record))

    def add(self, kind: Record[T], record: T, *key: str | int) -> None:
        """Store a record under the next free number. Numbers tell which is the newest, since clocks may be wrong."""
        last = max(self.numbers(kind, *key), default=0)
        # Another writer may have taken the number since: then the next one is tried.
        while not self.create(kind, record, *key, last + 1):
            last += 1

    def log(self, kind: Record[E], *key: str, name: str, history: str, prove: Callable[[E, State], State]) -> Log[E]:
        """The log whose entries are records of a kind, with keys that begin so; see `Log`."""
        return Log(self.records, kind.folder(*key), kind.content, name, history, prove, self.memory)

    def ref(self, dataset: str, ref: str) -> RefEntry | None:
        """The newest proved entry of a ref's log, or None when there is none."""
        log = self.ref_log(dataset, ref)
        head = log.head()
        entries = chain([head], log.before(head)) if head else ()
        return next((entry for entry in entries if not why_unproved(self, entry)), None)

    def followed(self, dataset: str, ref: str) -> RefEntry | None:
        """The newest entry of a ref's log, which must be proved; None when the ref was never moved.

        Raises:
            UnprovedEntry: It is not proved.
        """
        head = self.ref_log(dataset, ref).head()
        if head and (why := why_unproved(self, head)):
            raise unproved(head, why, self.ref(dataset, ref))
        return head

    def history(self, dataset: str, ref: str) -> list[RefEntry]:
        """All proved entries of a ref's log, the oldest first, checked as by `ref`."""
        return [entry for entry in self.ref_log(dataset, ref).entries() if not why_unproved(self, entry)]

    def ref_log(self, dataset: str, ref: str) -> Log[RefEntry]:
        """The log of a ref."""
        # Policies are read again for each walk through a log.
        self._policies.pop(dataset, None)
        adopted = cache(lambda: [entry.digest for entry in self._read_policies(dataset)])
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
        hidden = ref != LATEST and self.ref(dataset, ref) == head
        last = self.ref_log(dataset, ref).count() if hidden else head.seq if head else 0
        # The environment first, so that no entry names one that the catalog lacks.
        stored = put_environment(self, attestation) if attestation else {}
        entry = RefEntry(last + 1, dataset, ref, digest, action, who, stamp(now()), reason, withdrawn, stored)
        if sign:
            entry = replace(entry, envelope=sign(entry))
        if why := why_unproved(self, entry):
            raise unproved(entry, why, head)
        return self.ref_log(dataset, ref).append(entry)

    def policies(self, dataset: str) -> list[PolicyEntry]:
        """All adoptions of policies, the oldest first, as read since a ref's log was: once for all of its entries."""
        return self._policies.get(dataset) or self._read_policies(dataset)

    def _read_policies(self, dataset: str) -> list[PolicyEntry]:
        entries = self._policies[dataset] = policy_log(self, dataset).entries()
        return entries

    def resolve(self, address: Address) -> str:
        """The digest that an address names; without a ref, that of `latest`.

        Raises:
            UnknownDataset: The catalog has no such dataset.
            UnknownRef: The ref was never moved, or not that often; or no version's digest, or more than one, begins so.
        """
        dataset = address.dataset
        if address.digest:
            # Read for its checks: the digest must be that of a version in this catalog.
            return read_seal(self, dataset, address.digest).digest
        if address.abbreviation:
            require_dataset(self, dataset)
            hint = f"`stagegate ls {dataset}` lists its versions."
            digests = version_digests(self, dataset)
            is_known = any(digest.startswith(address.ref) for digest in digests)
            if why := "" if is_known else why_gone(self, dataset, address.ref):
                raise UnknownRef(f"{address}… {why}", hint=hint, dataset=dataset)
            return address.complete(digests, f"The catalog {self.url}", hint)
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
        require_dataset(self, dataset)
        adoption = policy_log(self, dataset).head()
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


def _encoded(path: str, record: object) -> bytes:
    if path.endswith(_TOO_LARGE):
        raise CatalogError(
            f"Nothing can be added after the catalog's record {path.removesuffix(_TOO_LARGE)}/99999999.json: "
            "it has the last number",
            hint="Find out who put it there, and remove it.",
            dataset=dataset_of(path),
        )
    # Listings would leave it out, so it would count for nobody.
    if not is_record(path):
        raise CatalogError(f"The catalog can't keep a record at {path}", hint="Use the key that its kind has.")
    return encode(record, largest(path))


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
