"""SFTP against the contract and what else users of OpenSSH expect, on rclone's server and on OpenSSH's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncssh
import pytest
from sshfs import SSHFileSystem

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    SourceError,
    SourceUnavailable,
    UsageError,
)
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import SourceObject
from prefect_stagegate.plugins.sftp.client import SftpConnection
from prefect_stagegate.plugins.sftp.connection import Login
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.sources.adapter import read_pieces
from prefect_stagegate.testing.sources import BYTES, Place, SourceContract, listed, read
from tests.plugins.sftp.ssh import SshServer, rclone_sftp, sshd, write_key
from tests.support.waiting import eventually

NOBODY = "sftp://127.0.0.1:1/data/"
OLD = (1_000_000_000, 1_000_000_000)
"""Times of access and change, in seconds since the epoch."""
Served = tuple[SshServer, Path, str]
"""A server, the folder of this machine that it serves, and that folder's URL."""


def _write(root: Path, key: str, data: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(data)


def _place(served: Served, lacks: str = "") -> Place:
    server, root, url = served
    denied = {**server.options, "key_filename": str(server.folder / "stranger")}
    put, remove = partial(_write, root), lambda key: (root / key).unlink()
    return Place(
        url,
        server.options,
        put=put,
        remove=remove,
        denied=denied,
        anonymous={name: value for name, value in server.options.items() if name != "key_filename"},
        lacks=lacks,
        unreachable=(NOBODY, server.options),
    )


@contextmanager
def _by_rclone(folder: Path) -> Iterator[Served]:
    root = folder / "data"
    root.mkdir()
    with rclone_sftp(folder / "server", folder) as server:
        yield server, root, server.url("/data/")


@contextmanager
def _by_openssh(folder: Path) -> Iterator[Served]:
    root = folder / "data"
    root.mkdir()
    with sshd(folder / "server") as server:
        yield server, root, server.url(f"{root}/")


@contextmanager
def _opened(url: str, options: dict[str, str], *, idle: float = 30.0) -> Iterator[Source]:
    source = open_source(url, options, idle=idle)
    try:
        yield source
    finally:
        source.close()


class TestRclone(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with _by_rclone(tmp_path) as served:
            yield _place(served, lacks="\n\t")  # rclone shows pictures of them instead


@pytest.mark.system
class TestOpenSsh(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with _by_openssh(tmp_path) as served:
            yield _place(served)


@pytest.fixture(params=[_by_rclone, pytest.param(_by_openssh, marks=pytest.mark.system)], ids=["rclone", "openssh"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with request.param(tmp_path) as server:
        yield server


@pytest.fixture
def openssh(tmp_path: Path) -> Iterator[Served]:
    with _by_openssh(tmp_path) as server:
        yield server


def test_a_host_key_that_is_not_known_is_refused(served: Served, tmp_path: Path) -> None:
    server, _, url = served
    assert _naive(server).ls(urlsplit(url).path) == []  # it asks for nobody's key
    (tmp_path / "empty").touch()
    with (
        _opened(url, {**server.options, "known_hosts": str(tmp_path / "empty")}) as source,
        pytest.raises(SourceError, match="is not known") as caught,
    ):
        list(source.list())
    assert not caught.value.retryable
    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in caught.value.hint


def test_a_host_key_that_changed_is_refused(served: Served, tmp_path: Path) -> None:
    server, _, url = served
    write_key(tmp_path / "other")
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}")
    with (
        _opened(url, {**server.options, "known_hosts": str(known)}) as source,
        pytest.raises(SourceError, match="is not the one in") as caught,
    ):
        list(source.list())
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in caught.value.hint


def test_host_key_of_another_algorithm_counts_as_changed(served: Served, tmp_path: Path) -> None:
    server, _, url = served
    asyncssh.generate_private_key("ecdsa-sha2-nistp256").write_public_key(tmp_path / "other.pub")
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}")
    with (
        _opened(url, {**server.options, "known_hosts": str(known)}) as source,
        pytest.raises(SourceError, match="is not the one in"),
    ):
        list(source.list())


def test_no_configuration_switches_the_look_at_host_keys_off(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, url = served
    _home(tmp_path, monkeypatch, "StrictHostKeyChecking no\nUserKnownHostsFile none\n")
    options = {name: value for name, value in server.options.items() if name != "known_hosts"}
    with _opened(url, options) as source, pytest.raises(SourceError, match="is not known"):
        list(source.list())
    with pytest.raises(UsageError, match="holds a password"):
        open_source("sftp://me:secret@127.0.0.1/")


def test_the_users_configuration_is_honoured(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    user, key = f"User {server.user}", f"IdentityFile {server.folder}/user"
    lines = f"HostName 127.0.0.1\nPort {server.port}\nUserKnownHostsFile {server.folder}/known_hosts"
    _home(tmp_path, monkeypatch, f"Host nas\n{lines}\n{user}\n{key}\n")
    with _opened(url.replace(f"127.0.0.1:{server.port}", "nas"), {}) as source:
        assert read(source, source.find("a.bin")) == BYTES


@pytest.mark.system
def test_other_hosts_on_the_way_are_passed_and_verified(
    openssh: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root, url = openssh
    _write(root, "a.bin", BYTES)
    known, port = f"{server.folder}/known_hosts", server.port
    _home(tmp_path, monkeypatch, f"Host far\nHostName 127.0.0.1\nPort {port}\nProxyJump 127.0.0.1:{port}\n")
    far = url.replace(f"127.0.0.1:{port}", "far")
    with _opened(far, {**server.options, "known_hosts": known}) as source:
        assert read(source, source.find("a.bin")) == BYTES
    (tmp_path / "none").touch()
    with (
        _opened(far, {**server.options, "known_hosts": str(tmp_path / "none")}) as source,
        pytest.raises(SourceError, match="is not known"),
    ):
        list(source.list())


def test_a_range_is_a_range_and_a_large_file_comes_in_order(served: Served) -> None:
    server, root, url = served
    data = os.urandom(5_000_001)
    _write(root, "large", data)
    assert _naive(server).cat_file(f"{urlsplit(url).path}large", start=1, end=2) == data
    with _opened(url, server.options) as source:
        obj = source.find("large")
        for start, end in ((0, len(data)), (1, 2), (261_119, 1_300_000), (len(data) - 1, len(data)), (7, 7)):
            assert read(source, obj, start, end) == data[start:end] == _filled(source, obj, start, end)


def test_many_threads_fill_their_buffers_at_once(served: Served) -> None:
    server, root, url = served
    data = os.urandom(20_000_001)
    _write(root, "large", data)
    ranges = [(start, min(start + 1_500_000, len(data))) for start in range(0, len(data), 1_500_000)]
    with _opened(url, server.options) as source, ThreadPoolExecutor(16) as pool:
        obj = source.find("large")
        assert b"".join(pool.map(lambda ends: _filled(source, obj, *ends), ranges)) == data


def test_a_file_that_changes_between_two_reads_is_found(served: Served) -> None:
    with _begun(served) as (large, rest):
        with large.open("r+b") as file:
            file.write(b"changed")
        with pytest.raises(ObjectChanged) as caught:
            rest()
    assert caught.value.object == "large"


def test_a_file_that_is_replaced_between_two_reads_is_found(served: Served) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    os.utime(root / "a.bin", OLD)
    with _opened(url, server.options) as source:
        obj = source.find("a.bin")
        _filled(source, obj, 0, 10)
        _write(root, "new", BYTES[::-1])
        (root / "new").rename(root / "a.bin")
        with pytest.raises(ObjectChanged):
            _filled(source, obj, 10, obj.size)


@pytest.mark.system
@pytest.mark.parametrize("change", [b"cut", b"appended"])
def test_a_file_that_is_cut_or_grows_in_its_second_is_found(openssh: Served, change: bytes) -> None:
    with _begun(openssh) as (large, rest):
        if change == b"cut":
            os.truncate(large, large.stat().st_size - 1)
        else:
            with large.open("ab") as file:
                file.write(change)
        os.utime(large, OLD)
        with pytest.raises(ObjectChanged):
            rest()


@pytest.mark.system
def test_links_inside_are_followed_and_those_outside_refused(openssh: Served, tmp_path: Path) -> None:
    server, root, url = openssh
    _write(root, "folder/a.bin", BYTES)
    _write(tmp_path, "secret", b"secret")
    (root / "folder/round").symlink_to("..")
    (root / "link.bin").symlink_to("folder/a.bin")
    with _opened(url, server.options) as source:
        assert set(listed(source)) == {"folder/a.bin", "link.bin"}
        (root / "out").symlink_to(tmp_path / "secret")
        with pytest.raises(SourceError, match="leads out of the source") as caught:
            list(source.list())
        assert caught.value.object == "out"
        keys = {obj.key for obj in source.list(lambda key: key != "out")}
        assert keys == {"folder/a.bin", "link.bin"}


@pytest.mark.system
def test_odd_names_hide_no_other(openssh: Served) -> None:
    server, root, url = openssh
    (root / "a.bin").write_bytes(BYTES)
    for name in (b"new\nline", b"not-\xff-utf8", b"star*[x]", b"-dash"):
        with open(os.path.join(os.fsencode(root), name), "wb") as file:  # noqa: PTH118, PTH123 - bytes
            file.write(BYTES)
    os.mkfifo(root / "pipe")
    with _opened(url, server.options) as source:
        objects = {obj.key: obj for obj in source.list(lambda key: key != "pipe")}
        assert set(objects) == {"a.bin", "new\nline", "not-\udcff-utf8", "star*[x]", "-dash"}
        assert all(read(source, obj) == BYTES for obj in objects.values())
        with pytest.raises(SourceError, match="no file but a pipe"):
            list(source.list())


@pytest.mark.system
def test_a_file_without_rights_is_named() -> None:
    somebody = "" if os.geteuid() else "nobody"  # root may read everything
    with tempfile.TemporaryDirectory() as name:  # a folder of pytest's is closed to others
        folder = Path(name)
        folder.chmod(0o755)
        _write(folder, "data/a.bin", BYTES)
        _write(folder, "data/b.bin", BYTES)
        (folder / "data/a.bin").chmod(0)
        with (
            sshd(folder / "server", user=somebody) as server,
            _opened(server.url(f"{folder}/data/"), server.options) as source,
        ):
            assert read(source, source.find("b.bin")) == BYTES
            with pytest.raises(AccessDenied) as caught:
                read(source, source.find("a.bin"))
    assert caught.value.object == "a.bin"


def test_a_password_comes_from_a_block_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "data", "a.bin", BYTES)
    with rclone_sftp(tmp_path / "server", tmp_path, password="a-long-password") as server:
        options, url = server.options, server.url("/data/")
        del options["key_filename"]
        with _opened(url, {**options, "password": "a-long-password"}) as source:
            assert read(source, source.find("a.bin")) == BYTES
        with _opened(url, {**options, "password": "a-wrong-one"}) as source, pytest.raises(AccessDenied) as caught:
            source.find("a.bin")
        assert "a-wrong-one" not in str(caught.value)
        monkeypatch.setenv("SSHPASS", "a-long-password")
        with _opened(url, options) as source:
            assert read(source, source.find("a.bin")) == BYTES


@pytest.mark.system
def test_the_agent_opens_what_its_keys_open(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    _home(tmp_path, monkeypatch, "")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    options = {name: value for name, value in server.options.items() if name != "key_filename"}
    with _opened(url, options) as source, pytest.raises(AccessDenied, match="of the agent") as caught:
        list(source.list())
    assert "ssh -v" in caught.value.hint
    with _agent(tmp_path, server.folder / "user") as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent)
        with _opened(url, options) as source:
            assert read(source, source.find("a.bin")) == BYTES


def test_a_lost_connection_is_told_and_the_next_read_has_another(tmp_path: Path) -> None:
    root = tmp_path / "data"
    _write(root, "large", bytes(20_000_000))
    with rclone_sftp(tmp_path / "server", tmp_path) as server, _relay(server.port) as (port, cut):
        known = tmp_path / "known"
        known.write_text((server.folder / "known_hosts").read_text().replace(str(server.port), str(port)))
        options = {**server.options, "known_hosts": str(known)}
        with _opened(f"sftp://127.0.0.1:{port}/data/", options) as source:
            obj = source.find("large")
            chunks = read_pieces(source, obj, 0, obj.size)
            next(chunks)
            cut()
            with pytest.raises(SourceUnavailable) as caught:
                list(chunks)
            assert caught.value.retryable
            assert caught.value.object == "large"
            assert read(source, obj) == bytes(20_000_000)


def test_a_server_that_stands_still_is_given_up(served: Served) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    with _opened(url, server.options, idle=1.0) as source:
        obj = source.find("a.bin")
        with _stopped(server), pytest.raises(SourceUnavailable, match="no response for 1 seconds"):
            read(source, obj)
        assert read(source, obj) == BYTES


def test_every_read_of_a_stalled_server_ends_with_the_reason(served: Served) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)

    def failure(source: Source, obj: SourceObject) -> str:
        with pytest.raises(SourceUnavailable) as caught:
            read(source, obj)
        return str(caught.value)

    with _opened(url, server.options, idle=1.0) as source, ThreadPoolExecutor(4) as pool:
        obj = source.find("a.bin")
        with _stopped(server):
            failures = list(pool.map(partial(failure, source), [obj] * 4))
        assert all("no response for 1 seconds" in text for text in failures)
        assert read(source, obj) == BYTES


def test_nothing_is_left_behind(served: Served) -> None:
    server, root, url = served
    for number in range(40):
        _write(root, f"{number}.bin", BYTES)
    before = set(threading.enumerate())
    with _opened(url, server.options) as source:
        objects = list(source.list())
        chunks = read_pieces(source, objects[0], 0, objects[0].size)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        assert len(objects) == 40
    assert set(threading.enumerate()) <= before
    with pytest.raises(SourceError, match="closed"):
        list(source.list())
    sockets = _sockets()
    forgotten = open_source(url, server.options)
    assert len(listed(forgotten)) == 40
    assert len(_sockets() - sockets) > 0
    del forgotten
    assert set(threading.enumerate()) <= before
    assert _sockets() <= sockets


def test_source_closed_while_connecting_leaves_no_connection(served: Served) -> None:
    server, _, url = served
    sockets = _sockets()
    with ThreadPoolExecutor(1) as pool, _stopped(server), _opened(url, server.options) as source:
        pending = pool.submit(source.find, "a.bin")
        while len(_sockets() - sockets) < 3:  # two wake the loop
            time.sleep(0.01)
        source.close()
        assert pending.exception()
    assert _sockets() <= sockets


def test_read_cancelled_while_connecting_leaves_one_connection(served: Served) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    sockets = _sockets()
    with _opened(url, server.options) as source:
        with (
            _stopped(server),
            _interrupt(lambda: len(_sockets() - sockets) >= 3),  # two wake the loop
            pytest.raises(Interrupted),
        ):
            source.find("a.bin")
        assert read(source, source.find("a.bin")) == BYTES
        assert source._source._connection.connections == 1  # type: ignore[attr-defined]
        assert len(_sockets() - sockets) == 3
    assert _sockets() <= sockets


def test_an_interrupted_read_ends_soon_and_writes_no_more(served: Served) -> None:
    server, root, url = served
    _write(root, "large", bytes(range(1, 251)) * 120_000)
    with _opened(url, server.options) as source:
        obj, buffer = source.find("large"), bytearray(30_000_000)
        with _interrupt(lambda: any(buffer[:: 1 << 15])), pytest.raises(Interrupted):
            source.read_into(obj, 0, memoryview(buffer))
        filled = bytes(buffer)
        assert read(source, obj, 0, 10) == filled[:10]  # the server answers in turn: all that was asked for has come
        assert buffer == filled


def test_closing_ends_reads_that_wait(served: Served) -> None:
    server, root, url = served
    _write(root, "a.bin", BYTES)
    with _opened(url, server.options) as source, ThreadPoolExecutor(4) as pool:
        obj = source.find("a.bin")
        with _stopped(server):
            reads = [pool.submit(_filled, source, obj, 0, obj.size) for _ in range(4)]
            while len(asyncio.all_tasks(source._source._loop._loop)) < 4:  # type: ignore[attr-defined]
                time.sleep(0.01)
            begun = time.monotonic()
            source.close()
            assert all(isinstance(waiting.exception(), SourceError) for waiting in reads)
            assert time.monotonic() - begun < 2.5


def test_losing_one_connection_keeps_the_one_being_opened() -> None:
    async def give_up() -> bool:
        connection = SftpConnection(Login.of(NOBODY, {}), 30.0, ())
        attempt, lost = (asyncio.ensure_future(connection._open()) for _ in range(2))
        connection._opening = attempt
        connection._forget(lost)
        assert all(
            isinstance(error, SourceError) for error in await asyncio.gather(attempt, lost, return_exceptions=True)
        )
        return connection._opening is attempt

    assert asyncio.run(give_up())


def test_all_reads_share_one_connection(served: Served) -> None:
    server, root, url = served
    for number in range(40):
        _write(root, f"{number}.bin", BYTES)
    with _opened(url, server.options) as source, ThreadPoolExecutor(32) as pool:
        assert set(pool.map(partial(read, source), source.list())) == {BYTES}
        assert source._source._connection.connections == 1  # type: ignore[attr-defined]


@pytest.mark.system
def test_processes_read_by_a_connection_each(openssh: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, root, url = openssh
    for number in range(200):
        _write(root, f"{number}.bin", BYTES[number:])
        os.utime(root / f"{number}.bin", OLD)

    def connected() -> int:
        return (server.folder / "server.log").read_text().count("Accepted publickey")

    def read_late(*given: Any) -> Iterator[Any]:
        eventually(lambda: connected() == 2, 60)  # this process leaves some to the other one, which takes long to begin
        return read_pieces(*given)

    monkeypatch.setattr("prefect_stagegate.transport.transfer.whole.read_pieces", read_late)
    monkeypatch.setattr("prefect_stagegate.transport.transfer.transfer_engine.SHARED_OBJECTS", 20)
    monkeypatch.setenv("STAGEGATE_PROCESSES", "2")
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    staged = stage(workspace, _spec("served", url, server.options))
    assert connected() == 2
    assert staged.digest == stage(workspace, _spec("local", str(root), {})).digest


def _spec(dataset: str, url: str, options: dict[str, str]) -> dict[str, Any]:
    return {"stagegate": 1, "dataset": dataset, "sources": [{"url": url, "options": options}]}


@pytest.mark.system
def test_server_that_drops_connections_is_not_overrun(openssh: Served) -> None:
    server, root, url = openssh
    _write(root, "a.bin", BYTES)
    assert asyncio.run(_channels(server)) == 10
    with _opened(url, server.options) as source, ThreadPoolExecutor(60) as pool:
        obj = source.find("a.bin")
        assert set(pool.map(lambda _: read(source, obj), range(60))) == {BYTES}
    with ExitStack() as several:  # a connection for each read, as naive clients have it
        clients = [several.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(60)]
        assert not all(client.recv(4) == b"SSH-" for client in clients)


async def _channels(server: SshServer) -> int:
    """How many sessions the server lets into one connection."""
    options = server.options
    async with asyncssh.connect(
        "127.0.0.1",
        server.port,
        username=options["username"],
        client_keys=[options["key_filename"]],
        known_hosts=options["known_hosts"],
        config=(),
    ) as connection:
        for number in range(20):
            try:
                await connection.start_sftp_client()
            except asyncssh.ChannelOpenError:
                return number
    return 20


def _naive(server: SshServer) -> SSHFileSystem:
    """The client that fsspec's users have."""
    options = server.options
    return SSHFileSystem(
        "127.0.0.1",
        port=server.port,
        username=options["username"],
        client_keys=[options["key_filename"]],
        skip_instance_cache=True,
    )


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="'known_host' is no option") as caught:
        open_source("sftp://nas/", {"known_host": "x"})
    assert "known_hosts" in caught.value.hint


@contextmanager
def _agent(folder: Path, key: Path) -> Iterator[str]:
    """An agent of OpenSSH's that has one key; gives its socket."""
    address = str(folder / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL) as process:
        while not Path(address).exists():
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": address}, check=True)
        yield address
        process.terminate()


def _home(folder: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    """Give the user a home of his own, with this `~/.ssh/config`."""
    (folder / "home/.ssh").mkdir(parents=True)
    (folder / "home/.ssh/config").write_text(config)
    monkeypatch.setenv("HOME", str(folder / "home"))


@contextmanager
def _begun(served: Served) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """A large file whose time is `OLD` and whose first half was read, and what reads the other."""
    server, root, url = served
    _write(root, "large", bytes(8_000_000))
    os.utime(root / "large", OLD)
    with _opened(url, server.options) as source:
        obj = source.find("large")
        _filled(source, obj, 0, 4_000_000)
        yield root / "large", lambda: _filled(source, obj, 4_000_000, obj.size)


def _filled(source: Any, obj: SourceObject, start: int, end: int) -> bytes:
    """A range, read into a buffer."""
    buffer = bytearray(end - start)
    source.read_into(obj, start, memoryview(buffer))
    return bytes(buffer)


class Interrupted(BaseException):
    """What a signal raises in the main thread."""


@contextmanager
def _interrupt(ready: Callable[[], bool]) -> Iterator[None]:
    """Interrupt this thread, the main one, as soon as something holds while the block runs."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def watch() -> None:
        while not ready():
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def _stopped(server: SshServer) -> Iterator[None]:
    """A server that stands still for as long as the block runs; the kernel goes on accepting connections for it."""
    stopped = _family(server.pid)
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        while not all(_stands_still(pid) for pid in stopped):
            time.sleep(0.01)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):  # it was about to end when it was stopped
                os.kill(pid, signal.SIGCONT)


def _sockets() -> set[str]:
    """The sockets that this process has open."""
    links = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.add(str(file.readlink()))
    return {link for link in links if link.startswith("socket:")}


def _stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped, or has ended and waits for a parent that is stopped."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    with suppress(FileNotFoundError, ProcessLookupError):
        return all(thread.read_text().rpartition(") ")[2].startswith(("T", "Z")) for thread in threads)
    return True


def _family(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # an earlier connection's, which has just ended
        return []
    return [pid, *(pid for child in children for pid in _family(int(child)))]


@contextmanager
def _relay(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Pass connections on to a port; the function that comes with it cuts those that are open."""
    listener, ends = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", port))
                ends.extend((client, server))
                for sender, other in ((client, server), (server, client)):
                    threading.Thread(target=_pass, args=(sender, other), daemon=True).start()

    def cut() -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()[1], cut
    cut()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
