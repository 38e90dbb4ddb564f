"""Files that a file system keeps elsewhere: holes without root, and reads that really stand still with it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.local.local_source import FileSource
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.sources import listed, read
from prefect_stagegate.workspace import Workspace
from tests.support.tape import Tape, tape

NAMES = [f"{number}.bin" for number in range(8)]


@pytest.fixture
def archive() -> Iterator[Tape]:
    if os.geteuid():
        pytest.fail("only root can hold reads back")
    with tape() as made:
        yield made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


def _spec(folder: Path, **options: Any) -> Spec:
    sources = [{"url": f"file://{folder}", "options": options}]
    return load_spec({"stagegate": 1, "dataset": "things", "sources": sources}, known_checks={})


def test_file_without_bytes_on_disk_is_listed_as_away(tmp_path: Path, run_stagegate: Any) -> None:
    folder = tmp_path / "nas"
    folder.mkdir()
    (folder / "here.bin").write_bytes(b"x" * 5000)
    (folder / "empty.bin").touch()
    with (folder / "away.bin").open("wb") as file:
        file.truncate(7_000_000)
    assert {key: obj.away for key, obj in listed(open_source(str(folder))).items()} == {
        "here.bin": False,
        "empty.bin": False,
        "away.bin": True,
    }
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": [{"url": f"file://{folder}"}]}))
    result = run_stagegate("stage", spec, "--dry-run")
    assert "archived: 1 of them, 7.0 MB; their source must restore them first" in result.stdout, result
    assert json.loads(run_stagegate("stage", spec, "--dry-run", "--json").stdout)["bytes_away"] == 7_000_000
    assert run_stagegate("stage", spec).returncode == 0  # holes are read at once
    assert "brought back" not in run_stagegate("stage", spec, "--dry-run").stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"recalls": 0}, "recalls"), ({"recalls": "many"}, "recalls"), ({"recall_timeout": "soon"}, "recall_timeout")],
)
def test_options_that_cannot_be_used_are_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        open_source(str(tmp_path), options)


@pytest.mark.system
def test_files_are_brought_back_so_many_at_a_time(archive: Tape, tmp_path: Path, workspace: Workspace) -> None:
    for name in NAMES:
        archive.put(tmp_path / "nas" / name, name.encode() * 100_000)
    versions = []
    staging = threading.Thread(target=lambda: versions.append(stage(workspace, _spec(tmp_path / "nas", recalls=2))))
    staging.start()
    for left in range(len(NAMES), 0, -1):
        waiting = archive.wait(min(2, left))
        assert len(waiting) <= 2
        archive.bring(waiting[0])
    staging.join(60)
    (version,) = versions
    for name in NAMES:
        assert (version.path / name).read_bytes() == name.encode() * 100_000


@pytest.mark.system
def test_of_those_that_wait_the_first_by_path_is_next(archive: Tape, tmp_path: Path) -> None:
    for name in NAMES:
        archive.put(tmp_path / "nas" / name, b"x")
    source = FileSource(str(tmp_path / "nas"), {"recalls": 1})
    objects = listed(source)
    threads = []
    for name in ["5.bin", *(name for name in reversed(NAMES) if name != "5.bin")]:
        threads.append(threading.Thread(target=read, args=(source, objects[name])))
        threads[-1].start()
        archive.wait(1)
    while len(source.recalls.waiting) < len(NAMES) - 1:
        time.sleep(0.01)
    order = []
    for _ in NAMES:
        (name,) = archive.wait(1)
        order.append(name)
        archive.bring(name)
    for thread in threads:
        thread.join(30)
    assert order == ["5.bin", *(name for name in NAMES if name != "5.bin")]


@pytest.mark.system
def test_file_not_recalled_in_time_is_an_error_with_its_name(archive: Tape, tmp_path: Path) -> None:
    archive.put(tmp_path / "nas" / "a.bin", b"x" * 100)
    source = open_source(str(tmp_path / "nas"), {"recall_timeout": "1s"})
    (obj,) = listed(source).values()
    with pytest.raises(SourceError, match=r"did not recall the offline file within 1s.*mmlsattr") as caught:
        read(source, obj)
    assert (caught.value.object, caught.value.retryable) == ("a.bin", False)
    archive.bring("a.bin")
    assert read(source, obj) == b"x" * 100


@pytest.mark.system
def test_reads_of_what_is_here_go_on_beside_those_that_wait(archive: Tape, tmp_path: Path) -> None:
    archive.put(tmp_path / "nas" / "a.bin", b"x" * 100)
    (tmp_path / "nas" / "b.bin").write_bytes(b"here")
    source = open_source(str(tmp_path / "nas"), {"recalls": 1})
    objects = listed(source)
    got: list[bytes] = []
    waiting = threading.Thread(target=lambda: got.append(read(source, objects["a.bin"])))
    waiting.start()
    assert archive.wait(1) == ["a.bin"]
    assert read(source, objects["b.bin"]) == b"here"
    assert not got
    archive.bring("a.bin")
    waiting.join(30)
    assert got == [b"x" * 100]
