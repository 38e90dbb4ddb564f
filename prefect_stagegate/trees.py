"""Walking a tree of folders that this package made: without a call within a call, no deeper than it makes them.

Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

DEEPEST = 300
"""Folders in folders at most. Paths in a dataset have 256 names at most, and little stands above them."""


def walk_folders(
    root: Path, *, skip: type[OSError] = FileNotFoundError
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of a tree, those above before those below, with what lies in it. Links are not followed.

    Args:
        root: The folder to begin with.
        skip: Errors of folders below it that are passed over: they may have gone meanwhile.

    Raises:
        OSError: A folder can't be read, or the tree is deeper than any that this package makes.
    """
    folders = [(os.fspath(root), 0)]
    while folders:
        folder, depth = folders.pop()
        if depth > DEEPEST:
            told = f"{root} holds folders in folders deeper than {DEEPEST} names, and no dataset does"
            raise OSError(errno.ELOOP, told, folder)
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except skip:
            if depth:
                continue
            raise
        yield folder, entries
        folders += [(entry.path, depth + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
