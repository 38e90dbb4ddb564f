"""`stagegate init` and `stagegate lint` on images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.validations.files.calls import release
from tests.integration.test_init import first_spec
from tests.integration.test_lint import write
from tests.support.scenario import exit_code


def test_digits_as_images_pass_and_a_truncated_one_fails(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    for number, pixels in enumerate(load_digits().images[:20]):
        Image.fromarray((pixels * 15).astype("uint8")).save(tmp_path / f"digits/{number}.png")
    workspace, text = open_workspace(tmp_path / "cache", tmp_path / "catalog"), first_spec(tmp_path / "digits").text
    assert "probes: [image]" in text
    (tmp_path / "digits.yaml").write_text(text)
    stage(workspace, str(tmp_path / "digits.yaml"))
    assert check(workspace, Address("digits"), "pilot").accepted

    path = tmp_path / "digits/7.png"
    path.write_bytes(path.read_bytes()[:-20])
    stage(workspace, str(tmp_path / "digits.yaml"))
    decision = check(workspace, Address("digits"), "pilot")
    assert not decision.accepted
    assert any(finding.subject == "7.png" for evidence in decision.checks for finding in evidence.findings)


def test_lint_warns_of_a_probe_without_its_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    contract = {"files": [{"match": "*.png", "probes": [{"image": {"mode": "RGB"}}]}]}
    assert exit_code(["lint", write(tmp_path, contract=contract, gates={})]) == 0
    assert "contract.files[0].probes: The library for the probe image is not installed" in capsys.readouterr().err
    release.cache_clear()
