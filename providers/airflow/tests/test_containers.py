"""The command in a container: podman, with this machine's files as the image."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_stagegate.holding import hold_ready
from airflow_provider_stagegate.hook import StagegateHook
from tests.conftest import Delivery
from tests.endless import wait_until

CONFIGURATION = """
[engine]
runtime = "runc"
[containers]
netns = "none"
"""
ENGINE = """#!/bin/sh
export CONTAINERS_CONF={folder}/containers.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1 TMPDIR={folder}
exec podman --root={folder}/store --runroot={folder}/run "$@"
"""
SECRET = "s3cr3t-of-the-lake"


class Engine:
    """Podman's command with a store of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "containers.conf").write_text(CONFIGURATION)
        self.path = folder / "podman"
        self.path.write_text(ENGINE.format(folder=folder))
        self.path.chmod(0o755)

    def containers(self) -> list[dict[str, Any]]:
        """The containers that run or have ended without being removed."""
        listed = subprocess.run([self.path, "ps", "--all", "--format=json"], capture_output=True, check=True)
        return list(json.loads(listed.stdout))

    def connection(self, delivery: Delivery, *options: str) -> str:
        """A connection whose command runs in a container."""
        # Podman's own limits may be above this machine's.
        limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        ulimits = [f"--ulimit={name}={':'.join(map(str, resource.getrlimit(limit)))}" for name, limit in limits.items()]
        extra = {
            **delivery.connection["extra"],
            # Every file of this machine, and an overlay for what is written elsewhere than into volumes.
            "engine": str(self.path),
            "image": "/:O",
            "options": [*ulimits, *options, "--rootfs"],
            "environment": {"LAKE_PASSWORD": SECRET},
        }
        return json.dumps({**delivery.connection, "extra": extra})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    assert shutil.which("podman"), "podman is needed: apt-get install podman runc"
    yield Engine(tmp_path / "engine")
    subprocess.run(["umount", "--quiet", tmp_path / "engine/store/overlay"], check=False)


def test_container_stages_into_the_node_s_cache(
    delivery: Delivery, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("cache", "catalog"):
        (delivery.folder / folder).mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", engine.connection(delivery))
    result = StagegateHook().run("stage", str(delivery.spec), "--json", "--progress=json")
    result.require("stage")
    assert (Path(result.document["path"]) / "0.csv").read_text() == "day,delay\n0,5\n"
    assert engine.containers() == []


def test_container_gets_its_secrets_from_no_command_line(
    delivery: Delivery, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("cache", "catalog"):
        (delivery.folder / folder).mkdir()
    connection = json.loads(engine.connection(delivery))
    connection["host"] = "/usr/bin/printenv"
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps(connection))
    command = StagegateHook().get_command()
    assert SECRET not in " ".join(command.words(["LAKE_PASSWORD"], "c"))
    printed = subprocess.run(
        command.words(["LAKE_PASSWORD"], "c"), env=command.environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == SECRET


def test_cancelled_command_leaves_no_container(
    endless: Delivery, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("cache", "catalog"):
        (endless.folder / folder).mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", engine.connection(endless, "--network=host"))

    async def cancel() -> None:
        staging = asyncio.create_task(StagegateHook().arun("stage", str(endless.spec), "--json"))
        await asyncio.to_thread(wait_until, endless.leases)
        staging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await staging

    asyncio.run(cancel())
    wait_until(lambda: engine.containers() == [], 10)
    assert endless.leases() == []


def test_version_is_held_by_a_container_until_its_reader_ends(
    delivery: Delivery, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery.promote_to_pilot()
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", engine.connection(delivery))
    with hold_ready(StagegateHook(), "tiny@pilot", print) as held:
        assert [lease["digest"] for lease in delivery.leases()] == [held.digest]
        assert (held.path / "0.csv").exists()
    assert delivery.leases() == []
    wait_until(lambda: engine.containers() == [], 10)
