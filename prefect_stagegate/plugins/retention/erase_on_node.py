"""A node's part in an erasure: remove the blobs and all views that have them, look again, and record what is left.

    views of the dataset → trash, or only their files where a job reads them → what killed jobs left → blobs
    → quarantine → look again → record

A blob is unlinked, not overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from prefect_stagegate.cache.blob_verification import is_blob
from prefect_stagegate.cache.gc import empty_trash
from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import LeaseKind, is_locked, require_locks
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.catalog.version_records import has_version, read_manifest
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.durable import sync_volume, walk_folders
from prefect_stagegate.jobs.upkeep.maintain import report_collection
from prefect_stagegate.plugins.retention.erasure import (
    ERASURES,
    Erasure,
    NodeErasure,
    erasures_of,
    node_erasure,
    node_key,
    put_node_erasure,
)
from prefect_stagegate.units import count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

CLAIM = "[0-9a-f]" * 40
"""Names of files that jobs fetch into; a killed job's is resumed within a day."""
SHOWN = 20
"""Lines of what is left that a record has, at most."""


_proved: dict[tuple[str, str, str], list[str]] = {}
"""The erasures that this process proved, by catalog, cache and dataset. No later job brings their bytes back."""


def erase_all_on_node(workspace: Workspace) -> Iterator[str]:
    """Do this node's part of the erasures that this process has not proved yet; see `Plugin.upkeep`.

    Raises:
        CacheError: The cache can't be changed, or lies where locks don't tell who uses it.
        CatalogError: The catalog can't be read or written.
    """
    for dataset, names in groupby(workspace.catalog.names(ERASURES), lambda name: name.partition("/")[0]):
        key, numbers = (workspace.catalog.url, str(workspace.cache.root), dataset), list(names)
        if _proved.get(key) != numbers:
            reports = erase_on_node(workspace, dataset)
            yield from (report_text(dataset, report) for report in reports if report.blobs or not report.is_proved)
            if all(report.is_proved for report in reports):
                _proved[key] = numbers


def report_text(dataset: str, report: NodeErasure) -> str:
    """What a node did about an erasure, in one line."""
    state = "nothing is left on this node" if report.is_proved else "something is left on this node"
    return f"{dataset}, erasure {report.number}: {count_text(report.blobs, 'blob')} removed, {state}"


