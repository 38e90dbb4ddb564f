"""The node's copies of refs: one small file for each ref, replaced by a rename."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect_stagegate.cache.layout import GROUP_DIR, GROUP_FILE, SMALL_FILE, Layout, explained
from prefect_stagegate.durable import make_folder, read_file, sync_folder, write_file
from prefect_stagegate.errors import CacheError, CatalogError, CorruptRecord, UnprovedEntry
from prefect_stagegate.model import DIGEST, Address, is_name
from prefect_stagegate.unreadable import UnreadableRecords, skipping

_SUSPENDED = "\nsuspended"


class Refs:
    """The node's copies of refs. A copy moves only after the node's own view is complete."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def get(self, dataset: str, ref: str, *, suspended: bool = False) -> str | None:
        """The digest that the copy names; None when this node has no copy of the ref.

        Raises:
            CacheError: The copy can't be read.
            CorruptRecord: The copy names no version.
            UnprovedEntry: The copy is suspended. Not raised with `suspended`.
        """
        path = self._layout.ref(dataset, ref)
        with explained("read the ref", path):
            try:
                text = read_file(path, SMALL_FILE)
            except (FileNotFoundError, NotADirectoryError):
                return None
        line = text.decode(errors="replace").strip()
        digest = line.removesuffix(_SUSPENDED)
        if not DIGEST.fullmatch(digest):
            raise CorruptRecord(
                f"This node's copy of {dataset}@{ref} names no version: {path}",
                hint=f"Write it anew with `stagegate stage {dataset}@{ref}`.",
                dataset=dataset,
            )
        if digest != line and not suspended:
            raise UnprovedEntry(
                f"The catalog's newest entry of {dataset}@{ref} could not be proved; this node's copy names {digest}",
                hint=f"`stagegate stage {dataset}@{ref}` says why, or follows a proved entry. To read this version "
                f"all the same, name {dataset}@{digest}.",
                dataset=dataset,
            )
        return digest

    @contextmanager
    def suspending(self, address: Address) -> Iterator[None]:
        """Suspend the copy, until `put`, when the block finds that the newest entry of the ref's log is not proved."""
        try:
            yield
        except UnprovedEntry:
            dataset, ref = address.dataset, address.steps[0]
            # A copy that can't be read or written must not hide the entry, and one that is suspended stays so.
            with suppress(CacheError, CatalogError):
                if digest := self.get(dataset, ref):
                    self.put(dataset, ref, digest + _SUSPENDED)
            raise

    def put(self, dataset: str, ref: str, digest: str) -> None:
        """Make the node's copy name `digest`, durably."""
        target = self._layout.ref(dataset, ref)
        scratch = self._layout.ingest / f"ref-{uuid.uuid4().hex}"
        with explained("move the ref", target):
            make_folder(target.parent, 0o755)
            self._layout.share(target.parent, GROUP_DIR)
            # Written and synced under another name, so that a reader finds the old digest or the new one, never a part.
            write_file(scratch, f"{digest}\n".encode())
            self._layout.share(scratch, GROUP_FILE)
            scratch.replace(target)
            # So that the rename survives a power cut.
            sync_folder(target.parent)

    def of(self, dataset: str, unreadable: UnreadableRecords | None = None) -> dict[str, str]:
        """The digests that one dataset's refs name, suspended ones too, by the refs' names, sorted.

        `unreadable` collects the copies that can't be read, which are left out; with None, the first of them raises.
        """
        refs: dict[str, str] = {}
        for name in self.names(dataset):
            with skipping(unreadable, dataset):
                if digest := self.get(dataset, name, suspended=True):
                    refs[name] = digest
        return refs

    def names(self, dataset: str) -> list[str]:
        """The names of a dataset's refs that this node has copies of, sorted, unreadable ones included."""
        folder = self._layout.refs / dataset
        with explained("read the refs", folder):
            return _names(folder) if folder.is_dir() else []

    def datasets(self) -> list[str]:
        """The datasets with a ref on this node, sorted."""
        with explained("read the refs", self._layout.refs):
            return _names(self._layout.refs)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in Layout.entries(folder) if is_name(path.name))
