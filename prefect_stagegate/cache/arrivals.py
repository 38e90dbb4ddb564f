"""A version that arrives: what its readers want first, and what the job that fetches it tells them.

    ingest/arriving-<sha256>           locked by the job that fetches the version
    ingest/arriving-<sha256>/started   locked by the process that a reader started for that
    ingest/arriving-<sha256>/log       what that process wrote
    ingest/arriving-<sha256>/wanted    lines of JSON, in the order of readers: {"path": …, "first": true}
    ingest/arriving-<sha256>/failed    what could not be fetched: {"": {"kind": …, "message": …}, "a/b.parquet": {…}}

Readers and the job meet here alone, so either may end at any time. Nothing rests on these files: what was fetched is a
blob, and blobs are proved before they are visible. A collection removes what nobody used for a day.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect_stagegate import errors
from prefect_stagegate.cache.layout import GROUP_DIR, GROUP_FILE, GROUP_WRITABLE_FILE, PRIVATE_DIR, Layout, explained
from prefect_stagegate.cache.leases import Holder, holder_of, is_locked
from prefect_stagegate.durable import read_file
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.redaction import redact

PREFIX = "arriving-"
MOST_WANTED = 64 << 20
"""Bytes of the wishes of all readers, at most; later ones are fetched in the order of the manifest. Half is kept for
files that somebody waits for."""
MOST_FAILED = 1 << 20
"""Bytes of the file of failures, at most."""
MOST_TEXT = 4000
"""Characters of each text of an error that is read from it, at most."""
LINE = 500
"""Bytes that an error quotes of what the process wrote last, at most."""
_TEXTS = ("message", "hint", "dataset", "source", "object")


class Arrival:
    """The folder of one version.

    Args:
        layout: The cache.
        digest: The version, `sha256:<hex>`.
    """

    def __init__(self, layout: Layout, digest: str) -> None:
        self._layout = layout
        self.folder = layout.ingest / f"{PREFIX}{digest.removeprefix('sha256:')}"
        self._started, self._wanted, self._failed = (self.folder / name for name in ("started", "wanted", "failed"))
        self._log = self.folder / "log"
        self._read = 0
        """Bytes of the wishes that were read."""

    # ---------------------------------------------------------------- a reader

    def want(self, paths: Iterable[str], *, first: bool) -> None:
        """Ask the job for files in this order: with `first` ahead of all wishes so far, else behind them.

        Raises:
            CacheError: The wish can't be written.
        """
        lines = "".join(f"{json.dumps({'path': path, 'first': first})}\n" for path in paths).encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Without the folder: the version has come meanwhile.
        with explained("ask for a file", self._wanted), suppress(FileNotFoundError):
            descriptor = os.open(self._wanted, flags, 0o600)
            try:
                self._layout.share(descriptor, GROUP_WRITABLE_FILE)
                if os.fstat(descriptor).st_size + len(lines) <= (MOST_WANTED if first else MOST_WANTED // 2):
                    os.write(descriptor, lines)  # one write, so that lines of several readers don't mix
            finally:
                os.close(descriptor)

    def start(self, run: Callable[[int], object]) -> bool:
        """Have `run` start a process that fetches the version, unless one does.

        `run` gets a descriptor that the process must inherit: its lock tells others that it lives.

        Raises:
            CacheError: The folder can't be written.
            OSError: `run` could not start it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with explained("start to fetch a version", self._started):
            self._layout.restore()
            self.folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
            self._layout.share(self.folder, GROUP_DIR)
            descriptor = os.open(self._started, flags, 0o600)
            self._layout.share(descriptor, GROUP_WRITABLE_FILE)
        try:
            if not _lock(descriptor) or _is_held(self.folder):
                return False
            self._failed.unlink(missing_ok=True)
            run(descriptor)
        finally:
            os.close(descriptor)
        return True

    @contextmanager
    def log(self) -> Iterator[int]:
        """An empty file for what the started process writes.

        Raises:
            OSError: It can't be made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._log, flags, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def last_line(self) -> str:
        """What the started process wrote last, without secrets; empty for nothing."""
        with suppress(OSError):
            lines = read_file(self._log, LINE, end=True).decode(errors="replace").strip().splitlines()
            return redact(lines[-1]) if lines else ""
        return ""

    def is_fetched(self) -> bool:
        """Whether a job fetches the version now, or was started to."""
        return _is_held(self.folder) or _is_held(self._started)

    def holder(self) -> Holder | None:
        """The process that fetches the version; None where there is none."""
        return holder_of(str(self.folder)) if _is_held(self.folder) else None

    def failure(self, path: str) -> StagegateError | None:
        """Why a file can't be had: its own failure, or what ended the job."""
        try:
            failed = json.loads(read_file(self._failed, MOST_FAILED))
            return next((_error(failed[name]) for name in (path, "") if name in failed), None)
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    # ---------------------------------------------------------------- the job

    @contextmanager
    def fetching(self) -> Iterator[bool]:
        """Lock the folder for the time of the block, where there is one; gives whether this job has it.

        Another job that fetches the version, too, shares the work by its claims on objects, and reads no wishes.

        Raises:
            CacheError: The folder can't be looked at.
        """
        descriptor = -1
        with explained("look for readers", self.folder), suppress(FileNotFoundError):
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if descriptor < 0:
            yield False
            return
        try:
            is_first = _lock(descriptor)
            if is_first:  # what an earlier job could not fetch, this one tries
                with suppress(OSError):
                    self._failed.unlink(missing_ok=True)
            yield is_first
        finally:
            os.close(descriptor)

    def wanted(self) -> Iterator[tuple[str, bool]]:
        """The wishes since the last call: each a path, and whether it goes first. Others than wishes are left out."""
        try:
            descriptor = os.open(self._wanted, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            unread = min(MOST_WANTED, os.fstat(descriptor).st_size) - self._read
            data = os.pread(descriptor, max(0, unread), self._read)
        finally:
            os.close(descriptor)
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                wish = json.loads(line)
                if isinstance(wish["path"], str):
                    yield wish["path"], wish["first"] is True

    def fail(self, failures: Mapping[str, StagegateError]) -> None:
        """Tell readers what can't be had, by path; under an empty path, what ends the job.

        Raises:
            OSError: It can't be written.
        """
        texts = {
            path: {"kind": errors.kind_of(error), **{name: getattr(error, name) for name in _TEXTS}}
            for path, error in failures.items()
        }
        new = self._failed.with_name("failed-new")
        new.unlink(missing_ok=True)
        with new.open("x") as file:  # a new file: another user of a shared cache may have put a link there
            file.write(json.dumps(texts))
        self._layout.share(new, GROUP_FILE)
        new.replace(self._failed)

    def end(self) -> None:
        """Remove the folder, once the version is complete."""
        with suppress(OSError):
            shutil.rmtree(self._layout.discard(self.folder))


def _lock(descriptor: int) -> bool:
    """Lock a file or folder; False where another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(lock: Path) -> bool:
    """Whether a process has the lock; False where there is none, or it can't be looked at."""
    with suppress(OSError):
        return is_locked(lock)
    return False


def _error(fields: Mapping[str, str]) -> StagegateError:
    """The error that the job met. Its kind is looked up in the tree of errors, so the file names no code."""
    kind = getattr(errors, fields["kind"], StagegateError)
    simple = isinstance(kind, type) and issubclass(kind, StagegateError) and kind.__init__ is StagegateError.__init__
    message, *_ = texts = [str(fields[name])[:MOST_TEXT] for name in _TEXTS]
    return (kind if simple else StagegateError)(message, **dict(zip(_TEXTS[1:], texts[1:], strict=True)))
