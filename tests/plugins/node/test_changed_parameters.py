"""How two policies differ in a parameter that has no known order."""

from __future__ import annotations

from typing import Any

from prefect_stagegate.jobs.gating.policy import changes


def told(old: dict[str, Any], new: dict[str, Any]) -> set[tuple[str, str]]:
    return {(change.difference, change.direction.value) for change in changes(old, new, "things")}


def requiring(*require: Any) -> dict[str, Any]:
    return {"gates": {"pilot": {"require": list(require)}}}


def test_parameter_without_a_known_order_is_loosened() -> None:
    old, new = ({"gpu_inventory": {"model": model}} for model in ("NVIDIA H100", "NVIDIA T4"))
    assert told(requiring(old), requiring(new)) == {
        ("gpu_inventory: model NVIDIA H100 → NVIDIA T4", "loosened"),
    }
