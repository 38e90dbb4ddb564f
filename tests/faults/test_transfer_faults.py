"""What a transfer does when a source, a mirror or the volume misbehaves: nothing wrong becomes visible, ever."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.ingest import PARTS, Claim
from prefect_stagegate.cache.space import Space, SpaceRules
from prefect_stagegate.errors import (
    AccessDenied,
    CacheError,
    Cancelled,
    ChecksumMismatch,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
    TransferFailed,
)
from prefect_stagegate.model import Action, Pin, PlannedObject, SourceObject
from prefect_stagegate.model.objects import Rehash, plan_object
from prefect_stagegate.transport.transfer import Limits, SourceGroup, retry, transfer
from prefect_stagegate.transport.transfer.progress import Progress
from tests.support.scripted import ScriptedSource, fetch_all
from tests.support.waiting import eventually

PART = 64 * 1024
LIMITS = Limits(in_flight=4, part=PART, memory=8 * PART)
"""Objects above 64 KiB have parts."""
SMALL, LARGE = os.urandom(1000), os.urandom(5 * PART + 77)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)


def digest(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def contents(cache: Cache) -> dict[str, bytes]:
    """Everything that can be seen in the cache, checked: each blob is what its name says and read-only."""
    blobs = {f"blake3:{path.name}": path for path in cache.layout.blobs.glob("*/*")}
    for name, path in blobs.items():
        assert digest(path.read_bytes()) == name
        assert path.stat().st_mode & 0o777 == 0o444
    return {name: path.read_bytes() for name, path in blobs.items()}


def failures(source: ScriptedSource, cache: Cache, *mirrors: ScriptedSource) -> tuple[StagegateError, ...]:
    with pytest.raises(TransferFailed) as caught:
        list(fetch_all(source, cache, *mirrors, limits=LIMITS))
    return caught.value.failures


@pytest.mark.parametrize("data", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
def test_a_source_that_fails_now_and_then_is_asked_again(cache: Cache, data: bytes) -> None:
    source = ScriptedSource({"a": data})
    source.failures.extend([SourceUnavailable("busy")] * 3)
    (receipt,) = fetch_all(source, cache, limits=LIMITS)
    assert (receipt.digest, receipt.fetched, receipt.proof) == (digest(data), len(data), "server")
    assert contents(cache) == {digest(data): data}


def test_an_error_that_will_not_pass_is_told_at_once(cache: Cache) -> None:
    source = ScriptedSource({"a": SMALL})
    source.failures.append(AccessDenied("no"))
    assert [type(failure) for failure in failures(source, cache)] == [AccessDenied]
    assert len(source.reads) == 1


def test_a_source_that_is_down_uses_up_its_budget_and_no_more(cache: Cache) -> None:
    source = ScriptedSource({f"{number:03}": SMALL for number in range(200)})
    source.failures.extend([SourceUnavailable("down")] * 10_000)
    limits = Limits(in_flight=4, retries=10)
    run = fetch_all(source, cache, limits=limits, max_failed=1000)
    assert list(run) == []
    assert len(run.stats.failures) == 200
    assert TransferFailed(run.stats.failures).retryable
    assert len(source.reads) == 200 + 10


def test_failed_objects_are_named_and_the_others_kept(cache: Cache) -> None:
    source = ScriptedSource({name: name.encode() * 50 for name in "abcdefgh"})
    planned = [
        PlannedObject(f"in/{source_object.key}", source_object, 0, Action.FETCH) for source_object in source.list()
    ]
    for gone in "bf":
        del source.objects[gone]
    run = transfer(planned, [SourceGroup(source)], cache, limits=LIMITS, max_failed=2)
    assert sorted(receipt.path for receipt in run) == ["in/a", "in/c", "in/d", "in/e", "in/g", "in/h"]
    assert sorted((failure.object, type(failure)) for failure in run.stats.failures) == [
        ("in/b", ObjectVanished),
        ("in/f", ObjectVanished),
    ]
    with pytest.raises(TransferFailed, match=r"(?s)2 objects could not be staged.*in/b.*"):
        list(transfer(planned, [SourceGroup(source)], cache, limits=LIMITS, max_failed=1))


def test_no_further_objects_are_started_when_too_many_failed(cache: Cache) -> None:
    source = ScriptedSource({f"{number:03}": SMALL for number in range(300)})
    source.failures.extend([AccessDenied("no")] * 300)
    assert len(failures(source, cache)) <= LIMITS.in_flight
    assert len(source.reads) <= 2 * LIMITS.in_flight


def test_object_that_changes_between_parts_restarts(cache: Cache) -> None:
    source, newer = ScriptedSource({"a": LARGE}), LARGE[::-1]

    def replace(_key: str, start: int, _end: int) -> None:
        if start >= 2 * PART:
            source.objects["a"] = newer

    source.on_read = replace
    (receipt,) = fetch_all(source, cache, limits=LIMITS)
    assert (receipt.digest, receipt.object.pin) == (digest(newer), source.find("a").pin)
    assert contents(cache) == {digest(newer): newer}


class WeaklyPinned(ScriptedSource):
    """Pins that stay when the content changes, as those of a file that is written twice within a second do."""

    modified: float | None = 1.0

    def find(self, key: str) -> SourceObject:
        source_object = super().find(key)
        return SourceObject(key, source_object.size, Pin("mtime", "1", "weak"), self.modified)


@pytest.mark.parametrize(
    ("age", "rehash", "goes_on"),
    [(60.0, "never", True), (0.0, "never", False), (60.0, "when_weak", False), (60.0, "always", False)],
)
def test_parts_kept_under_a_weak_pin_are_never_spliced(cache: Cache, age: float, rehash: Rehash, goes_on: bool) -> None:
    source, alone = WeaklyPinned({"a": LARGE}), Limits(in_flight=1, part=PART, memory=8 * PART)
    source.modified = float(int(time.time() - age))

    def planned() -> list[PlannedObject]:
        return [plan_object(source.find("a"), path="a", source=0, remembered=None, held=False, rehash=rehash)]

    def break_off(_key: str, start: int, _end: int) -> None:
        if start >= 2 * PART:
            raise SourceError("broken off", source=source.url)

    source.on_read = break_off
    with pytest.raises(TransferFailed):
        list(transfer(planned(), [SourceGroup(source)], cache, limits=alone))
    source.on_read = lambda *_: None
    before = len(source.reads)
    if not goes_on:
        source.objects["a"] = LARGE[::-1]
    (receipt,) = transfer(planned(), [SourceGroup(source)], cache, limits=alone)
    assert receipt.digest == digest(source.objects["a"])
    assert (len(source.reads) - before < 6) == goes_on


def test_an_object_that_never_stands_still_is_refused(cache: Cache) -> None:
    source = ScriptedSource({"a": LARGE})
    source.on_read = lambda key, _start, _end: source.objects.update({key: os.urandom(len(LARGE))})
    assert [type(failure) for failure in failures(source, cache)] == [ObjectChanged]
    assert contents(cache) == {}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_byte_that_flips_on_the_way_is_found_and_fetched_again(cache: Cache, data: bytes) -> None:
    source, spoilt = ScriptedSource({"a": data}), list[bool]()

    def flip(part: bytes) -> bytes:
        if spoilt:
            return part
        spoilt.append(True)
        return bytes([part[0] ^ 1]) + part[1:]

    source.spoil = flip
    (receipt,) = fetch_all(source, cache, limits=LIMITS)
    assert receipt.digest == digest(data)
    assert contents(cache) == {digest(data): data}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_bytes_that_stay_wrong_are_refused(cache: Cache, data: bytes) -> None:
    source = ScriptedSource({"a": data})
    source.spoil = lambda part: bytes([part[0] ^ 1]) + part[1:]
    (failure,) = failures(source, cache)
    assert isinstance(failure, ChecksumMismatch)
    assert "md5" in str(failure)
    assert contents(cache) == {}
    assert list(cache.layout.ingest.iterdir()) == []


def test_etag_that_the_source_disowns_as_md5_fails_nothing(cache: Cache) -> None:
    source = ScriptedSource({"a": SMALL})
    source.spoil = lambda _: SMALL[::-1]
    source.disowns_checksums = lambda listed: True  # type: ignore[method-assign]  # noqa: ARG005
    (receipt,) = fetch_all(source, cache, limits=LIMITS)
    assert (receipt.digest, receipt.proof) == (digest(SMALL[::-1]), "computed")


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", [lambda part: part[:-1], lambda part: part + b"!"], ids=["short", "long"])
def test_a_body_of_the_wrong_length_is_refused(cache: Cache, data: bytes, change: object) -> None:
    source = ScriptedSource({"a": data})
    source.spoil = change  # type: ignore[assignment]
    (failure,) = failures(source, cache)
    assert isinstance(failure, SourceError)
    assert contents(cache) == {}


def test_small_object_left_by_a_killed_stager_is_overwritten(cache: Cache) -> None:
    source = ScriptedSource({"a": SMALL})
    listed = source.find("a")
    claim = cache.blobs.claim(source.identity, listed.key, str(listed.pin), str(listed.size))
    assert claim
    os.pwrite(claim.file, os.urandom(3 * len(SMALL)), 0)
    os.close(claim.file)  # as a kill does
    list(fetch_all(source, cache, limits=LIMITS))
    assert contents(cache) == {digest(SMALL): SMALL}
    assert list(cache.layout.ingest.iterdir()) == []


def test_a_planned_digest_must_come_out(cache: Cache) -> None:
    source = ScriptedSource({"a": SMALL})
    planned = [PlannedObject("a", source.find("a"), 0, Action.FETCH, digest(b"something else"))]
    with pytest.raises(TransferFailed) as caught:
        list(transfer(planned, [SourceGroup(source)], cache, limits=LIMITS))
    assert isinstance(caught.value.failures[0], ChecksumMismatch)
    assert contents(cache) == {}


class TestMirrors:
    """A mirror stands in for a source that can't give an object, and is believed by content."""

    def test_a_mirror_gives_what_the_source_lost(self, cache: Cache) -> None:
        source, mirror = ScriptedSource({"a": LARGE}), ScriptedSource({"a": LARGE}, url="scripted://two/")
        planned = [PlannedObject("a", source.find("a"), 0, Action.FETCH)]
        source.objects.clear()
        (receipt,) = transfer(planned, [SourceGroup(source, [mirror])], cache, limits=LIMITS)
        assert (receipt.digest, receipt.proof, receipt.object) == (digest(LARGE), "server", planned[0].object)

    def test_a_mirror_with_other_bytes_is_not_believed(self, cache: Cache) -> None:
        source, mirror = ScriptedSource({"a": SMALL}), ScriptedSource({"a": SMALL[::-1]}, url="scripted://two/")
        source.failures.extend([AccessDenied("gone")])
        planned = [PlannedObject("a", source.find("a"), 0, Action.FETCH, digest(SMALL))]
        with pytest.raises(TransferFailed):
            list(transfer(planned, [SourceGroup(source, [mirror])], cache, limits=LIMITS))
        assert contents(cache) == {}

    def test_mirrors_are_tried_in_order(self, cache: Cache) -> None:
        source = ScriptedSource({"a": SMALL})
        empty, full = ScriptedSource({}, url="scripted://two/"), ScriptedSource({"a": SMALL}, url="scripted://three/")
        planned = [PlannedObject("a", source.find("a"), 0, Action.FETCH, digest(SMALL))]
        source.objects.clear()
        (receipt,) = transfer(planned, [SourceGroup(source, [empty, full])], cache, limits=LIMITS)
        assert (receipt.digest, receipt.proof) == (digest(SMALL), "manifest")

    def test_replaced_object_is_fetched_from_a_mirror(self, cache: Cache) -> None:
        source, mirror = ScriptedSource({"a": LARGE}), ScriptedSource({"a": LARGE}, url="scripted://two/")
        planned = [PlannedObject("a", source.find("a"), 0, Action.FETCH, digest(LARGE))]
        source.objects["a"] = LARGE[::-1]
        (receipt,) = transfer(planned, [SourceGroup(source, [mirror])], cache, limits=LIMITS)
        assert receipt.digest == digest(LARGE)
        assert contents(cache) == {digest(LARGE): LARGE}


