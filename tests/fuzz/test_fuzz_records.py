"""Catalogs and caches whose files are changed at random: typed errors only, no wrong bytes, nothing let in wrongly."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from fuzzing.campaign import WrongOutcome
from fuzzing.commands import fuzz_commands
from fuzzing.places import Truth, build, damage, node

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address
from tests.support.versions import has_version, read_manifest, read_origins

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]

COMMANDS = (
    *(("ls",), ("ls", "--json"), ("ls", "things"), ("ls", "--held"), ("show", "things@pilot", "--json")),
    *(
        ("show", "things"),
        ("history", "things@pilot"),
        ("history", "things", "--json"),
        ("history", "things", "--verify"),
    ),
    *(("gc", "--dry-run"), ("gc", "--dry-run", "--json"), ("path", "things@pilot"), ("path", "planes")),
    *(("verify",), ("verify", "--json"), ("diff", "things@pilot", "things"), ("verify-attestation", "things@pilot")),
)


def test_records_keep_their_promise(tmp_path: Path, scratch: Path) -> None:
    truth = build(tmp_path / "truth")

    def look(draw: random.Random, folder: Path) -> None:
        _entries(truth, folder)
        draw.choice((_gate, _ready))(truth, folder)
        _bytes(truth, folder)

    fuzz_commands("records", truth.folder, scratch / "place", COMMANDS, damage, look)


def _entries(truth: Truth, folder: Path) -> None:
    """What a manifest gives is its version's, or it ends in an error."""
    with suppress(StagegateError):
        catalog = node(folder).catalog
        for digest, entries in truth.entries.items():
            with suppress(StagegateError):
                if list(read_manifest(catalog, "things", digest).entries()) != entries:
                    raise WrongOutcome(f"the manifest of {digest} gave other entries")
            with suppress(StagegateError):
                given = [
                    (origin.path, origin.size, origin.digest) for origin in read_origins(catalog, "things", digest)
                ]
                if given != [(entry.path, entry.size, entry.digest) for entry in entries]:
                    raise WrongOutcome(f"the origins of {digest} gave other entries")


def _gate(truth: Truth, folder: Path) -> None:
    """No gate lets the refused version in."""
    with suppress(StagegateError):
        if check(node(folder), Address("things", truth.refused), "pilot").accepted:
            raise WrongOutcome(f"{truth.refused} was accepted")


def _ready(truth: Truth, folder: Path) -> None:
    """Nobody is told that a target names what it never named."""
    with suppress(StagegateError):
        ready = find_ready(node(folder), Address("things", "pilot")).chosen
        if ready is not None and ready.digest not in truth.accepted:
            raise WrongOutcome(f"things@pilot is said to be ready as {ready.digest}")


def _bytes(truth: Truth, folder: Path) -> None:
    """Where verification finds nothing, every file of every version has its bytes."""
    with suppress(StagegateError):
        workspace = node(folder)
        verification = verify(workspace)
        workspace.cache.memory.close()
        if verification.damaged or verification.unreadable:
            return
        for digest, entries in truth.entries.items():
            view = workspace.cache.views.path("things", digest)
            if view is None or not has_version(workspace.catalog, "things", digest):
                continue
            for entry in entries:
                if (view / entry.path).read_bytes() != _of(truth, digest, entry.path):
                    raise WrongOutcome(f"{digest} has other bytes at {entry.path}, and verify found nothing")


def _of(truth: Truth, digest: str, path: str) -> bytes:
    return (truth.folder / "cache/views/things" / digest.removeprefix("sha256:") / path).read_bytes()
