"""The wheel in an environment of its own, with the locked releases: without an extra, then with each alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.project.test_package import PYPROJECT, ROOT, build, copy_tree

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
UV = Path(sys.executable).with_name("uv")
EXTRAS = PYPROJECT["project"]["optional-dependencies"].keys() - {"torch"}  # which `make test-torch` installs
SUITE = "suite: {expectations: [{type: expect_column_values_to_not_be_null, kwargs: {column: day}}]}"
SPEC = """
stagegate: 1
dataset: trips
owners: {data: ada@example.org, infra: ben@example.org}
sources: [{url: trips/, include: ["*.csv"]}]
contract: {tables: {trips: {files: "*.csv", columns: {day: date, distance: double}}}}
gates: {pilot: {require: [schema, nonempty, coverage]}}
"""
EVERY_HELP = """
import sys
from prefect_stagegate.cli.app import commands_for, main
for command in commands_for([]):
    main([*command.words.split(), "--help"])
"""
EACH_SOURCE = """
import json
from prefect_stagegate.doors import load, sources
absent = set()
for source in sources().values():
    try:
        load(source.opener) if isinstance(source.opener, str) else None
    except Exception:
        absent.add(source.extra)
print(json.dumps(sorted(absent)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy_tree(tmp_path_factory.mktemp("built") / "tree"), "wheel")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    yield folder
    shutil.rmtree(folder)


def install(environment: Path, wheel: Path, extra: str = "") -> Path:
    """Install the wheel with one extra or none, and remove every other distribution; returns the folder of programs."""
    python = environment / "bin/python"
    requirement = f"prefect-stagegate{extra and f'[{extra}]'} @ {wheel.as_uri()}"
    locked: list[str | Path] = ["--constraint", ROOT / "requirements.lock"]  # `make compat` tries the newest
    subprocess.run([UV, "pip", "install", "--quiet", "--exact", "--python", python, *locked, requirement], check=True)
    return python.parent


@pytest.fixture(scope="module")
def bare(environment: Path, wheel: Path) -> Path:
    """The programs without an extra. `test_each_extra_works_alone` runs last: it installs others in their place."""
    return install(environment, wheel)


def run(program: Path, *words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env: Mapping[str, str] = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "STAGEGATE_FREE_FLOOR": "0%",
        "STAGEGATE_CACHE": str(folder / "cache"),
        "STAGEGATE_CATALOG": str(folder / "catalog"),
        **variables,
    }
    return subprocess.run([program, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_every_command_explains_itself_without_extras(bare: Path, tmp_path: Path) -> None:
    done = run(bare / "python", "-c", EVERY_HELP, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in run(bare / "stagegate", "--help", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("chekc", "check"),
        ("contract expotr", "export"),
        ("check trips --gaet pilot", "--gate"),
        ("ls --josn", "--json"),
    ],
)
def test_mistyped_word_is_usage(bare: Path, tmp_path: Path, words: str, meant: str) -> None:
    done = run(bare / "stagegate", *words.split(), folder=tmp_path)
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert meant in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_is_installed(bare: Path, tmp_path: Path) -> None:
    done = run(bare / "stagegate", "--install-completion", "--shell", "bash", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".local/share/bash-completion/completions/stagegate").stat().st_size > 1000


def test_own_data_reach_a_target_without_extras(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips/a.csv").write_text("day,distance\n2026-01-01,3.5\n")
    (tmp_path / "trips.yaml").write_text(SPEC)
    for words in ("lint trips.yaml", "stage trips.yaml", "check trips --gate pilot", "promote trips --to pilot", "ls"):
        done = run(bare / "stagegate", *words.split(), folder=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    asked = run(bare / "stagegate", *["push", "trips", "oci://127.0.0.1:1/trips:1"], folder=tmp_path)
    assert asked.returncode == 2
    assert 'pip install "prefect-stagegate[oci]"' in asked.stderr


def test_suite_without_great_expectations_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips/a.csv").write_text("day,distance\n2026-01-01,3.5\n")
    (tmp_path / "trips.yaml").write_text(SPEC.replace("columns: {day: date, distance: double}", SUITE))
    hint = 'pip install "prefect-stagegate[gx]"'
    for words, code in {"lint trips.yaml": 0, "stage trips.yaml": 0, "validate trips": 2}.items():
        done = run(bare / "stagegate", *words.split(), folder=tmp_path)
        assert done.returncode == code, f"{words}: {done.stderr}"
        assert (hint in done.stderr) == (words != "stage trips.yaml")
    checked = run(bare / "stagegate", *["check", "trips", "--gate", "pilot"], folder=tmp_path)
    assert checked.returncode == 3
    assert hint in checked.stdout


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_each_extra_works_alone(extra: str, environment: Path, wheel: Path, tmp_path: Path) -> None:
    programs = install(environment, wheel, extra)
    done = run(programs / "python", "-c", EVERY_HELP + EACH_SOURCE, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {extra, ""}.isdisjoint(json.loads(done.stdout.splitlines()[-1]))
