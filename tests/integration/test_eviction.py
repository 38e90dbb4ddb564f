"""Caches that are too small for all: what goes, what stays, and what a job is told that can't fit."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache.gc import collect, empty_trash
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.errors import Cancelled, NoSpace
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Outcome, Receipt, Version
from prefect_stagegate.transport.transfer.progress import Progress
from prefect_stagegate.workspace import Workspace
from tests.support.changed_settings import change_settings
from tests.support.scenario import Scenario

BLOCK = 4096
"""Of the file system that the tests run on: every file here is a multiple of it."""
SIZE = 100 * BLOCK


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(name.encode() * SIZE)
        os.utime(folder / name, (1_000_000, 1_000_000))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    opened = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    return replace(opened, settings=replace(opened.settings, max_size=5 * SIZE // 2, free_floor=0.0))


def bring(workspace: Workspace, nas: Path, dataset: str, *names: str, **options: Any) -> Version:
    source = {"url": str(nas), "include": list(names)}
    return stage(workspace, {"stagegate": 1, "dataset": dataset, "sources": [source]}, **options)


class Moved(Progress):
    """Counts what came over the wire."""

    bytes = 0

    def moved(self, size: int) -> None:
        self.bytes += size


def on_node(workspace: Workspace) -> set[str]:
    return {"@".join(view) for view in workspace.cache.views.all()}


def test_a_version_that_nothing_needs_makes_room(workspace: Workspace, nas: Path) -> None:
    bring(workspace, nas, "things", "a")
    newest = bring(workspace, nas, "things", "b")
    other = bring(workspace, nas, "others", "c")

    assert on_node(workspace) == {newest.address, other.address}
    assert used_bytes(workspace.cache.layout) == 2 * SIZE


def test_earlier_versions_of_the_staged_dataset_make_room(workspace: Workspace, nas: Path) -> None:
    first = bring(workspace, nas, "things", "a")
    second = bring(workspace, nas, "things", "b")
    third = bring(workspace, nas, "things", "c")

    assert on_node(workspace) == {second.address, third.address}
    assert not first.path.exists()


def test_another_writer_keeps_the_versions_of_its_dataset(workspace: Workspace, nas: Path) -> None:
    first = bring(workspace, nas, "things", "a")
    bring(workspace, nas, "things", "b")

    with workspace.cache.leases.hold(LeaseKind.WRITER, "things", purpose="another"):
        with pytest.raises(NoSpace, match=rf"In use: things: writer another \(pid {os.getpid()}\) since [^;]*$"):
            bring(workspace, nas, "things", "c")
        assert first.path.is_dir()


def test_version_that_the_source_lost_is_not_evicted(workspace: Workspace, nas: Path) -> None:
    oldest = bring(workspace, nas, "things", "a")
    bring(workspace, nas, "things", "b")
    (nas / "a").write_bytes(b"another" * BLOCK)
    before = used_bytes(workspace.cache.layout)
    moved = Moved()
    with pytest.raises(NoSpace, match="could not be fetched again") as caught:
        bring(workspace, nas, "others", "c", progress=moved)

    assert "Collecting could free 0 B, and 409.6 kB more" in caught.value.message
    assert "`stagegate gc` also removes what its source no longer has" in caught.value.hint
    assert (moved.bytes, used_bytes(workspace.cache.layout)) == (0, before)
    assert oldest.path.is_dir()
    assert [lease for lease in workspace.cache.leases.live() if lease.kind is LeaseKind.WRITER] == []

    collect(workspace.cache.layout)
    assert bring(workspace, nas, "others", "c").path.is_dir()


def test_who_holds_the_rest_is_named(workspace: Workspace, nas: Path) -> None:
    held = bring(workspace, nas, "things", "a")
    bring(workspace, nas, "things", "b")

    with workspace.cache.leases.hold(LeaseKind.READER, held.dataset, held.digest, "training"):
        with pytest.raises(NoSpace, match=rf"In use: {held.address}: reader training \(pid {os.getpid()}\)"):
            bring(workspace, nas, "others", "c")
        assert held.path.is_dir()
    assert bring(workspace, nas, "others", "c").path.is_dir()


def test_small_files_claim_the_room_that_they_take(workspace: Workspace, nas: Path) -> None:
    """A file of one byte takes a whole block of the volume, and what is claimed before the first byte knows it."""
    kept = bring(workspace, nas, "may-go", "a")
    bring(workspace, nas, "may-go", "b")
    for number in range(1 + 2 * SIZE // BLOCK):
        (nas / f"small-{number}").write_bytes(b"%d" % number)
    moved = Moved()
    with pytest.raises(NoSpace, match="No space left: needs"):
        bring(workspace, nas, "many", "small-*", progress=moved)
    assert moved.bytes == 0
    assert f"may-go@{kept.digest}" in on_node(workspace)


def test_what_an_interrupted_run_left_is_not_claimed_again(workspace: Workspace, nas: Path) -> None:
    """The room for all of a large object is taken when its first part is written."""
    narrow = change_settings(workspace, part_size=SIZE // 4, objects_in_flight=1)
    (nas / "large").write_bytes(b"l" * 2 * SIZE)
    os.utime(nas / "large", (1_000_000, 1_000_000))
    stop = threading.Event()

    class Half(Moved):
        def moved(self, size: int) -> None:
            super().moved(size)
            if self.bytes >= SIZE:
                stop.set()

    with pytest.raises(Cancelled):
        bring(narrow, nas, "things", "large", progress=Half(), cancel=stop)
    assert used_bytes(workspace.cache.layout) >= SIZE
    assert 0 < bring(narrow, nas, "things", "large").bytes_fetched < 2 * SIZE


def test_a_version_whose_files_are_reused_makes_no_room(workspace: Workspace, nas: Path) -> None:
    """It would free what must be fetched again at once, so the job is told that it can't fit, and nothing goes."""
    reused = bring(workspace, nas, "things", "a")
    bring(workspace, nas, "things", "b")
    with pytest.raises(NoSpace, match="Collecting could free 0 B"):
        bring(workspace, nas, "things", "a", "c")
    assert f"things@{reused.digest}" in on_node(workspace)
    assert bring(workspace, nas, "others", "a").bytes_fetched == 0


