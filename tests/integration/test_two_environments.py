"""Pilot and production as two environments on one machine, which differ in one library.

Each has its cache, its virtual environment and its work pool; they share one catalog on an object store.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import SeaweedFS

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
LIBRARY = "measure"
"""The one that the two environments have in two releases."""
OLD, NEW = "1.0.0", "2.0.0"
FILES = {"one.csv": b"a,b\n1,2\n", "two.csv": b"a,b\n3,4\n"}
THINGS, PILOT, PRODUCTION = "things", "things@pilot", "things@production"
GATES: dict[str, Any] = {
    "pilot": {"require": ["owner", "freshness", "read_probe", {"license": {"severity": "warning"}}]},
    "production": {
        "extends": "pilot",
        "require": [
            {"license": {"severity": "blocking"}},
            *("digest", "cache_integrity", "parity_python", "parity_image", "parity_env", "parity_host", "rollback"),
            {"approval": {"from": ["infra"]}},
        ],
    },
}
LATER = (
    "from datetime import timedelta; from prefect_stagegate import clock; told = clock.now;"
    "clock.now = lambda: told() + timedelta(seconds={});"
)
"""Makes a command believe that some time has passed."""
WAIVED, LATER_THAN_WAIVED = timedelta(minutes=30), timedelta(minutes=31)
FLOW = """
from prefect import flow
from prefect_stagegate.tasks import check_readiness

@flow
def judge(gate: str) -> str:
    decision = check_readiness("things", gate)
    failed = [one.check for one in decision.checks if one.outcome == "fail"]
    return " ".join([decision.outcome, *sorted(failed)])
