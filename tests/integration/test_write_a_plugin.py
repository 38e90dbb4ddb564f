"""The package of docs/how-to/write-a-plugin.md, installed by pip as the page says and used by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.transcript import BLOCK, FILE

PAGE = Path(__file__).parents[2] / "docs/how-to/write-a-plugin.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the package."""
    folder = tmp_path_factory.mktemp("page")
    for _, block in BLOCK.findall(PAGE.read_text()):
        if named := FILE.match(block):
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(block)
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, folder / "acme"], check=True, capture_output=True)
    return site


@pytest.fixture
def acme(site: Path, tmp_path: Path, run_stagegate: Run) -> Run:
    """The command, where Acme's package is installed."""
    (tmp_path / "share/june/scans").mkdir(parents=True)
    (tmp_path / "share/june/scans/a.csv").write_text("x\n1\n")
    (tmp_path / "quota").write_text("100")
    spec = {
        "stagegate": 1,
        "dataset": "scans",
        "sources": [{"url": "acme://scans", "options": {"snapshot": "june"}}],
        "gates": {"pilot": {"require": ["acme_quota"]}},
    }
    (tmp_path / "scans.yaml").write_text(json.dumps(spec))
    places = {"ACME_SHARE": "share", "STAGEGATE_ACME_QUOTA": "quota", "ACME_JOURNAL": "journal"}
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": paths, **{name: str(tmp_path / path) for name, path in places.items()}}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_stagegate(*words, env=env)

    assert run("stage", "scans.yaml").returncode == 0
    return run


def test_observer_and_source_of_the_page_serve_a_staging(acme: Run, tmp_path: Path) -> None:
    assert (tmp_path / "journal").read_text().startswith("scans: ok after ")
    assert (tmp_path / "journal").read_text().count("\n") == 1
    listed = json.loads(acme("show", "scans", "--json").stdout)
    assert [entry["path"] for entry in listed["entries"]] == ["a.csv"]
    (tmp_path / "scans.yaml").write_text((tmp_path / "scans.yaml").read_text().replace("//scans", "//../.."))
    refused = acme("stage", "scans.yaml")
    assert refused.returncode == 2
    assert "leads out of the share" in refused.stderr


def test_setting_of_the_page_is_known_by_its_name(site: Path, run_stagegate: Run) -> None:
    refused = run_stagegate("ls", env={"PYTHONPATH": str(site), "STAGEGATE_ACME_QOTA": "/quota"})
    assert refused.returncode == 2
    assert "did you mean 'STAGEGATE_ACME_QUOTA'?" in refused.stderr


def test_evidence_ends_once_the_quota_of_the_page_changes(acme: Run, tmp_path: Path) -> None:
    assert "The part that it may take." in acme("checks", "acme_quota").stdout
    assert acme("check", "scans", "--gate", "pilot").returncode == 0
    assert "4 of 100 bytes" in acme("check", "scans", "--gate", "pilot", "--json").stdout
    (tmp_path / "quota").write_text("3")
    refused = acme("check", "scans", "--gate", "pilot", "--json")
    assert refused.returncode == 1
    assert "4 of 3 bytes" in refused.stdout


def test_command_of_the_page_keeps_records(acme: Run) -> None:
    assert "score" in acme("--help").stdout
    acme("score", "scans", "0.5")
    second = acme("score", "scans", "0.93", "--json")
    assert [each["value"] for each in json.loads(second.stdout)] == [0.5, 0.93]
    assert acme("history", "scans@latest", "--verify").returncode == 0


def test_section_of_the_page_is_in_reports(acme: Run, tmp_path: Path) -> None:
    acme("score", "scans", "0.5")
    page = tmp_path / "report.md"
    checked = acme("check", "scans", "--gate", "pilot", "--json", "--markdown", str(page))
    assert json.loads(checked.stdout)["acme_scores"] == [0.5]
    assert "### Scores" in page.read_text()


def test_renderer_of_the_page_writes_reports(acme: Run, tmp_path: Path) -> None:
    message = tmp_path / "message.json"
    (tmp_path / "quota").write_text("3")
    assert acme("check", "scans", "--gate", "pilot", "--render", f"slack={message}").returncode == 1
    assert "• acme_quota: 4 of 3 bytes" in json.loads(message.read_text())["text"]
    unknown = acme("check", "scans", "--gate", "pilot", "--render", f"word={message}")
    assert unknown.returncode == 2
    assert "No renderer 'word' is installed" in unknown.stderr
