"""What lies where in a node's cache.

    <root>/
      CACHEDIR.TAG                  so that backups leave the cache out
      format                        `stagegate-cache 1`; written last, so a folder with it is complete
      blobs/<aa>/<blake3>           the bytes of one entry, 0444; immutable, never truncated, never reused
      ingest/<claim>                bytes on their way in, 0600, claimed by flock; views are built here too
      ingest/<claim>.parts          journal of verified parts, for objects of several parts only
      ingest/view-<id>              a draft of a view, locked by its maker; its links hold blobs
      ingest/arriving-<sha256>/     what readers want of a version that is fetched, and what failed; see `arrivals.py`
      ingest/unsynced-<boot>-<id>   is there while blobs of a writer are not synced
      views/<dataset>/<sha256>/…    appears by one rename: the renamed directory is complete
      views/<dataset>/<sha256>.sealed   since when the view's files are those of its version
      refs/<dataset>/<ref>          the node's copy of a ref, with a line `suspended` while its newest entry is unproved
      leases/<id>                   held by flock for as long as its holder lives
      leases/<id>.progress          what a writer has done so far; nothing rests on it
      quarantine/<blake3>-<id>      a rotten blob, with a record beside it; the folder is made for the first one
      trash/<unique>                renamed here under a lock, unlinked after
      index.sqlite                  pin → digest, where verification goes on, and jobs' counters; disposable, rebuilt
                                    when it is lost
      volumes                       a random id, which the node's record names

Where a group shares the cache (its root is 2770), folders are 2770 too, files that others of the group read are 0640,
and the index is 0660.

The tree is the truth. All of it is on one volume, so that renames and hard links work between the folders.
Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.durable import make_folder, read_file, sync_folder, write_file
from prefect_stagegate.errors import CacheError, NoSpace

FORMAT = "stagegate-cache 1\n"
PRIVATE_DIR = 0o700
PRIVATE_FILE = 0o600
READ_ONLY_FILE = 0o444
GROUP_DIR = 0o2770
"""A folder of a cache that a group shares: members may remove what others put there."""
GROUP_FILE = 0o640
"""A file that only its maker writes, and others of the group read."""
GROUP_WRITABLE_FILE = 0o660

ONLY_READABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
"""The errors of writing to a read-only volume, or to a folder of somebody else."""
_FOLDERS = ("blobs", "ingest", "views", "refs", "leases", "trash")
TAG = "CACHEDIR.TAG"
CACHE_ID = "volumes"
_FILES = (TAG, "format", "index.sqlite", "index.sqlite-journal", "lost+found", "quarantine", CACHE_ID)
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of prefect-stagegate; see https://bford.info/cachedir/\n"
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")

SMALL_FILE = 1 << 20
"""The most bytes of a file of the cache that is read whole: of its format, ids, refs, leases and quarantine."""
CHOOSE_ANOTHER = "Choose another folder with --cache or STAGEGATE_CACHE."


class Layout:
    """The paths of one cache, as drawn above. `open` makes sure that they exist.

    Attributes:
        shared: Whether a group shares it: the root has the setgid bit, and its group may write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shared = False
        self.blobs = root / "blobs"
        self._blobs = str(self.blobs)
        self.ingest = root / "ingest"
        self.views = root / "views"
        self.refs = root / "refs"
        self.leases = root / "leases"
        self.quarantine = root / "quarantine"
        self.trash = root / "trash"
        self.index = root / "index.sqlite"

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Layout:
        """Open the cache at `root`, and make it when there is none and `create` is set.

        A complete cache is opened without writing, so that one on a read-only volume can be read. Missing folders are
        made again, where the volume can be written.

        Raises:
            CacheError: `root` holds something else or a newer format, is absent, or can't be read or made.
        """
        # Not by resolve(), which would follow the user's links.
        layout = cls(Path(os.path.abspath(root.expanduser())))  # noqa: PTH100
        with explained("open the cache", layout.root):
            if not layout._check_format():
                if not create:
                    raise CacheError(f"There is no cache at {layout.root}", hint=CHOOSE_ANOTHER)
                layout._make()
            # Also for a cache that was made just now: its folder may have been somebody else's, and empty.
            layout._check_trust()
            layout.shared = _is_shared(layout.root)
            # A cache on a read-only volume can still be read, as far as it is there.
            try:
                layout.restore()
            except OSError as error:
                if error.errno not in ONLY_READABLE:
                    raise
            return layout

    def restore(self) -> None:
        """Make the folders that are missing: a backup or rsync may leave empty ones out.

        Raises:
            OSError: They can't be made.
        """
        for name in _FOLDERS:
            folder = self.root / name
            if not os.path.lexists(folder):
                folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
                self.share(folder, GROUP_DIR)

    @staticmethod
    def entries(folder: Path) -> Iterator[Path]:
        """The entries of a folder of the cache; none where it is missing and could not be made."""
        with suppress(FileNotFoundError):
            yield from folder.iterdir()

    def share(self, place: Path | str | int, mode: int) -> None:
        """Give the group of a shared cache its rights to a file or folder of this user, whatever the umask is."""
        if self.shared:
            with suppress(PermissionError):  # somebody else's, who gave these rights
                os.chmod(place, mode)  # noqa: PTH101 - may be a descriptor

    def _check_format(self) -> bool:
        """Whether there is a cache of this format at the root."""
        try:
            text = read_file(self.root / "format", SMALL_FILE)
        except FileNotFoundError:
            return False
        if text != FORMAT.encode():
            # Without a word of the file, which may be anybody's.
            raise CacheError(
                f"The cache at {self.root} has another format than {FORMAT.strip()!r}, which this release reads",
                hint="Upgrade prefect-stagegate, or choose another folder with --cache or STAGEGATE_CACHE.",
            )
        return True

    def _check_trust(self) -> None:
        """Refuse a cache where somebody untrusted could put data.

        Its folders must belong to this user or to root. Whoever shares a cache sets the setgid bit of its root: then
        members of the root's group trust its owner, and each other where the group may write.
        """
        root = self.root.stat()
        trusted = {0, os.geteuid()}
        if os.geteuid() == 0 or (root.st_mode & stat.S_ISGID and root.st_gid in {os.getegid(), *os.getgroups()}):
            trusted.add(root.st_uid)
        folders = [self.root / name for name in (*_FOLDERS, "quarantine")]
        for folder in (self.root, *filter(os.path.lexists, folders)):
            status = root if folder == self.root else folder.lstat()
            # A link could lead to a folder where somebody else puts data.
            if not stat.S_ISDIR(status.st_mode):
                raise CacheError(
                    f"{folder} is not a folder of the cache, but a link or a file",
                    hint="Find out who put it there, and remove it. " + CHOOSE_ANOTHER,
                )
            if status.st_mode & stat.S_IWOTH:
                raise CacheError(
                    f"Everybody may write to {folder}, and so put data there that others would train on",
                    hint=f"Run `chmod o-w {folder}`, then look for changed files with `stagegate verify`.",
                )
            if status.st_uid not in trusted:
                raise CacheError(
                    f"{folder} belongs to the user {status.st_uid}, who may put any data there",
                    hint="Its owner can share it with a group: `chgrp GROUP` and `chmod g+s` on the cache's folder. "
                    + CHOOSE_ANOTHER,
                )

    def _make(self) -> None:
        make_folder(self.root, PRIVATE_DIR)
        strangers = sorted({*os.listdir(self.root)} - {*_FOLDERS, *_FILES})  # noqa: PTH208 - names alone
        if strangers:
            raise CacheError(
                f"{self.root} is not empty and not a cache: it holds {strangers[0]!r}",
                hint="A cache deletes what it doesn't need, so it needs a folder of its own. " + CHOOSE_ANOTHER,
            )
        self.shared = _is_shared(self.root)
        self.restore()
        # Written before the cache has content, so that no backup ever begins to copy it.
        (self.root / TAG).write_text(_TAG_TEXT)
        # `format` comes last: a folder with it is a complete cache. Two processes that make one cache at once write the
        # same, and each rename leaves it complete.
        draft = self.ingest / f"format-{uuid.uuid4().hex}"
        write_file(draft, FORMAT.encode())
        self.share(draft, GROUP_FILE)
        draft.rename(self.root / "format")
        sync_folder(self.root)

    def blob(self, digest: str) -> Path:
        """The path of a blob, as by `blob_path`."""
        return Path(self.blob_path(digest))

    def blob_path(self, digest: str) -> str:
        """The path of the blob `blake3:<hex>` as text: a `Path` for each object would cost as much as a system call.

        Raises:
            CacheError: `digest` is not a BLAKE3 digest, and nothing else may become a path here.
        """
        if not _DIGEST.fullmatch(digest):
            raise CacheError(
                f"{digest!r} is not the digest of an entry", hint="An entry's digest is blake3: and 64 hex digits."
            )
        return f"{self._blobs}/{digest[7:9]}/{digest[7:]}"

    def view(self, dataset: str, digest: str) -> Path:
        """The path of the view of the version `sha256:<hex>`."""
        return self.views / dataset / digest.removeprefix("sha256:")

    def ref(self, dataset: str, ref: str) -> Path:
        """The path of the node's copy of a ref."""
        return self.refs / dataset / ref

    def identity(self) -> str:
        """The random id of the cache, made at the first call.

        Raises:
            CacheError: It can't be read or made.
        """
        path, scratch = self.root / CACHE_ID, self.ingest / f"id-{uuid.uuid4().hex}"
        with explained("identify this node's cache", self.root):
            if not path.exists():
                write_file(scratch, uuid.uuid4().hex.encode())
                self.share(scratch, GROUP_FILE)
                # A link never replaces the id that another process wrote first.
                with suppress(FileExistsError):
                    os.link(scratch, path)
                scratch.unlink()
                sync_folder(self.root)
            return read_file(path, SMALL_FILE).decode(errors="replace").strip()

    def discard(self, path: Path) -> Path:
        """Move `path` into the trash by one rename and return its new path. The caller unlinks it, outside of locks."""
        target = self.trash / uuid.uuid4().hex
        path.rename(target)
        return target


