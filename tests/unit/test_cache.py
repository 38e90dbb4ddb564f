import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.blob_verification import check_blob, verify_view
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.space import PAGE
from prefect_stagegate.errors import BlobVanished, CacheError, CorruptRecord
from prefect_stagegate.model import Entry

V1, V2, V3 = ("sha256:" + digit * 64 for digit in "123")


def put(cache: Cache, data: bytes) -> str:
    """Place a blob as the ingest would, without it."""
    digest = "blake3:" + blake3(data).hexdigest()
    path = cache.layout.blob(digest)
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
        path.chmod(0o444)
    return digest


def publish(cache: Cache, digest: str, files: dict[str, bytes]) -> list[Entry]:
    entries = [Entry(path, len(data), put(cache, data)) for path, data in sorted(files.items())]
    cache.views.publish("flights", digest, entries)
    return entries


def test_a_view_is_a_read_only_tree_of_links_to_blobs(cache: Cache) -> None:
    entries = publish(cache, V1, {"a.csv": b"one", "b/c/d.csv": b"two"})
    view = cache.views.path("flights", V1)
    assert view
    assert (view / "b/c/d.csv").read_bytes() == b"two"
    assert (view / "a.csv").stat().st_ino == cache.layout.blob(entries[0].digest).stat().st_ino
    for path in (view, view / "b", view / "b/c"):
        assert path.stat().st_mode & 0o777 == 0o555
    assert (view / "a.csv").stat().st_mode & 0o777 == 0o444
    assert list(cache.layout.ingest.iterdir()) == []


def test_the_same_bytes_are_stored_once(cache: Cache) -> None:
    publish(cache, V1, {"a": b"same", "b": b"same"})
    publish(cache, V2, {"c": b"same"})
    assert len(list(cache.layout.blobs.glob("*/*"))) == 1


def test_publishing_a_version_twice_is_harmless(cache: Cache) -> None:
    publish(cache, V1, {"a": b"one"})
    publish(cache, V1, {"a": b"one"})
    assert list(cache.views.all()) == [("flights", V1)]
    assert list(cache.layout.ingest.iterdir()) == []


def test_a_missing_blob_leaves_nothing_visible(cache: Cache) -> None:
    with pytest.raises(CacheError):
        cache.views.publish("flights", V1, [Entry("a", 1, "blake3:" + "0" * 64)])
    assert list(cache.views.all()) == []
    assert list(cache.layout.ingest.iterdir()) == []


