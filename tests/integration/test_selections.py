"""Parts of sources: a pilot's sample, other paths, and what a staging reads again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Entry, Version
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.http_servers import FileHandler, http_server
from tests.support.versions import read_manifest

Run = Callable[..., subprocess.CompletedProcess[str]]
LONG_AGO = 1_370_000_000
"""Seconds since the epoch, in 2013: no weak pin of that time is young."""


def spec_of(*sources: dict[str, Any]) -> Spec:
    return load_spec({"stagegate": 1, "dataset": "things", "sources": list(sources)}, known_checks={})


def write(path: Path, data: bytes, at: int = LONG_AGO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (at, at))


def entries(workspace: Workspace, version: Version) -> set[Entry]:
    return set(read_manifest(workspace.catalog, version.dataset, version.digest).entries())


@pytest.mark.parametrize("few", [{"sample": "30%"}, {"limit": 12}])
def test_whole_dataset_after_a_pilot_s_part_fetches_the_rest(
    workspace: Workspace, tmp_path: Path, few: dict[str, Any]
) -> None:
    for number in range(40):
        write(tmp_path / f"nas/year={2000 + number % 3}/{number:02}.bin", bytes(1000 + number))
    url = str(tmp_path / "nas")
    pilot = stage(workspace, spec_of({"url": url, **few}))
    assert 0 < pilot.files < 40
    whole = stage(workspace, spec_of({"url": url}))
    assert entries(workspace, pilot) < entries(workspace, whole)
    assert (whole.files, whole.bytes_fetched) == (40, whole.bytes - pilot.bytes)
    assert whole.bytes_reused == pilot.bytes == pilot.bytes_fetched
    assert stage(workspace, spec_of({"url": url, **few})).digest == pilot.digest


def test_a_sample_of_a_bucket_and_of_its_copy_are_one_version(
    workspace: Workspace, tmp_path: Path, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    bucket = seaweedfs.bucket("sampled")
    for number in range(30):
        write(tmp_path / f"nas/raw/{number:02}.BIN", bytes([number]) * 100)
        seaweedfs.client().pipe(f"{bucket}/{number:02}.bin", bytes([number]) * 100)
    part = {"sample": "1/3", "into": "data/"}
    rename = [{"from": r"raw/(\d+)\.BIN", "to": r"\1.bin"}]
    options = {"endpoint_url": seaweedfs.endpoint_url}
    remote = stage(workspace, spec_of({"url": f"{bucket}/", "options": options, **part}))
    local = stage(workspace, spec_of({"url": str(tmp_path / "nas"), "rename": rename, **part}))
    assert remote.digest == local.digest
    assert 0 < remote.files < 30


def test_two_objects_that_are_renamed_to_one_path_are_both_named(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "nas/2013/a.csv", b"1")
    write(tmp_path / "nas/2014/a.csv", b"2")
    with pytest.raises(UsageError, match=r"2013/a\.csv.*2014/a\.csv"):
        stage(workspace, spec_of({"url": str(tmp_path / "nas"), "rename": [{"from": r"\d+/(.*)", "to": r"\1"}]}))
    with pytest.raises(UsageError, match=r"'2013/a\.csv'.*can't|can't.*'2013/a\.csv'"):
        stage(workspace, spec_of({"url": str(tmp_path / "nas"), "rename": [{"from": r"(.*)", "to": r"../\1"}]}))


def test_what_grew_out_of_a_filter_is_no_omission_of_the_listing(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "nas/a.csv", b"1")
    write(tmp_path / "nas/b.csv", b"2")
    spec = spec_of({"url": str(tmp_path / "nas"), "max_size": 5})
    assert stage(workspace, spec).files == 2
    write(tmp_path / "nas/b.csv", b"2" * 6)
    assert stage(workspace, spec).files == 1


# What each policy makes of an object whose bytes changed and whose pin did not: the same size, in the same second.
SEEN = [("never", False), ("when_weak", True), ("always", True)]


@pytest.mark.parametrize(("rehash", "seen"), SEEN)
def test_a_file_that_changed_behind_its_time(workspace: Workspace, tmp_path: Path, rehash: str, seen: bool) -> None:
    overwrites(workspace, tmp_path / "nas/a.bin", {"url": str(tmp_path / "nas"), "rehash": rehash}, seen=seen)


class _ByTheSecond(FileHandler):
    """Python's web server with nginx's etag: the file's time in seconds, and its size."""

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            status = path.stat()
            self.send_header("ETag", f'"{int(status.st_mtime):x}-{status.st_size:x}"')
        super().end_headers()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "nas").mkdir()
    with http_server(partial(_ByTheSecond, directory=str(tmp_path / "nas"))) as url:
        yield url


