"""Bounds of a walk over a source's folders, for every source that has folders.

A tree of folders may be endless: links lead back to folders above, and a server may invent names. So a walk stops at a
bounded depth and a bounded number of entries, and enters each folder once where folders have an identity.
"""

from __future__ import annotations

import logging
import posixpath
import stat
from collections.abc import Hashable, Sequence

from prefect_stagegate.errors import SourceError
from prefect_stagegate.model.manifest import DEPTH

DEEPEST = 4 * DEPTH
"""Most names in a path. It exceeds the depth that a dataset permits, so that errors can name the paths in between."""
ENTRIES = 10_000_000
"""Default for the most files and folders that one walk looks at."""
MAX_NAMED = 20
"""Most links that one message names."""
_SHOWN = 200
"""Most characters of a folder's key that an error shows."""

log = logging.getLogger(__name__)


class Walk:
    """One walk over the folders of a source.

    Keys of folders end with a slash; the source's own is empty.

    It looks at `most` files and folders at most, wanted or not.
    """

    def __init__(self, url: str, most: int = ENTRIES) -> None:
        self._url, self._most = url, most
        self._entries = 0
        self._entered: set[Hashable] = set()
        self._left_out: list[str] = []
        self._refused: list[str] = []

    @property
    def left(self) -> int:
        """How many more entries the walk may look at."""
        return self._most - self._entries

    def count(self, entries: int, folder: str) -> None:
        """Count the entries of a folder's listing.

        Raises:
            SourceError: The walk has seen more entries than it may look at.
        """
        self._entries += entries
        if self._entries > self._most:
            raise self._refusal(
                f"The source has more files and folders than {self._most}",
                hint="Leave folders out by `exclude:`, or set STAGEGATE_MAX_ENTRIES higher if it is that large.",
                folder=folder,
            )

    def key(self, folder: str, name: str) -> str:
        """Count one entry of a folder and return its key.

        Raises:
            SourceError: No file or folder can have its name, or there are too many entries.
        """
        # A server chooses these names: one with a path in it could leave the folder.
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise self._refusal(
                f"The listing names {name!r}, which is no valid name of a file or folder",
                hint="Leave the folder out by `exclude:`, or tell whoever runs the server.",
                folder=folder,
            )
        self.count(1, folder)
        return folder + name

    def enter(self, folder: str) -> None:
        """Refuse a folder that lies too deep.

        Raises:
            SourceError: It does.
        """
        if folder.count("/") >= DEEPEST:
            raise self._refusal(
                f"Folders are nested deeper than {DEEPEST} names, perhaps endlessly",
                hint="Leave the folder out by `exclude:`.",
                folder=folder,
            )

    def enter_once(self, identity: Hashable, folder: str) -> bool:
        """Enter a folder; False when this walk has entered it before: then call `note_second_path`.

        Two identities are equal exactly when they lead to the same folder.

        Raises:
            SourceError: It lies too deep.
        """
        if identity in self._entered:
            return False
        self.enter(folder)
        self._entered.add(identity)
        return True

    def note_second_path(self, folder: str, real: str, root: str, above: str, *, by_path: bool) -> None:
        """Record a second path to a folder that the walk has entered, for `end` to report.

        Real paths are `real` of the folder, `root` of the source's own and `above` of the one that holds the link.
        `by_path` says whether the folder's files may be wanted under this path.
        """
        leads_to = posixpath.relpath(real, root)
        is_loop = posixpath.commonpath((real, above)) == real
        # A loop leads to a folder above it, whose files nobody can want once more: leaving it out loses nothing.
        (self._refused if by_path and not is_loop else self._left_out).append(f"{folder.rstrip('/')} -> {leads_to}")

    def require_inside(self, key: str, real: str, root: str) -> None:
        """Refuse a symbolic link that leads out of the source.

        `real` is the real path of the link's target, `root` that of the source's own folder.

        Raises:
            SourceError: The target lies outside.
        """
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            raise SourceError(
                f"The symbolic link {key!r} leads out of the source, to {real}",
                hint="Leave it out by `exclude:`, or name its target as a source of its own.",
                source=self._url,
                object=key,
            )

    def end(self) -> None:
        """Log the second paths that were left out, and refuse those under which files may be wanted.

        Raises:
            SourceError: A folder has a second path, so that it is unclear under which key its files are wanted.
        """
        if self._left_out:
            message = "%s: links lead to folders that are listed already, and are not followed: %s"
            log.warning(message, self._url, _named(self._left_out))
        if self._refused:
            first = self._refused[0].partition(" -> ")[0]
            raise SourceError(
                f"Links lead to folders that are listed already: {_named(self._refused)}",
                hint=f"Files are listed once: leave out such a link by `exclude: [{first + '/'!r}]`, or its folder.",
                source=self._url,
                object=first,
            )

    def _refusal(self, problem: str, *, hint: str, folder: str) -> SourceError:
        shown = folder if len(folder) <= _SHOWN else folder[:_SHOWN] + "…"
        return SourceError(problem, hint=hint, source=self._url, object=shown)


def require_regular(mode: int, key: str, url: str) -> None:
    """Refuse a pipe, a socket or a device.

    `mode` is as in stat(2).

    Raises:
        SourceError: The file is none that holds bytes.
    """
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
        kind = kinds.get(stat.S_IFMT(mode), "special file")
        hint = "Leave it out by `exclude:`, or remove it."
        raise SourceError(f"{key!r} is no file but a {kind}", hint=hint, source=url, object=key)


def _named(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
