"""Erasing entries: their bytes leave this node, a record stays, and their versions are no longer whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefect_stagegate.errors import GateFailed, UnknownRef, UsageError
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.inspect import show
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import pin
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import (
    NodeErasure,
    glob_of,
    plan_erasure,
    record_erasure,
)
from prefect_stagegate.plugins.retention.erasure_status import NodeStanding, erasure_status
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.kills import Killed, killed_at
from tests.support.scenario import Scenario

GATES = {"production": {"require": ["license"]}}
SECRET = "name\nada\n"
PRODUCTION = Address("things", "production")


class Erasing(Scenario):
    """A dataset with a file that has to go, beside one that stays."""

    def __init__(self, folder: Path, dataset: str = "things") -> None:
        super().__init__(folder, dataset, gates=GATES)
        (self.nas / "people").mkdir(exist_ok=True)
        (self.nas / "people/ada.csv").write_text(SECRET)

    def record(self, *globs: str, version: str = "") -> None:
        wanted = glob_of(globs or ("people/*",), ())
        record_erasure(self.node(), self.dataset, *plan_erasure(self.node(), self.dataset, version, wanted), "asked")

    def erase(self, *globs: str) -> NodeErasure:
        """Erase entries here; gives the last answer."""
        self.record(*globs)
        return erase_on_node(self.node(), self.dataset)[-1]

    def bytes_here(self) -> list[Path]:
        """Files of this node that have the bytes."""
        files = [path for path in (self.folder / "cache").rglob("*") if path.is_file() and not path.is_symlink()]
        return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture
def erasing(tmp_path: Path) -> Erasing:
    erasing = Erasing(tmp_path)
    erasing.deliver("a,b\n1,2\n")
    erasing.promote()
    return erasing


def test_bytes_go_and_manifest_and_logs_stay(erasing: Erasing) -> None:
    digest = erasing.head("production")
    before = list(show(erasing.node(), PRODUCTION)[1].entries())
    assert erasing.bytes_here()
    answer = erasing.erase()
    assert (answer.is_proved, answer.blobs, answer.left) == (True, 1, ())
    assert not erasing.bytes_here()
    assert list(show(erasing.node(), PRODUCTION)[1].entries()) == before
    assert not [problem for chain in verify_history(erasing.node()) for problem in chain.problems]
    assert erasing.head("production") == digest


def test_version_that_lost_bytes_goes_nowhere(erasing: Erasing) -> None:
    first = erasing.head("production")
    (erasing.nas / "people/ada.csv").unlink()
    erasing.deliver("a,b\n3,4\n")
    second = erasing.promote()
    erasing.erase()
    said = r"no longer whole: people/ada.csv was erased on 20.* UTC, by ada \(declared\): asked"
    with pytest.raises(GateFailed, match=said):
        rollback(erasing.node(), PRODUCTION, reason="loss went up")
    with pytest.raises(GateFailed, match=said):
        promote(erasing.node(), Address("things", first), "production")
    with pytest.raises(GateFailed, match=said):
        stage(erasing.node(cache="other"), Address("things", first))
    assert stage(erasing.node(cache="other"), Address("things", second)).digest == second
    with (
        pytest.raises(UnknownRef, match="is not in the cache"),
        open_dataset(f"things@{first}", cache=erasing.folder / "cache"),
    ):
        pass


def test_same_bytes_elsewhere_in_the_dataset_go_too(erasing: Erasing) -> None:
    (erasing.nas / "copy.csv").write_text(SECRET)
    later = erasing.deliver("a,b\n5,6\n").digest
    erasing.record(version=erasing.head("production"))
    assert erase_on_node(erasing.node(), "things")[-1].is_proved
    assert not erasing.bytes_here()
    with pytest.raises(GateFailed, match=r"no longer whole: copy.csv"):
        stage(erasing.node(cache="other"), Address("things", later))


def test_same_bytes_of_another_dataset_are_left_and_told(erasing: Erasing) -> None:
    other = Erasing(erasing.folder, "others")
    other.stage()
    answer = erasing.erase()
    assert not answer.is_proved
    assert answer.blobs == 0
    assert "has the same bytes as people/ada.csv: erase them there, too" in answer.left[0]
    assert answer.left[0].startswith("others@sha256:")
    assert other.erase().is_proved
    assert erase_on_node(erasing.node(), "things")[-1].is_proved
    assert not erasing.bytes_here()


def test_job_that_reads_keeps_the_other_files(erasing: Erasing) -> None:
    with open_dataset("things@production", cache=erasing.folder / "cache") as held:
        answer = erasing.erase()
        assert not answer.is_proved
        assert "without the entries' files stays for reader open_dataset" in answer.left[0]
        assert (held.path / "data.csv").read_text() == "a,b\n1,2\n"
        assert not erasing.bytes_here()
        assert erasing.run("verify", "things@production", "--repair") != 0
        assert not erasing.bytes_here(), "a repair brought them back"
    answer = erase_on_node(erasing.node(), "things")[-1]
    assert answer.is_proved
    assert not held.path.exists()


def test_pin_keeps_no_version_that_lost_bytes(erasing: Erasing) -> None:
    pin(erasing.node(), PRODUCTION)
    assert erasing.erase().is_proved
    assert not erasing.bytes_here()
    assert not erasing.node().cache.leases.live()


def test_rotten_copy_in_quarantine_goes_too(erasing: Erasing) -> None:
    (path,) = [path for path in erasing.bytes_here() if "blobs" in path.parts]
    folder = erasing.folder / "cache/quarantine"
    folder.mkdir()
    (folder / f"{path.name}-0123").write_text(SECRET)
    assert erasing.erase().is_proved
    assert not erasing.bytes_here()


def test_what_killed_jobs_left_of_the_bytes_goes_too(erasing: Erasing) -> None:
    ingest, (blob,) = erasing.folder / "cache/ingest", [path for path in erasing.bytes_here() if "blobs" in path.parts]
    (ingest / "view-0").mkdir()
    for name in ("0" * 40, "view-0/ada.csv"):
        (ingest / name).hardlink_to(blob)
    (ingest / ("1" * 40)).write_text(SECRET[:-1])  # a beginning, which a later job would go on with
    assert erasing.erase().is_proved
    assert not erasing.bytes_here()
    assert not [path for path in ingest.rglob("*") if path.is_file() and not path.name.startswith("unsynced")]
    (ingest / ("2" * 40)).write_text("a beginning of something else")
    assert erase_on_node(erasing.node(), "things")[-1].is_proved
    assert (ingest / ("2" * 40)).exists(), "no later run takes what jobs go on with"


def test_killed_after_the_record_the_node_goes_on(erasing: Erasing) -> None:
    with pytest.raises(Killed), killed_at(erasing.folder, "/retention.erased/"):
        erasing.erase()
    assert erasing.run("erase", "--node") == 0
    assert not erasing.bytes_here()
    (status,) = erasure_status(erasing.node(), "things", UnreadableRecords())
    assert status.standing is NodeStanding.PROVED


def test_again_records_only_what_changed(erasing: Erasing, monkeypatch: pytest.MonkeyPatch) -> None:
    erasing.erase()
    (folder,) = (erasing.folder / "catalog/datasets/things/retention.erased/00000001").iterdir()
    erase_on_node(erasing.node(), "things")
    assert len(list(folder.iterdir())) == 1
    # As by a release that does not know what was erased.
    monkeypatch.setattr("prefect_stagegate.jobs.staging.stage.require_allowed", lambda *_: None)
    erasing.deliver("a,b\n7,8\n")
    assert erasing.bytes_here()
    assert erase_on_node(erasing.node(), "things")[-1].is_proved
    assert not erasing.bytes_here()
    assert len(list(folder.iterdir())) == 2


def test_view_of_an_expired_version_loses_its_bytes(erasing: Erasing) -> None:
    erasing.record()
    digest = erasing.head("production").removeprefix("sha256:")
    (erasing.folder / f"catalog/datasets/things/manifests/{digest}.parquet").unlink()
    assert erase_on_node(erasing.node(), "things")[-1].is_proved
    assert not erasing.bytes_here()


def test_nothing_is_erased_without_entries_or_a_reason(erasing: Erasing) -> None:
    with pytest.raises(UsageError, match="no such entry"):
        erasing.record("peeple/*")
    found = plan_erasure(erasing.node(), "things", "", glob_of((), ["people/ada.csv"]))
    with pytest.raises(UsageError, match="needs a reason"):
        record_erasure(erasing.node(), "things", *found, "  ")
    (erasing.nas / "empty.csv").touch()
    erasing.stage()
    with pytest.raises(UsageError, match="no such entry"):
        erasing.record("empty.csv")


def test_command_erases_tells_and_ends_with_a_code(erasing: Erasing, capsys: pytest.CaptureFixture[str]) -> None:
    listed = erasing.folder / "paths.txt"
    listed.write_text("people/ada.csv\n")
    capsys.readouterr()
    assert erasing.run("erase", "things", "--list", str(listed), "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in planned["entries"]] == ["people/ada.csv"]
    assert planned["named_by"] == ["latest", "production"]
    assert erasing.bytes_here()
    assert erasing.run("erase", "things", "--files", "people/*", "--reason", "asked") == 0
    shown = capsys.readouterr().out
    assert "1 entry of 1 version have to go from every node." in shown
    assert "things@production names a version that is no longer whole." in shown
    assert "1 blob removed, nothing is left on this node" in shown
    assert erasing.run("erase", "things", "--status") == 0
    assert "proved" in capsys.readouterr().out
    for words in (["erase"], ["erase", "things"], ["erase", "things", "--list", "none.txt"], ["erase", "thongs"]):
        assert erasing.run(*words) == 2


def test_staging_brings_no_erased_bytes_back(erasing: Erasing) -> None:
    latest = erasing.head("latest")
    (erasing.nas / "other.csv").write_text(SECRET)
    erasing.erase()
    said = r"can't become latest: other.csv was erased on 20.* UTC, by ada \(declared\): asked.*`exclude:`"
    for text in ("a,b\n1,2\n", "a,b\n9,9\n"):
        with pytest.raises(GateFailed, match=said):
            erasing.deliver(text)
        assert not erasing.bytes_here()
        assert erasing.head("latest") == latest
    source = {"url": str(erasing.nas), "exclude": ["people/*", "other.csv"]}
    assert erasing.stage(sources=[source]).digest == erasing.head("latest") != latest


def test_what_a_killed_staging_brought_back_goes(erasing: Erasing) -> None:
    (erasing.nas / "other.csv").write_text(SECRET)
    erasing.erase()
    with pytest.raises(Killed), killed_at(erasing.folder / "catalog", 0):  # where its draft is removed
        erasing.stage()
    assert erasing.bytes_here()
    with pytest.raises(GateFailed, match="can't become latest"):
        erasing.stage()
    assert not erasing.bytes_here()


def test_refused_staging_takes_no_blob_of_others(erasing: Erasing) -> None:
    other = Erasing(erasing.folder, "others")
    version = other.stage()
    erasing.erase()
    with pytest.raises(GateFailed, match="can't become latest"):
        erasing.deliver("a,b\n9,9\n")
    assert (version.path / "people/ada.csv").read_text() == SECRET
    assert other.run("verify", f"others@{version.digest}") == 0


def test_unchanged_listing_is_refused_while_a_job_reads(erasing: Erasing) -> None:
    erasing.stage()
    with open_dataset("things@production", cache=erasing.folder / "cache"):
        erasing.erase()
        with pytest.raises(GateFailed, match="can't become latest"):
            erasing.stage()
        assert not erasing.bytes_here()
