"""Records of nodes that say anything: commands go on and name them, and no node gets other bytes by them."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fuzzing.campaign import WrongOutcome
from fuzzing.commands import fuzz_commands, run_command
from fuzzing.mutations import mutate
from fuzzing.places import Truth, build, node

from prefect_stagegate.catalog.records import encode
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, put_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]

COMMANDS = (
    *(("nodes",), ("nodes", "--json"), ("nodes", "things@pilot"), ("nodes", "things", "--json"), ("metrics",)),
    *(("ready", "things@pilot"), ("ready", "things@pilot", "--json"), ("status",), ("ls", "--json")),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**53, 2**63, 2**64, 10**400, 1e308, "", " ", "a" * 70_000, "\x1b[2J", "\u202e", "\ud800"),
    *([], {}, [[]], {"a": {}}, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-01-01", "NaN", "../..", "/"),
    *("http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://[::1", "https://user:pw@127.0.0.1:1/", "file:///etc"),
    *("javascript:alert(1)", "http://127.0.0.1:1/\r\nX: y", "http://\u2488.example.org/"),
)
NAMES = ("gpu-1", "gpu-2", "a" * 200, "..gpu", "CON", "-x")


def test_nodes_keep_their_promise(tmp_path: Path, scratch: Path) -> None:
    truth = build(tmp_path / "truth")

    def change(draw: random.Random, folder: Path) -> list[str]:
        return [plant(draw, folder, truth) for _ in range(draw.choice((1, 2, 3)))]

    def look(draw: random.Random, folder: Path) -> None:
        if draw.random() < 0.1:
            fetch(draw, folder, truth)

    fuzz_commands("nodes", truth.folder, scratch / "place", COMMANDS, change, look)


def plant(draw: random.Random, folder: Path, truth: Truth) -> str:
    """Put a node's record into the catalog; says what is wrong with it."""
    nodes = folder / "catalog" / "nodes"
    nodes.mkdir(exist_ok=True)
    name = draw.choice(NAMES)
    path = nodes / f"{name}.json"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return "nothing"
    held = tuple(HeldVersion("things", digest, 99, draw.choice((0, 9))) for digest in truth.entries)
    record = NodeRecord(
        *(name, stamp(now()), "/cache", held, {"things@pilot": held[0].digest}, 1, 1, "site"),
        *("http://127.0.0.1:1/", {"H100": 8}, "sha256:" + "0" * 64, ({"folder": "/cache", "medium": "nvme"},)),
    )
    data = encode(record)
    way = draw.choice(("sound", *("value",) * 4, *("bytes",) * 3, "deep", "huge", "link", "folder", "pipe"))
    if way == "value":
        values = json.loads(data)
        replace_value(draw, values)
        data = json.dumps(values).encode()
    elif way == "bytes":
        data = mutate(draw, data)
    elif way == "deep":
        data = b'{"name":' + b"[" * 50_000
    if way == "folder":
        path.unlink(missing_ok=True)
        path.mkdir()
    elif way == "pipe":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    elif way == "link":
        path.unlink(missing_ok=True)
        path.symlink_to(draw.choice(("nowhere", path.name, "../format")))
    elif path.is_file() or not os.path.lexists(path):
        path.write_bytes(data)
        if way == "huge":
            os.truncate(path, 6_000_000_000)
    return f"{way} {name} {data[:2000]!r}"


def replace_value(draw: random.Random, values: Any) -> None:
    """Put another value somewhere into JSON values."""
    place = draw.choice(list(values) if isinstance(values, dict) else range(len(values)))
    inner = values[place]
    if isinstance(inner, dict | list) and inner and draw.random() < 0.7:
        replace_value(draw, inner)
    else:
        values[place] = draw.choice(VALUES)


def fetch(draw: random.Random, folder: Path, truth: Truth) -> None:
    """A node of the site that fetches a version gets its bytes, from the source where no node has them."""
    workspace = open_workspace(folder / f"cache-{draw.random()}", folder / "catalog")
    settings = replace(workspace.settings, node="reader", others=(FleetSettings(site="site"),))
    digest = draw.choice(sorted(truth.entries))
    try:
        version = stage(replace(workspace, settings=settings), Address("things", digest))
    except StagegateError:
        return
    finally:
        workspace.cache.memory.close()
    paths = sorted(str(path.relative_to(version.path)) for path in version.path.rglob("*") if path.is_file())
    if paths != [entry.path for entry in truth.entries[digest]]:
        raise WrongOutcome(f"{digest} was staged with {paths}")


def test_sound_record_is_listed(tmp_path: Path) -> None:
    truth = build(tmp_path / "truth")
    sound = node(truth.folder)
    put_node(sound.catalog, NodeRecord("gpu-1", stamp(now()), "/cache"))
    assert "gpu-1" in run_command(truth.folder, ("nodes",))
