"""Reports for tests of the pages: one of each kind of decision, and the largest that people have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from prefect_stagegate.model import Decision, DecisionOutcome, Entry, Evidence, Finding, Outcome, Severity
from prefect_stagegate.model.manifest import diff
from prefect_stagegate.model.transfers import Traffic, TransferRecord
from prefect_stagegate.plugins.profile.profiles import LEVELS, ColumnProfile, TableProfile
from prefect_stagegate.plugins.profile.sections import tables_section
from prefect_stagegate.show import PastEvent, Report, VersionChanges, build_report, count_changes
from prefect_stagegate.testing.contexts import DIGEST, OTHER_DIGEST, a_spec

AT = "2026-03-01T03:00:00.000000Z"
PERSON = "ana@example.org (declared)"
TORN = "flights/2013-03.parquet"
SCHEMA = Evidence(
    "schema",
    Outcome.FAIL,
    "1 of 12 files has other columns than the contract",
    "data",
    findings=(
        Finding(
            TORN,
            "column dep_delay is missing; the file has departure_delay",
            "Rename the column back, or change the contract.",
        ),
    ),
    seconds=0.4,
)
COVERAGE = Evidence(
    "coverage",
    Outcome.FAIL,
    "1 file of 12 can't be read",
    "data",
    findings=(Finding(TORN, "the file is cut short: no footer", "Write it again, whole."),),
)
FRESHNESS = Evidence("freshness", Outcome.WARN, "the newest object is 14 h old; warns from 12 h", "data")
SPACE = Evidence(
    "cache_fit",
    Outcome.INCONCLUSIVE,
    "the volume did not answer in 5 s",
    "infra",
    findings=(Finding("/nvme/stagegate", "no answer in 5 s", "stagegate doctor nycflights", Outcome.INCONCLUSIVE),),
)
APPROVAL = Evidence(
    "approval",
    Outcome.INCONCLUSIVE,
    "0 of 1 approval by infra",
    "governance",
    findings=(
        Finding(
            "request",
            "asked by ana@example.org at 2026-03-01T03:00:00Z",
            f"stagegate approve nycflights@{DIGEST} --to production",
            Outcome.INCONCLUSIVE,
        ),
    ),
    awaiting=("infra",),
)
FINE = (
    Evidence("nonempty", Outcome.PASS, "336,776 rows, 12 files", "data", seconds=0.1),
    Evidence("license", Outcome.PASS, "CC0-1.0 permits training", "governance"),
    Evidence("digest", Outcome.PASS, "pilot accepted this version", "data"),
    Evidence("rollback", Outcome.NOT_APPLICABLE, "not applicable: first", "infra"),
)
RESULTS = [
    {
        "table": "flights",
        "expectation": f"expect_column_values_to_be_between: {column}, min {low}, max {high}",
        "column": column,
        "severity": "critical",
        "verdict": verdict,
        "observed": f"{low} to {high + 100 * (verdict == 'failed')}",
        "rows": 336_776,
        "refused": 1_204 if verdict == "failed" else 0,
        "share": 0.003575 if verdict == "failed" else 0.0,
        "examples": ["1999", "2041"] if verdict == "failed" else [],
        "seconds": 0.0123,
    }
    for column, low, high, verdict in (
        ("year", 2013, 2013, "failed"),
        ("month", 1, 12, "passed"),
        ("dep_delay", -60, 1400, "passed"),
    )
]
EXPECTATIONS = Evidence(
    "expectations", Outcome.FAIL, "1 of 3 expectations fails", "data", measured={"results": RESULTS}, seconds=2.1
)
KEPT = replace(EXPECTATIONS, outcome=Outcome.PASS, summary="3 expectations are met", measured={"results": RESULTS[1:]})
TRANSFER = TransferRecord(
    at="2026-03-01T02:41:00.000000Z",
    node="gpu-7",
    seconds=38.4,
    fetched=3_412_000_000,
    resumed=120_000_000,
    traffic=(
        Traffic("source", "s3://lake/flights/", 8, 2_900_000_000),
        Traffic("mirror", "https://mirror.example.org/flights/", 2, 412_000_000),
        Traffic("peer", "gpu-3", 1, 100_000_000),
        Traffic("cache", "", 1, 61_000_000),
    ),
    more_places=0,
    network=52.1,
    hashing=11.0,
    disk=13.7,
    backoff=4.2,
    retries=3,
)
PAST = (
    PastEvent("2026-02-28T03:04:00.000000Z", "refused", DIGEST, PERSON, "It fails schema."),
    PastEvent("2026-02-21T03:04:00.000000Z", "promoted", OTHER_DIGEST, "ben@example.org (prefect-actor)"),
    PastEvent("2026-02-14T03:04:00.000000Z", "rolled back to", "sha256:" + "b1" * 32, PERSON, "loss went up"),
    PastEvent("2026-02-14T03:03:00.000000Z", "withdrawn", "sha256:" + "c2" * 32, PERSON, "rows of a test airport"),
)


def entries(count: int, size: int = 30_000_000, *, changed: int = 0) -> list[Entry]:
    """The entries of a version; the first `changed` are other bytes."""
    return [
        Entry(
            f"flights/{number:05}.parquet", size + number * (number < changed), f"blake3:{number + (number < changed)}"
        )
        for number in range(count)
    ]


def profile(rows: int, shift: float = 0.0, columns: int = 1) -> TableProfile:
    """A table with numbers, times, categories and a column that may be personal."""
    quantiles = tuple(60 * math.tan((level + 0.5) / LEVELS * 1.4) + shift for level in range(LEVELS))
    numbers = ColumnProfile(
        "DOUBLE",
        "number",
        values=rows - rows // 40,
        nulls=rows // 40,
        distinct=900,
        least=-43,
        greatest=1301,
        mean=12.6 + shift,
        deviation=40.2,
        quantiles=quantiles,
    )
    start = 1_356_998_400_000_000
    times = replace(
        numbers,
        type="TIMESTAMP",
        kind="time",
        least=start,
        greatest=start + 31_535_000_000_000,
        quantiles=tuple(start + 31_535_000_000_000 * level / LEVELS for level in range(LEVELS)),
    )
    categories = ColumnProfile(
        "VARCHAR",
        "text",
        values=rows,
        distinct=3,
        counts={"1": rows // 2, "2": rows // 3, "3": rows // 6 + int(shift)},
        names={"1": "EWR", "2": "JFK", "3": "LGA"},
    )
    withheld = ColumnProfile("VARCHAR", "text", values=rows, distinct=4043, withheld=True)
    more = {f"measure_{number:02}": numbers for number in range(columns)}
    named = {"time_hour": times, "origin": categories, "dep_delay": numbers, "tailnum": withheld, **more}
    return TableProfile(rows, named, order=tuple(named))


def a_decision(outcome: DecisionOutcome, *checks: Evidence) -> Decision:
    """A decision of production's gate."""
    return Decision(
        dataset="nycflights",
        digest=DIGEST,
        target="production",
        outcome=outcome,
        checks=checks,
        policy="sha256:" + "a" * 64,
        environment="sha256:" + "b" * 64,
        at=AT,
        requester=PERSON,
    )


