"""Checks of other packages, as the installed command sees them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.commands import commands as commands_of

Run = Callable[..., subprocess.CompletedProcess[str]]

CHECK = '''
import os
from pathlib import Path
from prefect_stagegate.{package} import CheckContext, CheckResult, Parameters, check
from prefect_stagegate.model import Outcome

class Most(Parameters):
    most: int = 1

@check("{name}", owner="{owner}")
def few(context: CheckContext, parameters: Most) -> CheckResult:
    """Whether there are few files."""
    return CheckResult(Outcome.PASS if context.files <= parameters.most else Outcome.FAIL, f"{{context.files}} files")
'''
BOUND = '''
import os
from pathlib import Path
from prefect_stagegate.gate import Binding, Check, CheckContext, CheckResult, Fact, Parameters
from prefect_stagegate.model import Outcome

@Fact
def limit(context: CheckContext) -> int:
    return int(Path(os.environ["LIMIT"]).read_text())

def place(context: CheckContext) -> str | None:
    return os.environ["PLACE"] if "AWAY" in os.environ else os.environ.get("PLACE")

LIMIT = Binding("{binding}", lambda context: str(limit(context)))

@Check("{name}", owner="infra", binds=(LIMIT, Binding("place", place)))
def within(context: CheckContext, parameters: Parameters) -> CheckResult:
    """Whether the site allows so many files."""
    return CheckResult(Outcome.PASS if context.files <= limit(context) else Outcome.FAIL, f"at most {{limit(context)}}")
'''
ODD = '''
import os
from prefect_stagegate.gate import Binding, Check, CheckContext, CheckResult, Parameters
from prefect_stagegate.model import Outcome

@Check("odd", owner="infra", binds=(Binding("weekday", lambda context: 3 if "NUMBER" in os.environ else "sunday"),))
def odd(context: CheckContext, parameters: Parameters) -> CheckResult:
    """Whether it is Sunday."""
    return CheckResult(Outcome.PASS, "it is" if "BUG" not in os.environ else 1 / 0)
'''


def check_source(name: str, owner: str, package: str = "gate") -> str:
    return CHECK.format(name=name, owner=owner, package=package)


def install(site: Path, package: str, source: str, *checks: str, group: str = "checks") -> None:
    """What pip leaves of a distribution that has one module."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
    points = "\n".join(check if "=" in check else f"{check} = {package}" for check in checks)
    (info / "entry_points.txt").write_text(f"[prefect_stagegate.{group}]\n{points}\n")
    (site / f"{package}.py").write_text(source)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages are installed, of which three are sound."""
    site = tmp_path_factory.mktemp("site")
    install(site, "sound", check_source("few_files", "infra"), "few_files")
    install(site, "late", check_source("half", "infra") + "raise SystemExit('no licence')", "half")
    install(site, "absent_owner", check_source("unowned", "somebody"), "unowned")
    install(site, "thief", check_source("schema", "data"), "schema")
    install(site, "other_name", check_source("other", "data"), "wanted")
    install(site, "former_path", check_source("former", "data", "readiness"), "former")
    install(site, "bound", BOUND.format(name="within_limit", binding="limit"), "within_limit")
    declaration = (
        "from prefect_stagegate.doors import *\nPLUGIN = Plugin(checks=(Checks('acme_plugin.absent', 'acme'),))\n"
    )
    install(site, "acme_plugin", declaration, "acme = acme_plugin:PLUGIN", group="plugins")
    install(site, "odd", ODD, "odd")
    install(site, "second_binding", BOUND.format(name="second", binding="rotten"), "second")
    return site


@pytest.fixture(scope="module")
def commands(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """What runs commands where these packages are installed."""
    with commands_of(tmp_path_factory.mktemp("commands"), PYTHONPATH=str(site)) as running:
        yield running


def test_a_sound_plugin_is_listed_explained_and_asked(site: Path, run_stagegate: Run, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(site)}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("x\n1\n")
    spec = {
        "stagegate": 1,
        "dataset": "things",
        "sources": [{"url": str(tmp_path / "data")}],
        "gates": {"pilot": {"require": [{"few_files": {"most": 0}}]}, "broken": {"require": ["half"]}},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))

    assert "most:" in run_stagegate("checks", "few_files", env=env).stdout
    staged = run_stagegate("stage", "spec.yaml", env=env)
    assert staged.returncode == 0, staged.stderr
    refused = run_stagegate("check", "things", "--gate", "pilot", "--json", env=env)
    assert refused.returncode == 1, refused.stderr
    assert '"1 files"' in refused.stdout
    unknown = run_stagegate("check", "things", "--gate", "broken", "--json", env=env)
    assert unknown.returncode == 3
    assert "the plugin late can't be loaded: SystemExit: no licence" in unknown.stdout
    for words in (("lint", "spec.yaml"), ("check", "things", "--gate", "pilot")):
        assert "unknown check 'few_files'; is its plugin missing?" in run_stagegate(*words).stderr


def test_a_broken_plugin_says_so_and_breaks_no_other(site: Path, run_stagegate: Run) -> None:
    listed = json.loads(run_stagegate("checks", "--json", env={"PYTHONPATH": str(site)}).stdout)
    broken = {plugin["name"]: plugin["broken"] for plugin in listed}
    assert not broken["few_files"]
    assert not broken["schema"], "a plugin takes no other's name"
    assert "no licence" in broken["half"]
    assert "owners: data, ai, infra, governance" in broken["unowned"]
    assert "registers no check of that name" in broken["wanted"]
    assert "other" not in broken, "of a plugin that can't be loaded nothing stays"
    assert not broken["former"], "the documented import path of earlier releases still works"
    assert "the plugin acme-plugin can't be loaded" in broken["acme"], "pip knows this name"
    assert "The binding 'rotten' of 'second' is already another check's" in broken["second"]


def stage_things(run_stagegate: Run, tmp_path: Path, env: dict[str, str], *checks: str) -> None:
    """Stage `things`, with a gate `pilot` that requires checks."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("x\n1\n")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": str(tmp_path / "data")}]}
    (tmp_path / "spec.yaml").write_text(json.dumps(spec | {"gates": {"pilot": {"require": checks}}}))
    assert run_stagegate("stage", "spec.yaml", env=env).returncode == 0


