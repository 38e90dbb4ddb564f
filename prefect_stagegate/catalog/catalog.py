"""One catalog: the methods that write and read its records."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.catalog.codec import decode, encode
from prefect_stagegate.catalog.evidence import kept
from prefect_stagegate.catalog.keys import dataset_of
from prefect_stagegate.catalog.log import Log, LogMemory
from prefect_stagegate.catalog.policies import Consent, PolicyEntry, prove_adoption
from prefect_stagegate.catalog.records import Records, open_records
from prefect_stagegate.catalog.refs import RefAction, RefEntry, prove_move
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CatalogError, CorruptRecord, UnknownDataset, UnknownRef, suggest
from prefect_stagegate.manifest import Manifest, Seal, path_problem, row
from prefect_stagegate.measures import NO_PASSES, NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.model import (
    LATEST,
    Address,
    Approval,
    ApprovalRequest,
    Entry,
    Evidence,
    EvidenceRevocation,
    FailedObject,
    Identity,
    Origin,
    Pins,
    Wait,
    Waiver,
    person_key,
)
from prefect_stagegate.units import count_text
from prefect_stagegate.unreadable import UnreadableRecords, skipping

if TYPE_CHECKING:
    from prefect_stagegate.catalog.tables import Footer

FORMAT_KEY = "format"
FORMAT = b"stagegate-catalog 2\n"
"""2: policies have a log, and attestations name the policy that they were made under."""
END = 1 << 16
"""Bytes at the end of a manifest or of origins; nearly every footer fits into them."""
PROBE_KEY = "probe"
PROBE = b"A store that lets this record be created twice can't hold a catalog.\n"

T = TypeVar("T")
R = TypeVar("R", Entry, Origin)


@dataclass(frozen=True, slots=True)
class TableValues:
    """What a validation computed of a table's files."""

    dataset: str
    table: str
    values: FileValues


@dataclass(frozen=True, slots=True)
class DatasetPasses:
    """Which of a dataset's files passed which probes, by digests."""

    dataset: str
    passed: dict[str, list[str]]


