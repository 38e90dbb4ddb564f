"""Who read which file, as reports tell it."""

from __future__ import annotations

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.readings import Reading, Readings, grouped
from prefect_stagegate.report import Report, build_report, cover, to_html, to_markdown
from prefect_stagegate.testing.contexts import a_spec

SUITE = "sha256:" + "5" * 64
NOW = Reading("run0", "2026-11-27T03:00:00.000000Z", "sha256:2", "ada (declared)", "node-7", "", SUITE, "duckdb 1.4.1")
EARLIER = Reading("run1", "2026-11-20T03:00:00.000000Z", "sha256:1", "ben (os-user)", "node-8", "flow-9", SUITE)
READINGS = {NOW.run: NOW, EARLIER.run: EARLIER}


def report(*readings: Readings, is_proven: bool = True) -> Report:
    decision = Decision("things", "sha256:2", "pilot", DecisionOutcome.ACCEPTED, (), "", "", NOW.at)
    proven = [(each, is_proven) for each in readings]
    return build_report(decision, a_spec(), coverage=tuple(cover(proven, {"a.csv": "blake3:abc"}, NOW.run)))


def table(read_by: dict[str, str], unread: dict[str, str] | None = None) -> Readings:
    return grouped("table trips", dict.fromkeys(read_by, 10), read_by, READINGS, unread or {})


def test_new_and_kept_files_stand_apart() -> None:
    drawn = report(table({"a.csv": "run0", "b.csv": "run1", "c.csv": "run1"}))
    html = to_html(drawn)
    assert "table trips: 3 files, 30 rows read by 2 validations" in html
    assert "1 file, 10 rows: new, read 2026-11-27 03:00 UTC by run run0 of ada (declared) on node-7" in html
    assert "2 files, 20 rows: kept, read 2026-11-20 03:00 UTC by run run1" in html
    assert "node-8 in flow run flow-9" in html
    assert "suite sha256:555555555555; duckdb 1.4.1" in html
    assert "<code>blake3:abc</code>" in html
    assert "- files 2, rows 20, state kept, read 2026-11-20 03:00 UTC, by run run1" in to_markdown(drawn)


def test_a_file_without_a_known_reading_says_unknown() -> None:
    html = to_html(report(table({"a.csv": "", "b.csv": "run-of-nobody"})))
    assert "2 files, 20 rows: kept, read at an unknown time by an unknown run" in html
    assert "unknown suite and libraries" in html


def test_unread_files_are_named_and_escaped() -> None:
    html = to_html(report(table({"a.csv": "run0"}, {"<b>.csv": "truncated"})))
    assert "1 file not validated" in html
    assert "<code>&lt;b&gt;.csv</code> not validated: truncated" in html


def test_a_list_of_a_later_validation_says_so() -> None:
    readings = table({"a.csv": "run0"})
    assert "this is the later list" in to_html(report(readings, is_proven=False))
    assert "this is the later list" not in to_html(report(readings))


def test_the_report_of_ten_thousand_files_stays_small() -> None:
    runs = [Reading(f"run{n}", f"2026-11-{n % 28 + 1:02}", who="ada", node="node", suite=SUITE) for n in range(2000)]
    paths = [f"year=2026/month=11/day=27/part-{number:05}-c000.snappy.parquet" for number in range(10_000)]
    read_by = {path: f"run{number % 2000}" for number, path in enumerate(paths)}
    many = grouped("table many", dict.fromkeys(paths, 10), read_by, {run.run: run for run in runs}, {})
    damaged = grouped("table damaged", {}, {}, {}, dict.fromkeys(paths, "truncated " * 50))
    drawn = report(table(dict.fromkeys(paths, "run0")), many, damaged)
    html, markdown = to_html(drawn), to_markdown(drawn)
    assert len(html) < 300_000
    assert len(markdown) < 300_000
    assert "9,950 more files" in html
    assert " more validations." in html
    assert "10,000 files not validated" in html
