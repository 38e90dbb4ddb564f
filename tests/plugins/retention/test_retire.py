"""Retired datasets and targets: listings leave them out, and whoever names them finds all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefect_stagegate.errors import UnknownDataset, UnknownRef, UsageError
from prefect_stagegate.jobs.inspect import list_versions
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.review.status import status
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.retirement import retire, retirements
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.scenario import Scenario

GATES = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": ["license"]}}
THINGS, PILOT = Address("things"), Address("things", "pilot")


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path, gates=GATES)
    scenario.deliver("a,b\n1,2\n")
    scenario.promote()
    return scenario


def listed(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    return {line.dataset: line.refs for line in list_versions(scenario.node())}


def targets(scenario: Scenario, dataset: str = "") -> list[str]:
    """What `status` has a line for."""
    found = status(scenario.node(), dataset, UnreadableRecords())
    return [f"{line.dataset}@{line.target}" for each in found for line in each.lines if line.target]


def test_retired_dataset_leaves_listings_and_comes_back(scenario: Scenario) -> None:
    retire(scenario.node(), THINGS, "replaced by others")
    assert (listed(scenario), targets(scenario)) == ({}, [])
    assert [line.dataset for line in list_versions(scenario.node(), "things")] == ["things"]
    assert targets(scenario, "things") == ["things@pilot", "things@production"]
    retire(scenario.node(), THINGS, "", undo=True)
    assert listed(scenario) == {"things": ("latest", "pilot", "production")}
    assert targets(scenario) == ["things@pilot", "things@production"]


def test_retired_target_leaves_listings_alone(scenario: Scenario) -> None:
    retire(scenario.node(), PILOT, "nobody trains on it")
    assert listed(scenario) == {"things": ("latest", "production")}
    assert targets(scenario) == ["things@production"]
    assert targets(scenario, "things") == ["things@production"]


def test_retired_names_are_read_judged_and_moved(scenario: Scenario) -> None:
    retire(scenario.node(), THINGS, "replaced")
    retire(scenario.node(), PILOT, "replaced")
    with open_dataset("things@pilot", cache=scenario.folder / "cache") as held:
        assert (held.path / "data.csv").read_text() == "a,b\n1,2\n"
    scenario.deliver("a,b\n3,4\n")
    assert scenario.promote() == scenario.head("pilot")
    assert scenario.run("history", "things", "--verify") == 0
    assert scenario.run("show", "things@pilot") == 0


def test_all_lists_what_is_retired_with_a_mark(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    retire(scenario.node(), THINGS, "replaced")
    retire(scenario.node(), PILOT, "replaced")
    capsys.readouterr()
    assert scenario.run("ls") == 0
    assert "things" not in capsys.readouterr().out
    assert scenario.run("ls", "--all") == 0
    shown = capsys.readouterr().out
    assert "things (retired)" in shown
    assert "latest, pilot (retired), production" in shown
    assert scenario.run("ls", "--all", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["hidden"] == {"things": "retired", "things@pilot": "retired"}


def test_command_tells_who_retired_what_and_why(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert scenario.run("retire") == 0
    assert capsys.readouterr().out == "Nothing is retired\n"
    assert scenario.run("retire", "things@pilot", "--reason", "two\nlines\x1b[2J") == 0
    assert capsys.readouterr().out == "things@pilot is retired\n"
    assert scenario.run("retire") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("things@pilot: since 20")
    assert "by ada (declared): two lines\\x1b[2J" in shown
    assert scenario.run("retire", "things@pilot", "--undo", "--json") == 0
    assert json.loads(capsys.readouterr().out)["is_retired"] is False


def test_records_are_only_added_and_only_where_needed(scenario: Scenario) -> None:
    for undo in (False, False, True, True, False):
        retire(scenario.node(), PILOT, "why", undo=undo)
    folder = scenario.folder / "catalog/retention.retired/things/pilot"
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:08d}.json" for number in (1, 2, 3)]
    retire(scenario.node(), THINGS, "", undo=True)
    assert not (folder.parent / "_").exists()


@pytest.mark.parametrize("address", ["things@latest", "things@pilot~1", "things@sha256:" + "0" * 64])
def test_versions_and_latest_are_not_retired(scenario: Scenario, address: str) -> None:
    with pytest.raises(UsageError, match="can't be retired alone"):
        retire(scenario.node(), Address.parse(address), "why")


def test_unknown_names_and_missing_reasons_are_refused(scenario: Scenario) -> None:
    with pytest.raises(UnknownDataset):
        retire(scenario.node(), Address("thongs"), "why")
    with pytest.raises(UnknownRef):
        retire(scenario.node(), Address("things", "prod"), "why")
    with pytest.raises(UsageError, match="needs a reason"):
        retire(scenario.node(), PILOT, " ")


def test_damaged_or_copied_record_hides_nothing(scenario: Scenario) -> None:
    retire(scenario.node(), PILOT, "why")
    folder = scenario.folder / "catalog/retention.retired/things"
    (folder / "production").mkdir()
    (folder / "production/00000001.json").write_bytes((folder / "pilot/00000001.json").read_bytes())
    (folder / "pilot/00000002.json").write_text("{")
    unreadable = UnreadableRecords()
    assert retirements(scenario.node().catalog, unreadable) == []
    assert len(unreadable.all) == 2
    assert listed(scenario) == {"things": ("latest", "pilot", "production")}
    assert scenario.run("retire") == 3
