"""SFTP servers whose folders have no end, or no names: the listing ends with what to do."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.plugins.sftp.event_loop_thread import EventLoopThread
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.sources.walk import DEEPEST
from prefect_stagegate.testing.sources import listed


class Serving(asyncssh.SFTPServer):
    """asyncssh's own server for a folder of this machine."""

    def __init__(self, chan: Any, root: Path) -> None:
        super().__init__(chan, chroot=bytes(root))


class Endless(asyncssh.SFTPServer):
    """A server where each folder holds folders of the same names."""

    def __init__(self, chan: Any, names: Iterator[bytes] | tuple[bytes, ...]) -> None:
        super().__init__(chan)
        self._names = names

    async def realpath(self, path: bytes) -> bytes:
        """The path as it is."""
        return path

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """A folder, whatever the path."""
        del path
        return _folder()

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """The same in each folder."""
        del path
        for name in self._names:
            yield asyncssh.SFTPName(name, attrs=_folder())


def _folder() -> asyncssh.SFTPAttrs:
    return asyncssh.SFTPAttrs(size=0, permissions=stat.S_IFDIR | 0o755, atime=0, mtime=0)


class Everybody(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        """Let everybody in."""
        del username
        return False


@contextmanager
def sftp(tmp_path: Path, factory: Any, most: int = 1000) -> Iterator[Source]:
    key, loop = asyncssh.generate_private_key("ssh-ed25519"), EventLoopThread("sftp server")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Everybody, server_host_keys=[key], sftp_factory=factory
        )

    listener = loop.run(listen())
    known = tmp_path / "known_hosts"
    port = listener.get_port()
    known.write_bytes(f"[127.0.0.1]:{port} ".encode() + key.export_public_key())
    source = open_source(f"sftp://me@127.0.0.1:{port}/data/", {"known_hosts": str(known)}, most=most)
    try:
        yield source
    finally:
        source.close()
        loop.run(_closed(listener))
        loop.close()


async def _closed(listener: asyncssh.SSHAcceptor) -> None:
    listener.close()
    await asyncio.wait_for(listener.wait_closed(), 5)


def test_sftp_folders_without_end_are_told(tmp_path: Path) -> None:
    with sftp(tmp_path, partial(Endless, names=(b"again",)), most=5000) as source:
        with pytest.raises(SourceError, match=f"deeper than {DEEPEST} names") as caught:
            list(source.list())
        assert "exclude" in caught.value.hint
        assert list(source.list(GlobFilter(exclude=("again/",)))) == []


def test_sftp_folders_that_multiply_are_told(tmp_path: Path) -> None:
    with (
        sftp(tmp_path, partial(Endless, names=(b"a", b"b", b"c"))) as source,
        pytest.raises(SourceError, match="more files and folders than 1000"),
    ):
        list(source.list())


def test_an_sftp_folder_that_never_ends_is_told(tmp_path: Path) -> None:
    names = (b"%d" % number for number in count())
    with (
        sftp(tmp_path, partial(Endless, names=names)) as source,
        pytest.raises(SourceError, match="more files and folders than 1000"),
    ):
        list(source.list())


@pytest.mark.parametrize("name", [b"", b"a/b", b"../up", b"nul\0"])
def test_an_sftp_name_that_is_none_is_told(tmp_path: Path, name: bytes) -> None:
    with (
        sftp(tmp_path, partial(Endless, names=(name,))) as source,
        pytest.raises(SourceError, match="no valid name of a file or folder"),
    ):
        list(source.list())


def test_sftp_links_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "served" / "data"
    (root / "folder").mkdir(parents=True)
    (root / "folder/a.bin").write_bytes(b"1")
    (root / "again").symlink_to("folder")
    (root / "loop").symlink_to("loop")
    (root / "link.bin").symlink_to("folder/a.bin")
    with sftp(tmp_path, partial(Serving, root=tmp_path / "served")) as source:
        with pytest.raises(SourceError, match=r"can't be followed: .*links.* object loop") as caught:
            list(source.list())
        assert not caught.value.retryable
        (root / "folder/up").symlink_to("..")
        with pytest.raises(SourceError, match="listed already: again -> folder") as caught:
            list(source.list(GlobFilter(exclude=("loop",))))
        assert set(listed(source, GlobFilter(exclude=("loop", "again/")))) == {"folder/a.bin", "link.bin"}
        assert set(listed(source, GlobFilter(exclude=("loop", "folder/")))) == {"again/a.bin", "link.bin"}
        assert set(listed(source, GlobFilter(("*.bin",), ("folder/**",)))) == {"again/a.bin", "link.bin"}
