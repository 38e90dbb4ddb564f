"""Leases that can't be written or read: a claim is never taken for none."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import LeaseKind, write_reserved
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CacheError, NoSpace

DIGEST = "sha256:" + "0" * 64


def test_a_lease_that_cannot_be_read_is_not_taken_for_none(cache: Cache) -> None:
    cache.views.publish("things", DIGEST, [])
    pin = cache.leases.pin("things", DIGEST)
    unreadable = cache.layout.leases / pin.id
    unreadable.unlink()
    unreadable.mkdir()  # reading it fails, as on a disk that does
    assert pin.id in collect(cache.layout).unreadable[0].problem
    with pytest.raises(CacheError):
        cache.leases.live()
    assert cache.views.path("things", DIGEST)


def test_a_version_that_is_pinned_twice_has_one_pin(cache: Cache) -> None:
    first = cache.leases.pin("things", DIGEST, "by ada")
    assert cache.leases.pin("things", DIGEST, "by bob") == first
    with ThreadPoolExecutor(8) as pool:
        pins = set(pool.map(lambda _: cache.leases.pin("others", DIGEST, "by all"), range(32)))
    assert len({pin.id for pin in pins}) == 1
    assert len(cache.leases.live()) == 2
    assert cache.leases.unpin("things", DIGEST) == 1


def test_a_pin_of_an_earlier_release_is_the_one_pin(cache: Cache) -> None:
    old = {"id": "0" * 32, "kind": "pin", "dataset": "things", "digest": DIGEST, "what": "by ada", "pid": 71}
    (cache.layout.leases / ("0" * 32)).write_text(json.dumps({**old, "since": stamp(now()), "reserved": "0"}))
    lease = cache.leases.pin("things", DIGEST, "by bob")
    assert (lease.what, lease.pid) == ("by ada", 0)
    assert cache.leases.unpin("things", DIGEST) == 1


def test_a_pin_that_was_cut_off_is_written_anew(cache: Cache) -> None:
    pin = cache.leases.pin("things", DIGEST, "by ada")
    os.truncate(cache.layout.leases / pin.id, 10)
    assert cache.leases.live() == []
    assert cache.leases.pin("things", DIGEST, "by bob").what == "by bob"
    assert len(cache.leases.live()) == 1


def test_a_pin_that_cannot_be_made_durable_is_none(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CacheError, match="write a pin"):
        cache.leases.pin("flights", "sha256:" + "1" * 64)
    assert cache.leases.live() == []
    assert list(cache.layout.leases.iterdir()) == []


def test_a_lease_for_which_there_is_no_room_leaves_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace), cache.leases.hold(LeaseKind.WRITER, "things"):
        pass
    assert list(cache.layout.leases.iterdir()) == []
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


HOLDER = """
import sys
from pathlib import Path
from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import LeaseKind
with Cache.open(Path(sys.argv[1])).leases.hold(LeaseKind.READER, "things", sys.argv[2], "elsewhere"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by(cache: Cache, *under: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a version, perhaps under a command that puts it somewhere else."""
    holder = subprocess.Popen(
        [*under, sys.executable, "-c", HOLDER, cache.root, DIGEST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=30)


def test_a_lease_says_who_holds_what_since_when(cache: Cache) -> None:
    cache.views.publish("things", DIGEST, [])
    before = stamp(now())
    with held_by(cache) as holder:
        (lease,) = cache.leases.live()
        assert (lease.kind, lease.dataset, lease.digest, lease.what) == ("reader", "things", DIGEST, "elsewhere")
        assert lease.pid == holder.pid
        assert before <= lease.since <= stamp(now())
    assert cache.leases.live() == []


@pytest.mark.parametrize("moment", [0, 2**31, 2**33], ids=["1970", "2038", "2242"])
def test_no_clock_decides_whether_a_lease_lives(cache: Cache, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Neither the holder's clock, nor the collector's, nor the times of the files."""
    cache.views.publish("things", DIGEST, [])
    with held_by(cache):
        (path,) = cache.layout.leases.iterdir()
        os.utime(path, (moment, moment))
        text = path.read_text()
        path.write_text(text.replace(json.loads(text)["since"], stamp(datetime.fromtimestamp(moment, UTC))))
        monkeypatch.setattr("time.time", lambda: float(moment))
        assert collect(cache.layout).versions == ()
    assert collect(cache.layout).versions == (f"things@{DIGEST}",)


def test_a_fork_goes_on_reading_when_its_parent_is_killed(cache: Cache) -> None:
    """As the workers of a data loader: what they inherited is held until the last one ends."""
    cache.views.publish("things", DIGEST, [])
    orphan = 'import os; os.fork() and os.kill(os.getpid(), 9); print("held", flush=True)'
    script = HOLDER.replace('print("held", flush=True)', orphan)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, cache.root, DIGEST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    assert parent.stdin
    assert parent.stdout.readline() == "held\n"
    assert parent.wait(timeout=30) == -signal.SIGKILL
    assert collect(cache.layout).versions == ()
    parent.stdin.close()
    assert parent.stdout.read() == ""  # the child ended
    assert collect(cache.layout).versions == (f"things@{DIGEST}",)


@pytest.mark.system
@pytest.mark.parametrize(
    "under",
    [
        pytest.param(("unshare", "--pid", "--fork", "--kill-child"), id="another PID namespace"),
        pytest.param(("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"), id="one with a /proc of its own"),
        pytest.param(
            ("unshare", "--time", "--boottime", "100000000", "--fork", "--kill-child"), id="another boot time"
        ),
    ],
)
def test_a_lease_is_seen_from_another_namespace(cache: Cache, under: tuple[str, ...]) -> None:
    cache.views.publish("things", DIGEST, [])
    with held_by(cache, *under):
        assert [lease.what for lease in cache.leases.live()] == ["elsewhere"]
        assert collect(cache.layout).versions == ()
    # The holder is in a namespace whose first process was killed with the group: wait for its lock to go.
    for _ in range(300):
        if not cache.leases.live():
            break
        time.sleep(0.1)
    assert collect(cache.layout).versions == (f"things@{DIGEST}",)


@pytest.mark.system
def test_a_collector_in_another_namespace_sees_a_lease(cache: Cache) -> None:
    cache.views.publish("things", DIGEST, [])
    command = [str(Path(sys.executable).with_name("stagegate")), "gc", "--json", "--cache", str(cache.root)]
    with cache.leases.hold(LeaseKind.READER, "things", DIGEST, "here"):
        result = subprocess.run(["unshare", "--pid", "--fork", *command], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["versions"] == []


def test_ls_tells_who_holds_what(cache: Cache, run_stagegate: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "No lease or pin is held on this node" in run_stagegate("ls", "--held").stdout
    cache.views.publish("things", DIGEST, [])
    cache.leases.pin("things", DIGEST, "pinned by ada")
    with held_by(cache) as holder, cache.leases.hold(LeaseKind.WRITER, "others", purpose="stage") as writer:
        write_reserved(cache.layout.leases / writer.id, writer, 12_345)
        text = run_stagegate("ls", "--held").stdout
        listed = json.loads(run_stagegate("ls", "--held", "--json").stdout)
        (other,) = json.loads(run_stagegate("ls", "others", "--held", "--json").stdout)
        assert other["what"] == "stage"
    assert {(line["kind"], line["pid"], line["digest"], line["reserved"]) for line in listed} == {
        ("pin", 0, DIGEST, 0),
        ("reader", holder.pid, DIGEST, 0),
        ("writer", os.getpid(), "", 12_345),
    }
    assert all(line["since"] for line in listed)
    for words in ("reader", "pinned by ada", "12.3 kB", DIGEST, str(holder.pid)):
        assert words in text
    (pin,) = (line for line in text.splitlines() if line.startswith("pin"))
    assert str(os.getpid()) not in pin.split()
    assert "pid" not in str(next(lease for lease in cache.leases.live() if lease.kind is LeaseKind.PIN))
