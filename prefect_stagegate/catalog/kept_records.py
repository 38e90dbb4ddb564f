"""Records of what validations and stagings computed or measured.

They decide nothing and are replaced, unlike others: without one, files are read again, or a report says less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from prefect_stagegate.catalog.catalog import Catalog
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.doors import Record
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.model.measures import NO_PASSES, FileValues, PassedProbes
from prefect_stagegate.model.transfers import TransferRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """What was computed, with what it is about: a record under another's key must not count."""

    dataset: str
    values: T
    table: str = ""
    digest: str = ""
    """The version's; empty where the values are those of files."""


@dataclass(frozen=True, slots=True)
class _Passes:
    dataset: str
    values: Mapping[str, list[str] | Mapping[str, list[str]]]
    """The digests of files by probe. Earlier releases grouped them by the validation that read the files."""


FILE_VALUES = Record("stagegate.values", Kept[FileValues])
"""What the last validation computed of a table's files."""
TRANSFERS = Record("stagegate.transfers", Kept[TransferRecord])
"""What the last staging that fetched bytes of a version transferred."""
_PROBES = Record("stagegate.probes", _Passes)


def put_kept(
    catalog: Catalog, kind: Record[Kept[T]], values: T, dataset: str, *, table: str = "", digest: str = ""
) -> None:
    """Store what was computed of a version, of a table's files, or of a version's table."""
    catalog.put(kind, Kept(dataset, values, table, digest), *_key(dataset, table, digest))


def read_kept(catalog: Catalog, kind: Record[Kept[T]], dataset: str, *, table: str = "", digest: str = "") -> T | None:
    """What `put_kept` stored last; None without such a record."""
    kept = catalog.get(kind, *_key(dataset, table, digest))
    if kept and (kept.dataset, kept.table, kept.digest) != (dataset, table, digest):
        raise corrupt(kind.path(*_key(dataset, table, digest)), "is about something else")
    return kept.values if kept else None


def put_probes(catalog: Catalog, dataset: str, passed: PassedProbes) -> None:
    """Store which files passed which probes."""
    values = {probe: sorted(digests) for probe, digests in passed.files.items()}
    catalog.put(_PROBES, _Passes(dataset, values), dataset)


def read_probes(catalog: Catalog, dataset: str) -> PassedProbes:
    """Which files passed which probes in the last validation; none without such a record."""
    record = catalog.get(_PROBES, dataset)
    if record is None:
        return NO_PASSES
    if record.dataset != dataset:
        raise corrupt(_PROBES.path(dataset), "is about something else")
    return PassedProbes({probe: _digests(passes) for probe, passes in record.values.items()})


def _key(dataset: str, table: str, digest: str) -> list[str]:
    return [dataset, *filter(None, (digest, digest_of(table) if table else ""))]


def _digests(passes: list[str] | Mapping[str, list[str]]) -> frozenset[str]:
    groups = [passes] if isinstance(passes, list) else passes.values()
    return frozenset(digest for group in groups for digest in group)