def erase_on_node(workspace: Workspace, dataset: str) -> list[NodeErasure]:
    """Do all erasures of a dataset on this node, and record what is left. Doing it again records only what changed.

    Raises:
        CacheError: The cache can't be changed, or lies where locks don't tell who uses it.
        CatalogError: The catalog can't be read or written.
    """
    node, reports, answers = workspace.settings.node, list[NodeErasure](), dict[int, NodeErasure | None]()
    for erasure in erasures_of(workspace.catalog, dataset):
        last = answers[erasure.number] = node_erasure(workspace.catalog, dataset, erasure.number, node_key(node))
        blobs, left = _erase(workspace, dataset, erasure, is_proved=bool(last and last.is_proved))
        shown = (*left[:SHOWN], *([f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []))
        reports.append(NodeErasure(erasure.number, node, not left, blobs, shown, stamp(now())))
    if reports:
        # Before the answers, so that the node's own record contradicts none of them.
        report_collection(lambda: workspace)
    for report in reports:
        last = answers[report.number]
        if not last or report.blobs or (last.is_proved, last.left) != (report.is_proved, report.left):
            put_node_erasure(workspace.catalog, dataset, report)
    return reports


def _erase(workspace: Workspace, dataset: str, erasure: Erasure, *, is_proved: bool) -> tuple[int, list[str]]:
    """Do one erasure here. Returns how many blobs went, and why something is left."""
    layout = workspace.cache.layout
    with explained("erase entries", layout.root):
        require_locks(layout.root, layout.trash)
        left = []
        for digest, paths in _views(workspace, dataset, erasure):
            left += _strip(workspace, dataset, digest, paths)
        empty_trash(layout)
        _remove_leftovers(layout, erasure, is_proved=is_proved)
        blobs, others = _remove_blobs(layout, erasure.digests)
        quarantine, names = Quarantine(layout), {digest.removeprefix("blake3:") for digest in erasure.digests}
        for path in list(quarantine.files()):
            if path.name.partition("-")[0] in names:
                path.unlink(missing_ok=True)
        quarantine.tidy()
        sync_volume(layout.root)  # so that no name comes back after a power cut
        left += others
        for digest, paths in _views(workspace, dataset, erasure):
            view = layout.view(dataset, digest)
            left += [f"{digest_text(digest)} has {path}" for path in paths if os.path.lexists(view / path)]
    return blobs, left


def _views(workspace: Workspace, dataset: str, erasure: Erasure) -> Iterator[tuple[str, list[str]]]:
    """The views of versions that have such an entry, with the paths of all of these; also of versions staged since."""
    layout, blobs = workspace.cache.layout, erasure.digests
    for digest in workspace.cache.views.of(dataset):
        if has_version(workspace.catalog, dataset, digest):
            entries = read_manifest(workspace.catalog, dataset, digest).entries()
            paths = [entry.path for entry in entries if entry.digest in blobs]
        else:  # it expired, so its files have to tell
            paths = list(_same_files(layout.view(dataset, digest), erasure))
        if paths:
            yield digest, paths


def _same_files(view: Path, erasure: Erasure) -> Iterator[str]:
    by_size: dict[int, set[str]] = {}
    for entry in erasure.entries:
        by_size.setdefault(entry.size, set()).add(entry.digest)
    for path in _files(view):
        digests = by_size.get(path.lstat().st_size, ())
        if any(is_blob(str(path), digest) for digest in digests):
            yield str(path.relative_to(view))


def _files(root: Path) -> Iterator[Path]:
    for _, entries in walk_folders(root, skip=OSError):
        yield from (Path(entry) for entry in entries if not entry.is_dir() and not entry.is_symlink())


def _strip(workspace: Workspace, dataset: str, digest: str, paths: Iterable[str]) -> list[str]:
    """Remove a view; while jobs use it, only the entries' files. Returns who keeps the rest."""
    views, unreadable = workspace.cache.views, UnreadableRecords()
    # Nobody begins to read meanwhile.
    with workspace.cache.leases.frozen(unreadable) as leases:
        using = [lease for lease in leases if lease.kind is not LeaseKind.PIN and lease.keeps(dataset, digest)]
        if not using and not unreadable.all:
            # A pin promises a whole version, which this one is no longer; without its view, nobody could take it back.
            workspace.cache.leases.unpin(dataset, digest)
            with suppress(FileNotFoundError):  # a collection took it
                views.discard(dataset, digest)
            return []
    views.remove(dataset, digest, paths)
    holders = [*map(str, using), *(record.problem for record in unreadable.all)]
    return [f"{digest_text(digest)} without the entries' files stays for {holder}" for holder in holders]


def _remove_leftovers(layout: Layout, erasure: Erasure, *, is_proved: bool) -> None:
    """Remove what killed jobs left of the bytes.

    Until the node proved the erasure, that is all that a job could resume: a beginning of the bytes looks like others.
    """
    same = {layout.ingest / path for path in _same_files(layout.ingest, erasure)}
    claims = {*layout.ingest.glob(CLAIM)}
    for path in claims & same if is_proved else claims:
        if claim := Claim.take(str(path)):  # no job has it
            claim.drop()
    for path in same - claims:
        with suppress(FileNotFoundError):
            if not is_locked(layout.ingest / path.relative_to(layout.ingest).parts[0]):
                path.unlink()


def _remove_blobs(layout: Layout, digests: Iterable[str]) -> tuple[int, list[str]]:
    """Unlink blobs that nothing else links to. Returns how many went, and what links to the others."""
    count, linked = 0, dict[int, str]()
    for digest in sorted(digests):
        path = layout.blob(digest)
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if status.st_nlink > 1:
            linked[status.st_ino] = digest
        else:
            path.unlink(missing_ok=True)
            count += 1
    return count, sorted(_links(layout, linked)) if linked else []


def remove_refused(layout: Layout, erasures: Sequence[Erasure]) -> None:
    """Unlink blobs that a staging fetched which was refused, or that was killed. Those that a view links to stay."""
    for erasure in erasures:
        _remove_leftovers(layout, erasure, is_proved=True)
    digests = {digest for erasure in erasures for digest in erasure.digests}
    paths = {path.lstat().st_ino: path for digest in digests if (path := layout.blob(digest)).exists()}
    viewed = {path.lstat().st_ino for path in _files(layout.views)} if paths else set()
    for inode in paths.keys() - viewed:
        paths[inode].unlink(missing_ok=True)


def _links(layout: Layout, linked: dict[int, str]) -> Iterator[str]:
    """Who else has blobs, by their inodes."""
    seen: set[int] = set()
    for path in _files(layout.views):
        if (inode := path.lstat().st_ino) in linked:
            seen.add(inode)
            parts = path.relative_to(layout.views).parts
            view, name = "@sha256:".join(parts[:2]), "/".join(parts[2:])
            yield f"{view} has the same bytes as {name}: erase them there, too"
    for inode in linked.keys() - seen:
        yield f"a job that is running holds {linked[inode][:19]}…"
