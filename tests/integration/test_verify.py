"""Rot: what is hashed and how often, what becomes of a blob that rotted, and how it comes back."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any
from zlib import crc32

import pytest

from prefect_stagegate.cache import scrub
from prefect_stagegate.cache.blob_verification import Pace
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import room, used_bytes
from prefect_stagegate.errors import Cancelled, StagegateError, UsageError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.fetch import repair_files
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address, Version
from prefect_stagegate.workspace import Workspace
from tests.support.versions import read_manifest

SHARED = b"shared by all" * 1000
FILES = {"shared.bin": SHARED, "twin.bin": SHARED, "empty": b""}
DAYS = 3


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    folder.mkdir()
    for name, data in FILES.items():
        put(folder / name, data)
    return folder


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.utime(path, (crc32(data), crc32(data)))  # other bytes, another time; and the same at a mirror


def bring_in(workspace: Workspace, nas: Path, *, mirror: Path | None = None) -> Version:
    source: dict[str, Any] = {"url": str(nas)}
    if mirror:
        source["mirrors"] = [{"url": str(mirror)}]
    return stage(workspace, {"stagegate": 1, "dataset": "things", "sources": [source]})


@pytest.fixture
def versions(workspace: Workspace, nas: Path) -> list[Version]:
    """Three versions that share two files, and each have one of their own."""
    brought = []
    for day in range(DAYS):
        put(nas / "own.bin", f"of day {day}".encode() * 500)
        brought.append(bring_in(workspace, nas))
    return brought


def blob_of(workspace: Workspace, version: Version, path: str) -> Path:
    entries = read_manifest(workspace.catalog, version.dataset, version.digest).entries()
    (digest,) = (entry.digest for entry in entries if entry.path == path)
    return workspace.cache.layout.blob(digest)


def rot(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    path.chmod(0o444)


def blob_bytes(workspace: Workspace) -> int:
    return sum(path.stat().st_size for path in workspace.cache.layout.blobs.glob("*/*"))


# ── what is hashed ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_many_versions_share_is_hashed_once(workspace: Workspace, versions: list[Version]) -> None:
    verification = verify(workspace)
    assert (verification.versions, verification.files) == (DAYS, 4 * DAYS)
    assert verification.bytes == blob_bytes(workspace) < sum(version.bytes for version in versions)
    selected = verify(workspace, Address("things"))
    assert (selected.versions, selected.files, selected.bytes) == (1, 4, versions[-1].bytes - len(SHARED))


@pytest.mark.parametrize("runs", [1, 3, 7])
def test_partial_verifications_cover_everything_once(workspace: Workspace, versions: list[Version], runs: int) -> None:
    parts = [
        verify(open_workspace(workspace.cache.root, workspace.catalog.url), share=Fraction(1, runs))
        for _ in range(runs)
    ]
    assert sum(part.bytes for part in parts) == blob_bytes(workspace)
    assert sum(part.files for part in parts) >= 4 * DAYS
    assert all(abs(part.share - 1 / runs) < 0.001 for part in parts)


def test_runs_that_each_have_a_moment_come_around_to_everything(workspace: Workspace, versions: list[Version]) -> None:
    blobs = len(list(workspace.cache.layout.blobs.glob("*/*")))
    rot(blob_of(workspace, versions[0], "own.bin"))
    verifications = [verify(workspace, lasting=timedelta(0)) for _ in range(blobs)]
    assert [damage.finding.subject for run in verifications for damage in run.damaged] == ["own.bin"]
    assert max(run.bytes for run in verifications) < blob_bytes(workspace)


def test_a_run_that_was_stopped_loses_nothing_of_what_it_did(workspace: Workspace, versions: list[Version]) -> None:
    stop = Event()
    stop.set()
    arcs = []
    for _ in range(5):  # each is stopped at its first piece
        with pytest.raises(Cancelled):
            verify(workspace, cancel=stop)
        arcs.append(scrub.next_arc(workspace.cache, Fraction(1)).start)
    assert len(set(arcs)) == 1
    before = arcs[0]
    verify(workspace, lasting=timedelta(0))
    assert scrub.next_arc(workspace.cache, Fraction(1)).start != before


def test_without_an_index_it_begins_anywhere(workspace: Workspace, versions: list[Version]) -> None:
    starts = {scrub.next_arc(workspace.cache, Fraction(1, 2)).start for _ in range(5)}
    assert len(starts) == 5


def test_a_share_is_of_all_and_not_of_a_version(workspace: Workspace, versions: list[Version]) -> None:
    with pytest.raises(UsageError, match="applies to the whole node, not to one version"):
        verify(workspace, Address("things"), share=Fraction(1, 2))


def test_copies_are_hashed_too_where_a_volume_takes_no_links(
    workspace: Workspace, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: Any, target: Any) -> None:
        if "/cache/" in str(target):
            raise OSError(errno.EPERM, "no links")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    version = bring_in(workspace, nas)
    assert (version.path / "shared.bin").stat().st_nlink == 1
    rot(version.path / "shared.bin")
    assert [damage.finding.subject for damage in verify(workspace).damaged] == ["shared.bin"]


class Clock(Event):
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False


def test_reading_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("prefect_stagegate.cache.blob_verification.time.monotonic", lambda: clock.now)
    pace = Pace(1000, clock)
    for _ in range(100):
        pace(200)
    assert clock.now - 100 == pytest.approx(20, abs=1)
    clock.now += 3600  # the disk hung; that is no reason to read faster than the rate for an hour
    late = clock.now
    for _ in range(100):
        pace(200)
    assert clock.now - late == pytest.approx(20, abs=1.3)


# ── what rotted ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rotten_blob_is_moved_aside_with_its_reason(workspace: Workspace, versions: list[Version]) -> None:
    blob = blob_of(workspace, versions[0], "shared.bin")
    rot(blob)
    verification = verify(workspace)

    (quarantined,) = verification.quarantined
    assert len(verification.damaged) == 2 * DAYS
    assert quarantined.digest == f"blake3:{blob.name}"
    assert quarantined.found != quarantined.digest
    assert quarantined.found in quarantined.problem
    assert quarantined.bytes == len(SHARED)
    assert set(quarantined.entries) == {
        f"{version.address} {name}" for version in versions for name in ("shared.bin", "twin.bin")
    }
    assert not blob.exists()
    assert Quarantine(workspace.cache.layout).all() == [quarantined]
    assert len(verify(workspace).damaged) == 2 * DAYS  # it stays damaged, though the blob is aside
    assert Quarantine(workspace.cache.layout).all() == [quarantined]


def test_nothing_new_is_made_of_what_rotted(workspace: Workspace, nas: Path, versions: list[Version]) -> None:
    blob = blob_of(workspace, versions[0], "shared.bin")
    rot(blob)
    verify(workspace)
    assert not blob.exists()
    put(nas / "new.bin", b"new")
    version = bring_in(workspace, nas)
    assert version.bytes_fetched >= len(SHARED)
    assert (version.path / "shared.bin").read_bytes() == SHARED


def test_second_staging_mends_a_version_with_quarantined_blobs(
    workspace: Workspace, nas: Path, versions: list[Version]
) -> None:
    version = versions[-1]
    rot(blob_of(workspace, version, "shared.bin"))
    verify(workspace)
    again = bring_in(workspace, nas)
    assert again.digest == version.digest
    assert {name: (again.path / name).read_bytes() for name in FILES} == FILES
    assert not verify(workspace, Address("things", version.digest)).damaged


def test_repair_of_a_shared_blob_mends_every_version(
    workspace: Workspace, nas: Path, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in versions:
        workspace.cache.leases.pin(version.dataset, version.digest)
    put(nas / "own.bin", b"of day 2" * 500)
    rot(blob_of(workspace, versions[0], "shared.bin"))
    verify(workspace)
    collect(workspace.cache.layout)
    assert len(Quarantine(workspace.cache.layout).all()) == 1  # views still have it
    assert verify(workspace, repair=True).repaired
    assert not verify(workspace).damaged
    for version in versions:
        assert {name: (version.path / name).read_bytes() for name in FILES} == FILES

    before = used_bytes(workspace.cache.layout)
    foretold = collect(workspace.cache.layout, dry_run=True)
    assert (foretold.blobs, foretold.bytes) == (1, room(len(SHARED)))
    assert collect(workspace.cache.layout) == foretold
    assert Quarantine(workspace.cache.layout).all() == []
    assert list(workspace.cache.layout.quarantine.iterdir()) == []
    assert used_bytes(workspace.cache.layout) < before


def test_a_mirror_gives_what_its_source_has_no_more(workspace: Workspace, nas: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, data in FILES.items():
        put(mirror / name, data)
    version = bring_in(workspace, nas, mirror=mirror)
    rot(blob_of(workspace, version, "shared.bin"))
    for name in ("shared.bin", "twin.bin"):
        (nas / name).unlink()
    assert verify(workspace, repair=True).repaired
    assert (version.path / "shared.bin").read_bytes() == SHARED


def test_what_can_be_had_nowhere_stays_and_is_told_each_time(workspace: Workspace, nas: Path) -> None:
    version = bring_in(workspace, nas)
    rot(blob_of(workspace, version, "shared.bin"))
    for name in ("shared.bin", "twin.bin"):
        (nas / name).unlink()
    for _ in range(2):
        with pytest.raises(StagegateError, match=r"(shared|twin)\.bin"):
            verify(workspace, repair=True)
    assert len(Quarantine(workspace.cache.layout).all()) == 1
    assert (version.path / "empty").read_bytes() == b""


def test_a_version_that_is_mended_is_not_collected_meanwhile(
    workspace: Workspace, nas: Path, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = versions[-1]
    rot(blob_of(workspace, victim, "own.bin"))

    def collected_first(*args: Any, **options: Any) -> None:
        workspace.cache.layout.ref("things", "latest").unlink()  # as if `latest` had moved on
        collect(workspace.cache.layout)
        repair_files(*args, **options)

    monkeypatch.setattr("prefect_stagegate.jobs.upkeep.verify.repair_files", collected_first)
    assert verify(workspace, Address("things", victim.digest), repair=True).repaired
    assert {path.name for path in victim.path.iterdir()} == {*FILES, "own.bin"}


def test_a_cache_that_can_only_be_read_is_verified_too(
    workspace: Workspace, versions: list[Version], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rot(blob_of(workspace, versions[0], "own.bin"))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", refuse)
    verification = verify(workspace)
    assert [damage.finding.subject for damage in verification.damaged] == ["own.bin"]
    assert verification.quarantined == ()
    assert "is read-only, so it stays where it is" in caplog.text


def test_quarantined_blob_of_no_version_is_no_damage(workspace: Workspace, nas: Path) -> None:
    version = bring_in(workspace, nas)
    blob = blob_of(workspace, version, "shared.bin")
    workspace.cache.views.discard(version.dataset, version.digest)
    rot(blob)
    verification = verify(workspace)
    assert (verification.damaged, [quarantined.entries for quarantined in verification.quarantined]) == ((), [()])


def test_the_record_of_a_blob_whose_mover_died_is_a_plain_one(workspace: Workspace, nas: Path) -> None:
    version = bring_in(workspace, nas)
    rot(blob_of(workspace, version, "shared.bin"))
    verify(workspace)
    (record,) = workspace.cache.layout.quarantine.glob("*.json")
    record.unlink()
    (quarantined,) = Quarantine(workspace.cache.layout).all()
    assert quarantined.problem == "the reason is unknown"


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def staged(nas: Path, tmp_path: Path, run_stagegate: Run) -> Workspace:
    (tmp_path / "things.yaml").write_text(f"stagegate: 1\ndataset: things\nsources: [{{url: {nas}}}]\n")
    assert run_stagegate("stage", tmp_path / "things.yaml").returncode == 0
    return open_workspace(tmp_path / "cache", tmp_path / "catalog")


def test_the_command_tells_lists_and_mends(staged: Workspace, run_stagegate: Run) -> None:
    version = next(iter(staged.cache.views.all()))
    view = staged.cache.layout.view(*version)
    rot(staged.cache.layout.blob(f"blake3:{_blob_with(staged, SHARED)}"))

    result = run_stagegate("verify", "--share", "100%", "--rate", "200MB/s", "--for", "1h")
    assert result.returncode == 3
    assert "shared.bin: its bytes hash to blake3:" in result.stdout
    assert "in quarantine: blake3:" in result.stdout
    (listed,) = json.loads(run_stagegate("ls", "--quarantine", "--json").stdout)
    assert listed["digest"] in run_stagegate("ls", "--quarantine").stdout
    assert f"things@{version[1]} shared.bin" in listed["entries"]
    mended = json.loads(run_stagegate("verify", "--repair", "--json").stdout)
    assert (mended["repaired"], len(mended["damaged"])) == (True, 2)
    assert (view / "shared.bin").read_bytes() == SHARED
    assert run_stagegate("gc").returncode == 0
    assert json.loads(run_stagegate("ls", "--quarantine", "--json").stdout) == []


def test_json_has_extra_file_whose_name_is_not_utf8(staged: Workspace, run_stagegate: Run) -> None:
    view = staged.cache.layout.view(*next(iter(staged.cache.views.all())))
    view.chmod(0o755)
    (view / "odd\udcff").touch()
    run = run_stagegate("verify", "--json")
    assert run.returncode == 3
    (damage,) = json.loads(run.stdout)["damaged"]
    assert damage["finding"]["subject"] == "odd\udcff"


@pytest.mark.parametrize("rate", ["5", "999kB/s", "2TB"])
def test_a_rate_that_is_too_slow_or_too_fast_is_refused(run_stagegate: Run, rate: str) -> None:
    result = run_stagegate("verify", "--rate", rate)
    assert result.returncode == 2
    assert f"{rate!r} is not between 1MB/s and 1TB/s" in result.stderr


def _blob_with(workspace: Workspace, data: bytes) -> str:
    (name,) = (path.name for path in workspace.cache.layout.blobs.glob("*/*") if path.read_bytes() == data)
    return name


@pytest.mark.parametrize(
    ("option", "value"),
    [("--share", "8/7"), ("--share", "0/7"), ("--rate", "fast"), ("--rate", "0"), ("--for", "long")],
)
def test_an_option_that_is_none_is_told(run_stagegate: Run, option: str, value: str) -> None:
    result = run_stagegate("verify", option, value)
    assert result.returncode == 2
    assert value in result.stderr
