"""Both images, built by podman from a base of Debian's packages, and what runs in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.validations.worker import landlock
from tests.support.podman import CONFINED, CPU, CUDA, ROOT, Podman, podman_with_images

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
# Long waits cost nothing on a machine that has nothing else to do, where the whole takes some four minutes.

USER = 10001
LOCKED = set(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements-runtime.lock").read_text(), re.MULTILINE))
MEGABYTE = 10**6
both_images = pytest.mark.parametrize("image", [CPU, CUDA])
INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps({found.metadata["Name"]: found.version for found in distributions()}))
"""
"""Prints the distributions of an interpreter, asked without this project's code."""
SPEC = """
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
LANGUAGE = ("LANG", "LC_ALL", "LC_CTYPE")
GROUPS = ("gpus", "host", "limits", "variables")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with podman_with_images() as podman:
        yield podman


@pytest.fixture
def mnt(tmp_path: Path) -> Path:
    """A folder of the image's user."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture
def volumes(mnt: Path) -> tuple[str, ...]:
    """Options that mount `mnt` and an empty cache, however full the disk is."""
    return f"--volume={mnt}:/mnt", f"--volume={mnt.parent.name}:/cache:U", "--env=STAGEGATE_FREE_FLOOR=0%"


def normalised(versions: dict[str, str]) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}


def installed(podman: Podman, image: str) -> dict[str, str]:
    return normalised(json.loads(podman.run(image, "python", "-c", INSTALLED)))


def differences(run_stagegate: Run, there: Path, here: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run_stagegate("env", "diff", there, here, "--json").stdout)
    return rows


@both_images
def test_image_has_the_runtime_lock_and_nothing_else(podman: Podman, image: str) -> None:
    versions = installed(podman, image)

    assert versions.pop("prefect-stagegate") == podman.run(image, "stagegate", "--version").strip()
    assert versions.pop("pip")
    assert not {"setuptools", "setuptools-scm", "vcs-versioning"} & set(versions)
    assert set(versions.items()) <= LOCKED
    assert {"prefect", "great-expectations", "nvidia-ml-py"} <= set(versions)


def test_another_release_is_one_small_layer(podman: Podman) -> None:
    layers = json.loads(podman("history", "--format=json", CPU))
    package, dependencies = [layer["size"] for layer in layers if layer["size"]][:2]  # the newest come first
    assert package < 20 * MEGABYTE
    assert dependencies < 800 * MEGABYTE


@both_images
def test_image_writes_only_to_its_cache_and_temporary_folder(
    podman: Podman, image: str, volumes: tuple[str, ...]
) -> None:
    touch = "for at in / /opt/stagegate /usr /cache /tmp; do touch $at/x 2>/dev/null && echo $at; done; id -u"
    written = podman.run(image, "sh", "-c", touch, options=volumes)
    assert written.split() == ["/cache", "/tmp", str(USER)]


@both_images
def test_dataset_is_staged_and_judged_without_a_network(
    podman: Podman, image: str, mnt: Path, volumes: tuple[str, ...]
) -> None:
    (mnt / "delivery").mkdir()
    (mnt / "delivery/days.csv").write_text("day,delay\n1,4\n2,5\n")
    (mnt / "days.yaml").write_text(SPEC)
    options = (*volumes, "--env=STAGEGATE_CATALOG=/mnt/catalog")

    podman.run(image, "stagegate", "stage", "/mnt/days.yaml", options=options)
    decision = json.loads(podman.run(image, "stagegate", "check", "days", "--gate=pilot", "--json", options=options))
    view = podman.run(image, "stagegate", "path", "days@latest", options=options).strip()

    assert decision["outcome"] == "accepted"
    assert view.startswith("/cache/views/days/")
    assert podman.run(image, "cat", f"{view}/days.csv", options=options).startswith("day,delay")
    evidence = "".join(file.read_text() for file in (mnt / "catalog/datasets/days/evidence").rglob("*.json"))
    assert f'"sandbox":"Landlock {landlock.version()}"' in evidence


