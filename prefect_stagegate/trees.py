"""Walking a tree of folders without recursion, no deeper than this package makes trees.

Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

DEEPEST = 300
"""The deepest nesting of folders. Paths in a dataset have at most 256 segments, and few folders above them."""


def walk_folders(
    root: Path, *, skip: type[OSError] = FileNotFoundError
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of a tree with its entries, parents before children. Links are not followed.

    Args:
        root: The folder to begin with.
        skip: Errors to ignore for folders below the root, which may have been removed meanwhile.

    Raises:
        OSError: A folder can't be read, or the tree is deeper than any that this package makes.
    """
    folders = [(os.fspath(root), 0)]
    while folders:
        folder, depth = folders.pop()
        if depth > DEEPEST:
            message = f"{root} holds folders in folders deeper than {DEEPEST} names, and no dataset does"
            raise OSError(errno.ENAMETOOLONG, message, folder)
        try:
            with os.scandir(folder) as scan:
                # Read to its end and closed, so that a deep tree does not keep a descriptor open for each level.
                entries = list(scan)
        except skip:
            if depth:
                continue
            raise
        yield folder, entries
        folders += [(entry.path, depth + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
