"""The node's copies of refs: one small file a ref, replaced by a rename."""

from __future__ import annotations

import uuid

from prefect_stagegate.cache.layout import GROUP_DIR, GROUP_FILE, Layout, explained
from prefect_stagegate.durable import make_folder, sync_folder, write_file


class Refs:
    """What this node believes each ref to name. A copy moves only after the node's own view is complete."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def get(self, dataset: str, ref: str) -> str | None:
        """The digest, or None when this node has no copy of the ref.

        Raises:
            CacheError: It can't be read.
        """
        path = self._layout.ref(dataset, ref)
        with explained("read the ref", path):
            try:
                return path.read_text().strip()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, dataset: str, ref: str, digest: str) -> None:
        """Make the node's copy name `digest`, durably."""
        target = self._layout.ref(dataset, ref)
        scratch = self._layout.ingest / f"ref-{uuid.uuid4().hex}"
        with explained("move the ref", target):
            make_folder(target.parent, 0o755)
            self._layout.share(target.parent, GROUP_DIR)
            write_file(scratch, f"{digest}\n".encode())
            self._layout.share(scratch, GROUP_FILE)
            scratch.replace(target)
            sync_folder(target.parent)

    def of(self, dataset: str) -> dict[str, str]:
        """All copies of one dataset's refs: name → digest, sorted."""
        folder = self._layout.refs / dataset
        with explained("read the refs", folder):
            names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return {name: digest for name in names if (digest := self.get(dataset, name))}

    def datasets(self) -> list[str]:
        """The datasets of which this node has a ref, sorted."""
        with explained("read the refs", self._layout.refs):
            return sorted(path.name for path in self._layout.entries(self._layout.refs))