"""


def wheel(folder: Path, version: str) -> Path:
    """A wheel of the library, as a build would write it."""
    about = f"{LIBRARY}-{version}.dist-info"
    files = {
        f"{LIBRARY}/__init__.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {LIBRARY}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}"
        for name, text in files.items()
    ]
    files[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,", ""])
    path = folder / f"{LIBRARY}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


class Environment:
    """One environment: a virtual environment on top of the tests' own, a cache, and somebody who works there."""

    def __init__(self, name: str, folder: Path, shared: dict[str, str], who: str) -> None:
        self.name, self.folder, self.cache = name, folder / name, folder / name / "cache"
        venv.create(self.folder / "venv", with_pip=False)
        self.python = self.folder / "venv/bin/python"
        base = next(path for path in sys.path if path.endswith("site-packages"))
        (site,) = (self.folder / "venv/lib").glob("python*/site-packages")
        (site / "base.pth").write_text(f"import site; site.addsitedir({base!r})\n")
        self.environment = {
            **os.environ,
            **shared,
            "HOME": str(self.folder),
            "STAGEGATE_CACHE": str(self.cache),
            "STAGEGATE_NODE": name,
            "STAGEGATE_IDENTITY": who,
            "PREFECT_HOME": str(self.folder / "prefect"),
        }

    def install(self, what: Path) -> None:
        """Install a wheel, without a network."""
        command: list[str | Path] = [
            BIN / "uv",
            "pip",
            "install",
            "--offline",
            "--no-index",
            "--python",
            self.python,
            what,
        ]
        subprocess.run(command, check=True, capture_output=True, env=self.environment)

    def run(
        self, *words: str | Path, later: timedelta = timedelta(0), who: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the `stagegate` command of this environment."""
        code = LATER.format(later.total_seconds()) + "from prefect_stagegate.cli import main; main()"
        return subprocess.run(
            [self.python, "-c", code, *words],
            env=self.environment | ({"STAGEGATE_IDENTITY": who} if who else {}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def do(self, *words: str | Path, code: int = 0, **more: Any) -> str:
        """Run a command that must end with this code; gives what it printed."""
        done = self.run(*words, **more)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def check(self, gate: str, code: int, **more: Any) -> dict[str, str]:
        """Ask a gate; gives the outcome of each check."""
        answer = json.loads(self.do("check", THINGS, "--gate", gate, "--json", code=code, **more))
        return {row["check"]: row["outcome"] for row in answer["rows"]}

    def stale(self, what: str | Path = THINGS, **more: Any) -> set[str]:
        """The checks of production's gate whose evidence holds no more, by the plan."""
        plan = json.loads(self.do("check", what, "--gate", "production", "--plan", "--json", **more))
        assert {row["check"] for row in plan} == {*GATES["production"]["require"][1:-1], *PILOTS, "license", "approval"}
        return {row["check"] for row in plan if row["state"] != "current"}


PILOTS = {"owner", "freshness", "read_probe"}
ENVIRONMENTAL = {"parity_python", "parity_image", "parity_env", "parity_host", "read_probe"}
"""What depends on the environment."""


class TwoEnvironments:
    """Both environments, and what they share."""

    def __init__(self, folder: Path, seaweedfs: SeaweedFS) -> None:
        self.bucket = seaweedfs.bucket(f"environments-{folder.name.replace('_', '-')[-30:].strip('-').lower()}")
        seaweedfs.client().pipe({f"{self.bucket}/things/{name}": data for name, data in FILES.items()})
        shared = {
            "STAGEGATE_CATALOG": f"{self.bucket}/catalog",
            "STAGEGATE_IMAGE_DIGEST": "sha256:" + "a" * 64,
            "AWS_ACCESS_KEY_ID": seaweedfs.key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret,
            "AWS_ENDPOINT_URL": seaweedfs.endpoint_url,
        }
        self.folder = folder
        self.wheels = {version: wheel(folder, version) for version in (OLD, NEW)}
        self.pilot = Environment("pilot", folder, shared, "ada")
        self.production = Environment("production", folder, shared, "ada")
        self.pilot.install(self.wheels[OLD])
        self.production.install(self.wheels[NEW])
        self.options = {"endpoint_url": seaweedfs.endpoint_url}

    def spec(self, name: str = "things.yaml", gates: dict[str, Any] = GATES) -> Path:
        path = self.folder / name
        values = {
            "stagegate": 1,
            "dataset": "things",
            "owners": dict.fromkeys(("data", "ai", "governance"), "team@example.org") | {"infra": "ines, omar"},
            "license": "CC-BY-NC-4.0",
            "sources": [{"url": f"{self.bucket}/things/", "options": self.options}],
            "gates": gates,
        }
        path.write_text(yaml.safe_dump(values))
        return path


@pytest.fixture
def environments(tmp_path: Path, seaweedfs: SeaweedFS) -> TwoEnvironments:
    return TwoEnvironments(tmp_path, seaweedfs)


def enter_pilot(environments: TwoEnvironments) -> None:
    """Have a version accepted as pilot, and brought to production's cache."""
    pilot, production = environments.pilot, environments.production
    pilot.do("stage", environments.spec())
    assert pilot.check("pilot", 0)["license"] == "fail"  # a warning there
    pilot.do("promote", THINGS, "--to", "pilot")
    production.do("stage", PILOT)


def enter_production(environments: TwoEnvironments) -> dict[str, str]:
    """Make the environments agree, answer for the licence, approve and promote."""
    production = environments.production
    production.install(environments.wheels[OLD])
    production.check("production", 1)
    until = (datetime.now(UTC) + WAIVED).isoformat()
    waiver = ("waive", THINGS, "--gate", "production", "--check", "license", "--until", until, "--reason", "research")
    production.do(*waiver, who="ines")
    production.check("production", 4)
    production.do("approve", THINGS, "--to", "production", who="ines")
    outcomes = production.check("production", 0)
    production.do("promote", THINGS, "--to", "production")
    production.do("stage", PRODUCTION)
    return outcomes


def test_production_refuses_until_the_environments_agree(environments: TwoEnvironments) -> None:
    production = environments.production
    enter_pilot(environments)
    differences = json.loads(production.do("env", "diff", PILOT, "--json", code=1))
    (difference,) = [difference for difference in differences if difference["weight"] == "blocking"]
    assert (difference["name"], difference["there"], difference["here"]) == (LIBRARY, OLD, NEW)
    refused = json.loads(production.do("check", THINGS, "--gate", "production", "--json", code=1))
    assert {row["check"] for row in refused["rows"] if row["outcome"] == "fail"} == {"parity_python", "license"}
    parity = next(row for row in refused["rows"] if row["check"] == "parity_python")
    assert parity["findings"][0]["subject"] == LIBRARY
    assert parity["findings"][0]["fix"] == f"pip install {LIBRARY}=={OLD}"

    production.install(environments.wheels[OLD])
    production.do("env", "diff", PILOT)
    assert production.stale() == {*ENVIRONMENTAL, "approval"}
    outcomes = enter_production(environments)
    assert (outcomes["parity_python"] in ("pass", "warn"), outcomes["license"]) == (True, "waived")
    assert production.do("exec", PRODUCTION, "--", "sh", "-c", "ls $STAGEGATE_DATASET_PATH").split() == sorted(FILES)
    assert production.stale() == set()


def test_change_ends_only_the_evidence_that_depends_on_it(environments: TwoEnvironments) -> None:
    pilot, production = environments.pilot, environments.production
    enter_pilot(environments)
    enter_production(environments)
    assert production.stale() == set()
    assert log(pilot) == [("promote", "")]

    # A flipped byte is that node's own trouble.
    victim = Path(production.do("path", PRODUCTION).strip()) / "one.csv"
    victim.chmod(0o644)
    victim.write_bytes(FILES["one.csv"].replace(b"1", b"7"))
    victim.chmod(0o444)
    assert "one.csv" in production.do("verify", code=3)
    pilot.do("verify")
    assert production.stale() == {"cache_integrity"}
    refused = production.check("production", 1)
    assert {name for name, outcome in refused.items() if outcome == "fail"} == {"cache_integrity"}
    assert log(pilot) == [("promote", "")]
    production.do("verify", "--repair")
    assert victim.read_bytes() == FILES["one.csv"]
    assert production.stale() == {"cache_integrity"}
    assert production.check("production", 0)["cache_integrity"] == "pass"

    # Evidence that somebody revoked ends alone, here and wherever else it counted.
    why = "it looked at the wrong delivery"
    production.do("revoke", THINGS, "--check", "freshness", "--reason", why, who="ines")
    assert production.stale() == {"freshness"}
    assert production.check("production", 0)["freshness"] == "pass"
    assert production.stale() == set()
    assert log(pilot) == [("promote", ""), ("revoke", why)]

    # Another library ends what was found out about the environment, and says nothing against the version.
    production.install(environments.wheels[NEW])
    assert production.stale() == ENVIRONMENTAL
    assert production.check("production", 1)["parity_python"] == "fail"
    production.install(environments.wheels[OLD])
    assert production.stale() == set()  # what was found out in this environment holds in it
    assert log(pilot)[2:] == []

    # A changed policy ends what it sets, and what vouches for all of it.
    stricter = {"freshness": {"warn": "6h", "fail": "9h"}}
    gates = GATES | {"production": {**GATES["production"], "require": [*GATES["production"]["require"], stricter]}}
    assert production.stale(environments.spec("stricter.yaml", gates)) == {"freshness", "owner", "approval"}
    assert production.stale() == set()

    # An approval that is taken back ends the approval, and by it the version's place in production, for all.
    production.do("approve", THINGS, "--to", "production", "--decline", "--reason", "second thoughts", who="ines")
    assert production.stale() == {"approval"}
    assert production.check("production", 1)["approval"] == "fail"
    withdrawn = ("withdraw", "failed when it was checked again: approval")
    assert log(pilot)[2:] == [withdrawn]
    production.do("approve", THINGS, "--to", "production", who="ines")
    assert production.stale() == {"approval"}
    assert production.check("production", 0)["approval"] == "pass"
    production.do("promote", THINGS, "--to", "production", "--reinstate")
    assert production.stale() == set()

    # A waiver that ended ends no evidence: that the licence is denied was always true, and now it counts.
    assert production.stale(later=LATER_THAN_WAIVED) == {"read_probe"}  # which holds for a quarter of an hour
    after = production.check("production", 1, later=LATER_THAN_WAIVED)
    assert {name for name, outcome in after.items() if outcome == "fail"} == {"license"}
    assert [action for action, _ in log(pilot)] == ["promote", "revoke", "withdraw", "promote", "withdraw"]
    pilot.do("history", PRODUCTION, "--verify")


def log(node: Environment) -> list[tuple[str, str]]:
    """What happened to production's ref, and why."""
    history = json.loads(node.do("history", PRODUCTION, "--json"))
    return [(entry["action"], entry["reason"]) for entry in history if entry["action"] not in ("adopt", "refuse")]


@pytest.fixture
def workers(environments: TwoEnvironments, prefect_server: None) -> Iterator[Path]:
    """A worker for each of two pools, in its own environment."""
    from prefect.settings import PREFECT_API_URL

    script = environments.folder / "flows.py"
    script.write_text(FLOW)
    with ExitStack() as running:
        for node in (environments.pilot, environments.production):
            node.environment |= {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_WORKER_QUERY_SECONDS": "1"}
            prefect, pool = [str(node.python), "-m", "prefect"], f"{node.name}-pool"
            created = [*prefect, "work-pool", "create", pool, "--type", "process"]
            subprocess.run(created, env=node.environment, cwd=node.folder, check=True, capture_output=True, timeout=100)
            worker, log = [*prefect, "worker", "start", "--pool", pool], node.folder / "worker.log"
            running.enter_context(launched(worker, log, lambda: True, env=node.environment, grace=30))
        yield script


def test_gate_sees_the_environment_of_each_work_pool(environments: TwoEnvironments, workers: Path) -> None:
    from prefect import flow
    from prefect.deployments import run_deployment

    judge: Any = flow.from_source(source=str(environments.folder), entrypoint=f"{workers.name}:judge")

    def ask(node: Environment, gate: str) -> str:
        judge.deploy(node.name, work_pool_name=f"{node.name}-pool", build=False, push=False, print_next_steps=False)
        run: Any = run_deployment(f"judge/{node.name}", parameters={"gate": gate}, timeout=200, poll_interval=1)
        log = (node.folder / "worker.log").read_text()
        assert run.state.is_completed(), log
        return newest(environments, gate)

    environments.pilot.do("stage", environments.spec())
    assert ask(environments.pilot, "pilot") == "accepted license"
    environments.pilot.do("promote", THINGS, "--to", "pilot")
    assert ask(environments.production, "production") == "refused license parity_python"
    environments.production.install(environments.wheels[OLD])
    assert ask(environments.production, "production") == "refused license"


def newest(environments: TwoEnvironments, gate: str) -> str:
    """The newest decision of a gate, with what failed."""
    code = (
        "import sys; from prefect_stagegate.jobs.open_workspace import open_workspace;"
        "from prefect_stagegate.jobs.address import resolve;"
        "from prefect_stagegate.gate.records.attest import decision_of;"
        "from prefect_stagegate.catalog.gate_records import newest_attestation;"
        "where = open_workspace(); digest = resolve(where, 'things').digest;"
        f"decision = decision_of(newest_attestation(where.catalog, 'things', digest, {gate!r}));"
        "print(decision.outcome, *sorted(one.check for one in decision.checks if one.outcome == 'fail'))"
    )
    node = environments.pilot
    return subprocess.run(
        [node.python, "-c", code], env=node.environment, capture_output=True, text=True, check=True
    ).stdout.strip()