def test_binding_that_is_no_text_spoils_no_record(site: Path, run_stagegate: Run, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(site)}
    stage_things(run_stagegate, tmp_path, env, "odd", "few_files")
    check = ("check", "things", "--gate", "pilot", "--json")
    unknown = run_stagegate(*check, env=env | {"NUMBER": "yes"})
    assert unknown.returncode == 3
    assert "pydantic" not in unknown.stderr
    outcomes = {each["check"]: each["outcome"] for each in json.loads(unknown.stdout)["rows"]}
    assert outcomes == {"odd": "inconclusive", "few_files": "pass"}
    assert "the binding 'weekday' must be a str or None, not 3" in unknown.stdout
    assert run_stagegate("ls", env=env).returncode == 0
    assert run_stagegate(*check, env=env).returncode == 0
    assert run_stagegate("promote", "things", "--to", "pilot", env=env).returncode == 0


def test_debug_prints_where_a_check_raised(site: Path, run_stagegate: Run, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(site), "BUG": "yes"}
    stage_things(run_stagegate, tmp_path, env, "odd")
    check = ("check", "things", "--gate", "pilot")
    plain, debug = run_stagegate(*check, env=env), run_stagegate(*check, "--debug", env=env)
    assert plain.returncode == debug.returncode == 3
    assert "Traceback" not in plain.stderr
    assert "odd.py" in debug.stderr
    assert "ZeroDivisionError" in debug.stderr


def test_evidence_ends_with_another_value_of_a_plugin_s_binding(site: Path, run_stagegate: Run, tmp_path: Path) -> None:
    limit = tmp_path / "limit"
    env = {"PYTHONPATH": str(site), "LIMIT": str(limit)}
    limit.write_text("1")
    stage_things(run_stagegate, tmp_path, env, "within_limit")
    check = ("check", "things", "--gate", "pilot")
    assert run_stagegate(*check, env={**env, "PLACE": "lab"}).returncode == 0
    assert "current" in run_stagegate(*check, "--plan", "--json", env={**env, "PLACE": "lab"}).stdout

    assert "another place" in run_stagegate(*check, "--plan", "--json", env=env).stdout
    refused = run_stagegate("promote", "things", "--to", "pilot", env=env)
    assert refused.returncode == 1, "also a value that is gone is another one"
    assert "what within_limit depends on changed since: place" in refused.stderr
    away = {**env, "AWAY": "yes"}
    assert run_stagegate(*check, env=away).returncode == 0
    assert "another place" in run_stagegate(*check, "--plan", "--json", env=away).stdout, (
        "what can't be read may differ"
    )
    limit.write_text("0")

    assert "another limit" in run_stagegate(*check, "--plan", "--json", env=env).stdout
    assert run_stagegate(*check, env=env).returncode == 1
