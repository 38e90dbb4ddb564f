"""Lineage.

A check that everything in a version can be traced to where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefect_stagegate.gate.base import CheckResult, NoParameters
from prefect_stagegate.gate.check_context import CheckContext, origins
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Entry, Finding, Origin, Outcome
from prefect_stagegate.units import count_text

SHOWN = 20
"""Files that are named before the rest is only counted."""


@Check("lineage", owner="governance", renewal=Renewal.CHEAP)
def lineage(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether every file has a source, and a pin that fixes the object it was read from.

    A weak pin (mtime, which other bytes can carry too) warns; a file without a source, a pin or the manifest's digest
    fails. No file is inconclusive. After SLSA's provenance (https://slsa.dev/spec/v1.0/provenance).
    """
    files = gaps = weak = 0
    shown: list[Finding] = []
    for entry, origin in _paired(context.entries(), origins(context)):
        files += 1
        finding = _gap(entry, origin)
        if finding is None:
            continue
        gaps, weak = gaps + (finding.outcome is Outcome.FAIL), weak + (finding.outcome is Outcome.WARN)
        # Failures first, so that warnings never displace them; cut here, for a version may have millions of files.
        shown = sorted([*shown, finding], key=lambda finding: finding.outcome is not Outcome.FAIL)[:SHOWN]
    measured = {"files": files, "gaps": gaps, "weak": weak}
    if not files:
        return CheckResult(Outcome.INCONCLUSIVE, "the version has no files", measured=measured)
    if gaps:
        return CheckResult(
            Outcome.FAIL, f"{gaps:,} of {count_text(files, 'file')} can't be traced", tuple(shown), measured
        )
    if weak:
        summary = f"{weak:,} of {count_text(files, 'file')} have only a weak pin"
        return CheckResult(Outcome.WARN, summary, tuple(shown), measured)
    return CheckResult(Outcome.PASS, f"{count_text(files, 'file')} traced to pinned objects", measured=measured)


def _paired(entries: Iterator[Entry], origins: Iterator[Origin]) -> Iterator[tuple[Entry, Origin | None]]:
    """Each entry with its origin. Both come sorted by the bytes of their paths, so one pass needs no memory."""
    origin = next(origins, None)
    for entry in entries:
        while origin is not None and origin.path.encode() < entry.path.encode():
            origin = next(origins, None)
        yield entry, origin if origin is not None and origin.path == entry.path else None


def _gap(entry: Entry, origin: Origin | None) -> Finding | None:
    fix = "Stage it again from its sources, which records where each file comes from: stagegate stage SPEC"
    if origin is None or not origin.source:
        return Finding(entry.path, "no source is recorded for it", fix)
    if origin.digest != entry.digest:
        return Finding(entry.path, "its recorded origin has another digest", fix)
    if not origin.pin.value:
        return Finding(entry.path, f"no pin is recorded for the object at {origin.source}", fix)
    if origin.pin.strength == "weak":
        better = "For proof, read from a source with versions or checksums, such as an object store."
        return Finding(entry.path, f"its only pin is a weak one: {origin.pin.kind}", better, Outcome.WARN)
    return None