def journals(cache: Cache) -> list[str]:
    return [str(path) for path in cache.layout.ingest.glob(f"*{PARTS}")]


@pytest.mark.parametrize(("planned", "later"), [(LARGE, b""), (SMALL, LARGE)], ids=["empty", "large"])
def test_an_object_is_read_by_the_size_that_it_has_now(cache: Cache, planned: bytes, later: bytes) -> None:
    """One that became empty has no part that could end it; one that became large is not held in memory."""
    source = ScriptedSource({"a": planned})
    source.on_read = lambda *_: source.objects.update(a=later)
    (receipt,) = fetch_all(source, cache, limits=LIMITS)
    assert receipt.digest == digest(later)
    assert max(end - start for _, start, end in source.reads) <= PART


class TestStopping:
    """Whoever stops a transfer waits less than two seconds, and the next run goes on from there."""

    def test_a_cancelled_transfer_stops_soon_and_goes_on_later(self, cache: Cache) -> None:
        source, cancel = ScriptedSource({"a": LARGE}), threading.Event()
        source.on_read = lambda _key, start, _end: cancel.set() if start >= 3 * PART else None
        limits = Limits(in_flight=1, part=PART, memory=8 * PART)
        with pytest.raises(Cancelled):
            list(fetch_all(source, cache, limits=limits, cancel=cancel))
        assert contents(cache) == {}
        source.reads.clear()
        source.on_read = lambda *_: None
        run = fetch_all(source, cache, limits=limits)
        (receipt,) = run
        assert sorted(start for _, start, _ in source.reads) == [3 * PART, 4 * PART, 5 * PART]
        assert (receipt.fetched, run.stats.resumed) == (2 * PART + 77, 3 * PART)
        assert contents(cache) == {digest(LARGE): LARGE}

    def test_stopped_run_releases_a_large_object_without_a_thread(self, cache: Cache) -> None:
        """The same process goes on with it, as a task's retry does."""
        source, cancel = ScriptedSource({"a": LARGE}), threading.Event()

        class Stopping(Progress):
            def moved(self, _size: int) -> None:
                cancel.set()

        limits = Limits(in_flight=1, part=PART, memory=8 * PART)
        with pytest.raises(Cancelled):
            list(fetch_all(source, cache, limits=limits, progress=Stopping(), cancel=cancel))
        assert [Claim.is_taken(journal.removesuffix(PARTS)) for journal in journals(cache)] == [False]
        (receipt,) = fetch_all(source, cache, limits=limits)
        assert receipt.digest == digest(LARGE)

    def test_a_source_that_hangs_holds_nobody_up(self, cache: Cache) -> None:
        source, cancel, never = ScriptedSource({"a": SMALL}), threading.Event(), threading.Event()

        def hang(*_: object) -> None:
            cancel.set()
            never.wait(20)

        source.on_read = hang
        begun = time.monotonic()
        with pytest.raises(Cancelled):
            list(fetch_all(source, cache, limits=LIMITS, cancel=cancel))
        assert time.monotonic() - begun < 2.5
        never.set()

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    def test_what_a_hanging_source_held_is_free_when_it_goes_on(self, cache: Cache, data: bytes) -> None:
        """The thread that was left behind has nobody to tell, and gives its claim up all the same."""
        source, cancel, released = ScriptedSource({"a": data}), threading.Event(), threading.Event()

        def hang(*_: object) -> None:
            cancel.set()
            released.wait(20)

        source.on_read = hang
        with pytest.raises(Cancelled):
            list(fetch_all(source, cache, limits=Limits(in_flight=1, part=PART, memory=2 * PART), cancel=cancel))
        released.set()
        ingest = cache.layout.ingest

        def is_free() -> bool:
            try:
                return not any(path.suffix != PARTS and Claim.is_taken(str(path)) for path in ingest.iterdir())
            except FileNotFoundError:  # it was given up between the two looks
                return False

        assert eventually(is_free, 20)
        source.on_read = lambda *_: None
        assert len(list(fetch_all(source, cache))) == 1

    def test_a_transfer_that_nobody_runs_opens_nothing(self, cache: Cache) -> None:
        before = set(Path("/proc/self/fd").iterdir())
        fetch_all(ScriptedSource({"a": SMALL}), cache).close()
        gc.collect()
        assert set(Path("/proc/self/fd").iterdir()) - before == set()

    def test_a_read_that_says_it_was_stopped_ends_the_transfer(self, cache: Cache) -> None:
        """The HTTP client says so when a defect ended it: nobody else has stopped the transfer."""
        source = ScriptedSource({"a": SMALL, "b": LARGE})
        source.failures.extend([Cancelled("The HTTP client was stopped")] * 20)
        with pytest.raises(Cancelled, match="HTTP client"):
            list(fetch_all(source, cache, limits=LIMITS))

    def test_whoever_takes_no_more_receipts_stops_the_transfer(self, cache: Cache) -> None:
        source = ScriptedSource({f"{number:05}": SMALL + bytes(number) for number in range(2000)})
        run = fetch_all(source, cache, limits=LIMITS)
        next(iter(run))
        run.close()
        count = len(source.reads)
        time.sleep(0.1)
        assert len(source.reads) == count < 2000
        assert not [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("stagegate-") and thread.name != "stagegate-http"
        ]

    def test_what_the_plan_raises_reaches_the_caller(self, cache: Cache) -> None:
        source = ScriptedSource({})
        with pytest.raises(ObjectVanished):
            list(transfer((source.find(key) for key in "x"), [], cache))  # type: ignore[misc]


