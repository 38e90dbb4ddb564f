"""Bounds of a walk over a source's folders, for every source that has folders.

A tree of folders may have no end: links lead back, and a server may name what it likes. So a walk goes to a bounded
depth, looks at a bounded number of entries, and enters a folder once where folders can be told apart.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Hashable, Sequence

from prefect_stagegate.errors import SourceError
from prefect_stagegate.manifest import DEPTH

DEEPEST = 4 * DEPTH
"""Names of a path at most. What is deeper than a path in a dataset may be is still listed, so that it can be named."""
ENTRIES = 10_000_000
"""Files and folders that one walk looks at, unless the caller says otherwise."""
NAMED = 20
"""Links that are named together."""
_SHOWN = 200
"""Characters of a folder's key that an error shows."""

log = logging.getLogger(__name__)


class Walk:
    """One walk over the folders of a source.

    Keys of folders end with a slash; the source's own is empty.

    Args:
        url: The source, for errors.
        most: Files and folders that it may look at, wanted or not.
    """

    def __init__(self, url: str, most: int = ENTRIES) -> None:
        self._url, self._most = url, most
        self._entries = 0
        self._entered: set[Hashable] = set()
        self._left_out: list[str] = []
        self._refused: list[str] = []

    @property
    def left(self) -> int:
        """How many more entries it may look at."""
        return self._most - self._entries

    def count(self, entries: int, folder: str) -> None:
        """Count what the listing of a folder named.

        Raises:
            SourceError: There are more than it may look at.
        """
        self._entries += entries
        if self._entries > self._most:
            raise self._refusal(
                f"The source has more files and folders than {self._most}",
                hint="Leave folders out by `exclude:`, or set STAGEGATE_MAX_ENTRIES higher if it is that large.",
                folder=folder,
            )

    def key(self, folder: str, name: str) -> str:
        """Count one entry of a folder, and give its key.

        Raises:
            SourceError: Its name is none that a file or folder can have, or there are too many.
        """
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise self._refusal(
                f"The listing names {name!r}, which no file or folder can have",
                hint="Leave the folder out by `exclude:`, or tell whoever runs the server.",
                folder=folder,
            )
        self.count(1, folder)
        return folder + name

    def enter(self, folder: str) -> None:
        """Require that a folder may be listed.

        Raises:
            SourceError: It lies too deep.
        """
        if folder.count("/") >= DEEPEST:
            raise self._refusal(
                f"Folders lie in folders deeper than {DEEPEST} names, perhaps without end",
                hint="Leave the folder out by `exclude:`.",
                folder=folder,
            )

    def enter_once(self, identity: Hashable, folder: str) -> bool:
        """Whether a folder is entered for the first time in this walk; `note_again` has others named.

        Args:
            identity: What tells the real folder from others.
            folder: The key by which it is met.

        Raises:
            SourceError: It lies too deep.
        """
        if identity in self._entered:
            return False
        self.enter(folder)
        self._entered.add(identity)
        return True

    def note_again(self, folder: str, real: str, root: str, above: str, *, by_path: bool) -> None:
        """Have `end` name a way to a folder that was entered by another one.

        Args:
            folder: The key of this way.
            real: The real path of the folder.
            root: That of the source's own folder.
            above: That of the folder in which this way begins.
            by_path: Whether somebody may want the folder's files by this very way.
        """
        leads_to = posixpath.relpath(real, root)
        is_loop = posixpath.commonpath((real, above)) == real
        (self._refused if by_path and not is_loop else self._left_out).append(f"{folder.rstrip('/')} -> {leads_to}")

    def end(self) -> None:
        """Log the ways to folders that were left out, and refuse those by which files may be wanted.

        Raises:
            SourceError: There is a second way to a folder, so that it is not clear by which name its files are wanted.
        """
        if self._left_out:
            told = "%s: links lead to folders that are listed already, and are not followed: %s"
            log.warning(told, self._url, _some(self._left_out))
        if self._refused:
            first = self._refused[0].partition(" -> ")[0]
            raise SourceError(
                f"Links lead to folders that are listed already: {_some(self._refused)}",
                hint=f"Files are listed once: leave out such a link by `exclude: [{first + '/'!r}]`, or its folder.",
                source=self._url,
                object=first,
            )

    def _refusal(self, problem: str, *, hint: str, folder: str) -> SourceError:
        shown = folder if len(folder) <= _SHOWN else folder[:_SHOWN] + "…"
        return SourceError(problem, hint=hint, source=self._url, object=shown)


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
