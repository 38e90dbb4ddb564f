"""What a report says beside the checks: what changed, what was transferred, what happened before; and its size."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from prefect_stagegate.model import Entry
from prefect_stagegate.model.manifest import diff
from prefect_stagegate.model.transfers import NAME
from prefect_stagegate.plugins.pages.html import link_of
from prefect_stagegate.plugins.profile.sections import tables_section
from prefect_stagegate.show import VersionChanges, count_changes, document_of
from prefect_stagegate.show.changes import LISTED
from prefect_stagegate.show.document import Table
from prefect_stagegate.show.markdown import link
from prefect_stagegate.show.report_document import bottleneck_text, transfer_text
from prefect_stagegate.show.rows import Row, tally
from prefect_stagegate.show.trimming import DETAILS, MOST_BYTES, trimmed
from tests.plugins.pages.renderers import to_html
from tests.plugins.reports import TRANSFER, a_decision, large, profile, samples
from tests.support.renderings import to_artifact, to_json, to_markdown
from tests.unit.test_report import HOSTILE

LARGEST = large()
REFUSED = samples()["refused"]


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes; not the code spans, which backticks make."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "code":
            self.found.append((tag, tuple(name for name, _ in attrs)))


# ── what changed ────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(before: dict[str, int], now: dict[str, int]) -> VersionChanges:
    old, new = ([Entry(path, size, f"blake3:{size}") for path, size in sorted(each.items())] for each in (before, now))
    changes = VersionChanges("sha256:b", len(new), len(old), sum(now.values()), sum(before.values()))
    return count_changes(changes, diff(old, new))


def test_files_and_bytes_that_differ_are_counted() -> None:
    changes = changed({"gone": 5, "kept": 7, "grown": 1}, {"kept": 7, "grown": 1000, "new": 10})
    assert changes.summary == "1 file added (10 B), 1 file removed (5 B), 1 file changed (1.0 kB)"
    assert [(file.path, file.change, file.size, file.size_before) for file in changes.listed] == [
        ("grown", "changed", 1000, 1),
        ("new", "added", 10, None),
        ("gone", "removed", None, 5),
    ]
    assert changed({"a": 1}, {"a": 1}).summary == "nothing: the two have the same files"


def test_largest_differences_are_listed_and_the_rest_counted() -> None:
    changes = changed({}, {f"{number:04}": number for number in range(10 * LISTED)})
    assert [file.size for file in changes.listed[:2]] == [10 * LISTED - 1, 10 * LISTED - 2]
    assert (len(changes.listed), changes.more) == (LISTED, 9 * LISTED)


def test_versions_too_large_to_compare_have_their_sizes() -> None:
    changes = VersionChanges("sha256:b", 500_000, 400_000, 5_000_000, 4_000_000, is_compared=False)
    assert changes.summary == "500,000 files, 400,000 before; 5.0 MB, 4.0 MB before"
    assert "Files that differ" not in to_html(replace(REFUSED, changes=changes))


def test_first_version_changes_nothing_and_says_so() -> None:
    first = samples()["first"]
    for written in (to_html(first), to_markdown(first)):
        assert "What changed" not in written
        assert "no version" in written


# ── what was transferred ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("address", ["file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "HTTPS"])
def test_only_web_and_mail_addresses_are_links(address: str) -> None:
    assert "](" not in link("Runbook", address)
    assert link_of(address) == ""
    assert link("Runbook", "https://wiki.example.org/x") == "[Runbook](https://wiki.example.org/x)"


@pytest.mark.parametrize(
    ("network", "hashing", "disk", "sentence"),
    [
        (8, 1, 1, "The network was the bottleneck: 80% waiting for bytes, 10% hashing, 10% writing to disk"),
        (1, 8, 1, "Hashing was the bottleneck: 80% hashing, 10% waiting for bytes, 10% writing to disk"),
        (1, 1, 8, "The disk was the bottleneck: 80% writing to disk, 10% waiting for bytes, 10% hashing"),
    ],
)
def test_side_that_took_most_time_is_the_bottleneck(network: float, hashing: float, disk: float, sentence: str) -> None:
    transfer = replace(TRANSFER, network=network, hashing=hashing, disk=disk)
    assert bottleneck_text(transfer) == sentence
    for written in (to_html(replace(REFUSED, transfer=transfer)), to_markdown(replace(REFUSED, transfer=transfer))):
        assert sentence in written


def test_record_of_zeros_is_shown() -> None:
    nothing = replace(TRANSFER, seconds=0, fetched=0, resumed=0, network=0, hashing=0, disk=0)
    assert transfer_text(replace(nothing, retries=0, backoff=0)) == "0 B in 0.0 s (0 B/s)"
    assert "Transfer" in to_html(replace(REFUSED, transfer=nothing))


def test_places_of_control_characters_are_shown() -> None:
    odd = replace(TRANSFER, traffic=(replace(TRANSFER.traffic[0], name="\U00100000" * NAME),))
    for written in (to_html(replace(REFUSED, transfer=odd)), to_artifact(replace(REFUSED, transfer=odd))):
        assert "U00100000" in written
        assert "\U00100000" not in written


# ── all parts in all formats ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("writer", [to_html, to_markdown, to_artifact], ids=["html", "markdown", "artifact"])
def test_every_part_is_in_pages_and_artifacts(writer: Any) -> None:
    written = writer(REFUSED).replace("\\", "")
    for part in (
        ("9 checks: 3 fail, 1 inconclusive, 1 warn, 3 pass, 1 not applicable",),
        ("What changed", "2 files added (60.0 MB), 1 file changed (30.0 MB)", "new columns: measure_00"),
        ("Transfer", "3.4 GB in 38.4 s (88.9 MB/s)", "s3://lake/flights/", "gpu-3"),
        ("History of production", "rolled back to", "loss went up"),
        ("1,204 of 336,776",),
    ):
        for text in part:
            assert text in written, text


def test_json_has_every_part() -> None:
    read = json.loads(to_json(REFUSED))
    assert read["changes"]["added"] == {"files": 2, "bytes": 60_000_000}
    assert read["transfer"]["traffic"][0] == {
        "tier": "source",
        "name": "s3://lake/flights/",
        "objects": 8,
        "bytes": 2_900_000_000,
    }
    assert [event["what"] for event in read["past"]] == ["refused", "promoted", "rolled back to", "withdrawn"]


def test_artifact_begins_with_one_screen() -> None:
    screen, _, rest = to_artifact(REFUSED, {"This version": "https://gate.example.org/v"}).partition("\n---\n")
    assert len([line for line in screen.splitlines() if line]) <= 15
    assert "[This version](https://gate.example.org/v)" in screen
    assert "### All checks" in rest


# ── hostile texts ───────────────────────────────────────────────────────────────────────────────────────────────────


def rewritten(value: Any, text: str) -> Any:
    """The value with another text in the place of each text that data, people or servers wrote."""
    if isinstance(value, str):
        return value if type(value) is not str or not value else text
    if isinstance(value, tuple):
        return tuple(rewritten(item, text) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {"check", "digest", "target", "verdict", "tier", "at", "before", "fix", "role", "what", "dataset"}
        return replace(
            value,
            **{
                field.name: rewritten(getattr(value, field.name), text)
                for field in fields(value)
                if field.name not in own
            },
        )
    return value


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_anywhere_adds_no_tag_and_no_line(name: str) -> None:
    hostile, harmless = (rewritten(replace(REFUSED, steps=("x",), turns=()), text) for text in (name, "harmless"))
    assert Tags(to_html(hostile)).found == Tags(to_html(harmless)).found
    assert to_markdown(hostile).count("\n") == to_markdown(harmless).count("\n")
    for written in (to_html(hostile), to_markdown(hostile), to_artifact(hostile)):
        assert not set("\x1b\x07\u202e").intersection(written)


def test_report_of_10000_files_and_60_checks_is_small() -> None:
    page = to_html(LARGEST)
    assert len(LARGEST.rows) == 60
    assert len(page.encode()) <= MOST_BYTES
    assert f"{9_500 - 50:,} more files" in page  # of 9,000 changed and 500 new ones
    assert "more; <code>--json</code> has all of them" in page


def test_page_stays_small_whatever_checks_write() -> None:
    rows = tuple(replace(row, summary="<&>" * 5000, results=()) for row in LARGEST.rows)
    huge = tuple(replace(row, findings=tuple(replace(f, problem="é" * 4_000) for f in row.findings)) for row in rows)
    name = "x" * 100_000  # Parquet permits it
    wide = tables_section({name: replace(profile(1), columns={name: profile(1).columns["origin"]})}, {}, (name, name))
    hostile = replace(LARGEST, rows=huge, sections=(wide, *LARGEST.sections))
    for page in (to_html(hostile), to_artifact(hostile)):
        assert len(page.encode()) <= MOST_BYTES
        assert all(row.check in page for row in LARGEST.rows)
        assert "stagegate check nycflights@latest --gate production" in page


def test_trimming_counts_what_it_leaves_out() -> None:
    def total(rows: tuple[Row, ...]) -> int:
        return sum(len(row.findings) + row.findings_left_out for row in rows)

    whole = document_of(LARGEST)
    for detail in DETAILS:
        small = trimmed(whole, detail)
        assert total(small.checks) == total(whole.checks)
        assert sum(len(row.findings) for row in small.checks) <= detail.findings
        for section, cut in zip(whole.sections, small.sections, strict=True):
            counts = [
                [len(part.rows) + part.more for part in each.parts if isinstance(part, Table)]
                for each in (section, cut)
            ]
            assert counts[0] == counts[1]
    assert trimmed(document_of(REFUSED), DETAILS[0]) == document_of(REFUSED)


def test_decision_without_checks_has_no_bar() -> None:
    empty = samples()["empty"]
    assert tally(empty.rows) == {}
    assert 'class="bar"' not in to_html(empty)
    assert a_decision(empty.outcome).checks == ()
