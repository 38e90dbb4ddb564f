"""Looking at large versions: what lists them reads none of their rows, and what shows rows shows them as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.records import DirectoryRecords, open_records
from prefect_stagegate.catalog.tables import BATCH
from prefect_stagegate.jobs.inspect import list_versions
from prefect_stagegate.model import Entry, Origin, Pin, Pins
from prefect_stagegate.model.manifest import Seal, seal
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.versions import put_version

COUNT = BATCH + 100
"""So many entries that their rows are stored in two parts."""
WEAK = Pins("mtime", "weak", COUNT)


def entries() -> Iterator[Entry]:
    return (Entry(f"{number:06}.bin", number, f"blake3:{number:064x}") for number in range(COUNT))


def origins() -> Iterator[Origin]:
    pin = Pin("mtime", "1:2", "weak")
    return (
        Origin(entry.path, "file:///nas/", entry.path, entry.size, pin, "computed", entry.digest) for entry in entries()
    )


def put(workspace: Workspace, pins: Pins | None = WEAK) -> Seal:
    """Store a version that no file belongs to."""
    sealed = seal(entries())
    put_version(workspace.catalog, "things", sealed, entries(), origins(), pins)
    return sealed


def record_of(workspace: Workspace, kind: str, sealed: Seal) -> Path:
    return Path(workspace.catalog.url) / "datasets/things" / kind / f"{sealed.digest[7:]}.parquet"


def damage(record: Path, part: slice) -> None:
    """Damage some of a record's bytes in front of its footer."""
    data = bytearray(record.read_bytes())
    rows = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    for position in range(*part.indices(rows)):
        data[position] ^= 0xFF
    record.write_bytes(data)


def test_ls_reads_no_rows(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = put(workspace)
    read = DirectoryRecords.read

    def counting(self: DirectoryRecords, key: str) -> bytes | None:
        assert not key.endswith(".parquet"), f"read all of {key}"
        return read(self, key)

    monkeypatch.setattr(DirectoryRecords, "read", counting)
    (line,) = list_versions(workspace, "things")
    assert (line.digest, line.files, line.bytes, line.pins) == (sealed.digest, COUNT, sealed.bytes, WEAK)


def test_pins_of_an_earlier_release_are_counted(workspace: Workspace) -> None:
    put(workspace, pins=None)
    (line,) = list_versions(workspace, "things")
    assert line.pins == WEAK


def test_footer_longer_than_the_first_read(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.catalog.version_records.END", 64)
    put(workspace)
    (line,) = list_versions(workspace, "things")
    assert (line.files, line.pins) == (COUNT, WEAK)


@pytest.mark.parametrize("store", ["folder", "s3"])
def test_end_of_a_record_is_read_alone(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options: dict[str, str] = {}
    url = str(tmp_path)
    if store == "s3":
        server: SeaweedFS = request.getfixturevalue("seaweedfs")
        url, options = server.bucket("ends"), server.storage_options
    records = open_records(url, options)
    assert records.read_end("datasets/things/specs/1", 3) is None
    records.create("datasets/things/specs/1", b"0123456789")
    ends = [records.read_end("datasets/things/specs/1", size) for size in (3, 10, 1 << 16)]
    assert ends == [b"789", b"0123456789", b"0123456789"]


@pytest.mark.parametrize("words", [("show", "--rows"), ("show", "--all"), ("show", "--json"), ("diff", "--json")])
def test_rows_come_before_the_last_is_read(
    workspace: Workspace, run_stagegate: Callable[..., Any], words: tuple[str, str]
) -> None:
    sealed = put(workspace)
    other = seal([Entry("other.bin", 1, "blake3:" + "0" * 64)])
    others = [Entry("other.bin", 1, "blake3:" + "0" * 64)]
    put_version(workspace.catalog, "things", other, others, [])
    damage(record_of(workspace, "manifests", sealed), slice(-200, None))
    addresses = [f"things@{digest}" for digest in (sealed.digest, other.digest)][: 2 if "diff" in words else 1]
    places = ("--cache", workspace.cache.root, "--catalog", workspace.catalog.url)
    shown = run_stagegate(words[0], *addresses, *words[1:], *places)
    assert shown.returncode == 3
    assert "can't be read" in shown.stderr
    assert "000000.bin" in shown.stdout
    assert "016000.bin" in shown.stdout


def test_json_of_streams_is_whole(workspace: Workspace, run_stagegate: Callable[..., Any]) -> None:
    address = f"things@{put(workspace).digest}"
    places = ("--cache", workspace.cache.root, "--catalog", workspace.catalog.url)
    shown = json.loads(run_stagegate("show", address, "--json", *places).stdout)
    assert len(shown["entries"]) == COUNT
    assert list(shown)[-4:] == ["waivers", "revocations", "failed", "unreadable"]
    assert json.loads(run_stagegate("diff", address, address, "--json", *places).stdout) == []
