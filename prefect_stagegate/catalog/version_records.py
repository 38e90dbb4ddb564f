"""Records of versions: their manifests, origins, missing objects and specs.

Every function may raise `CatalogError`, and `CorruptRecord` for a record that is damaged, or another version's. Readers
of a manifest or of origins raise `UnknownRef` where the catalog has no such version.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.doors import Record, hidden_names, plugins, why_gone
from prefect_stagegate.errors import UnknownDataset, UnknownRef, suggest
from prefect_stagegate.model import Entry, FailedObject, Origin, Pins
from prefect_stagegate.model.manifest import Manifest, Seal, path_problem, row
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from prefect_stagegate.catalog.catalog import Catalog
    from prefect_stagegate.catalog.tables import Footer, RowLayout

END = 1 << 16
"""Bytes at the end of a manifest or of origins; nearly every footer fits into them."""
MOST_FOOTER, MOST_BYTES, ROW_BYTES = 16 << 20, 4 << 30, 16 << 10
"""The most bytes of a footer, of a manifest or of origins, and of a row in them: a path, key, source and state."""

R = TypeVar("R", Entry, Origin)
_FAILED = Record("stagegate.failed", list[FailedObject])
_SPECS = Record("stagegate.specs", dict[str, Any])


def dataset_names(catalog: Catalog) -> list[str]:
    """The names of all datasets, sorted."""
    return catalog.records.folders("datasets/")


def listed_datasets(catalog: Catalog, hidden: Collection[str] | None = None) -> list[str]:
    """The names of all datasets but the hidden ones, sorted; by default, those that plugins hide."""
    hidden = hidden_names(catalog) if hidden is None else hidden
    return [name for name in dataset_names(catalog) if name not in hidden]


def require_dataset(catalog: Catalog, dataset: str) -> None:
    """Raise `UnknownDataset` when the catalog has nothing under this name."""
    if not catalog.records.folders(f"datasets/{dataset}/"):
        known = dataset_names(catalog)
        raise UnknownDataset(
            f"The catalog {catalog.url} has no dataset {dataset!r}",
            hint=suggest(dataset, known, "It") if known else "It is empty: stage a spec with `stagegate stage SPEC`.",
        )


def put_version(
    catalog: Catalog,
    dataset: str,
    version: Seal,
    entries: Iterable[Entry],
    origins: Iterable[Origin],
    pins: Pins | None = None,
) -> bool:
    """Store a version's manifest and origins; True when the manifest is new.

    Args:
        catalog: The catalog.
        dataset: The dataset's name.
        version: The digest and the totals of `entries`.
        entries: Sorted by path.
        origins: Sorted by path; they replace those of an earlier staging of the same version.
        pins: The summary of the origins' pins, so that readers need not count them.
    """
    from prefect_stagegate.catalog.tables import ENTRIES, ORIGINS

    digest = version.digest
    # The origins first: once a version has its manifest, its origins can be read.
    catalog.records.replace(_path(dataset, "origins", digest), ORIGINS.write(origins, version, pins))
    key = _path(dataset, "manifests", digest)
    # Looked up first: a known manifest, which may be large, is neither written nor sent again.
    return not has_version(catalog, dataset, digest) and catalog.records.create(key, ENTRIES.write(entries, version))


def has_version(catalog: Catalog, dataset: str, digest: str) -> bool:
    """Whether the catalog knows the version."""
    return catalog.records.read_end(_path(dataset, "manifests", digest), 1) is not None


def version_digests(catalog: Catalog, dataset: str) -> list[str]:
    """The digests of all versions, sorted."""
    keys = catalog.records.keys(f"datasets/{dataset}/manifests/")
    return ["sha256:" + key.rsplit("/", 1)[1].removesuffix(".parquet") for key in keys]


def read_manifest(catalog: Catalog, dataset: str, digest: str) -> Manifest:
    """The version's manifest. Its entries are a stream, which raises at its end when they don't have the digest."""
    from prefect_stagegate.catalog.tables import ENTRIES

    key = _path(dataset, "manifests", digest)
    data = _require_version(catalog, dataset, digest, _rows(catalog, ENTRIES, key))
    sums = _sums(ENTRIES.footer(data, key), digest, key)

    def entries() -> Iterator[Entry]:
        return _verified(ENTRIES.read(data, key), digest, key, sums.bytes)

    return Manifest(dataset, digest, sums.files, sums.bytes, entries)


def read_seal(catalog: Catalog, dataset: str, digest: str) -> Seal:
    """The numbers of the version's files and bytes. Reads the end of its manifest only."""
    from prefect_stagegate.catalog.tables import ENTRIES

    key = _path(dataset, "manifests", digest)
    return _sums(ENTRIES.footer(_require_version(catalog, dataset, digest, _end(catalog, key)), key), digest, key)


