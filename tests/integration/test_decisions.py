"""Decisions on record for people: listed, drawn again, and told between moves. By the installed command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]
GATES = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"from": ["infra"]}}]},
}


class Dataset:
    """A dataset whose pilot gate asks for a licence, driven by commands."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run
        (folder / "nas").mkdir()

    def deliver(self, text: str, **changes: Any) -> str:
        (self._folder / "nas/data.csv").write_text(text)
        spec = {
            "stagegate": 1,
            "dataset": "things",
            "license": "CC0-1.0",
            "owners": dict.fromkeys(("data", "ai", "infra", "governance"), "ines@example.org"),
            "sources": [{"url": str(self._folder / "nas")}],
            "gates": GATES,
        } | changes
        written = self._folder / "things.yaml"
        written.write_text(yaml.safe_dump(spec))
        self.do("stage", str(written))
        return str(json.loads(self.do("show", "things", "--json"))["digest"])

    def do(self, *words: str, code: int = 0) -> str:
        done = self._run(*words, env={"STAGEGATE_IDENTITY": "ada"})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def listed(self, *words: str) -> list[dict[str, Any]]:
        decisions: list[dict[str, Any]] = json.loads(self.do("decisions", "things", "--json", *words))
        return decisions


@pytest.fixture
def dataset(tmp_path: Path, run_stagegate: Run) -> Dataset:
    return Dataset(tmp_path, run_stagegate)


@pytest.fixture
def decided(dataset: Dataset) -> tuple[Dataset, str, str]:
    """A version that pilot refused for its licence, and one that pilot has and that waits for production."""
    refused = dataset.deliver("one", license="CC-BY-NC-4.0")
    dataset.do("check", "things", "--gate", "pilot", code=1)
    accepted = dataset.deliver("two")
    dataset.do("check", "things", "--gate", "pilot")
    dataset.do("promote", "things", "--to", "pilot")
    dataset.do("check", "things", "--gate", "production", code=4)
    return dataset, refused, accepted


def test_decisions_of_all_versions_are_listed(decided: tuple[Dataset, str, str]) -> None:
    dataset, refused, accepted = decided
    lines = dataset.listed()
    assert [(line["digest"], line["target"], line["outcome"]) for line in lines] == [
        (refused, "pilot", "refused"),
        (accepted, "pilot", "accepted"),
        (accepted, "production", "waiting"),
    ]
    assert [line["why"] for line in lines] == [
        "It fails license.",
        "All checks passed.",
        "Only an approval is missing.",
    ]
    assert {line["requester"] for line in lines} == {"ada"}
    assert [line["outcome"] for line in dataset.listed("--gate", "production")] == ["waiting"]
    printed = dataset.do("decisions", "things").splitlines()
    assert len(printed) == 6
    assert max(map(len, printed)) < 120
    assert printed[0].startswith(lines[0]["id"][:19])


def test_an_old_decision_is_drawn_again_from_its_record(decided: tuple[Dataset, str, str], tmp_path: Path) -> None:
    dataset, refused, _ = decided
    name = dataset.listed()[0]["id"]
    dataset.do("report", name[:19], "--markdown", "r.md")
    assert refused in (tmp_path / "r.md").read_text()
    drawn = json.loads(dataset.do("report", name.removeprefix("sha256:"), "--json"))
    assert (drawn["outcome"], drawn["serves"], drawn["accepted"]) == ("refused", "", False)  # pilot named none then
    assert "things is refused for pilot. It fails license." in dataset.do("report", name)


def test_an_id_of_no_decision_is_refused(decided: tuple[Dataset, str, str]) -> None:
    dataset, _, _ = decided
    assert not dataset.do("report", "sha256:" + "0" * 12, code=2)
    assert not dataset.do("report", "4f9c", code=2)


def test_a_damaged_decision_hides_no_other(decided: tuple[Dataset, str, str], tmp_path: Path) -> None:
    dataset, refused, _ = decided
    folder = tmp_path / "catalog/datasets/things/decisions"
    (record,) = (folder / refused.removeprefix("sha256:")).rglob("*.json")
    record.write_text("{}")
    assert [line["outcome"] for line in dataset.listed()] == ["unreadable", "accepted", "waiting"]
    assert "Invalid attestation" in dataset.do("decisions", "things")


def test_history_tells_refusals_between_moves(decided: tuple[Dataset, str, str]) -> None:
    dataset, refused, accepted = decided
    lines = [line for line in dataset.do("history", "things@pilot").splitlines() if not line.startswith(" ")]
    assert len(lines) == 3
    assert "  policy  " in lines[0]
    assert f"refused {refused[:19]}, requested by ada: It fails license." in lines[1]
    assert accepted in lines[2]
    history = json.loads(dataset.do("history", "things", "--json"))
    assert [move["action"] for move in history] == ["adopt", "stage", "refuse", "stage", "promote"]


def test_history_lists_packages_only_when_asked(decided: tuple[Dataset, str, str]) -> None:
    dataset, _, _ = decided

    def python(*words: str) -> dict[str, Any]:
        moves = json.loads(dataset.do("history", "things@pilot", "--json", *words))
        (move,) = [move for move in moves if move["action"] == "promote"]
        environment: dict[str, Any] = move["attestation"]["predicate"]["stagegate"]["environment"]["python"]
        return environment

    assert "distributions" not in python()
    assert "pyarrow" in python("--full")["distributions"]
