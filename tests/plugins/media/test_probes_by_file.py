"""What passed its probes is kept by the digest of its bytes: the next version costs its new files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.model import Evidence, Outcome
from tests.support.scenario import Scenario

IMAGES = {"image": {"mode": "L", "min_size": [8, 8]}}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    files = [{"match": "**/*.png", "probes": ["unique", IMAGES]}]
    return Scenario(tmp_path, "digits", contract={"files": files}, gates={"pilot": {"require": ["coverage"]}})


def deliver(scenario: Scenario, numbers: range) -> None:
    """Write some of sklearn's digits as images of 8 × 8 pixels, and stage."""
    digits = load_digits()
    for number in numbers:
        folder = scenario.nas / str(digits.target[number])
        folder.mkdir(exist_ok=True)
        pixels = (digits.images[number] * 15).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    scenario.stage()


def coverage(scenario: Scenario, **options: Any) -> Evidence:
    validation = validate(scenario.node(), scenario.dataset, **options)
    return next(item for item in validation.evidence if item.check == "coverage")


def decoded(measured: Mapping[str, Any]) -> tuple[int, int]:
    """How many files were decoded now and before."""
    return measured["decoded"], measured["decoded_before"]


def test_next_version_decodes_its_new_images(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged record costs one whole probing, and `reread` is one."""
    deliver(scenario, range(100))
    evidence = coverage(scenario)
    assert evidence.outcome is Outcome.PASS
    assert decoded(evidence.measured) == (100, 0)
    deliver(scenario, range(100, 110))
    lines: list[str] = []
    assert decoded(coverage(scenario, progress=lines.append).measured) == (10, 100)
    assert "probed 10 files; 100 passed before" in lines
    assert decoded(coverage(scenario, reread=True).measured) == (110, 0)
    (record,) = scenario.on["catalog"].rglob("probes.json")
    assert "png" not in record.read_text()
    record.write_text(record.read_text()[:-20])
    assert decoded(coverage(scenario).measured) == (110, 0)
    assert "All files of digits are probed again" in caplog.text
    record.unlink()
    assert decoded(coverage(scenario).measured) == (110, 0)
    assert decoded(coverage(scenario).measured) == (0, 110)


def test_defects_are_found_again_each_time(scenario: Scenario) -> None:
    deliver(scenario, range(20))
    path = scenario.nas / "0/0.png"
    path.write_bytes(path.read_bytes()[:-30])
    (scenario.nas / "copy.png").write_bytes((scenario.nas / "1/1.png").read_bytes())
    scenario.stage()
    for expected in ((21, 0), (1, 20)):
        evidence = coverage(scenario)
        assert decoded(evidence.measured) == expected
        assert evidence.outcome is Outcome.FAIL
        assert evidence.summary == "19 of 21 files validated; 2 with a defect"
        assert {finding.subject: finding.problem.split(":")[0] for finding in evidence.findings} == {
            "0/0.png": "its image can't be decoded",
            "copy.png": "has the same bytes as 1/1.png",
        }


def test_other_settings_decode_all_images(scenario: Scenario) -> None:
    deliver(scenario, range(20))
    coverage(scenario)
    trial = scenario.spec(contract={"files": [{"match": "**/*.png", "probes": [{"image": {"mode": "RGB"}}]}]})
    evidence = coverage(scenario, spec=trial)
    assert decoded(evidence.measured) == (20, 0)
    assert evidence.outcome is Outcome.FAIL
    # A trial keeps nothing.
    assert decoded(coverage(scenario).measured) == (0, 20)


def test_sample_is_drawn_by_path_and_grows(tmp_path: Path) -> None:
    contract = {"files": [{"match": "**/*.png", "probes": ["image"]}]}
    scenario = Scenario(tmp_path, contract=contract, gates={"pilot": {"require": ["coverage"]}})
    deliver(scenario, range(100))

    def measured(**part: Any) -> tuple[str, Mapping[str, Any]]:
        files = [{"match": "**/*.png", "probes": ["image"], **part}]
        evidence = coverage(scenario, spec=scenario.spec(contract={"files": files}))
        return evidence.summary, evidence.measured

    assert measured(limit=7)[0] == "7 of 7 files validated; 93 left out by a sample"
    tenth = measured(sample="10%")[1]
    assert 0 < tenth["decoded"] < 40
    assert tenth["decoded"] + tenth["not_drawn"] == 100
    assert measured(sample="50%")[1]["decoded"] > tenth["decoded"]
    # A sample of few files is never empty.
    assert measured(sample="1/1000000")[1]["decoded"] == 1
