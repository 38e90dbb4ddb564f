"""The part of the catalog that keeps what validations and stagings computed or measured.

These records decide nothing and are replaced, unlike others: without one, files are read again, or a report says less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.catalog.codec import decode, encode
from prefect_stagegate.catalog.keys import largest
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.catalog.typed_records import TypedRecords
from prefect_stagegate.measures import NO_PASSES, NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.plugins.profile.profiles import NO_PARTS, ProfileParts, TableProfile
from prefect_stagegate.transfers import TransferRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """What was computed, with what it is about: a record under another's key must not count."""

    dataset: str
    values: T
    table: str = ""
    digest: str = ""
    """The version's; empty where the values are those of files."""


@dataclass(frozen=True, slots=True)
class _Passes:
    """The passes of probes."""

    dataset: str
    values: Mapping[str, list[str] | Mapping[str, list[str]]]
    """The digests of files by probe. Earlier releases grouped them by the validation that read the files."""


class KeptRecords(TypedRecords):
    """What validations and stagings computed or measured.

    Every method may raise `CatalogError`: `CorruptRecord` for a damaged record.
    """

    def put_file_values(self, dataset: str, table: str, values: FileValues) -> None:
        """Store what a validation computed of a table's files."""
        self._keep(self._table_key(dataset, "values", table), _Kept(dataset, values, table))

    def file_values(self, dataset: str, table: str) -> FileValues:
        """What the last validation computed of a table's files; nothing without such a record."""
        key = self._table_key(dataset, "values", table)
        return self._kept(_Kept[FileValues], key, dataset, table) or NO_VALUES

    def put_profile_parts(self, dataset: str, table: str, parts: ProfileParts) -> None:
        """Store what a validation profiled of a table's files."""
        self._keep(self._table_key(dataset, "parts", table), _Kept(dataset, parts, table))

    def profile_parts(self, dataset: str, table: str) -> ProfileParts:
        """What the last validation profiled of a table's files; nothing without such a record."""
        key = self._table_key(dataset, "parts", table)
        return self._kept(_Kept[ProfileParts], key, dataset, table) or NO_PARTS

    def put_profile(self, dataset: str, digest: str, table: str, profile: TableProfile) -> None:
        """Store the profile of a version's table."""
        self._keep(self._profile_key(dataset, digest, table), _Kept(dataset, profile, table, digest))

    def profile(self, dataset: str, digest: str, table: str) -> TableProfile | None:
        """The profile of a version's table; None where no validation kept one."""
        key = self._profile_key(dataset, digest, table)
        return self._kept(_Kept[TableProfile], key, dataset, table, digest)

    def put_passed_probes(self, dataset: str, passed: PassedProbes) -> None:
        """Store which files passed which probes."""
        values = {probe: sorted(digests) for probe, digests in passed.files.items()}
        self._keep(_probes_key(dataset), _Passes(dataset, values))

    def passed_probes(self, dataset: str) -> PassedProbes:
        """Which files passed which probes in the last validation; none without such a record."""
        key = _probes_key(dataset)
        data = self._records.read(key)
        if data is None:
            return NO_PASSES
        record = decode(_Passes, data, key)
        if record.dataset != dataset:
            raise corrupt(key, "is about something else")
        return PassedProbes({probe: _digests(passes) for probe, passes in record.values.items()})

    def put_transfer(self, dataset: str, digest: str, transfer: TransferRecord) -> None:
        """Store what a staging of a version transferred."""
        self._keep(self._key(dataset, "transfers", digest, ".json"), _Kept(dataset, transfer, digest=digest))

    def transfer(self, dataset: str, digest: str) -> TransferRecord | None:
        """What the last staging that fetched bytes of a version transferred; None without such a record."""
        key = self._key(dataset, "transfers", digest, ".json")
        return self._kept(_Kept[TransferRecord], key, dataset, digest=digest)

    def _table_key(self, dataset: str, kind: str, table: str) -> str:
        return self._key(dataset, kind, digest_of(table), ".json")

    def _profile_key(self, dataset: str, digest: str, table: str) -> str:
        return self._key(dataset, "profiles", digest, f"/{digest_of(table).removeprefix('sha256:')}.json")

    def _keep(self, key: str, record: _Kept[T] | _Passes) -> None:
        self._records.replace(key, encode(record, largest(key)))

    def _kept(self, kind: type[_Kept[T]], key: str, dataset: str, table: str = "", digest: str = "") -> T | None:
        data = self._records.read(key)
        if data is None:
            return None
        record = decode(kind, data, key)
        if (record.dataset, record.table, record.digest) != (dataset, table, digest):
            raise corrupt(key, "is about something else")
        return record.values


def _probes_key(dataset: str) -> str:
    return f"datasets/{dataset}/probes.json"


def _digests(passes: list[str] | Mapping[str, list[str]]) -> frozenset[str]:
    groups = [passes] if isinstance(passes, list) else passes.values()
    return frozenset(digest for group in groups for digest in group)