class Catalog:
    """The records that all environments share. `open` makes one; every method may raise `CatalogError`."""

    def __init__(self, records: Records, *, memory: LogMemory | None = None, consent: Consent | None = None) -> None:
        self._records = records
        self._memory = memory
        self._consent = consent
        self.url = records.url

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
        stored_format = records.read(FORMAT_KEY)
        if stored_format is None and not create:
            raise CatalogError(f"There is no catalog at {records.url}", hint="Name one with --catalog.")
        if stored_format is None:
            _create(records)
        elif stored_format != FORMAT:
            raise CatalogError(
                f"The catalog {records.url} has the format {stored_format[:60].decode(errors='replace').strip()!r}",
                hint="Use the release that wrote it, or another catalog.",
            )
        return cls(records, memory=memory, consent=consent)

    def load(self) -> None:
        """Import the module that reads and writes manifests in the background: it takes 0.15 s, mostly for pyarrow."""
        with suppress(RuntimeError):  # no thread can be started: the first use imports it
            threading.Thread(target=_load_tables, daemon=True).start()

    # ── versions ────────────────────────────────────────────────────────────────────────────────────────────────

    def datasets(self) -> list[str]:
        """The names of all datasets, sorted."""
        return self._records.folders("datasets/")

    def require_dataset(self, dataset: str) -> None:
        """Raise `UnknownDataset` when the catalog has nothing under this name."""
        if not self._records.folders(f"datasets/{dataset}/"):
            known = self.datasets()
            raise UnknownDataset(
                f"The catalog {self.url} has no dataset {dataset!r}",
                hint=suggest(dataset, known, "It")
                if known
                else "It is empty: stage a spec with `stagegate stage SPEC`.",
            )

    def put_version(
        self,
        dataset: str,
        digest: str,
        files: int,
        size: int,
        entries: Iterable[Entry],
        origins: Iterable[Origin],
        pins: Pins | None = None,
    ) -> bool:
        """Store a version's manifest and origins; True when the manifest is new.

        Args:
            dataset: The dataset's name.
            digest: The version's digest, which must be that of `entries`.
            files: Number of entries.
            size: Sum of their sizes in bytes.
            entries: Sorted by path.
            origins: Sorted by path; they replace those of an earlier staging of the same version.
            pins: The summary of the origins' pins, so that readers need not count them.
        """
        from prefect_stagegate.catalog.tables import ENTRIES, ORIGINS, write_pins

        facts = {"digest": digest, "files": str(files), "bytes": str(size)}
        # The origins first: once a version has its manifest, its origins can be read.
        self._records.replace(self._key(dataset, "origins", digest), ORIGINS.write(origins, facts | write_pins(pins)))
        key = self._key(dataset, "manifests", digest)
        # Looked up first: a known manifest, which may be large, is neither written nor sent again.
        return not self.has_version(dataset, digest) and self._records.create(key, ENTRIES.write(entries, facts))

    def has_version(self, dataset: str, digest: str) -> bool:
        """Whether the catalog knows the version."""
        return self._records.read_end(self._key(dataset, "manifests", digest), 1) is not None

    def versions(self, dataset: str) -> list[str]:
        """The digests of all versions, sorted by digest."""
        keys = self._records.keys(f"datasets/{dataset}/manifests/")
        return ["sha256:" + key.rsplit("/", 1)[1].removesuffix(".parquet") for key in keys]

    def manifest(self, dataset: str, digest: str) -> Manifest:
        """The version's manifest. Its entries are a stream, which raises at its end when they don't have the digest.

        Raises:
            UnknownRef: The catalog has no such version.
            CorruptRecord: The stored manifest is another version's.
        """
        from prefect_stagegate.catalog.tables import ENTRIES

        key = self._key(dataset, "manifests", digest)
        data = self._require_version(dataset, digest, self._records.read(key))
        sums = _sums(ENTRIES.footer(data, key), digest, key)

        def entries() -> Iterator[Entry]:
            return _verified(ENTRIES.read(data, key), digest, key, sums.bytes)

        return Manifest(dataset, digest, sums.files, sums.bytes, entries)

    def sums(self, dataset: str, digest: str) -> Seal:
        """The numbers of the version's files and bytes. Reads the end of its manifest only.

        Raises:
            UnknownRef: The catalog has no such version.
            CorruptRecord: The stored manifest is another version's.
        """
        from prefect_stagegate.catalog.tables import ENTRIES

        key = self._key(dataset, "manifests", digest)
        end = self._require_version(dataset, digest, self._end(key))
        return _sums(ENTRIES.footer(end, key), digest, key)

    def origins(self, dataset: str, digest: str) -> Iterator[Origin]:
        """Where the version's entries came from, sorted by path.

        Raises:
            CorruptRecord: The record is damaged, or another version's, which is known only after the last origin.
        """
        from prefect_stagegate.catalog.tables import ORIGINS

        key = self._key(dataset, "origins", digest)
        data = self._require_version(dataset, digest, self._records.read(key))
        return _verified(ORIGINS.read(data, key), digest, key)

    def pins(self, dataset: str, digest: str) -> Pins | None:
        """The summary of the pins of the version's origins; None without a record of its origins.

        Raises:
            CorruptRecord: The record is damaged.
        """
        from prefect_stagegate.catalog.tables import ORIGINS

        key = self._key(dataset, "origins", digest)
        end = self._end(key)
        if end is None:
            return None
        footer = ORIGINS.footer(end, key)
        if footer.digest != digest:
            raise _corrupt(key, f"belongs to the version {footer.digest}")
        if footer.pins:
            return footer.pins
        # Records of earlier releases have no summary.
        counts = ORIGINS.counts(self._records.read(key) or b"", key, ("pin_kind", "pin_strength"))
        return Pins.of({(kind, strength): count for (kind, strength), count in counts.items()})

    def _end(self, key: str) -> bytes | None:
        """The end of a record, with its whole footer; None when there is no such record."""
        from prefect_stagegate.catalog.tables import footer_size

        end = self._records.read_end(key, END)
        needed = footer_size(end) if end else 0
        return end if needed <= END else self._records.read_end(key, needed)

    def _require_version(self, dataset: str, digest: str, data: bytes | None) -> bytes:
        if data is None:
            self.require_dataset(dataset)
            raise UnknownRef(
                f"The catalog has no version {digest} of {dataset}",
                hint=f"`stagegate ls {dataset}` lists its versions.",
                dataset=dataset,
            )
        return data

    def put_failed(self, dataset: str, digest: str, failed: Sequence[FailedObject]) -> None:
        """Store the objects that the version lacks from here on; the same list again writes nothing."""
        if self.failed(dataset, digest) != tuple(failed):
            self._append(self._key(dataset, "failed", digest, "/"), encode(failed))

    def failed(self, dataset: str, digest: str) -> tuple[FailedObject, ...]:
        """The objects that could not be staged when the version was staged last."""
        return tuple(self._load_newest(list[FailedObject], self._key(dataset, "failed", digest, "/")) or ())

    # ── specs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def put_spec(self, dataset: str, digest: str, canonical: Mapping[str, Any]) -> None:
        """Store the spec that the version is staged from, from here on; the same again writes nothing."""
        prefix = self._key(dataset, "specs", digest, "/")
        if self.spec(dataset, digest) != canonical:
            # With the digest, so that a copy of another version's record is refused.
            self._append(prefix, encode({"version": digest, "spec": dict(canonical)}))

    def spec(self, dataset: str, digest: str) -> dict[str, Any] | None:
        """The canonical spec that the version was staged from last; None without one."""
        return next(self.specs(dataset, digest), None)

    def specs(self, dataset: str, digest: str) -> Iterator[dict[str, Any]]:
        """All specs that the version was staged from, the newest first.

        Raises:
            CorruptRecord: A record is damaged, or another version's.
        """
        keys = list(self._records.keys(self._key(dataset, "specs", digest, "/")))
        return (self._spec(key, digest) for key in reversed(keys))

    def _spec(self, key: str, digest: str) -> dict[str, Any]:
        record = self._load(dict[str, Any], key)
        if record.get("version") != digest or not isinstance(record.get("spec"), dict):
            raise _corrupt(key, "is not the spec of its version")
        spec: dict[str, Any] = record["spec"]
        return spec

    # ── refs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def ref(self, dataset: str, ref: str) -> RefEntry | None:
        """The newest entry of a ref's log, or None when the ref was never moved.

        Raises:
            CorruptRecord: The log is damaged, or moved the ref to a version that its gate did not accept.
        """
        return self.ref_log(dataset, ref).head()

    def ref_names(self, dataset: str) -> list[str]:
        """The names of a dataset's refs, sorted."""
        return self._records.folders(f"datasets/{dataset}/refs/")

    def refs(self, dataset: str, unreadable: UnreadableRecords | None = None) -> dict[str, RefEntry]:
        """Every ref of a dataset with its newest entry, sorted by name.

        Args:
            dataset: The dataset's name.
            unreadable: Collects the refs that can't be read, which are left out; None to raise the first one's error.
        """
        refs: dict[str, RefEntry] = {}
        for name in self.ref_names(dataset):
            with skipping(unreadable, dataset):
                if entry := self.ref(dataset, name):
                    refs[name] = entry
        return refs

    def history(self, dataset: str, ref: str) -> list[RefEntry]:
        """All entries of a ref's log, the oldest first, checked as by `ref`."""
        return self.ref_log(dataset, ref).entries()

    def chain(self, dataset: str, ref: str) -> tuple[list[RefEntry], str]:
        """All entries of a ref's log, the oldest first, and the hash of the last one as stored."""
        return self.ref_log(dataset, ref).chain()

    def ref_log(self, dataset: str, ref: str) -> Log[RefEntry]:
        """The log of a ref."""
        adopted = cache(lambda: self.policy_log(dataset).state().get("digests", ()))  # once for all entries of a walk
        return Log(
            self._records,
            f"datasets/{dataset}/refs/{ref}/",
            RefEntry,
            f"{dataset}@{ref}",
            f"stagegate history {dataset}@{ref}",
            partial(prove_move, dataset, ref, adopted),
            self._memory,
            self.url,
        )

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
    ) -> RefEntry:
        """Make `ref` name `digest`, if its log still ends with `head`.

        Raises:
            RefConflict: The ref was moved since `head` was read; nothing was changed.
        """
        entry = RefEntry(
            seq=head.seq + 1 if head else 1,
            dataset=dataset,
            ref=ref,
            digest=digest,
            action=action,
            who=who,
            at=stamp(now()),
            reason=reason,
            withdrawn=withdrawn,
            attestation=attestation or {},
        )
        return self.ref_log(dataset, ref).append(entry)

    # ── policy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def policy(self, dataset: str) -> PolicyEntry | None:
        """The newest adoption of a policy for a dataset; None when none was adopted yet.

        Raises:
            CorruptRecord: The log is damaged, or a policy was adopted without the required agreement.
        """
        return self.policy_log(dataset).head()

    def policies(self, dataset: str) -> list[PolicyEntry]:
        """All adoptions, the oldest first, checked as by `policy`."""
        return self.policy_log(dataset).entries()

    def policy_log(self, dataset: str) -> Log[PolicyEntry]:
        """The log of a dataset's policy."""
        return Log(
            self._records,
            f"datasets/{dataset}/policy/",
            PolicyEntry,
            f"the policy of {dataset}",
            f"stagegate policy history {dataset}",
            partial(prove_adoption, dataset, self._consent),
            self._memory,
            self.url,
        )

    def adopt_policy(
        self,
        dataset: str,
        policy: Mapping[str, Any],
        *,
        head: PolicyEntry | None,
        who: Identity,
        reason: str,
        request: ApprovalRequest | None = None,
        approvals: Sequence[Approval] = (),
    ) -> PolicyEntry:
        """Adopt a policy, if the log still ends with `head`.

        Raises:
            RefConflict: Another policy was adopted since `head` was read; nothing was changed.
        """
        seq = head.seq + 1 if head else 1
        entry = PolicyEntry(seq, dataset, policy, who, stamp(now()), reason, request, tuple(approvals))
        return self.policy_log(dataset).append(entry)

    def put_proposal(self, dataset: str, policy: Mapping[str, Any]) -> str:
        """Store a policy that is proposed for adoption; returns its digest, by which requests name it."""
        digest = digest_of(policy)
        self._records.create(self._key(dataset, "proposals", digest, ".json"), encode(dict(policy)))
        return digest

    def proposal(self, dataset: str, digest: str) -> dict[str, Any]:
        """A proposed policy by its digest.

        Raises:
            CorruptRecord: It is gone, or the record holds another policy.
        """
        key = self._key(dataset, "proposals", digest, ".json")
        policy = self._load(dict[str, Any], key)
        if digest_of(policy) != digest:
            problem = f"The catalog's record {key} holds another policy"
            raise CorruptRecord(problem, hint="Propose it again.", dataset=dataset)
        return policy

    def resolve(self, address: Address, default: str = LATEST) -> str:
        """The digest that an address names.

        Raises:
            UnknownDataset: The catalog has no such dataset.
            UnknownRef: The ref was never moved, or not that often; or no version's digest, or more than one, begins so.
        """
        dataset = address.dataset
        if address.digest:
            return self.manifest(dataset, address.digest).digest
        if address.abbreviation:
            self.require_dataset(dataset)
            hint = f"`stagegate ls {dataset}` lists its versions."
            return address.complete(self.versions(dataset), f"The catalog {self.url}", hint)
        ref, back = address.steps
        if back:
            return self._earlier_version(dataset, ref, back)
        ref = ref or default
        entry = self.ref(dataset, ref)
        if entry is None:
            raise self._unknown_ref(dataset, ref)
        return entry.digest

    def _earlier_version(self, dataset: str, ref: str, back: int) -> str:
        """The version that a ref named `back` versions ago. Successive entries with one version count once."""
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
        if ref not in self.ref_names(dataset):
            raise self._unknown_ref(dataset, ref)

    def _unknown_ref(self, dataset: str, ref: str) -> UnknownRef:
        self.require_dataset(dataset)
        command = "stage SPEC" if ref == LATEST else f"promote {dataset} --to TARGET"
        return UnknownRef(
            f"There is no ref `{ref}` of {dataset}",
            hint=f"{suggest(ref, self.ref_names(dataset), 'It')} `stagegate {command}` makes one.",
            dataset=dataset,
        )

    # ── evidence and decisions ──────────────────────────────────────────────────────────────────────────────────

    def put_evidence(self, dataset: str, digest: str, evidence: Iterable[Evidence]) -> None:
        """Add evidence about a version, in one new record that holds the earlier evidence too."""
        fresh = list(evidence)
        prefix = self._key(dataset, "evidence", digest, "/")
        while fresh:
            # Read again at each try: a record that another node created first must be kept, too.
            number, known = self._evidence(prefix)
            if self._records.create(f"{prefix}{number + 1:08d}.json", encode(kept([*known, *fresh]))):
                return

    def evidence(self, dataset: str, digest: str) -> list[Evidence]:
        """The evidence about a version that is still of use, the oldest first. Reads one record."""
        return self._evidence(self._key(dataset, "evidence", digest, "/"))[1]

    def _evidence(self, prefix: str) -> tuple[int, list[Evidence]]:
        """The number of the newest record, and the evidence in it; 0 and none without a record."""
        keys = list(self._records.keys(prefix))
        if not keys:
            return 0, []
        return int(keys[-1].removeprefix(prefix).removesuffix(".json")), self._load(list[Evidence], keys[-1])

    def put_file_values(self, dataset: str, table: str, values: FileValues) -> None:
        """Store what a validation computed of a table's files, over an earlier record."""
        record = TableValues(dataset, table, values)
        self._records.replace(self._key(dataset, "values", digest_of(table), ".json"), encode(record))

    def file_values(self, dataset: str, table: str) -> FileValues:
        """What the last validation computed of a table's files; nothing without such a record.

        Raises:
            CorruptRecord: The record is damaged, or another table's.
        """
        key = self._key(dataset, "values", digest_of(table), ".json")
        data = self._records.read(key)
        if data is None:
            return NO_VALUES
        record = decode(TableValues, data, key)
        if (record.dataset, record.table) != (dataset, table):
            raise _corrupt(key, "is another table's")
        return record.values

    def put_passed_probes(self, dataset: str, passed: PassedProbes) -> None:
        """Store which files passed which probes, over an earlier record."""
        record = DatasetPasses(dataset, {probe: sorted(digests) for probe, digests in passed.files.items()})
        self._records.replace(f"datasets/{dataset}/probes.json", encode(record))

    def passed_probes(self, dataset: str) -> PassedProbes:
        """Which files passed which probes in the last validation; none without such a record.

        Raises:
            CorruptRecord: The record is damaged, or another dataset's.
        """
        key = f"datasets/{dataset}/probes.json"
        data = self._records.read(key)
        if data is None:
            return NO_PASSES
        record = decode(DatasetPasses, data, key)
        if record.dataset != dataset:
            raise _corrupt(key, "is another dataset's")
        return PassedProbes({probe: frozenset(digests) for probe, digests in record.passed.items()})

    def put_attestation(self, dataset: str, digest: str, target: str, statement: Mapping[str, Any]) -> None:
        """Add a gate's decision about a version, accepting or not."""
        self._append(self._key(dataset, "decisions", digest, f"/{target}/"), encode(dict(statement)))

    def attestation(self, dataset: str, digest: str, target: str) -> dict[str, Any] | None:
        """The newest decision of a target's gate about a version; None without one."""
        return self._load_newest(dict[str, Any], self._key(dataset, "decisions", digest, f"/{target}/"))

    def attestations(self, dataset: str, digest: str, target: str) -> list[dict[str, Any]]:
        """All decisions of a target's gate about a version, the oldest first."""
        return self._load_all(dict[str, Any], self._key(dataset, "decisions", digest, f"/{target}/"))

    def decided(self, dataset: str) -> list[tuple[str, str]]:
        """The digest and target of each version that a gate decided on, sorted."""
        folder = f"datasets/{dataset}/decisions/"
        digests = self._records.folders(folder)
        return [
            (f"sha256:{hexes}", target) for hexes in digests for target in self._records.folders(f"{folder}{hexes}/")
        ]

    def put_signature(self, dataset: str, statement: str, key: str, envelope: Mapping[str, Any]) -> None:
        """Store a DSSE envelope around an attestation; a second one of the same key changes nothing.

        Args:
            dataset: The dataset.
            statement: The attestation's own digest, `sha256:<hex>`.
            key: The signing key's id, in hex.
            envelope: The DSSE envelope.
        """
        self._records.create(self._key(dataset, "signatures", statement, f"/{key}.json"), encode(dict(envelope)))

    def signatures(self, dataset: str, statement: str) -> list[dict[str, Any]]:
        """The DSSE envelopes around an attestation, by its own digest."""
        return self._load_all(dict[str, Any], self._key(dataset, "signatures", statement, "/"))

    # ── waivers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def put_waiver(self, waiver: Waiver) -> None:
        """Add a waiver, or the new state of one that was revoked; earlier records stay."""
        self._append(self._key(waiver.dataset, "waivers", waiver.digest, f"/{waiver.target}/"), encode(waiver))

    def waived_targets(self, dataset: str, digest: str) -> list[str]:
        """The targets that a version has waivers at, sorted."""
        return self._records.folders(self._key(dataset, "waivers", digest, "/"))

    def waivers(self, dataset: str, digest: str, target: str) -> list[Waiver]:
        """The newest state of each waiver for a version at a target, ended ones included, the oldest first."""
        records = self._load_all(Waiver, self._key(dataset, "waivers", digest, f"/{target}/"))
        return list({waiver.id: waiver for waiver in records}.values())

    # ── revoked evidence ────────────────────────────────────────────────────────────────────────────────────────

    def put_revocation(self, revocation: EvidenceRevocation) -> None:
        """Add a revocation of a check's evidence; the evidence itself stays on record."""
        self._append(self._key(revocation.dataset, "revocations", revocation.digest, "/"), encode(revocation))

    def revocations(self, dataset: str, digest: str) -> list[EvidenceRevocation]:
        """All revocations of evidence about a version, the oldest first."""
        return self._load_all(EvidenceRevocation, self._key(dataset, "revocations", digest, "/"))

    def revoked_versions(self, dataset: str) -> list[str]:
        """The digests of the versions with revoked evidence, sorted."""
        return [f"sha256:{hexes}" for hexes in self._records.folders(f"datasets/{dataset}/revocations/")]

    # ── approvals ───────────────────────────────────────────────────────────────────────────────────────────────

    def put_request(
        self, dataset: str, digest: str, target: str, policy: str, requester: Identity, *, after: int | None = None
    ) -> ApprovalRequest:
        """Record a request to promote a version; answers are stored under its id."""
        # Ids sort by time: `20260301T030000.000000Z-1f3a…`.
        request_id = now().strftime("%Y%m%dT%H%M%S.%fZ-") + uuid.uuid4().hex[:12]
        request = ApprovalRequest(request_id, dataset, digest, target, policy, requester, stamp(now()), after)
        self._records.create(self._request_folder(dataset, target, request.id) + "request.json", encode(request))
        return request

    def requests(self, dataset: str, target: str) -> list[ApprovalRequest]:
        """All requests for a target, the oldest first."""
        folder = f"datasets/{dataset}/approvals/{target}/"
        return [self._load_request(folder, name) for name in self._records.folders(folder)]

    def put_answer(self, request: ApprovalRequest, approval: Approval) -> Approval:
        """Add an answer; the same one of the same person again adds nothing, unless only the new one is signed."""
        folder = self._request_folder(request.dataset, request.target, request.id)
        while True:
            # Before the answers are read: an answer that is added meanwhile takes this number, and `create` fails.
            number = self._last(folder) + 1
            answers = self.approvals(request)
            person = person_key(approval.approver.name)
            last = next((answer for answer in reversed(answers) if person_key(answer.approver.name) == person), None)
            if last and last.approved == approval.approved and (last.envelope or not approval.envelope):
                return last
            if self._records.create(f"{folder}{number:08d}.json", encode(approval)):
                return approval

    def approvals(self, request: ApprovalRequest) -> list[Approval]:
        """The answers to a request, the oldest first."""
        folder = self._request_folder(request.dataset, request.target, request.id)
        names = (key.removeprefix(folder) for key in self._records.keys(folder))
        return [self._load(Approval, folder + name) for name in names if name[0].isdigit()]

    def put_wait(self, request: ApprovalRequest, flow_run: str, until: datetime) -> Wait:
        """Record until when a flow run waits for answers to a request, over an earlier record."""
        wait = Wait(request.id, flow_run, stamp(until), stamp(now()))
        folder = self._request_folder(request.dataset, request.target, request.id)
        # Replaced, unlike other records: it decides nothing.
        self._records.replace(f"{folder}waits/{flow_run}.json", encode(wait))
        return wait

    def waits(self, request: ApprovalRequest) -> list[Wait]:
        """The flow runs that wait for answers to a request, or did."""
        return self._load_all(Wait, self._request_folder(request.dataset, request.target, request.id) + "waits/")

    def awaited(self, dataset: str, target: str, flow_run: str) -> ApprovalRequest | None:
        """The newest request for a target that a flow run waits for, or did."""
        folder = f"datasets/{dataset}/approvals/{target}/"
        for name in reversed(self._records.folders(folder)):
            if self._records.read(f"{folder}{name}/waits/{flow_run}.json") is not None:
                return self._load_request(folder, name)
        return None

    def _load_request(self, folder: str, name: str) -> ApprovalRequest:
        """The request in a folder, whose fields must lead to this folder."""
        # Answers are written to the folder of the fields: a copied request would have them go elsewhere.
        request = self._load(ApprovalRequest, f"{folder}{name}/request.json")
        if self._request_folder(request.dataset, request.target, request.id) != f"{folder}{name}/":
            raise _corrupt(f"{folder}{name}/request.json", f"holds the request {request.id!r}")
        return request

    # ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _key(self, dataset: str, kind: str, digest: str, rest: str = ".parquet") -> str:
        return f"datasets/{dataset}/{kind}/{digest.removeprefix('sha256:')}{rest}"

    def _request_folder(self, dataset: str, target: str, request: str) -> str:
        return f"datasets/{dataset}/approvals/{target}/{request}/"

    def _load(self, kind: type[T], key: str) -> T:
        data = self._records.read(key)
        if data is None:
            raise _corrupt(key, "is gone")
        return decode(kind, data, key)

    def _load_all(self, kind: type[T], prefix: str) -> list[T]:
        """All records below a prefix, sorted by key."""
        return [self._load(kind, key) for key in self._records.keys(prefix)]

    def _load_newest(self, kind: type[T], prefix: str) -> T | None:
        """The record with the highest number below a prefix; None without one."""
        keys = list(self._records.keys(prefix))
        return self._load(kind, keys[-1]) if keys else None

    def _append(self, prefix: str, data: bytes) -> None:
        """Store a record under the next free number. Numbers tell which is the newest, since clocks may be wrong."""
        last = self._last(prefix)
        # Another writer may have taken the number since: then the next one is tried.
        while not self._records.create(f"{prefix}{last + 1:08d}.json", data):
            last += 1

    def _last(self, prefix: str) -> int:
        """The number of the newest record below a prefix; 0 without one."""
        names = (key.removeprefix(prefix).removesuffix(".json") for key in self._records.keys(prefix))
        return max((int(name) for name in names if name.isdigit()), default=0)


