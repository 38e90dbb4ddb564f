"""What feed_rate and utilisation say of files that are really read; the figures of the volume decide nothing here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.evidence_rules import run_check, why_stale
from prefect_stagegate.model import Entry, Evidence, Outcome, Severity
from prefect_stagegate.plugins.node.bottleneck import Bottleneck, bottleneck
from prefect_stagegate.plugins.node.checks.gpu import machine
from prefect_stagegate.plugins.node.checks.job_checks import FeedRate, Utilisation
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.tiers import Reading, Tiers
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import DIGEST, a_spec, check_context

KIB = 1024
JOB = {"batch_size": 4, "sample_size": "16KiB", "step_time": 0.001, "readers": 2}
BOTH = pytest.mark.parametrize("name", ["feed_rate", "utilisation"])
SECONDS = 10


@pytest.fixture
def staged(tmp_path: Path) -> Callable[..., CheckContext]:
    """Asks about a version of eight files of 128 KiB that lies in a folder, with a job that changes describe."""

    def ask(sizes: tuple[int, ...] = (128 * KIB,) * 8, **changes: Any) -> CheckContext:
        for number, size in enumerate(sizes):
            (tmp_path / f"{number}.bin").write_bytes(os.urandom(size))
        entries = [Entry(f"{number}.bin", size, "blake3:0") for number, size in enumerate(sizes)]
        spec = a_spec(job={**JOB, **changes})
        return check_context(spec=spec, bytes=sum(sizes), entries=entries, local_view=tmp_path)

    return ask


def evidence_of(name: str, context: CheckContext, **params: Any) -> Evidence:
    requirement = Requirement(name, Severity.BLOCKING, {"seconds": f"{SECONDS}s", **params})
    return run_check(CHECKS[name], requirement, context)


@BOTH
def test_spec_without_a_job_is_inconclusive_and_says_what_to_add(name: str) -> None:
    evidence = evidence_of(name, check_context())
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "job: {batch_size: 400" in evidence.findings[0].fix


@BOTH
def test_version_that_is_not_staged_here_is_inconclusive(name: str) -> None:
    evidence = evidence_of(name, check_context(spec=a_spec(job=JOB)))
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert evidence.findings[0].fix == f"stagegate stage nycflights@{DIGEST}"


@BOTH
@pytest.mark.parametrize("sizes", [(), (0, 0)])
def test_nothing_read_is_no_pass(name: str, staged: Callable[..., CheckContext], sizes: tuple[int, ...]) -> None:
    evidence = evidence_of(name, staged(sizes))
    assert (evidence.outcome, evidence.summary) == (Outcome.INCONCLUSIVE, "0 bytes were read")


def test_fast_enough_volume_passes_with_its_bytes_by_tier(
    staged: Callable[..., CheckContext],
) -> None:
    evidence = evidence_of("feed_rate", staged(step_time=3600.0))
    assert evidence.outcome is Outcome.PASS
    assert evidence.measured["bytes"] == 8 * 128 * KIB
    assert evidence.measured["tiers"] == {"source": 0, "local": 8 * 128 * KIB, "page_cache": 0}
    assert evidence.measured["needs"] == round(64 * KIB / 3600)


@BOTH
def test_slow_volume_fails_and_names_the_bottleneck(name: str, staged: Callable[..., CheckContext]) -> None:
    evidence = evidence_of(name, staged(step_time=1e-9))
    assert evidence.outcome is Outcome.FAIL
    (finding,) = evidence.findings
    assert finding.subject == evidence.measured["bottleneck"]
    assert finding.subject in {"volume", "readers", "processor"}
    assert finding.fix
    assert evidence.summary.endswith(f"bottleneck: {finding.subject}")


def test_thresholds_are_the_policy_s(staged: Callable[..., CheckContext]) -> None:
    context = staged(step_time=1e-5)
    assert evidence_of("utilisation", context, warn=1e-9, fail=1e-9).outcome is Outcome.PASS
    assert evidence_of("utilisation", context, warn=1.0, fail=1e-9).outcome is Outcome.WARN


def test_utilisation_reads_batches_whole_and_once(staged: Callable[..., CheckContext]) -> None:
    evidence = evidence_of("utilisation", staged(accelerators=2), warn=1e-9, fail=1e-9)
    assert (evidence.measured["steps"], evidence.measured["bytes"]) == (16, 8 * 128 * KIB)
    assert evidence.measured["tiers"]["page_cache"] == 0


@pytest.mark.parametrize(
    ("changes", "params", "fix"),
    [
        ({"batch_size": 32}, {}, "The version has only 1.0 MB, and a batch 524.3 kB: correct `batch_size`"),
        ({}, {"bytes": "128KiB"}, "Raise `bytes` and `files`"),
        ({"step_time": 3600.0}, {"seconds": "1s"}, "Raise `seconds`"),
    ],
)
def test_too_few_steps_are_no_share(
    staged: Callable[..., CheckContext], changes: dict[str, Any], params: dict[str, Any], fix: str
) -> None:
    evidence = evidence_of("utilisation", staged(**changes), **params)
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert evidence.findings[0].fix.startswith(fix)


@BOTH
def test_bytes_that_may_be_read_are_a_bound(name: str, staged: Callable[..., CheckContext]) -> None:
    evidence = evidence_of(name, staged(step_time=1e-9), bytes="512KiB")
    assert evidence.measured["bytes"] == 384 * KIB


@BOTH
def test_page_cache_alone_proves_nothing_about_the_volume(
    name: str, staged: Callable[..., CheckContext], tmp_path: Path
) -> None:
    context = staged()
    account = tmp_path / "proc/self/io"  # a kernel that had nothing read from storage: all was in memory
    account.parent.mkdir(parents=True)
    account.write_text("read_bytes: 0\n")
    here = Machine(proc=tmp_path / "proc")
    evidence = evidence_of(name, replace(context, facts={**context.facts, machine: lambda: here}))
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "only the page cache was read (100% of the bytes)" in evidence.summary
    assert evidence.measured["bottleneck"] == "page cache"


@BOTH
def test_cache_on_a_network_file_system_counts_as_source(
    name: str, staged: Callable[..., CheckContext], tmp_path: Path
) -> None:
    context = staged(step_time=1e-9)
    process = tmp_path / "proc/self"
    process.mkdir(parents=True)
    (process / "io").symlink_to("/proc/self/io")
    (process / "mountinfo").write_text(f"30 1 0:45 / {tmp_path} rw - nfs4 nas:/export rw\n")
    here = Machine(proc=tmp_path / "proc")
    evidence = evidence_of(name, replace(context, facts={**context.facts, machine: lambda: here}))
    assert evidence.measured["tiers"] == {"source": 8 * 128 * KIB, "local": 0, "page_cache": 0}
    assert evidence.measured["bottleneck"] in {"source", "readers", "processor"}
    if evidence.measured["bottleneck"] == "source":
        assert evidence.findings[0].fix.endswith(f"stagegate stage nycflights@{DIGEST}")


@BOTH
def test_missing_file_is_inconclusive_with_the_command_to_repair(
    name: str, staged: Callable[..., CheckContext], tmp_path: Path
) -> None:
    context = staged()
    (tmp_path / "3.bin").unlink()
    evidence = evidence_of(name, context, seconds="1s")
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "3.bin can't be read" in evidence.findings[0].problem
    assert "stagegate verify" in evidence.findings[0].fix


@BOTH
def test_answer_ends_with_the_job_and_not_with_the_license(name: str) -> None:
    definition, requirement = CHECKS[name], Requirement(name, Severity.BLOCKING, {})
    evidence = run_check(definition, requirement, check_context(spec=a_spec(job=JOB)))
    passed = replace(evidence, outcome=Outcome.PASS)
    assert not why_stale(passed, definition, requirement, check_context(spec=a_spec(job=JOB, license="MIT")))
    assert why_stale(passed, definition, requirement, check_context(spec=a_spec(job={**JOB, "readers": 3})))


def reading(rate: int, *, cpu: float = 0.1, source: bool = False) -> Reading:
    return Reading(Tiers(source=rate) if source else Tiers(local=rate), 1.0, cpu, 0)


@pytest.mark.parametrize(
    ("first", "more", "expected"),
    [
        (reading(100), reading(100), Bottleneck.VOLUME),
        (reading(100), reading(124), Bottleneck.VOLUME),
        (reading(100), reading(125), Bottleneck.READERS),
        (reading(100, source=True), reading(100, source=True), Bottleneck.SOURCE),
        (reading(100, source=True), reading(300, source=True), Bottleneck.READERS),
        (reading(100, cpu=3.2), reading(300), Bottleneck.PROCESSOR),
        (reading(100, cpu=3.1), reading(100), Bottleneck.VOLUME),
    ],
)
def test_bottleneck_is_told_by_what_more_readers_give(first: Reading, more: Reading, expected: Bottleneck) -> None:
    assert bottleneck(first, more, cores=4) is expected


@pytest.mark.parametrize("model", [FeedRate, Utilisation])
def test_thresholds_the_wrong_way_round_are_refused(model: type[FeedRate | Utilisation]) -> None:
    with pytest.raises(ValidationError, match="`warn` must not be below `fail`"):
        model(warn=0.5, fail=0.6)