def test_nobody_sees_a_view_before_it_is_complete(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    link, seen = os.link, list[list[tuple[str, str]]]()

    def watched(*names: Any, **how: Any) -> None:
        seen.append(list(cache.views.all()))
        link(*names, **how)

    monkeypatch.setattr(os, "link", watched)
    publish(cache, V1, {"a": b"one", "sub/b": b"two"})
    assert seen == [[], []]
    assert list(cache.views.all()) == [("flights", V1)]


def test_no_manifest_leads_out_of_its_view(cache: Cache, tmp_path: Path) -> None:
    digest = put(cache, b"evil")
    with pytest.raises(CacheError, match=r"segment"):
        cache.views.publish("flights", V1, [Entry("../../../planted", 4, digest)])
    assert not (tmp_path / "planted").exists()


def test_where_links_are_refused_files_are_copied_and_it_is_said(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr("os.link", refuse)
    entries = publish(cache, V1, {"a": b"one"})
    view = cache.views.path("flights", V1)
    assert view
    assert (view / "a").read_bytes() == b"one"
    assert (view / "a").stat().st_ino != cache.layout.blob(entries[0].digest).stat().st_ino
    assert (view / "a").stat().st_mode & 0o777 == 0o444
    assert "cloned or copied" in caplog.text


def test_a_ref_is_replaced_whole(cache: Cache) -> None:
    assert cache.refs.get("flights", "pilot") is None
    cache.refs.put("flights", "pilot", V1)
    with cache.layout.ref("flights", "pilot").open() as opened:
        cache.refs.put("flights", "pilot", V2)
        assert opened.read().strip() == V1  # who reads meanwhile gets one or the other
    assert cache.refs.of("flights") == {"pilot": V2}


@pytest.mark.parametrize("odd", [f"{V1}\nsuspended\n\x1b[2J", f"{V1}\nother", f"{V1}\n" * 40_000])
def test_copy_with_an_odd_second_line_is_damaged(cache: Cache, odd: str) -> None:
    cache.refs.put("flights", "pilot", V1)
    cache.layout.ref("flights", "pilot").write_text(odd)
    with pytest.raises((CorruptRecord, CacheError)) as raised:
        cache.refs.get("flights", "pilot")
    assert "\x1b" not in str(raised.value)


def test_a_lease_lives_as_long_as_its_process(cache: Cache) -> None:
    script = (
        "import sys; from pathlib import Path; from prefect_stagegate.cache import Cache\n"
        "from prefect_stagegate.cache.leases import LeaseKind\n"
        "with Cache.open(Path(sys.argv[1])).leases.hold(LeaseKind.READER, 'flights', sys.argv[2], 'training'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(cache.root), V1]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    assert [(lease.what, lease.pid) for lease in cache.leases.live()] == [("training", holder.pid)]
    holder.kill()
    holder.wait()
    assert cache.leases.live() == []


def test_collection_takes_what_no_ref_lease_or_pin_needs(cache: Cache) -> None:
    publish(cache, V1, {"a": b"old", "b": b"shared"})
    publish(cache, V2, {"a": b"new", "b": b"shared"})
    cache.refs.put("flights", "latest", V2)
    planned = collect(cache.layout, dry_run=True)
    assert (planned.versions, planned.blobs, planned.bytes) == ((f"flights@{V1}",), 1, PAGE)
    assert len(list(cache.views.all())) == 2
    assert collect(cache.layout) == planned
    assert list(cache.views.all()) == [("flights", V2)]
    assert len(list(cache.layout.blobs.glob("*/*"))) == 2
    assert list(cache.layout.trash.iterdir()) == []
    assert collect(cache.layout).versions == ()


def test_what_a_killed_job_left_is_foretold_as_gone(cache: Cache) -> None:
    for version, own in ((V1, b"one"), (V2, b"two"), (V3, b"three")):
        publish(cache, version, {"own": own, "shared": b"shared"})
    cache.views.discard("flights", V1)  # by a collection that was killed before it unlinked anything
    draft = cache.layout.view("flights", V2).rename(cache.layout.ingest / "view-0")
    os.utime(draft, (0, 0))
    cache.leases.pin("flights", V3, "pinned by ann")
    assert collect(cache.layout, dry_run=True).blobs == 2
    assert cache.leases.unpin("flights", V3) == 1
    assert (planned := collect(cache.layout, dry_run=True)).blobs == 4
    assert len(list(cache.layout.blobs.glob("*/*"))) == 4
    assert collect(cache.layout) == planned


def test_a_young_draft_of_a_killed_stager_is_named(cache: Cache) -> None:
    draft = cache.layout.ingest / "view-0"
    draft.mkdir()
    for dry_run in (True, False):
        (reason,) = collect(cache.layout, dry_run=dry_run).kept
        assert "ingest/view-0" in reason
        assert "60 s" in reason
    os.utime(draft, (0, 0))
    assert collect(cache.layout).kept == ()
    assert not draft.exists()
    with cache.views.draft() as live:
        live.hold(Entry("a", 3, put(cache, b"one")))
        assert collect(cache.layout).kept == ()


def test_leased_and_pinned_versions_stay(cache: Cache) -> None:
    publish(cache, V1, {"a": b"one"})
    publish(cache, V2, {"a": b"two"})
    cache.leases.pin("flights", V2, "pinned by ann")
    with cache.leases.hold(LeaseKind.READER, "flights", V1, "training"):
        kept = collect(cache.layout)
        assert kept.versions == ()
        assert any("training" in reason for reason in kept.kept)
    assert collect(cache.layout).versions == (f"flights@{V1}",)
    assert cache.leases.unpin("flights", V2) == 1
    assert collect(cache.layout).versions == (f"flights@{V2}",)


def test_what_a_writer_fetched_is_held_by_its_draft(cache: Cache) -> None:
    fetched, counted_on = put(cache, b"just fetched"), put(cache, b"found here")
    with cache.views.draft() as draft:
        draft.hold(Entry("a", 12, fetched))
        assert (collect(cache.layout, dry_run=True).blobs, collect(cache.layout).blobs) == (1, 1)
        assert cache.layout.blob(fetched).exists()
        with pytest.raises(BlobVanished, match="collection removed them"):
            draft.publish("flights", V1, [Entry("a", 12, fetched), Entry("b", 10, counted_on)])
    assert list(cache.views.all()) == []
    assert list(cache.layout.ingest.iterdir()) == []
    assert collect(cache.layout).blobs == 1


def test_where_links_are_refused_blobs_stay_while_a_writer_lives(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, b"just fetched")
    monkeypatch.setattr("prefect_stagegate.cache.gc.takes_links", lambda _: False)
    with cache.leases.hold(LeaseKind.WRITER, "flights"):
        assert (collect(cache.layout, dry_run=True).blobs, collect(cache.layout).blobs) == (0, 0)
    assert collect(cache.layout).blobs == 1


def test_a_draft_stays_for_as_long_as_its_maker_lives(cache: Cache) -> None:
    with cache.views.draft() as draft:
        draft.hold(Entry("a", 3, put(cache, b"one")))
        (folder,) = cache.layout.ingest.iterdir()
        os.utime(folder, (0, 0))
        collect(cache.layout)
        assert folder.exists()
    left = cache.layout.ingest / "view-left-by-a-killed-one"
    left.mkdir()
    collect(cache.layout)
    assert left.exists()  # it may have been made just now, and not be locked yet
    os.utime(left, (0, 0))
    collect(cache.layout)
    assert not left.exists()


def test_least_recently_used_versions_are_evicted_first(cache: Cache) -> None:
    publish(cache, V1, {"a": b"1" * 100, "shared": b"s" * 50})
    publish(cache, V2, {"a": b"2" * 100, "shared": b"s" * 50})
    publish(cache, V3, {"a": b"3" * 100})
    for age, version in enumerate((V2, V1, V3)):
        os.utime(cache.layout.view("flights", version), (age, age))
    candidates = []

    def may_go(dataset: str, digest: str) -> bool:
        candidates.append(digest)
        return digest != V2

    assert collect(cache.layout, dry_run=True, may_go=may_go).bytes == 2 * PAGE
    candidates.clear()
    collected = collect(cache.layout, enough=1, may_go=may_go)
    assert (collected.versions, collected.bytes, candidates) == ((f"flights@{V1}",), PAGE, [V2, V1])
    cache.views.touch("flights", V2)
    assert collect(cache.layout, enough=PAGE + 1).versions == (f"flights@{V3}", f"flights@{V2}")
    assert list(cache.layout.blobs.glob("*/*")) == []


def test_view_links_the_blob_that_replaced_a_held_one(cache: Cache) -> None:
    """A verification moved the rotten one aside, and a repair fetched it again."""
    entries = [Entry(name, len(name), put(cache, name.encode())) for name in ("a", "b", "c", "d")]
    cache.layout.quarantine.mkdir()
    with cache.views.draft() as draft:
        for entry in entries:
            draft.hold(entry)
        for entry in (entries[0], entries[2]):
            cache.layout.blob(entry.digest).rename(cache.layout.quarantine / entry.path)
            put(cache, entry.path.encode())
        view = draft.publish("flights", V1, entries)
    for entry in entries:
        assert (view / entry.path).samefile(cache.layout.blob(entry.digest))
    assert not (view / "c").samefile(cache.layout.quarantine / "c")


def test_held_blob_excuses_no_path_out_of_the_view(cache: Cache) -> None:
    held = [Entry(name, len(name), put(cache, name.encode())) for name in ("a", "b")]
    outside = Entry(f"../../{cache.layout.blob(held[0].digest).relative_to(cache.layout.root)}", 1, held[0].digest)
    with cache.views.draft() as draft:
        for entry in held:
            draft.hold(entry)
        with pytest.raises(CacheError, match="can't be in a view"):
            draft.publish("flights", V1, [*held, outside])


def test_version_of_a_live_writer_stays_before_a_ref_names_it(cache: Cache) -> None:
    publish(cache, V1, {"a": b"one"})
    with cache.leases.hold(LeaseKind.WRITER, "flights"):
        assert collect(cache.layout).versions == ()
    with cache.leases.hold(LeaseKind.WRITER, "others"):
        assert collect(cache.layout).versions == (f"flights@{V1}",)


def test_a_ref_that_is_being_written_is_not_taken_for_a_stray(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def collect_meanwhile(scratch: Path, target: Path) -> Path:
        collect(cache.layout)
        return replace(scratch, target)

    monkeypatch.setattr(Path, "replace", collect_meanwhile)
    cache.refs.put("flights", "pilot", V1)
    assert cache.refs.get("flights", "pilot") == V1


def test_forked_child_s_end_keeps_its_parent_s_lease(cache: Cache) -> None:
    publish(cache, V1, {"a": b"one"})
    with cache.leases.hold(LeaseKind.READER, "flights", V1):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            assert collect(cache.layout).versions == ()
    if not child:
        os._exit(0)


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs"])
def test_nothing_is_collected_where_remote_locks_are_not_seen(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    publish(cache, V1, {"a": b"one"})
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nnas:/x {tmp_path.resolve()} {kind} rw 0 0\n")
    monkeypatch.setattr("prefect_stagegate.mounts.MOUNTS", mounts)
    with pytest.raises(CacheError, match=kind):
        collect(cache.layout)
    assert list(cache.views.all()) == [("flights", V1)]


def test_nothing_is_collected_where_locks_do_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(cache, V1, {"a": b"one"})
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    with pytest.raises(CacheError, match="File locks have no effect"):
        collect(cache.layout)
    assert list(cache.views.all()) == [("flights", V1)]


def test_verification_names_what_differs(cache: Cache) -> None:
    entries = publish(cache, V1, {"cut": b"whole", "flip": b"right", "fine": b"fine", "gone": b"gone"})
    view = cache.views.path("flights", V1)
    assert view
    view.chmod(0o755)
    for name, data in (("cut", b"who"), ("flip", b"wrong")):
        (view / name).chmod(0o644)
        (view / name).write_bytes(data)
    (view / "gone").unlink()
    rotten = {entry.digest: rot for entry in entries if (rot := check_blob(cache.layout, entry.digest))}
    problems = {
        entry.path: finding.problem for entry, finding in verify_view(view, entries, cache.layout, rotten=rotten)
    }
    assert set(problems) == {"cut", "flip", "gone"}
    assert "hash to" in problems["flip"]
    assert "No such file" in problems["gone"]


def test_a_pipe_in_a_blobs_place_is_rot(cache: Cache) -> None:
    for data in (b"one", b""):
        digest = put(cache, data)
        cache.layout.blob(digest).unlink()
        os.mkfifo(cache.layout.blob(digest))  # its reader waited for whoever would write
        rot = check_blob(cache.layout, digest)
        assert rot is not None
        assert "not a regular file" in rot.problem


def test_a_view_that_was_killed_half_built_is_collected(cache: Cache) -> None:
    stray = cache.layout.ingest / "view-dead"
    (stray / "sub").mkdir(parents=True)
    (stray / "sub").chmod(0o555)
    held = cache.layout.blob(put(cache, b"held by nothing else"))
    os.link(held, stray / "held")
    os.utime(stray, (0, 0))
    assert collect(cache.layout).blobs == 1
    assert not stray.exists()
    assert not held.exists()
    assert list(cache.layout.trash.iterdir()) == []
