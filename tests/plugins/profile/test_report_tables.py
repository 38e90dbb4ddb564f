"""The profiles of tables in a report."""

from __future__ import annotations

import json
from dataclasses import replace

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.plugins.pages.html import HEIGHT, WIDTH, Drawing
from prefect_stagegate.plugins.profile.profiles import LEVELS, ColumnProfile, TableProfile
from prefect_stagegate.plugins.profile.sections import MOST_CHANGED, MOST_COLUMNS, tables_section
from prefect_stagegate.show import Report, build_report
from prefect_stagegate.show.document import Table
from prefect_stagegate.testing.contexts import a_spec
from tests.plugins.pages.renderers import to_html
from tests.support.renderings import to_json, to_markdown

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


def report(now: TableProfile, before: TableProfile | None = None) -> Report:
    decision = Decision("things", "sha256:1", "pilot", DecisionOutcome.ACCEPTED, (), "", "", "2026-11-26T00:00:00Z")
    names = ("this version", "what pilot serves")
    section = tables_section({"trips": now}, {"trips": before} if before else {}, names)
    return build_report(decision, a_spec(), sections=(section,))


def page(now: TableProfile, before: TableProfile | None = None) -> str:
    written = report(now, before)
    assert '"profiles"' in to_json(written)
    assert "- `trips`: " in to_markdown(written)
    return to_html(written)


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
    (column,) = json.loads(to_json(report(table(kind=CATEGORIES))))["profiles"][0]["columns"]
    assert column["bars"][0] == {"share": 0.75, "share_before": 0.0, "label": "taxi: 75.0%"}


def test_text_that_may_be_personal_is_only_counted() -> None:
    hidden = replace(CATEGORIES, names={})
    html = page(table(person=hidden, salary=replace(NUMBER, withheld=True, quantiles=(), least=None)))
    assert "ab01" not in html
    assert "may be personal" in html
    assert "<title>taxi" not in html


def test_bars_stay_inside_their_picture() -> None:
    for column in (NUMBER, CATEGORIES, replace(NUMBER, quantiles=(7.0,) * LEVELS)):
        (section,) = report(table(x=column), table(x=NUMBER)).sections
        (shown,) = section.parts
        assert isinstance(shown, Table)
        figure = shown.rows[0][-1].figure
        assert figure
        shares = [share for bar in figure.bars for share in (bar.share, bar.share_before)]
        assert all(0 <= share * Drawing(figure).scale <= HEIGHT for share in shares)
        assert len(figure.bars) * Drawing(figure).step <= WIDTH


def test_columns_that_came_went_or_changed_are_named() -> None:
    before = table(fare=NUMBER, kind=CATEGORIES, tip=NUMBER)
    now = table(fare=NUMBER, kind=NUMBER, fee=NUMBER)
    markdown = to_markdown(report(now, before))
    assert "; new columns: fee; columns gone: tip; other types: kind: varchar → bigint" in markdown
    many = table(**{f"c{number}": NUMBER for number in range(MOST_CHANGED + 3)})
    assert "c49 and 3 more" in to_markdown(report(many, table()))


def test_wide_tables_show_their_first_columns() -> None:
    wide = table(**{f"c{number}": NUMBER for number in range(MOST_COLUMNS + 3)})
    html = page(replace(wide, skipped={"tags": "VARCHAR[]"}))
    assert "4 more columns." in html
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
