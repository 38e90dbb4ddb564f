"""A version's Croissant description: what the reference library makes of it, and what the check asks for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from prefect_stagegate.cli.app import main
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.exchange import croissant as describing
from prefect_stagegate.plugins.exchange.croissant import croissant
from tests.support.scenario import Scenario

PUBLICATION = {
    "description": "Readings of one station.\nHourly.",
    "url": "https://example.org/things",
    "creators": [{"name": "Example Institute"}, {"name": "Ada Lovelace", "kind": "person"}],
    "published": "2026-01-31",
    "version": "1.2.0",
    "citation": "@misc{things}",
    "keywords": ["readings"],
}
RAI = {
    "data_limitations": ["One station."],
    "data_biases": ["One city."],
    "personal_sensitive_information": ["None."],
    "data_use_cases": ["Forecasts."],
    "data_social_impact": "None is known.",
    "has_synthetic_data": False,
    "was_derived_from": ["https://example.org/raw", "a paper book"],
    "was_generated_by": ["Typed in."],
}
CONTRACT = {"tables": {"things": {"files": "*.csv", "columns": {"day": "date", "reading": "double", "extra": "map"}}}}
OWNER = "team@example.org"


def scenario(folder: Path, **keys: Any) -> Scenario:
    things = Scenario(folder, **{"publication": PUBLICATION, "rai": RAI, "contract": CONTRACT, **keys})
    things.deliver("day,reading\n2026-01-01,1.5\n2026-01-02,2\n")
    return things


def show(things: Scenario, *words: str) -> None:
    main(
        [
            "show",
            "things",
            "--croissant",
            *words,
            "--cache",
            str(things.on["cache"]),
            "--catalog",
            str(things.on["catalog"]),
        ]
    )


@pytest.mark.parametrize("words", [(), ("--sha256",)])
def test_reference_library_reads_description_and_rows(tmp_path: Path, words: tuple[str, ...]) -> None:
    things = scenario(tmp_path)
    folder = tmp_path / "published"
    shutil.copytree(things.nas, folder)
    show(things, *words, "--output", str(folder / "croissant.json"))
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert (list(issues.errors), list(issues.warnings)) == ([], [])
    assert dataset.metadata.data_limitations == ["One station."]
    assert [(row["things/reading"], str(row["things/day"])[:10]) for row in dataset.records("things")] == [
        (1.5, "2026-01-01"),
        (2.0, "2026-01-02"),
    ]


def test_description_has_the_digest_and_each_file_s_sha256(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = scenario(tmp_path)
    show(things, "--sha256")
    described = json.loads(capsys.readouterr().out)
    assert described["version"] == f"1.2.0+{things.head('latest').replace(':', '.')}"
    assert described["license"] == "https://spdx.org/licenses/CC0-1.0.html"
    assert described["rai:hasSyntheticData"] is False
    (file,) = [item for item in described["distribution"] if item["@type"] == "cr:FileObject"]
    assert file["sha256"] == hashlib.sha256((things.nas / "data.csv").read_bytes()).hexdigest()
    assert [field["name"] for field in described["recordSet"][0]["field"]] == ["day", "reading"]


def test_description_tells_no_owner_and_no_source(tmp_path: Path) -> None:
    things = scenario(tmp_path)
    text = json.dumps(croissant(things.node(), Address("things"), hashed=True))
    assert OWNER not in text
    assert str(tmp_path) not in text


def test_too_many_files_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    things = scenario(tmp_path)
    monkeypatch.setattr(describing, "MOST_FILES", 0)
    with pytest.raises(SystemExit) as ended:
        show(things, "--sha256")
    assert ended.value.code == 2
    assert "Leave out --sha256" in capsys.readouterr().err


def test_options_of_the_description_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["show", "things", "--output", str(tmp_path / "c.json")])
    assert ended.value.code == 2
    assert "Add --croissant" in capsys.readouterr().err


def test_a_bare_spec_is_described_without_errors(tmp_path: Path) -> None:
    things = scenario(tmp_path, publication={}, rai={}, contract={})
    dataset = mlcroissant.Dataset(jsonld=croissant(things.node(), Address("things")))
    assert list(dataset.metadata.ctx.issues.errors) == []


def test_names_with_spaces_and_signs_are_described(tmp_path: Path) -> None:
    columns = {"Culmen Length (mm)": "double", "a/b%": "int", "größe": "string"}
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/my readings.csv").write_text("Culmen Length (mm),a/b%,größe\n1.5,1,x\n")
    things = scenario(tmp_path, contract={"tables": {"things": {"files": "my*.csv", "columns": columns}}})
    description = croissant(things.node(), Address("things"), hashed=True)
    dataset = mlcroissant.Dataset(jsonld=description)
    assert list(dataset.metadata.ctx.issues.errors) == []
    assert [field["name"] for field in description["recordSet"][0]["field"]] == list(columns)
