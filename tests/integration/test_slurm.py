"""`deployments/orchestrators/slurm-prolog.sh` and `train.sbatch` on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from tests.support.orchestrators import FILES, install_command
from tests.support.scenario import Scenario
from tests.support.slurm import Slurm, slurm

pytestmark = pytest.mark.system

TRAIN = """
import os, subprocess, sys
print("trained on", sorted(os.listdir(sys.argv[2])), flush=True)
subprocess.run(["stagegate", "gc", "--json"], check=True)
"""


class Site:
    """A catalog with a version for production, and a cluster whose node has a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = Scenario(folder, "nycflights", gates={"production": {"require": ["cache_fit"]}})
        self.cache = folder / "gpu-1"
        self._settings = folder / "stagegate.env"
        self._bin = install_command(folder / "bin").parent
        (folder / "train.py").write_text(TRAIN)
        self.use_cache(self.cache)
        self.prolog = self.copy("slurm-prolog.sh")
        self.script = self.copy("train.sbatch")
        self.log = self.script.with_suffix(".log")

    def use_cache(self, cache: Path) -> None:
        """Set which cache the node has."""
        values = self.data.environment(STAGEGATE_CACHE=str(cache), STAGEGATE_NODE="gpu-1", STAGEGATE_RETRIES="0")
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def copy(self, name: str) -> Path:
        """A file of the deployment with the paths of this test in place of the page's."""
        text = (FILES / name).read_text()
        places = {
            "/opt/stagegate/bin": str(self._bin),
            "/etc/stagegate/stagegate.env": str(self._settings),
            "runuser -u stagegate": "runuser -u root",
            "--timeout 10m": "--timeout 1s",
            "STAGEGATE_CACHE=/var/cache/stagegate ": f"STAGEGATE_CACHE={self.cache} STAGEGATE_NODE=gpu-1 ",
            "/srv/stagegate/catalog": str(self.data.on["catalog"]),
            "python3 train.py": f"{sys.executable} {self.folder}/train.py",
        }
        for place, here in places.items():
            text = text.replace(place, here)
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def cluster(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm"), site.prolog) as running:
        yield running


def is_requeued(job: dict[str, str]) -> bool:
    return job["Restarts"] == "1" and job["JobState"] != "COMPLETING"


def has_ended(job: dict[str, str]) -> bool:
    return job["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def test_jobs_begin_where_their_version_lies(site: Site, cluster: Slurm) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    digest = site.data.promote()
    job = cluster.wait_for(cluster.submit(site.script), has_ended)
    assert job["JobState"] == "COMPLETED", site.log.read_text()
    written = site.log.read_text()
    assert f"nycflights@{digest} is ready: {site.cache}" in written
    assert "trained on ['data.csv']" in written
    # The collection in the job took nothing: the version was held.
    assert '"versions": []' in written
    assert cluster.node_state() == "IDLE"


def test_a_job_whose_data_is_missing_requeues_itself(site: Site, cluster: Slurm) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    site.data.promote()
    (site.data.nas / "data.csv").unlink()  # so that the prolog can't fetch it
    job = cluster.wait_for(cluster.submit(site.script), is_requeued)
    assert (job["JobState"], job["Reason"]) == ("PENDING", "BeginTime")
    assert "this node lacks" in site.log.read_text()
    assert "DRAIN" not in cluster.node_state()


def test_a_job_without_an_accepted_version_fails_for_good(site: Site, cluster: Slurm) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    job = cluster.wait_for(cluster.submit(site.script), has_ended)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0")
    assert "DRAIN" not in cluster.node_state()


def test_only_a_broken_cache_drains_its_node(site: Site, cluster: Slurm) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    site.data.promote()
    broken = site.folder / "no-folder"
    broken.write_text("")
    site.use_cache(broken)
    job = cluster.wait_for(cluster.submit(site.script), is_requeued)
    assert (job["JobState"], "DRAIN" in cluster.node_state()) == ("PENDING", True)
    assert not site.log.exists()


def test_canceled_job_leaves_no_lease(site: Site, cluster: Slurm) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    site.data.promote()
    (site.folder / "train.py").write_text("import time; print('begun', flush=True); time.sleep(100)")
    number = cluster.submit(site.script)
    cluster.wait_for(number, lambda _: site.log.exists() and "begun" in site.log.read_text())
    leases = Cache.open(site.cache).leases
    assert len(leases.live()) == 1
    cluster("scancel", number)
    assert cluster.wait_for(number, has_ended)["JobState"] == "CANCELLED"
    assert leases.live() == []


@pytest.mark.parametrize(
    "comment",
    ["", "any words", "stagegate:$(touch {})", "stagegate:x@y;touch {}", "stagegate:--help@x\nstagegate:../x"],
)
def test_comments_of_users_run_nothing(comment: str, site: Site) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    made = site.folder / "made"
    environment = {"SLURM_JOB_COMMENT": comment.format(made), "SLURM_JOB_ID": "1"}
    done = subprocess.run([site.prolog], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, made.exists()) == (0, False), done.stderr


def run_prolog(site: Site) -> subprocess.CompletedProcess[str]:
    environment = {"SLURM_JOB_COMMENT": "stagegate:nycflights@production", "SLURM_JOB_ID": "1"}
    return subprocess.run([site.prolog], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_prolog_runs_nothing_of_its_settings(site: Site) -> None:
    site.data.deliver("origin,delay\nJFK,4\n")
    site.data.promote()
    made = site.folder / "made"
    settings = site.folder / "stagegate.env"
    lines = ["# it's a comment", f"touch {made}", f"AWS_REGION=$(touch {made})", f"PATH={site.folder}", "LD_PRELOAD=x"]
    settings.write_text("\n".join([*lines, settings.read_text()]))
    done = run_prolog(site)
    assert (done.returncode, made.exists()) == (0, False), done.stderr
    assert list((site.cache / "views").rglob("data.csv"))


def test_prolog_hands_on_proxies_and_authorities(site: Site) -> None:
    lines = ["HTTP_PROXY=http://proxy.example.org:3128", "SSL_CERT_FILE=/etc/ssl/site.pem"]
    (site.folder / "stagegate.env").write_text("\n".join(lines))
    (site.folder / "bin/stagegate").write_text(f"#!/bin/sh\nenv > {site.folder}/variables\n")
    assert run_prolog(site).returncode == 0
    assert set(lines) <= set((site.folder / "variables").read_text().splitlines())


def test_prolog_without_its_settings_drains_no_node(site: Site) -> None:
    (site.folder / "stagegate.env").unlink()
    assert run_prolog(site).returncode == 0


def test_shell_scripts_keep_the_rules_of_shellcheck() -> None:
    scripts = sorted(path for path in FILES.iterdir() if path.suffix in (".sh", ".sbatch"))
    assert len(scripts) == 2
    subprocess.run(["shellcheck", "--exclude=SC1091", "--shell=sh", *scripts], check=True)