NAMES = ("this version", "what production serves")


def changes_of(now: list[Entry], before: list[Entry]) -> VersionChanges:
    """What differs between two versions."""
    size, size_before = (sum(entry.size for entry in each) for each in (now, before))
    changes = VersionChanges(OTHER_DIGEST, len(now), len(before), size, size_before)
    return count_changes(changes, diff(before, now))


@cache
def samples() -> dict[str, Report]:
    """A report of each kind, by its name."""
    now, before = profile(336_776, 4.0), profile(310_104, columns=0)
    tables = tables_section({"flights": now}, {"flights": before}, NAMES)
    changes = changes_of(entries(12, changed=2), entries(11)[1:])
    parts: Mapping[str, object] = {
        "serves": OTHER_DIGEST,
        "sections": (tables,),
        "changes": changes,
        "transfer": TRANSFER,
        "past": PAST,
    }

    def report(outcome: DecisionOutcome, *checks: Evidence, **fields: object) -> Report:
        return build_report(a_decision(outcome, *checks), a_spec(), **{**parts, **fields})  # type: ignore[arg-type]

    alone = {"serves": "", "changes": None, "past": (), "sections": (tables_section({"flights": now}, {}, NAMES),)}
    withdrawn = "It was rolled back from production at 2026-02-28T03:00:00Z by ana@example.org: loss went up."
    return {
        "passed": report(DecisionOutcome.ACCEPTED, KEPT, FRESHNESS, *FINE),
        "refused": report(DecisionOutcome.REFUSED, SCHEMA, COVERAGE, EXPECTATIONS, FRESHNESS, SPACE, *FINE),
        "inconclusive": report(DecisionOutcome.INCONCLUSIVE, SPACE, KEPT, *FINE),
        "waiting": report(DecisionOutcome.WAITING, APPROVAL, KEPT, *FINE),
        "withdrawn": report(DecisionOutcome.ACCEPTED, KEPT, *FINE, is_withdrawn=True, notes=(withdrawn,)),
        "first": report(DecisionOutcome.ACCEPTED, KEPT, *FINE, **alone),
        "empty": build_report(a_decision(DecisionOutcome.INCONCLUSIVE), a_spec()),
        "large": large(),
    }


@cache
def large() -> Report:
    """10,000 files and 60 checks, most of them with findings and all with long texts."""
    now, before = profile(50_000_000, 3.0, columns=60), profile(49_000_000, columns=60)
    tables = ("flights", "weather")
    sentence = "the values of this file lie outside of what the contract says about the column and its unit; "

    def findings(check: int) -> tuple[Finding, ...]:
        files = (f"flights/{number:05}.parquet" for number in range(50 * check, 50 * check + 50))
        return tuple(Finding(file, sentence * 3, sentence) for file in files)

    results = [
        {**RESULTS[number % 3], "expectation": sentence * 2, "examples": ["1999-01"] * 5} for number in range(200)
    ]
    checks = [
        Evidence(
            f"check_{number:02}",
            list(Outcome)[number % 4],
            sentence,
            ("data", "ai", "infra", "governance")[number % 4],
            (Severity.BLOCKING, Severity.WARNING)[number % 2],
            findings=findings(number) if number % 4 else (),
        )
        for number in range(59)
    ]
    return build_report(
        a_decision(DecisionOutcome.REFUSED, replace(EXPECTATIONS, measured={"results": results}), *checks),
        a_spec(),
        serves=OTHER_DIGEST,
        sections=(tables_section(dict.fromkeys(tables, now), dict.fromkeys(tables, before), NAMES),),
        changes=changes_of(entries(10_000, changed=9_000), entries(9_500)),
        transfer=TRANSFER,
        past=PAST,
    )
