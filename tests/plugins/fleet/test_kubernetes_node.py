"""What the agent changes on a Node object of Kubernetes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import AccessDenied, SourceError, UsageError
from prefect_stagegate.plugins.fleet.kubernetes import OVERALL, label_key, label_value, node_changes
from prefect_stagegate.plugins.fleet.kubernetes_api import NodeApi
from prefect_stagegate.plugins.fleet.node_readiness import NodeReadiness

DIGEST = "sha256:" + "ab" * 32
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
READY = NodeReadiness("flights", "production", DIGEST, "/cache/views/flights", "")
LACKING = NodeReadiness("flights", "production", DIGEST, "", "this node lacks sha256:abab…")
KEY = "stagegate.io/flights.production"


def a_node(labels: dict[str, str] | None = None, *conditions: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"labels": labels or {}}, "status": {"conditions": list(conditions)}}


def merged(node: dict[str, Any], *states: NodeReadiness, at: datetime = NOON) -> dict[str, Any]:
    """The Node after its changes, as Kubernetes would merge them."""
    changes = node_changes(node, states, at)
    labels = {**node["metadata"]["labels"], **changes.labels}
    conditions = {item["type"]: item for item in [*node["status"]["conditions"], *changes.conditions]}
    kept = [item for item in conditions.values() if item.get("$patch") != "delete"]
    return a_node({key: value for key, value in labels.items() if value is not None}, *kept)


def statuses(node: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in node["status"]["conditions"]}


def test_a_ready_ref_gets_its_label_and_conditions() -> None:
    node = merged(a_node({"zone": "a"}), READY)
    assert node["metadata"]["labels"] == {"zone": "a", KEY: label_value(DIGEST)}
    assert statuses(node) == {KEY: "True", OVERALL: "True"}


def test_a_ref_that_is_not_ready_loses_its_label() -> None:
    node = merged(merged(a_node(), READY), LACKING)
    assert node["metadata"]["labels"] == {}
    assert statuses(node) == {KEY: "False", OVERALL: "False"}
    assert node["status"]["conditions"][0]["message"] == LACKING.problem


def test_a_ref_that_is_kept_no_more_leaves_nothing() -> None:
    node = merged(merged(a_node(), READY))
    assert (node["metadata"]["labels"], statuses(node)) == ({}, {OVERALL: "Unknown"})


def test_labels_and_conditions_of_others_stay() -> None:
    others = {"stagegate.io/environment": "pilot", "a": "sha256-1"}
    node = merged(a_node(others, {"type": "Ready", "status": "True"}), LACKING)
    assert node["metadata"]["labels"] == others
    assert statuses(node)["Ready"] == "True"


def test_nothing_is_written_again_before_the_heartbeat() -> None:
    node = merged(a_node(), READY)
    soon = node_changes(node, [READY], NOON + timedelta(minutes=4))
    assert (soon.labels, soon.conditions) == ({}, [])
    later = merged(node, READY, at=NOON + timedelta(minutes=6))["status"]["conditions"][0]
    assert later["lastHeartbeatTime"] == "2026-11-27T12:06:00Z"
    assert later["lastTransitionTime"] == "2026-11-27T12:00:00Z"


def test_long_names_make_labels_that_kubernetes_takes() -> None:
    keys = {label_key("d" * 63, f"{'r' * 60}{end}") for end in ("-1", "-2")}
    assert len(keys) == 2
    assert all(len(key.partition("/")[2]) == 63 for key in keys)


@pytest.mark.parametrize(
    "node", [{}, {"metadata": {}, "status": {"conditions": ["no"]}}, {"metadata": [], "status": 1}]
)
def test_an_object_that_is_no_node_is_refused(node: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="not one of a Node"):
        node_changes(node, [READY], NOON)


def test_outside_of_a_pod_the_agent_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="KUBERNETES_SERVICE_HOST"):
        NodeApi.in_cluster({}, "gpu-1")


@pytest.mark.parametrize("name", ["GPU_1", "../pods", "gpu-1/status", ""])
def test_a_name_of_no_node_makes_no_request(name: str) -> None:
    with pytest.raises(UsageError, match="STAGEGATE_NODE"):
        NodeApi.in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, name)


def test_a_pod_without_a_token_is_told_how_to_get_one(tmp_path: Path) -> None:
    api = NodeApi.in_cluster({"KUBERNETES_SERVICE_HOST": "127.0.0.1"}, "gpu-1", folder=tmp_path)
    with pytest.raises(AccessDenied, match="automountServiceAccountToken"):
        api.read()