def test_a_version_comes_back_after_it_went(workspace: Workspace, nas: Path) -> None:
    oldest = bring(workspace, nas, "things", "a")
    bring(workspace, nas, "things", "b")
    bring(workspace, nas, "others", "c")
    assert not oldest.path.exists()
    collect(workspace.cache.layout)
    workspace.cache.leases.pin("things", "sha256:" + "0" * 64)

    with pytest.raises(NoSpace):
        stage(workspace, Address("things", oldest.digest))
    roomy = replace(workspace, settings=replace(workspace.settings, max_size=None))
    again = stage(roomy, Address("things", oldest.digest))
    assert (again.path / "a").read_bytes() == b"a" * SIZE


def test_blob_collected_meanwhile_is_fetched_again(workspace: Workspace, nas: Path) -> None:
    roomy = replace(workspace, settings=replace(workspace.settings, max_size=None))
    first = bring(roomy, nas, "things", "a")
    bring(roomy, nas, "things", "b")
    workspace.cache.views.discard("things", first.digest)
    empty_trash(workspace.cache.layout)  # as a collection that was killed before it came to the blobs

    class Collecting(Progress):
        def done(self, _: Receipt) -> None:
            collect(workspace.cache.layout)

    version = bring(roomy, nas, "things", "a", "c", progress=Collecting())

    assert {path.name: path.read_bytes()[:1] for path in version.path.iterdir()} == {"a": b"a", "c": b"c"}


def test_collections_and_writers_work_side_by_side(workspace: Workspace, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{number:03}").write_bytes(f"{number}".encode() * 3000)
    roomy = replace(workspace, settings=replace(workspace.settings, max_size=None))
    stop = threading.Event()
    rounds = []

    def keep_collecting() -> None:
        while not stop.is_set():
            rounds.append(collect(workspace.cache.layout))

    collector = threading.Thread(target=keep_collecting)
    collector.start()
    try:
        for number in range(3):
            os.utime(many / f"{number:03}")
            version = bring(roomy, many, f"things-{number}")
    finally:
        stop.set()
        collector.join()

    assert {path.name: path.read_bytes() for path in version.path.iterdir()} == {
        f"{number:03}": f"{number}".encode() * 3000 for number in range(400)
    }
    assert len(rounds) > 3


@pytest.mark.parametrize(("limit", "outcome"), [(7, Outcome.FAIL), (8, Outcome.WARN), (1000, Outcome.PASS)])
def test_version_above_the_limit_does_not_fit(tmp_path: Path, limit: int, outcome: Outcome) -> None:
    scenario = Scenario(tmp_path, gates={"pilot": {"require": ["cache_fit"]}})
    scenario.deliver("a,b\n1,2\n")
    node = scenario.node(cache="small")
    small = replace(node, settings=replace(node.settings, max_size=limit))
    assert [result.outcome for result in check(small, Address("things"), "pilot").checks] == [outcome]
