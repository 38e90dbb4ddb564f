"""Choosing a fleet's engine, and what a node's report is when it travels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.plugins.fleet.barrier import FleetResult, NodeOutcome, NodeReport
from prefect_stagegate.plugins.fleet.engines.pool import from_message, to_message
from prefect_stagegate.plugins.fleet.engines.showing import ROWS, fleet_event, fleet_page
from prefect_stagegate.plugins.fleet.flows.stage_fleet import open_engine


@pytest.mark.parametrize("named", [(None, None, None), ("gpus", "tcp://x:1", None), (None, "tcp://x:1", "x:1")])
def test_fleet_has_exactly_one_engine(named: tuple[str | None, str | None, str | None]) -> None:
    pool, dask, ray = named
    with pytest.raises(UsageError, match="one engine"):
        open_engine(pool, "x/y", dask, ray, 90)


@pytest.mark.parametrize(("module", "dask", "ray"), [("distributed", "tcp://x:1", None), ("ray", None, "x:1")])
def test_missing_engine_is_named_with_its_extra(
    module: str, dask: str | None, ray: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"prefect-stagegate\[(dask|ray)\]"), open_engine(None, "", dask, ray, 90):
        pass


def test_pool_without_an_api_is_refused() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(UsageError, match="No Prefect API"),
        open_engine("gpus", "x/y", None, None, 90),
    ):
        pass


def test_report_comes_back_as_it_was_sent() -> None:
    report = NodeReport("a", NodeOutcome.READY, "sha256:" + "a" * 64, files=2, bytes=9, seconds=1.5, flipped=True)

    assert from_message(to_message(report)) == report


@pytest.mark.parametrize("message", ["", "Finished", "[]", '{"node": "a"}', '{"node": "a", "outcome": "fine"}'])
def test_message_without_a_report_gives_none(message: str) -> None:
    assert from_message(message) is None


def test_page_of_a_large_fleet_shows_the_missing_first() -> None:
    reports = [NodeReport(f"n{number}", NodeOutcome.READY) for number in range(ROWS + 5)]
    broken = NodeReport("z", NodeOutcome.LOST, problem="a | b\nc")
    page = fleet_page(FleetResult("things", "sha256:" + "a" * 64, "pilot", "all", 1, (*reports, broken)))

    assert page.splitlines()[4].startswith("| z | lost | 0 |")
    assert "a \\| b c" in page
    assert page.endswith("and 6 nodes more")


def test_event_has_the_keys_that_the_docs_show() -> None:
    reports = (NodeReport("gpu-1", NodeOutcome.READY), NodeReport("gpu-2", NodeOutcome.LOST, problem="no heartbeat"))
    event = fleet_event(FleetResult("things", "sha256:4f", "pilot", "all", 2, reports))
    docs = (Path(__file__).parents[3] / "docs/events.md").read_text()
    assert event.payload.keys() == json.loads(docs.split(f"`{event.name}`\n```json\n")[1].split("```")[0]).keys()
