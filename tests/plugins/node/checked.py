"""What checks of nodes look at, for `tests/contract/test_checks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect_stagegate.environment.nvml import Gpus
from prefect_stagegate.gate.check_context import Fact
from prefect_stagegate.plugins.node.checks.gpu import machine, nvml_gpus
from prefect_stagegate.plugins.node.machine import Machine

NAMED: dict[str, dict[str, Any]] = {
    "worker": {"pool": "gpu"},
    "work_pool": {"pool": "gpu"},
    "queue": {"pool": "gpu"},
    "schedule": {"deployment": "refresh/nycflights"},
    "concurrency": {"limits": ["stagegate-node-gpu-1"]},
}
PRESENT: dict[Fact[Any, Any], Any] = {}


def failing(look: Callable[[str], Any]) -> dict[Fact[Any, Any], Any]:
    return {nvml_gpus: look("nvml_gpus")}


def nothing(root: Path) -> dict[Fact[Any, Any], Any]:
    return {machine: Machine(root), nvml_gpus: Gpus()}