class TestVolume:
    """A volume that can't take the bytes ends the transfer with one clear error."""

    def run(self, cache: Path, size: int, prepare: str) -> subprocess.CompletedProcess[str]:
        """Fetch one object of `size` bytes in a process of its own, after `prepare`."""
        program = f"""
import os, resource, sys, pathlib
from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.space import Space, SpaceRules
from prefect_stagegate.errors import StagegateError
from tests.support.scripted import ScriptedSource, fetch_all
from prefect_stagegate.transport.transfer import Limits
cache = Cache.open(pathlib.Path(sys.argv[1]))
{prepare}
source = ScriptedSource({{"a": os.urandom({size})}})
try:
    list(fetch_all(source, cache, limits=Limits(in_flight=4, part={PART}, memory={8 * PART})))
except StagegateError as error:
    print(type(error).__name__, error)
"""
        command = [sys.executable, "-c", program, str(cache)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @pytest.mark.parametrize("size", [len(SMALL), len(LARGE)], ids=["small", "large"])
    def test_a_file_that_may_not_grow_ends_the_transfer(self, cache: Cache, size: int) -> None:
        limit = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        limit += "cache.memory; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))"
        done = self.run(cache.root, size, limit)
        assert done.stdout.startswith("CacheError"), done
        assert "ulimit -f" in done.stdout
        assert contents(cache) == {}

    def test_volume_without_room_is_refused_before_any_fetch(self, cache: Cache) -> None:
        source = ScriptedSource({"a": LARGE})
        limits, space = Limits(in_flight=2, part=PART, memory=PART), Space(cache.layout, SpaceRules(floor=1.0))
        with pytest.raises(StagegateError) as caught:
            list(fetch_all(source, cache, space=space, limits=limits))
        assert type(caught.value).__name__ == "NoSpace"
        assert "stagegate gc" in caught.value.hint
        assert source.reads == []

    def test_a_cache_that_cannot_be_written_is_named(self, cache: Cache) -> None:
        if os.getuid() == 0:
            drop = "os.chmod(cache.root, 0o755); os.chmod(cache.layout.ingest, 0o555); os.setuid(65534)"
            for parent in cache.root.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        else:
            drop = "os.chmod(cache.layout.ingest, 0o555)"
        done = self.run(cache.root, len(SMALL), drop)
        cache.layout.ingest.chmod(0o700)
        assert done.stdout.startswith("CacheError"), done
        assert "permission denied" in done.stdout
        assert "--cache" in done.stdout

    def test_a_claim_that_cannot_be_removed_is_named_and_closed_once(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that is closed twice may be another thread's by then."""
        listed = next(ScriptedSource({"a": SMALL}).list())
        planned = PlannedObject("a", listed, 0, Action.FETCH, digest(SMALL))

        def found_meanwhile(*_: object) -> bool:
            (claim,) = cache.layout.ingest.iterdir()
            claim.unlink()
            claim.mkdir()  # so it can't be unlinked
            return True

        monkeypatch.setattr(cache.blobs, "holds", found_meanwhile)
        with pytest.raises(CacheError, match="remove a claim"):
            list(transfer([planned], [SourceGroup(ScriptedSource({"a": SMALL}))], cache, limits=LIMITS))