def read_origins(catalog: Catalog, dataset: str, digest: str) -> Iterator[Origin]:
    """Where the version's entries came from, sorted by path. That they are another version's is known at their end."""
    from prefect_stagegate.catalog.tables import ORIGINS

    key = _path(dataset, "origins", digest)
    data = _require_version(catalog, dataset, digest, _rows(catalog, ORIGINS, key))
    return _verified(ORIGINS.read(data, key), digest, key)


def count_origins(catalog: Catalog, dataset: str, digest: str) -> Counter[str]:
    """How many of the version's entries came from each source, by its URL."""
    from prefect_stagegate.catalog.tables import ORIGINS

    key = _path(dataset, "origins", digest)
    data = _require_version(catalog, dataset, digest, _rows(catalog, ORIGINS, key))
    return Counter({url: count for (url,), count in ORIGINS.counts(data, key, ("source",)).items()})


def read_pins(catalog: Catalog, dataset: str, digest: str) -> Pins | None:
    """The summary of the pins of the version's origins; None without a record of its origins."""
    from prefect_stagegate.catalog.tables import ORIGINS

    key = _path(dataset, "origins", digest)
    end = _end(catalog, key)
    if end is None:
        return None
    footer = ORIGINS.footer(end, key)
    if footer.version.digest != digest:
        raise corrupt(key, f"belongs to the version {footer.version.digest}")
    if footer.pins:
        return footer.pins
    # Records of earlier releases have no summary.
    counts = ORIGINS.counts(_rows(catalog, ORIGINS, key) or b"", key, ("pin_kind", "pin_strength"))
    return Pins.of({(kind, strength): count for (kind, strength), count in counts.items()})


def put_failed(catalog: Catalog, dataset: str, digest: str, failed: Sequence[FailedObject]) -> None:
    """Store the objects that the version lacks from here on; the same list again writes nothing."""
    if read_failed(catalog, dataset, digest) != tuple(failed):
        catalog.add(_FAILED, list(failed), dataset, digest)


def read_failed(catalog: Catalog, dataset: str, digest: str) -> tuple[FailedObject, ...]:
    """The objects that could not be staged when the version was staged last."""
    newest = newest_record(catalog, _FAILED, dataset, digest)
    return tuple(newest or ())


def put_spec(catalog: Catalog, dataset: str, digest: str, canonical: Mapping[str, Any]) -> None:
    """Store the spec that the version is staged from, from here on; the same again writes nothing."""
    if staged_spec(catalog, dataset, digest) != canonical:
        # With the digest, so that a copy of another version's record is refused.
        catalog.add(_SPECS, {"version": digest, "spec": dict(canonical)}, dataset, digest)


def staged_spec(catalog: Catalog, dataset: str, digest: str) -> dict[str, Any] | None:
    """The canonical spec that the version was staged from last; None without one."""
    return next(staged_specs(catalog, dataset, digest), None)


def staged_specs(catalog: Catalog, dataset: str, digest: str) -> Iterator[dict[str, Any]]:
    """All specs that the version was staged from, the newest first."""
    for number in reversed(catalog.numbers(_SPECS, dataset, digest)):
        record = catalog.require(_SPECS, dataset, digest, number)
        if record.get("version") != digest or not isinstance(record.get("spec"), dict):
            raise corrupt(_SPECS.path(dataset, digest, number), "is not the spec of its version")
        yield record["spec"]


