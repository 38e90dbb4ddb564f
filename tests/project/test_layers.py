"""The import contracts hold: the tree as it is passes, and a violation planted in any part of it is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("prefect_stagegate", "deployments", "flows", "tasks", "validations")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package with its contracts, links kept as links."""
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_tree_keeps_its_contracts(tree: Path) -> None:
    code, output = lint_imports(tree)
    assert code == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        pytest.param("tasks/planted.py", "prefect_stagegate.flows", id="a task that knows flows"),
        pytest.param("flows/planted.py", "prefect_stagegate.cli", id="a flow that knows the command line"),
        pytest.param("validations/planted.py", "prefect_stagegate.jobs", id="a validation that knows jobs"),
        pytest.param("validations/planted.py", "prefect", id="a validation that knows Prefect"),
        pytest.param(
            "prefect_stagegate/cache/planted.py", "prefect_stagegate.sources", id="a cache that knows sources"
        ),
        pytest.param("prefect_stagegate/jobs/planted.py", "prefect", id="a job that knows Prefect"),
        pytest.param(
            "prefect_stagegate/transport/transfer/planted.py", "botocore", id="a transfer that knows botocore"
        ),
        pytest.param("prefect_stagegate/gate/planted.py", "great_expectations", id="a check that knows GX"),
        pytest.param("prefect_stagegate/sources/planted.py", "pycurl", id="a source that knows libcurl"),
        pytest.param("prefect_stagegate/spec/planted.py", "httpx", id="a spec that knows another HTTP client"),
    ],
)
def test_a_planted_violation_is_named(tree: Path, file: str, imported: str) -> None:
    (tree / file).write_text(f"import {imported}\n")
    planted = "prefect_stagegate." + file.removeprefix("prefect_stagegate/").removesuffix(".py").replace("/", ".")
    code, output = lint_imports(tree)
    assert code == 1, output
    assert f"{planted} -> {imported} (l.1)" in output


def test_a_module_without_a_layer_is_named(tree: Path) -> None:
    (tree / "prefect_stagegate" / "newcomer.py").touch()
    code, output = lint_imports(tree)
    assert code == 1, output
    assert "prefect_stagegate.newcomer" in output


@pytest.mark.parametrize(
    "line",
    [
        "from urllib.request import urlopen",
        "import http.client",
        "import socket; socket.create_connection(('host', 80))",
        "import requests",
        "import httpx",
        "import aiohttp",
        "import fsspec; fsspec.open('http://host/')",
    ],
)
@pytest.mark.parametrize("folder", ["prefect_stagegate/gate", "tasks", "flows"])
def test_urls_are_opened_by_our_client_alone(tree: Path, folder: str, line: str) -> None:
    (tree / folder / "planted.py").write_text(line)
    ruff = [
        str(Path(sys.executable).with_name("ruff")),
        "check",
        "--select=TID251",
        "--no-cache",
        f"{folder}/planted.py",
    ]
    done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "open URLs by prefect_stagegate.transport.http" in done.stdout
