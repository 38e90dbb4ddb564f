"""The further volumes of a node: cache folders beside its home, on other disks or in memory.

    <home>/volumes          a random id, which the node's record and the further volumes name
    <volume>/volume         the id of the home whose refs say what the volume keeps

A volume without its home's id is never used: its collection would take what another home's refs name.
Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from prefect_stagegate.cache import Cache, MissingVolume
from prefect_stagegate.cache.layout import GROUP_FILE, HOME_ID, SMALL_FILE, VOLUME_OF, Layout, explained
from prefect_stagegate.durable import read_file, sync_folder, write_file
from prefect_stagegate.errors import CacheError
from prefect_stagegate.mounts import MEMORY, mount_of


def open_volumes(home: Cache, folders: Iterable[Path], *, create: bool = True) -> None:
    """Open the further volumes of a node. One that can't be used is named in `home.missing`, and stops no other.

    Call it again to notice what was mounted or lost since.

    Args:
        home: The cache with the node's refs.
        folders: The other volumes' folders. A folder on a disk must exist; one in memory is made.
        create: Whether to make caches of folders that are none yet; else they count as missing.
    """
    known = {volume.root: volume for volume in home.further}
    further, missing = [], []
    for folder in folders:
        try:
            layout = _open(home, folder, create=create)
        except CacheError as error:
            missing.append(MissingVolume(folder, error.message))
        else:
            # The same object as before, so that running jobs and this call agree on what is held.
            further.append(known.get(layout.root) or Cache(layout, home.durability, home))
    home.further, home.missing = tuple(further), tuple(missing)


def _open(home: Cache, folder: Path, *, create: bool) -> Layout:
    with explained("open the volume", folder):
        # Under the mount point of a disk that isn't mounted, a cache would fill the disk of the mount point.
        if not folder.is_dir() and not (create and mount_of(folder.parent)[0] in MEMORY):
            raise CacheError(
                f"There is no folder {folder}", hint="Mount its disk. On a new one, make the folder: `mkdir -m 700`."
            )
    layout = Layout.open(folder, create=create, refs=home.layout.refs)
    with explained("read whose volume it is", layout.root):
        owner = _id(layout.root / VOLUME_OF)
        if create and not owner:
            if any(Layout.entries(layout.views)) or any(Layout.entries(layout.root / "refs")):
                raise CacheError(f"{folder} is a cache with versions and refs of its own")
            owner = _write_id(layout, VOLUME_OF, home_id(home))
        is_ours = owner and owner == _id(home.layout.root / HOME_ID)
    if not is_ours:
        raise CacheError(f"{folder} is not a volume of {home.root}, but of another cache, or of none")
    return layout


def home_id(home: Cache) -> str:
    """The random id of a node's cache, made at the first call. The further volumes and the node's record name it."""
    with explained("identify this node's cache", home.root):
        return _id(home.layout.root / HOME_ID) or _write_id(home.layout, HOME_ID, uuid.uuid4().hex)


def _id(path: Path) -> str:
    try:
        return read_file(path, SMALL_FILE).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _write_id(layout: Layout, name: str, text: str) -> str:
    """Create the file with an id; where another process created it first, read its id."""
    scratch = layout.ingest / f"id-{uuid.uuid4().hex}"
    write_file(scratch, text.encode())
    layout.share(scratch, GROUP_FILE)
    try:
        # A link never replaces the id that another process wrote first.
        os.link(scratch, layout.root / name)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
    sync_folder(layout.root)
    return _id(layout.root / name)