def remove_version(catalog: Catalog, dataset: str, digest: str, is_needed: Callable[[], bool]) -> bool:
    """Remove a version's manifest, then its origins and what was measured of it. Judgments and specs stay.

    Whoever calls it has recorded why, as `doors.why_gone` tells. `is_needed` is asked once both are gone: where a ref
    was moved to the version in this moment, or it was staged again, they come back.

    Returns:
        Whether it is removed.
    """
    from prefect_stagegate.catalog.tables import ENTRIES, ORIGINS

    layouts: dict[str, RowLayout[Any]] = {
        _path(dataset, "manifests", digest): ENTRIES,
        _path(dataset, "origins", digest): ORIGINS,
    }
    removed = {key: _rows(catalog, layout, key) for key, layout in layouts.items()}
    # The manifest first: without it, nobody takes the rest for a version.
    for key in layouts:
        catalog.records.remove(key)
    needed = True
    try:
        needed = is_needed() or has_version(catalog, dataset, digest)
    finally:
        for key, data in reversed(removed.items()) if needed else ():
            if data is not None:
                catalog.records.create(key, data)
    if needed:
        return False
    of_plugins = (name for plugin in plugins() for name in plugin.version_records)
    for name in (_FAILED.name, "stagegate.transfers", *of_plugins):
        kind = Record(name, object)
        for path in [kind.path(dataset, digest), *catalog.records.keys(kind.folder(dataset, digest))]:
            catalog.records.remove(path)
    return True


def load_tables() -> None:
    """Import in the background what reads and writes manifests: it takes 0.15 s, mostly for pyarrow."""
    with suppress(RuntimeError):  # no thread can be started: the first use imports it
        threading.Thread(target=_import_tables, daemon=True).start()


def _import_tables() -> None:
    with suppress(Exception):  # the first use raises it again
        import_module(f"{__package__}.tables")


def _rows(catalog: Catalog, layout: RowLayout[Any], key: str) -> bytes | None:
    """A whole manifest or origins; None when there is no such record. Its footer bounds how much is read."""
    end = _end(catalog, key)
    # A shorter one came with its end.
    if end is None or len(end) < END:
        return end
    rows = layout.footer(end, key).rows
    return catalog.records.read_end(key, min((rows + 1) * ROW_BYTES, MOST_BYTES))


def _end(catalog: Catalog, key: str) -> bytes | None:
    """The end of a record, with its whole footer; None when there is no such record."""
    from prefect_stagegate.catalog.tables import footer_size

    end = catalog.records.read_end(key, END)
    needed = footer_size(end) if end else 0
    # Nearly always one read: only the footers of very many row groups are longer.
    return end if needed <= END else catalog.records.read_end(key, min(needed, MOST_FOOTER))


def _require_version(catalog: Catalog, dataset: str, digest: str, data: bytes | None) -> bytes:
    if data is None:
        require_dataset(catalog, dataset)
        why = why_gone(catalog, dataset, digest)
        raise UnknownRef(
            f"{dataset}@{digest} {why}" if why else f"The catalog has no version {digest} of {dataset}",
            hint=f"`stagegate ls {dataset}` lists its versions.",
            dataset=dataset,
        )
    return data


def _verified(rows: Iterable[R], digest: str, key: str, size: int | None = None) -> Iterator[R]:
    """Pass a version's rows on, and raise `CorruptRecord` after the last one unless they hash to its digest."""
    hasher = hashlib.sha256()
    total = 0
    for entry in rows:
        # Anyone who can write to the catalog can forge a manifest with a fitting digest, so paths are checked again.
        if problem := path_problem(entry.path):
            raise corrupt(key, f"has a path that is not allowed in a dataset: {problem}")
        hasher.update(row(entry))
        total += entry.size
        yield entry
    if hasher.hexdigest() != digest.removeprefix("sha256:") or size not in (None, total):
        raise corrupt(key, "does not hold the entries of its version")


def _sums(footer: Footer, digest: str, key: str) -> Seal:
    """The sums in a manifest's footer, which must be the version's."""
    version = footer.version
    if version.digest != digest:
        raise corrupt(key, f"is the manifest of {version.digest}")
    if version.files != footer.rows:
        raise corrupt(key, f"has {count_text(footer.rows, 'entry', 'entries')}, not {version.files}")
    return version


def _path(dataset: str, folder: str, digest: str) -> str:
    return f"datasets/{dataset}/{folder}/{digest.removeprefix('sha256:')}.parquet"
