"""What a fleet's policy, reports and selectors mean."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.fleet.barrier import (
    FleetPolicy,
    FleetResult,
    NodeOutcome,
    NodeReport,
    checked_report,
    merged_reports,
)
from prefect_stagegate.plugins.fleet.members import choose_nodes
from prefect_stagegate.plugins.fleet.nodes import NodeRecord

DIGEST = "sha256:" + "a" * 64
READY = NodeOutcome.READY


def ready(node: str, **facts: Any) -> NodeReport:
    return NodeReport(node, READY, DIGEST, **facts)


def lost(node: str) -> NodeReport:
    return NodeReport(node, NodeOutcome.LOST, problem="its worker is gone")


@pytest.mark.parametrize(("policy", "required"), [("all", 3), ("best_effort", 1), ({"quorum": 2}, 2)])
def test_policy_says_how_many_nodes_it_takes(policy: Any, required: int) -> None:
    assert FleetPolicy.parse(policy, 3).required(3) == required


@pytest.mark.parametrize("policy", ["most", {"quorum": 0}, {"quorum": 4}, {"quorum": True}, {"quorum": 2, "x": 1}, {}])
def test_policy_that_means_nothing_is_refused(policy: Any) -> None:
    with pytest.raises(UsageError):
        FleetPolicy.parse(policy, 3)


def test_lost_node_never_counts_as_ready() -> None:
    result = FleetResult("things", DIGEST, "pilot", "all", 2, (ready("a"), lost("b")))

    assert not result.is_met
    assert result.text.splitlines() == [
        "things@sha256:aaaaaaaaaaaa is ready on 1 of 2 nodes, and pilot names it on 0 (policy: all)",
        "  b: lost: its worker is gone",
    ]


def test_message_of_a_thousand_lost_nodes_is_bounded() -> None:
    result = FleetResult("things", DIGEST, "", "all", 1000, tuple(lost(f"n{number}") for number in range(1000)))

    assert result.text.endswith("and 980 more")


def test_report_about_other_bytes_counts_as_failed() -> None:
    report = checked_report(ready("a"), "a", "sha256:" + "b" * 64)

    assert (report.outcome, report.problem) == (NodeOutcome.FAILED, f"it holds {DIGEST}")


def test_report_of_another_node_counts_as_failed() -> None:
    report = checked_report(ready("b"), "a", DIGEST)

    assert report.outcome is NodeOutcome.FAILED
    assert "ran on b" in report.problem


def test_node_lost_before_its_ref_moved_is_not_ready() -> None:
    flips = [NodeReport("a", READY, DIGEST, flipped=True), lost("b")]
    merged = merged_reports([ready("a", files=3), ready("b"), lost("c")], flips)

    assert [(report.node, report.outcome, report.flipped) for report in merged] == [
        ("a", READY, True),
        ("b", NodeOutcome.LOST, False),
        ("c", NodeOutcome.LOST, False),
    ]
    assert merged[0].files == 3
    assert "it did not prove that the ref moved" in merged[1].problem


RECORDS = [
    NodeRecord("a", "2026-01-01T00:00:00Z", "/cache", site="berlin", gpus={"NVIDIA H100 80GB": 8}),
    NodeRecord("b", "2026-01-01T00:00:00Z", "/cache", site="berlin"),
    NodeRecord("c", "2026-01-01T00:00:00Z", "/cache", site="oslo", gpus={"NVIDIA H100 80GB": 8}),
]


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({"site": "berlin"}, ["a", "b"]),
        ({"gpu": "h100"}, ["a", "c"]),
        ({"site": "berlin", "gpu": "H100"}, ["a"]),
        (None, ["a", "b", "c", "d"]),
    ],
)
def test_selector_chooses_by_the_nodes_records(selector: dict[str, str] | None, chosen: list[str]) -> None:
    assert choose_nodes(["a", "b", "c", "d"], None, selector, RECORDS) == chosen


def test_selector_that_fits_no_node_or_is_unknown_is_refused() -> None:
    with pytest.raises(UsageError, match="has no node"):
        choose_nodes(["a"], None, {"site": "rome"}, RECORDS)
    with pytest.raises(UsageError, match="did you mean 'site'"):
        choose_nodes(["a"], None, {"sit": "rome"}, RECORDS)


def test_workers_without_a_name_are_no_nodes() -> None:
    assert choose_nodes(["ProcessWorker 4c2e", "a"], None, None, []) == ["a"]
    with pytest.raises(UsageError, match="no name of a node"):
        choose_nodes([], ["| a |"], None, [])
