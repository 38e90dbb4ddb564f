"""The profiles of tables in a report."""

from __future__ import annotations

import json
from dataclasses import replace

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.plugins.profile.profiles import LEVELS, ColumnProfile, TableProfile
from prefect_stagegate.show import build_report, table_figures, to_html, to_json, to_markdown
from prefect_stagegate.show.tables import HEIGHT, MOST_COLUMNS, WIDTH
from prefect_stagegate.testing.contexts import a_spec

NUMBER = ColumnProfile(
    "BIGINT",
    "number",
    values=90,
    nulls=10,
    distinct=90,
    least=0,
    greatest=199,
    mean=99.5,
    deviation=57.0,
    quantiles=tuple(map(float, range(LEVELS))),
)
CATEGORIES = ColumnProfile(
    "VARCHAR", "text", values=100, distinct=2, counts={"ab01": 75, "ab02": 25}, names={"ab01": "taxi", "ab02": "<bus>"}
)


def table(**columns: ColumnProfile) -> TableProfile:
    return TableProfile(100, columns, order=tuple(columns))


def page(now: TableProfile, before: TableProfile | None = None) -> str:
    decision = Decision("things", "sha256:1", "pilot", DecisionOutcome.ACCEPTED, (), "", "", "2026-11-26T00:00:00Z")
    report = build_report(decision, a_spec(), profiles=(table_figures("trips", now, before),))
    assert '"profiles"' in to_json(report)
    assert "- `trips`: " in to_markdown(report)
    return to_html(report)


def test_a_column_stands_beside_what_the_target_serves() -> None:
    before = replace(NUMBER, values=100, nulls=0, mean=50.0)
    html = page(table(miles=NUMBER), table(miles=before))
    assert "10 %" in html
    assert "before none" in html
    assert "before 0 to 199, mean 50" in html
    assert html.count('class="before"') > 1
    assert "what pilot serves" in html


def test_values_of_categories_are_shown_and_escaped() -> None:
    html = page(table(kind=CATEGORIES))
    assert "<title>taxi: 75.0%</title>" in html
    assert "&lt;bus&gt;: 25.0%" in html
    assert "<bus>" not in html


def test_json_has_shares_and_no_geometry() -> None:
    report = build_report(
        Decision("things", "sha256:1", "pilot", DecisionOutcome.ACCEPTED, (), "", "", "2026-11-26T00:00:00Z"),
        a_spec(),
        profiles=(table_figures("trips", table(kind=CATEGORIES), None),),
    )
    (column,) = json.loads(to_json(report))["profiles"][0]["columns"]
    assert column["bars"][0] == {"share": 0.75, "share_before": 0.0, "label": "taxi: 75.0%"}


def test_text_that_may_be_personal_is_only_counted() -> None:
    hidden = replace(CATEGORIES, names={})
    html = page(table(person=hidden, salary=replace(NUMBER, withheld=True, quantiles=(), least=None)))
    assert "ab01" not in html
    assert "may be personal" in html
    assert "<title>taxi" not in html


def test_bars_stay_inside_their_picture() -> None:
    for column in (NUMBER, CATEGORIES, replace(NUMBER, quantiles=(7.0,) * LEVELS)):
        for figures in table_figures("t", table(x=column), table(x=NUMBER)).columns:
            assert figures.bars
            shares = [share for bar in figures.bars for share in (bar.share, bar.share_before)]
            assert all(0 <= share * figures.scale <= HEIGHT for share in shares)
            assert len(figures.bars) * figures.step <= WIDTH


def test_wide_tables_show_their_first_columns() -> None:
    wide = table(**{f"c{number}": NUMBER for number in range(MOST_COLUMNS + 3)})
    html = page(replace(wide, skipped={"tags": "VARCHAR[]"}))
    assert "4 more columns are not shown" in html
    assert "c49" in html
    assert "c50" not in html


def test_an_empty_table_and_odd_times_are_drawn() -> None:
    empty = ColumnProfile("DOUBLE", "number")
    far = replace(NUMBER, type="TIMESTAMP", kind="time", least=-(10**18), greatest=10**18)
    html = page(TableProfile(0, {"x": empty, "at": far}, {"tags": "STRUCT(a INTEGER)"}))
    assert "0 rows" in html
    assert "s since 1970" in html
    assert "not profiled" in html


def test_numbers_too_far_apart_for_a_picture_have_none() -> None:
    """As where the largest numbers that there are stand for missing ones."""
    far = replace(NUMBER, least=-1.7e308, greatest=1.7e308, quantiles=(-1.7e308, *NUMBER.quantiles[1:-1], 1.7e308))
    html = page(table(miles=far), table(miles=NUMBER))
    assert "-1.7e+308 to 1.7e+308" in html
    assert "Distribution of miles" not in html
