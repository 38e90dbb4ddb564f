"""Names of deleted plugins are unknown. That the core works without them is what `make test-core` runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prefect_stagegate

ROOT = Path(prefect_stagegate.__file__).parent.parent


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package without plugins."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "prefect_stagegate", tree / "prefect_stagegate", ignore=ignored)  # what links lead to, too
    for plugin in (tree / "prefect_stagegate/plugins").glob("*/"):
        shutil.rmtree(plugin)
    return tree


def stagegate(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    places = {"STAGEGATE_CACHE": str(tree / "cache"), "STAGEGATE_CATALOG": str(tree / "catalog"), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "prefect_stagegate", *words],
        cwd=tree,
        env={**os.environ, **places, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_was_deleted_is_unknown_and_the_rest_is_listed(tree: Path) -> None:
    overview = stagegate(tree, "--help").stdout
    assert "stage " in overview
    assert not re.search(r"\bsign\b", overview)
    listed = {check["name"] for check in json.loads(stagegate(tree, "checks", "--json").stdout)}
    assert "schema" in listed
    assert "signature" not in listed
    refused = stagegate(tree, "sign", "things")
    assert refused.returncode == 2
    assert 'Unknown command "sign"' in refused.stderr


def test_contract_of_a_deleted_plugin_is_refused(tree: Path) -> None:
    spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "/data"}], "contract": {"odcs": "contract.yaml"}}
    (tree / "odcs.yaml").write_text(json.dumps(spec))
    refused = stagegate(tree, "lint", "odcs.yaml")
    assert refused.returncode == 2
    assert "needs a plugin that is not installed" in refused.stderr


def test_flow_of_a_deleted_plugin_is_no_name(tree: Path) -> None:
    for code, message in (
        ("from prefect_stagegate.flows import stage, stage_fleet", "cannot import name 'stage_fleet'"),
        ("import prefect_stagegate.flows.stage_node", "No module named 'prefect_stagegate.flows.stage_node'"),
        ("from prefect_stagegate.tasks import stage_dataset, place", "cannot import name 'place'"),
    ):
        refused = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert message in refused.stderr.splitlines()[-1]