@pytest.mark.parametrize(("rehash", "seen"), SEEN)
def test_a_web_page_that_changed_behind_its_etag(
    workspace: Workspace, tmp_path: Path, web: str, rehash: str, seen: bool
) -> None:
    overwrites(workspace, tmp_path / "nas/a.bin", {"url": f"{web}/a.bin", "rehash": rehash}, seen=seen)


def overwrites(workspace: Workspace, file: Path, source: dict[str, Any], *, seen: bool) -> None:
    write(file, b"old" * 100)
    before = stage(workspace, spec_of(source))
    with file.open("r+b") as opened:  # in place, so that the inode stays too
        opened.write(b"new" * 100)
    os.utime(file, (LONG_AGO, LONG_AGO))
    after = stage(workspace, spec_of(source))
    assert (after.path / "a.bin").read_bytes() == (b"new" if seen else b"old") * 100
    assert (after.digest != before.digest, after.bytes_fetched) == (seen, 300 if seen else 0)
    unchanged = stage(workspace, spec_of(source))
    assert (unchanged.digest, unchanged.bytes_fetched) == (after.digest, 300 if seen else 0)


def test_a_young_time_is_not_believed_whatever_the_policy(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "nas/a.bin"
    file.parent.mkdir()
    file.write_bytes(b"old" * 100)
    now = int(file.stat().st_mtime)
    os.utime(file, (now, now))  # as on a file system that keeps whole seconds
    source = {"url": str(file.parent), "rehash": "never"}
    stage(workspace, spec_of(source))
    with file.open("r+b") as opened:
        opened.write(b"new" * 100)
    os.utime(file, (now, now))
    assert (stage(workspace, spec_of(source)).path / "a.bin").read_bytes() == b"new" * 100


@pytest.mark.parametrize(("rehash", "read"), [("never", 0), ("when_weak", 0), ("always", 300)])
def test_strong_pins_are_only_doubted_always(
    workspace: Workspace, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, rehash: str, read: int
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    bucket = seaweedfs.bucket(f"rehash-{rehash.replace('_', '-')}")
    seaweedfs.client().pipe(f"{bucket}/a.bin", b"old" * 100)
    spec = spec_of({"url": f"{bucket}/", "options": {"endpoint_url": seaweedfs.endpoint_url}, "rehash": rehash})
    first = stage(workspace, spec)
    again = stage(workspace, spec)
    assert (again.digest, again.bytes_fetched) == (first.digest, read)


def test_a_version_says_what_its_weakest_pin_is(
    workspace: Workspace, tmp_path: Path, seaweedfs: SeaweedFS, run_stagegate: Run
) -> None:
    env = {"AWS_ACCESS_KEY_ID": seaweedfs.key, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret}
    bucket = seaweedfs.bucket("weakest")
    seaweedfs.client().pipe({f"{bucket}/{name}": b"x" for name in ("a.bin", "b.bin")})
    write(tmp_path / "nas/c.bin", b"c")
    strong = {"url": f"{bucket}/", "options": {"endpoint_url": seaweedfs.endpoint_url}}
    spec = tmp_path / "things.yaml"
    spec.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": [strong, {"url": "nas"}]}))
    assert "weakest pin: mtime, weak for 1\n" in run_stagegate("stage", spec, env=env).stdout
    assert "weakest pin: mtime, weak for 1\n" in run_stagegate("show", "things").stdout
    assert "mtime, weak for 1" in run_stagegate("ls").stdout
    pins = {"kind": "mtime", "strength": "weak", "weak": 1}
    assert json.loads(run_stagegate("show", "things", "--json").stdout)["pins"] == pins
    assert json.loads(run_stagegate("ls", "--json").stdout)[0]["pins"] == pins
    assert json.loads(run_stagegate("stage", "things@latest", "--json", env=env).stdout)["pins"] == pins
    spec.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": [strong]}))
    staged = json.loads(run_stagegate("stage", spec, "--json", env=env).stdout)
    assert staged["pins"] == {"kind": "etag", "strength": "strong", "weak": 0}
