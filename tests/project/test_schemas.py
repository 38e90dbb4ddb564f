"""The committed schemas and the names that specs may use are those of the code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import get_args

import pytest

from prefect_stagegate.gate import CHECKS, known_checks
from prefect_stagegate.spec.models import Engine, Probe
from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.files.facts import DECODERS
from prefect_stagegate.validations.files.probes import OPENERS, UNIQUE

Run = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    ("name", "flags"), [("stagegate.schema.json", ()), ("stagegate-decision.schema.json", ("--attestation",))]
)
def test_the_committed_schema_is_what_the_command_prints(run_stagegate: Run, name: str, flags: tuple[str, ...]) -> None:
    committed = Path(__file__).parents[2] / "docs" / name
    assert json.loads(committed.read_text()) == json.loads(run_stagegate("schema", *flags).stdout)


def test_the_spec_names_every_engine_and_probe() -> None:
    assert set(get_args(Engine)) == set(ENGINES)
    assert set(get_args(Probe)) == {*OPENERS, *DECODERS, UNIQUE}


CATALOGUE = {
    *("schema", "nonempty", "expectations", "coverage", "duplicates", "freshness", "drift", "balance", "digest"),
    *("read_probe", "credential_life", "space", "inodes", "cache_fit", "cache_integrity", "feed_rate", "utilisation"),
    *("gpu_inventory", "gpu_devices", "gpu_memory", "gpu_idle", "gpu_locality", "dcgm"),
    *("parity_image", "parity_python", "parity_cuda", "parity_env", "parity_host"),
    *("worker", "work_pool", "queue", "schedule", "concurrency"),
    *("owner", "runbook", "rollback", "soak", "alert", "license", "pii", "lineage", "approval", "croissant"),
    "signature",
    "metrics",
}


def test_every_name_of_the_catalogue_is_known() -> None:
    assert CHECKS.keys() == CATALOGUE
    assert known_checks().keys() == CHECKS.keys()