def _verified(rows: Iterable[R], digest: str, key: str, size: int | None = None) -> Iterator[R]:
    """Pass a version's rows on, and raise `CorruptRecord` after the last one unless they hash to its digest."""
    hasher = hashlib.sha256()
    total = 0
    for entry in rows:
        # Anyone who can write to the catalog can forge a manifest with a fitting digest, so paths are checked again.
        if problem := path_problem(entry.path):
            raise _corrupt(key, f"has a path that is not allowed in a dataset: {problem}")
        hasher.update(row(entry))
        total += entry.size
        yield entry
    if hasher.hexdigest() != digest.removeprefix("sha256:") or size not in (None, total):
        raise _corrupt(key, "does not hold the entries of its version")


def _sums(footer: Footer, digest: str, key: str) -> Seal:
    """The sums in a manifest's footer, which must be the version's."""
    if footer.digest != digest:
        raise _corrupt(key, f"is the manifest of {footer.digest}")
    if footer.files != footer.rows:
        raise _corrupt(key, f"has {count_text(footer.rows, 'entry', 'entries')}, not {footer.files}")
    return Seal(digest, footer.files, footer.bytes)


def _corrupt(key: str, problem: str) -> CorruptRecord:
    return CorruptRecord(
        f"The catalog's record {key} {problem}", hint="Restore it from a backup.", dataset=dataset_of(key)
    )


def _create(records: Records) -> None:
    """Create a catalog: check that the store refuses to create a record twice, and only then write the format."""
    records.create(PROBE_KEY, PROBE)
    if records.create(PROBE_KEY, PROBE):
        raise CatalogError(
            f"{records.url} lets a record be created twice, so two promotions could both believe they won",
            hint="Use a store that honours If-None-Match on writes (AWS S3, MinIO, Ceph, SeaweedFS), or a directory.",
        )
    # The format comes last: a store that fails the probe never counts as a catalog.
    records.create(FORMAT_KEY, FORMAT)


def _load_tables() -> None:
    with suppress(Exception):  # the first use raises it again
        import_module(f"{__package__}.tables")
