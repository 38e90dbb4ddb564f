"""What reports of real decisions say from the catalog's records: changes, the transfer and the past."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.kept_records import TRANSFERS, read_kept
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Address, DecisionOutcome
from prefect_stagegate.show import Report
from tests.support.renderings import to_markdown, to_text
from tests.support.scenario import Scenario

GATES = {"pilot": {"require": ["license", "nonempty"]}}
TABLES = {"tables": {"days": {"files": "*.csv"}}}


@pytest.fixture
def things(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES, contract=TABLES)


def report(things: Scenario) -> Report:
    decision = check(things.node(), Address(things.dataset), "pilot")
    return report_of(things.node(), decision)


def test_report_compares_with_what_the_target_serves(things: Scenario) -> None:
    (things.nas / "readme.txt").write_text("first")
    first = things.deliver("day\n1\n").digest
    assert report(things).changes is None
    things.promote("pilot")
    (things.nas / "readme.txt").unlink()
    (things.nas / "more.csv").write_text("day\n2\n")
    things.deliver("day\n1\n3\n")

    changes = report(things).changes

    assert changes
    assert (changes.before, changes.files, changes.files_before) == (first, 2, 2)
    assert changes.summary == "1 file added (6 B), 1 file removed (5 B), 1 file changed (8 B)"


def test_transfer_is_kept_beside_its_version(things: Scenario) -> None:
    (things.nas / "large.bin").write_bytes(b"x" * 3_000_000)
    version = things.deliver("day\n1\n")
    kept = read_kept(things.node().catalog, TRANSFERS, things.dataset, digest=version.digest)
    assert kept
    assert kept == report(things).transfer
    assert kept.fetched == version.bytes
    (source,) = kept.traffic
    assert (source.tier, source.name, source.objects) == ("source", f"file://{things.nas}", 2)
    assert kept.seconds > 0
    assert sum(kept.shares.values()) == pytest.approx(1)


def test_transfer_tells_what_the_cache_had(things: Scenario) -> None:
    (things.nas / "large.bin").write_bytes(b"x" * 3_000_000)
    os.utime(things.nas / "large.bin", (0, 0))  # so old that its pin may be remembered
    first = things.deliver("day\n1\n")
    kept = read_kept(things.node().catalog, TRANSFERS, things.dataset, digest=first.digest)
    second = things.deliver("day\n2\n")

    transfer = read_kept(things.node().catalog, TRANSFERS, things.dataset, digest=second.digest)

    assert transfer
    assert {place.tier: place.bytes for place in transfer.traffic} == {"cache": 3_000_000, "source": 6}
    assert read_kept(things.node().catalog, TRANSFERS, things.dataset, digest=first.digest) == kept


def test_past_has_moves_and_earlier_decisions(things: Scenario) -> None:
    first = things.deliver("day\n1\n").digest
    assert report(things).past == ()
    things.promote("pilot")
    second = things.deliver("day\n2\n").digest
    things.promote("pilot")
    rollback(things.node(), Address(things.dataset, "pilot"), reason="loss went up")

    again = report(things)

    assert [(event.what, event.digest) for event in again.past] == [
        ("rolled back to", first),
        ("promoted", second),
        ("accepted", second),
        ("promoted", first),
    ]
    assert (again.is_withdrawn, again.past[0].why) == (True, "loss went up")
    assert again.outcome is DecisionOutcome.ACCEPTED
    assert "History of pilot" in to_markdown(again)


@pytest.mark.parametrize("values", [{"seconds": -1}, {"fetched": 10**400}, {"at": 1}])
def test_damaged_record_costs_its_part_of_the_report_only(
    things: Scenario, caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    things.deliver("day\n1\n")
    (file,) = (things.folder / "catalog").glob("datasets/things/transfers/*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "values": {**record["values"], **values}}))

    damaged = report(things)

    assert damaged.transfer is None
    assert damaged.outcome is DecisionOutcome.ACCEPTED
    assert "does not say what was transferred" in caplog.text
    assert "is accepted for pilot" in to_text(damaged)
