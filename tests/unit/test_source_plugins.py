"""Schemes beside those of the table: optional packages that are absent, and adapters of other packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.doors import Kind, Source, core_sources, load, options, sources
from prefect_stagegate.errors import SpecError, UsageError
from prefect_stagegate.sources import open_source, register
from prefect_stagegate.sources.fsspec import FSSPEC
from prefect_stagegate.sources.fsspec.fsspec_source import FsspecSource
from prefect_stagegate.sources.local.local_source import FileSource
from prefect_stagegate.sources.terms import DEFAULT_TERMS
from prefect_stagegate.spec import load_spec

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs/sources.md").read_text().split("## A source of your own")[1]
DEFINITION, REGISTRATION = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("python", "toml"))
POINTS = tomllib.loads(REGISTRATION)["project"]["entry-points"]["prefect_stagegate.sources"]
PLUGIN = f"""
from prefect_stagegate.sources.local.local_source import FileSource

def ShelfSource(url, options, terms):
    return FileSource("file://" + url.partition("://")[2])

{DEFINITION}
"""


def install(site: Path, package: str, source: str, **points: str) -> None:
    """What pip leaves of a distribution that has two modules, of one text."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{scheme} = {target}" for scheme, target in points.items())
    (info / "entry_points.txt").write_text(f"[prefect_stagegate.sources]\n{lines}\n")
    (site / package).mkdir()
    for module in ("__init__", "shelves"):
        (site / package / f"{module}.py").write_text(source)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(core_sources())
    yield
    core_sources().clear()
    core_sources().update(before)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL that an installed package reads: the one that docs/sources.md shows."""
    install(tmp_path / "site", "my_package", PLUGIN, **POINTS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for module in ("my_package", "my_package.shelves"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "a.csv").write_text("a")
    return f"shelf://{tmp_path}/a.csv"


def written(url: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": given}]}


def test_every_extra_that_an_error_names_is_one_that_pip_knows() -> None:
    extras = {source.extra for source in sources().values()} - {""}
    assert extras <= PYPROJECT["project"]["optional-dependencies"].keys()


def test_each_definition_leads_to_its_adapter() -> None:
    assert {"", "s3", "https", "ftp"} <= sources().keys()
    assert all(callable(load(source.opener)) for source in sources().values() if isinstance(source.opener, str))


def test_definitions_load_no_library_and_no_adapter() -> None:
    code = "import sys; from prefect_stagegate.doors import sources; sources(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "prefect_stagegate.sources.buckets" in loaded
    assert not {"pycurl", "fsspec", "prefect_stagegate.transport.http"} & set(loaded)


def test_another_package_brings_a_scheme(shelf: str) -> None:
    assert [obj.key for obj in open_source(shelf, {"row": 3, "headers": {"x": "y"}}).list()] == ["a.csv"]


def test_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "broken_shelves", "raise SystemExit('no licence')", broken="broken_shelves:nothing")
    monkeypatch.syspath_prepend(tmp_path)
    load_spec(written("broken://x/", {"any": 1}), known_checks={})
    with pytest.raises(UsageError, match=r"broken.shelves.*can't be loaded: SystemExit: no licence.*pip uninstall"):
        open_source("broken://x/")


def test_broken_plugin_is_named_where_its_scheme_is_missed(tmp_path: Path) -> None:
    install(tmp_path, "broken_plugin", "import no_such_library", broken="broken_plugin:PLUGIN")
    points = tmp_path / "broken_plugin-1.0.dist-info/entry_points.txt"
    points.write_text("[prefect_stagegate.plugins]\nbroken = broken_plugin:PLUGIN\n")
    code = "from prefect_stagegate.sources import open_source; open_source('memo://x/')"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    ).stderr
    last = told.splitlines()[-1]
    assert "No installed package reads memo://" in last
    assert "broken_plugin:PLUGIN can't be loaded: ModuleNotFoundError: No module named 'no_such_library'" in last


@pytest.mark.parametrize("name", [name for name, kind in FSSPEC.options.items() if kind is Kind.ADDRESS])
def test_servers_of_fsspec_are_told_apart(name: str) -> None:
    identities = {FsspecSource("memory://x/", {name: host}, DEFAULT_TERMS).identity for host in ("a", "b")}
    assert len(identities) == 2


def test_unknown_kind_of_options_is_named() -> None:
    with pytest.raises(
        TypeError, match="'valu' is no kind of option: value, address, file, credential, block, ignored"
    ):
        options(valu="row")


def test_package_that_declares_no_options_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "old_shelves", PLUGIN, oldshelf="old_shelves:ShelfSource")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_source("oldshelf://x/")
    assert str(caught.value) == (
        "The plugin old_shelves, which reads oldshelf://, declares no options. old_shelves:ShelfSource must be a "
        "prefect_stagegate.doors.Source. Update or remove the plugin: pip install --upgrade old_shelves; "
        "pip uninstall old_shelves"
    )


def test_options_of_no_kind_are_no_declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = "from prefect_stagegate.doors import Source\nIT = Source('it', {'port': 'value'}, ('it',), 'it:It')"
    install(tmp_path, "loose_shelves", definition, looseshelf="loose_shelves:IT")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"loose_shelves.*can't be loaded: TypeError: the options \['port'\] of it"):
        open_source("looseshelf://x/")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rwo": 3}, "is no option of a shelf; did you mean 'row'"),
        ({"token": "x"}, "looks like a credential; name a Prefect block"),
    ],
)
def test_spec_gives_a_package_only_what_it_declares(shelf: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        load_spec(written(shelf, given), known_checks={})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rwo": 3}, "'rwo' is no option of a shelf"),
        ({"endpoint": "169.254.169.254"}, "metadata addresses are blocked"),
        ({"ca_file": "/dev/zero"}, "no plain file"),
    ],
)
def test_package_gets_only_permitted_values(shelf: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(shelf, credentials=given)


@pytest.mark.usefixtures("registered")
def test_a_scheme_is_registered_once(tmp_path: Path) -> None:
    here = Source("here", options(value="x"), ("here",), lambda *_: FileSource(str(tmp_path)))
    register(here)
    register(here)
    (tmp_path / "a.csv").write_text("a")
    assert [obj.key for obj in open_source("here://anything").list()] == ["a.csv"]
    with pytest.raises(ValueError, match="'s3' is taken"):
        register(Source("s3", {}, ("s3",), lambda *_: FileSource(str(tmp_path))))
