"""The kept figures of a dataset's last versions: read, drawn, bounded, with decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.profile.trend_section import sparkline_text, trend_section
from prefect_stagegate.plugins.profile.trends import Trend, read_trends
from tests.support.scenario import Scenario

SUITE = {
    "expectations": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1, "max_value": 9}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "fare", "mostly": 0.75}},
        {
            "type": "expect_column_quantile_values_to_be_between",
            "kwargs": {"column": "fare", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[None, 4]]}},
        },
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "fare", "min_value": {"$PARAMETER": "x"}}},
    ]
}


@pytest.fixture
def things(tmp_path: Path) -> Scenario:
    """Three versions: the first one validated and accepted, the second validated alone, the third neither."""
    tables = {"data": {"files": "*.csv", "pii": ["name"]}}
    things = Scenario(tmp_path, gates={"production": {"require": ["license"]}}, contract={"tables": tables})
    things.deliver("fare,name\n1,Ada\n3,Ben\n")
    validate(things.node(), Address("things"))
    things.promote()
    things.deliver("fare,name\n1,Ada\n3,Ben\n8,Cy\n,Di\n")
    validate(things.node(), Address("things"))
    things.deliver("fare,name\n2,Ed\n")
    return things


def trend(things: Scenario, name: str) -> Trend:
    (found,) = (trend for trend in read_trends(things.node(), "things", 9).trends if trend.name == name)
    return found


def test_figures_are_those_that_were_kept(things: Scenario) -> None:
    assert trend(things, "data rows").values == (2.0, 4.0, None)
    assert trend(things, "data.fare missing").values == (0.0, 0.25, None)
    assert trend(things, "data.fare mean").values == (2.0, 4.0, None)
    assert trend(things, "files").values == (1.0, 1.0, 1.0)
    assert len(trend(things, "bytes").known) == 3
    known = read_trends(things.node(), "things", 2)
    assert [len(version.decisions) for version in known.versions] == [0, 0]
    assert not [each for each in known.trends if each.column == "name" and each.figure != "missing"]


def test_suite_says_what_it_accepts(things: Scenario) -> None:
    table = {"files": "*.csv", "suite": SUITE}
    spec = things.spec_file(contract={"tables": {"data": table}})
    assert things.run("policy", "adopt", str(spec), "--reason", "bounds") == 0
    assert trend(things, "data rows").bound == (1.0, 9.0)
    assert trend(things, "data.fare missing").bound == (None, 0.25)
    assert trend(things, "data.fare median").bound == (None, 4.0)
    assert trend(things, "data.fare mean").bound == (None, None)


def test_command_draws_lines_with_decisions(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert things.run("trends", "things") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 versions of things, the oldest first"
    drawn = {line.split("  ")[0]: line for line in lines}
    assert "✓··" in drawn["decisions of production"]
    assert "▁█·" in drawn["data rows"]
    assert things.run("trends", "things", "--json", "--last", "1") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(document["versions"]) == 1
    assert things.run("trends", "nothing") == 2


def test_page_has_a_bar_for_each_version(things: Scenario) -> None:
    (section,) = trend_section(things.node(), Address("things"))
    table: Any = section.parts[0]
    rows = {row[0].text: row for row in table.rows}
    figure = rows["data rows"][-1].figure
    assert figure is not None
    assert [bar.share for bar in figure.bars] == [0.5, 1.0, 0.0]
    assert "2; production accepted" in figure.bars[0].label
    assert "unknown; not decided" in figure.bars[2].label
    first = Scenario(things.folder, "first")
    first.deliver("one")
    assert not trend_section(first.node(), Address("first"))


def test_extreme_figures_are_drawn() -> None:
    assert sparkline_text(Trend("", "", "x", (-1.7e308, 1.7e308, None))) == "▁█·"
    assert sparkline_text(Trend("", "", "x", (7.0, 7.0))) == "▁▁"
    assert sparkline_text(Trend("", "", "x", (None,))) == "·"


def test_number_of_versions_is_bounded(things: Scenario) -> None:
    with pytest.raises(UsageError, match="101 versions can't be shown"):
        read_trends(things.node(), "things", 101)