def _is_shared(root: Path) -> bool:
    mode = root.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.EROFS: ("the volume is read-only", CHOOSE_ANOTHER),
    errno.EACCES: ("permission denied", "Make the folder writable for this user. " + CHOOSE_ANOTHER),
    errno.EPERM: ("permission denied", "Make the folder writable for this user. " + CHOOSE_ANOTHER),
    errno.ENOTDIR: ("a part of the path is a file", CHOOSE_ANOTHER),
    errno.EIO: ("the volume reports an input/output error", "Check the disk (dmesg), then run `stagegate verify`."),
    errno.EFBIG: ("the file is larger than the volume or the process may write", "Check `ulimit -f` and the volume."),
    errno.ELOOP: ("a symbolic link is in its place", "Find out who put it there, and remove it."),
    errno.EMFILE: ("too many files are open", "Raise `ulimit -n`."),
}


def cache_error(error: OSError, doing: str, path: Path | str) -> CacheError:
    """The typed error for an `OSError` that came up while `doing` something (`write the blob`) at `path`."""
    if error.errno in _NO_SPACE:
        return NoSpace(
            f"Could not {doing} at {path}: no space left on the volume",
            hint="Run `stagegate gc`, free some space, or choose a larger volume with --cache or STAGEGATE_CACHE.",
        )
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return CacheError(f"Could not {doing} at {path}: {reason}", hint=hint)


@dataclass(slots=True)
class explained(AbstractContextManager[object]):  # noqa: N801 - a statement; a generator would cost each object more
    """Turn an `OSError` of the block into a `CacheError` or `NoSpace` that says what to do."""

    doing: str
    path: Path | str

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise cache_error(error, self.doing, self.path) from error
