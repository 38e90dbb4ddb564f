"""Staging again what did not change: it is recognized, and nothing that should be seen is missed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Event
from typing import Any

import pytest

from prefect_stagegate.errors import Cancelled
from prefect_stagegate.jobs.staging.open_sources import open_sources
from prefect_stagegate.jobs.staging.stage import list_sources, stage
from prefect_stagegate.jobs.staging.unchanged import ListingDigest, SelectedObject, Unchanged, spool
from prefect_stagegate.model import Address, Pin, Receipt, SourceObject, Version
from prefect_stagegate.sources.adapter import Wanted
from prefect_stagegate.sources.local.local_source import FileSource
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.versions import read_manifest, staged_spec

NAMES = ("a.bin", "b/c.bin", "b/d.bin")


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    for name in NAMES:
        write(folder / name, name.encode())
    return folder


def write(path: Path, data: bytes, age: float = 60.0) -> None:
    """Write a file that says of itself that it was written some seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)


def spec_of(folder: Path, *, of_source: dict[str, Any] | None = None, **more: Any) -> Spec:
    source = {"url": str(folder)} | (of_source or {})
    return load_spec({"stagegate": 1, "dataset": "things", "sources": [source], **more}, known_checks={})


def forget_pins(workspace: Workspace) -> None:
    """Take from the node's memory what pins name, so that only a recognized listing is not fetched again."""
    with sqlite3.connect(workspace.cache.layout.index) as database:
        database.execute("DELETE FROM pins")


def blob_of(version: Version, name: str, workspace: Workspace) -> Path:
    entries = read_manifest(workspace.catalog, version.dataset, version.digest).entries()
    return workspace.cache.layout.blob(next(entry.digest for entry in entries if entry.path == name))


def test_unchanged_listing_is_recognized(workspace: Workspace, nas: Path) -> None:
    first = stage(workspace, spec_of(nas))
    forget_pins(workspace)
    again = stage(workspace, spec_of(nas))
    assert (again.bytes_fetched, again.bytes_reused, again.new) == (0, first.bytes, False)
    assert (again.digest, again.path, again.files, again.pins) == (first.digest, first.path, first.files, first.pins)


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_any_change_makes_another_version(workspace: Workspace, nas: Path, change: str) -> None:
    first = stage(workspace, spec_of(nas))
    if change == "content":
        write(nas / "b/c.bin", b"B/C.BIN", age=30)
    elif change == "added":
        write(nas / "e.bin", b"")
    elif change == "removed":
        (nas / "a.bin").unlink()
    else:
        (nas / "a.bin").rename(nas / "z.bin")
    second = stage(workspace, spec_of(nas))
    assert second.digest != first.digest
    assert workspace.catalog.resolve(Address("things")) == second.digest
    assert stage(workspace, spec_of(nas)).digest == second.digest


def test_blob_gone_behind_unchanged_is_fetched(workspace: Workspace, nas: Path) -> None:
    first = stage(workspace, spec_of(nas))
    blob = blob_of(first, "b/c.bin", workspace)
    blob.unlink()
    again = stage(workspace, spec_of(nas))
    assert (again.digest, again.bytes_fetched) == (first.digest, len("b/c.bin"))
    assert blob.read_bytes() == b"b/c.bin"


def test_view_gone_behind_unchanged_is_made(workspace: Workspace, nas: Path) -> None:
    first = stage(workspace, spec_of(nas))
    first.path.rename(nas.parent / "taken-away")
    again = stage(workspace, spec_of(nas))
    assert (again.path / "b/d.bin").read_bytes() == b"b/d.bin"


def test_writable_blob_of_others_is_not_believed(workspace: Workspace, nas: Path) -> None:
    first = stage(workspace, spec_of(nas))
    blob = blob_of(first, "a.bin", workspace)
    blob.unlink()
    blob.write_bytes(b"A.BIN")
    blob.chmod(0o666)
    again = stage(workspace, spec_of(nas))
    assert again.bytes_fetched == len("a.bin")
    assert blob.read_bytes() == b"a.bin"


def test_young_file_is_read_again(workspace: Workspace, nas: Path) -> None:
    now = time.time_ns()
    write(nas / "a.bin", b"older")
    os.utime(nas / "a.bin", ns=(now + 10**9, now + 10**9))
    first = stage(workspace, spec_of(nas))
    (nas / "a.bin").write_bytes(b"newer")
    os.utime(nas / "a.bin", ns=(now + 10**9, now + 10**9))
    assert stage(workspace, spec_of(nas)).digest != first.digest


def test_rehash_reads_unchanged_objects(workspace: Workspace, nas: Path) -> None:
    spec = spec_of(nas, of_source={"rehash": "always"})
    first = stage(workspace, spec)
    assert stage(workspace, spec).bytes_fetched == first.bytes


def test_changed_spec_is_recorded(workspace: Workspace, nas: Path) -> None:
    first = stage(workspace, spec_of(nas))
    stage(workspace, spec_of(nas, license="CC0-1.0"))
    stored = staged_spec(workspace.catalog, "things", first.digest)
    assert stored is not None
    assert stored["license"] == "CC0-1.0"


def test_latest_moved_by_others_comes_back(workspace: Workspace, nas: Path, tmp_path: Path) -> None:
    first = stage(workspace, spec_of(nas))
    write(tmp_path / "other/x.bin", b"x")
    stage(workspace, spec_of(tmp_path / "other"))
    stage(workspace, spec_of(nas))
    assert workspace.catalog.resolve(Address("things")) == first.digest


def test_bytes_of_a_mirror_prove_no_listing(workspace: Workspace, nas: Path) -> None:
    spec = spec_of(nas, of_source={"mirrors": [{"url": str(nas)}]})
    with open_sources(workspace, spec) as sources:
        unchanged = Unchanged(workspace, spec, sources)
        listed = list(list_sources(workspace, spec, sources))
        receipts = [Receipt(entry.object.key, entry.object, 0, "blake3:" + "0" * 64, "computed", 1) for entry in listed]
        for receipt in receipts:
            unchanged.add(receipt)
        unchanged.note("sha256:" + "0" * 64)
    assert workspace.cache.memory.noted("listing things") is None


def test_kept_listing_comes_back_as_it_was(workspace: Workspace, nas: Path) -> None:
    odd = SourceObject("b/\udcff\n", 2**40, Pin("etag", "x", "strong"), None, (("md5", "00"),), "commit", away=True)
    listed = [
        SelectedObject(1, odd),
        *(SelectedObject(0, SourceObject(name, 1, Pin("mtime", name, "weak"), 1.5)) for name in NAMES),
    ]
    with open_sources(workspace, spec_of(nas)) as sources, SpooledTemporaryFile() as file:
        digests = [ListingDigest(spec_of(nas), sources) for _ in range(3)]
        assert list(spool(iter(listed), digests[0], file)) == listed
        assert list(spool(reversed(listed), digests[1], BytesIO())) == listed[::-1]
        list(spool(listed[1:], digests[2], BytesIO()))
    assert str(digests[0]) == str(digests[1]) != str(digests[2])


def test_listing_that_hangs_can_be_cancelled(workspace: Workspace, nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(workspace, spec_of(nas))
    cancel, go_on = Event(), Event()

    def hang(self: FileSource, wanted: Wanted) -> Iterator[SourceObject]:
        cancel.set()
        go_on.wait(30)
        yield from ()

    monkeypatch.setattr(FileSource, "_walk", hang)
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        stage(workspace, spec_of(nas), cancel=cancel)
    assert time.monotonic() - begun < 10
    go_on.set()