@both_images
def test_worker_is_healthy_on_its_own_port_and_stops(podman: Podman, image: str, prefect_server: None) -> None:
    url, name = str(PREFECT_API_URL.value()), f"worker-{image.partition(':')[2] or 'cpu'}"
    httpx.post(f"{url}/work_pools/", json={"name": name, "type": "process"}, timeout=10).raise_for_status()
    variables = {"PREFECT_API_URL": url, "POOL": name, "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
    podman(
        *("run", "--detach", "--name", name, *CONFINED, "--network=host", "--log-driver=k8s-file"),
        *(f"--env={key}={value}" for key, value in variables.items()),
        image,
    )

    # It answers as healthy before it takes signals, and says "started" after.
    until = time.monotonic() + 180
    while (check := podman.start("healthcheck", "run", name)).wait(30) and time.monotonic() < until:
        time.sleep(0.5)
    assert check.returncode == 0, podman("logs", name)
    while "started!" not in podman("logs", name) and time.monotonic() < until:
        time.sleep(0.5)
    podman("stop", "--time=30", name)

    log = podman("logs", name)
    assert podman("inspect", "--format={{.State.ExitCode}}", name).strip() == "0", log
    assert "stopped!" in log


def test_two_containers_of_one_image_have_one_fingerprint(
    podman: Podman, run_stagegate: Run, mnt: Path, volumes: tuple[str, ...]
) -> None:
    for name in ("pilot", "production"):
        podman.run(CPU, "stagegate", "env", "capture", f"/mnt/{name}.json", options=volumes)
    pilot, production = (json.loads((mnt / f"{name}.json").read_text()) for name in ("pilot", "production"))
    assert pilot["fingerprint"] == production["fingerprint"]


def test_both_images_differ_in_their_digest_alone(
    podman: Podman, run_stagegate: Run, mnt: Path, volumes: tuple[str, ...]
) -> None:
    digests = {image: podman("inspect", "--format={{.Digest}}", image).strip() for image in (CPU, CUDA)}
    for image, name in ((CPU, "cpu"), (CUDA, "cuda")):
        options = (*volumes, f"--env=STAGEGATE_IMAGE_DIGEST={digests[image]}")
        podman.run(image, "stagegate", "env", "capture", f"/mnt/{name}.json", options=options)

    rows = differences(run_stagegate, mnt / "cpu.json", mnt / "cuda.json")
    # The medium of the volume may be unknown on both sides.
    told = [(row["group"], row["there"], row["here"]) for row in rows if row["group"] != "volume"]
    assert told == [("image", *digests.values())]


def test_container_differs_from_its_host_as_it_was_told_to(
    podman: Podman, run_stagegate: Run, mnt: Path, volumes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LANGUAGE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    given = ("--memory=2g", "--cpus=1.5", "--shm-size=32m", "--ulimit=nofile=512:512")
    podman.run(CPU, "stagegate", "env", "capture", "/mnt/inside.json", options=(*volumes, *given))
    outside = run_stagegate("env", "capture", mnt / "outside.json")
    assert outside.returncode == 0, outside.stderr

    rows = differences(run_stagegate, mnt / "outside.json", mnt / "inside.json")
    told = {group: {row["name"]: row["here"] for row in rows if row["group"] == group} for group in GROUPS}

    assert told["limits"] == {"memory": "2.1 GB", "cpus": "1.5", "shm": "33.6 MB", "nofile": "512"}
    # The kernel, the architecture and the GPUs are the host's own, and both have one language.
    assert set(told["host"]) <= {"os", "libc"}
    assert told["gpus"] == {}
    assert told["variables"].keys().isdisjoint(LANGUAGE)


def test_libraries_that_differ_are_exactly_those_reported(
    podman: Podman, run_stagegate: Run, mnt: Path, volumes: tuple[str, ...]
) -> None:
    podman.run(CPU, "stagegate", "env", "capture", "/mnt/inside.json", options=volumes)
    run_stagegate("env", "capture", mnt / "outside.json")
    rows = differences(run_stagegate, mnt / "outside.json", mnt / "inside.json")
    reported = {row["name"]: (row["there"], row["here"]) for row in rows if row["group"] == "python"}

    outside = normalised({found.metadata["Name"]: found.version for found in distributions()})
    inside = installed(podman, CPU)
    differing = {
        name: (outside.get(name, "absent"), inside.get(name, "absent"))
        for name in outside.keys() | inside.keys()
        if outside.get(name) != inside.get(name)
    }
    assert {name: versions for name, versions in reported.items() if name in differing} == differing
    # A wheel of one version for every Python is the same one, whether pip or uv installed it.
    same = reported.keys() - differing.keys() - {"python", "files"}
    wheels = normalised({found.metadata["Name"]: found.read_text("WHEEL") or "" for found in distributions()})
    assert [name for name in same if "-none-any" in wheels[name]] == []
