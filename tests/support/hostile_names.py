"""Names that somebody chose to do harm, and reports about files that have them."""

from __future__ import annotations

import random
import unicodedata

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome
from prefect_stagegate.show import Report, build_report
from prefect_stagegate.testing.contexts import DIGEST, a_spec

SEED = 20260301
COUNT = 800
PIECES = (
    *("..", ".", "", "a", "A", "b.parquet", "~", "-rf", "con", "NUL.txt", " ", "x ", "$(id)", "`id`", ";id", "&", "|"),
    *("a\nb", "a\r\nPASS", "\t", "\x00", "\x01", "\x7f", "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\x85", "\x08\x08"),
    *("\u202egpj.exe", "\u2066\u2069", "\u200b", "\u2028", "\u2029", "\ufeff", "\U0001f600", "\ud800", "\udcff\udcfe"),
    *("caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "A\u030a", "\uac00", "\u1100\u1161", "stra\u00dfe", "STRASSE"),
    *("<script>alert(1)<", "](javascript:alert(1))", "![x](http:", "<img src=x onerror=y>", '" onload="', "{{7*7}}"),
    *("[red]", "[/red]", "**bold**", "| cell |", "&lt;", "%2e%2e", "%00", "%s%n", "?x=1", "#frag", "a\\b", "..\\..\\x"),
    *("*", "[ab]", "{a,b}", "!x", "x" * 255, "x" * 256, "\u00e9" * 128, "blake3:" + "0" * 64, "a@b", "sha256:x", "'"),
)


def hostile_names() -> list[str]:
    """The same every time: pieces alone, then random paths of them, some cut off, doubled or absolute."""
    chance = random.Random(SEED)
    names = dict.fromkeys(PIECES)
    names.update(dict.fromkeys(["/etc/cron.d/x", "../" * 20 + "tmp/climbed", "a/../../climbed", "d/" * 600 + "x"]))
    while len(names) < COUNT:
        name = "/".join(chance.choice(PIECES) + chance.choice(["", "", "x"]) for _ in range(chance.randint(1, 3)))
        names[chance.choice([*[""] * 9, "/", "../"]) + name + chance.choice([*[""] * 9, "/", "\n"])] = None
    return list(names)


NAMES = hostile_names()
BATCH = 60
BATCHES = [[name for name in NAMES[start : start + BATCH] if len(name) < 300] for start in range(0, COUNT, BATCH)]


def report_about(names: list[str]) -> Report:
    findings = tuple(Finding(name, f"{name} is wrong", f"Rename {name}.") for name in names)
    checks = tuple(
        Evidence(f"check{number}", Outcome.FAIL, f"{finding.subject} decided", "data", findings=(finding,))
        for number, finding in enumerate(findings)
    )
    decision = Decision(
        *("odd", DIGEST, "production", DecisionOutcome.REFUSED, checks, "sha256:" + "a" * 64, "sha256:" + "b" * 64),
        at="2026-03-01T03:00:00.000000Z",
    )
    return build_report(decision, a_spec())


def acting(text: str) -> set[str]:
    """The characters that do something: they steer a terminal, break a line, turn the writing or are none."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return {c for c in text if c not in "\n\t" and (unicodedata.category(c) in kinds or c in "\u202e\u2066\u2069")}
