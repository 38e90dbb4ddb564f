"""What the checks on GPUs say of facts, of device nodes and of what a `dcgmi` on the PATH writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.environment.nvml import Gpu, Gpus
from prefect_stagegate.gate import CHECKS, CheckResult
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.model import Outcome, Severity
from prefect_stagegate.plugins.node.checks import gpu as gpu_module
from prefect_stagegate.plugins.node.checks.gpu import (
    GpuIdle,
    GpuInventory,
    GpuMemory,
    OnGpus,
    gpu_devices,
    gpu_idle,
    gpu_inventory,
    gpu_memory,
    nvml_gpus,
)
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import check_context

HERE = Path(__file__).parent
GPU_CHECKS = ("gpu_inventory", "gpu_devices", "gpu_memory", "gpu_idle", "gpu_locality", "dcgm")
H100 = Gpu(
    index=0,
    minor=0,
    uuid="GPU-1",
    name="NVIDIA H100 80GB HBM3",
    pci="0000:18:00.0",
    memory=80 * 2**30,
    used=4 * 2**20,
    processes=(),
    mig=False,
    ecc_corrected=0,
    ecc_uncorrected=0,
    retired_pages=None,
    retirement_pending=None,
    remap_pending=False,
    remap_failed=False,
)
V100 = replace(H100, name="Tesla V100", mig=None, retired_pages=0, retirement_pending=False, remap_pending=None,
               remap_failed=None)  # fmt: skip


def node(*gpus: Gpu) -> Callable[[], Gpus]:
    return lambda: Gpus("550.54.15", "12.4", gpus)


@pytest.mark.parametrize("name", GPU_CHECKS)
@pytest.mark.parametrize("absent", [None, "inconclusive", "not_applicable"])
def test_node_without_gpus_is_never_a_pass(name: str, absent: str | None) -> None:
    params = {"absent": absent} if absent else {}
    evidence = run_check(CHECKS[name], Requirement(name, Severity.BLOCKING, params), check_context({nvml_gpus: Gpus}))
    assert evidence.outcome is (Outcome.NOT_APPLICABLE if absent == "not_applicable" else Outcome.INCONCLUSIVE)
    assert evidence.summary == "this node has no GPU"


@pytest.mark.parametrize(
    ("declared", "outcome", "said"),
    [
        ({"count": 2}, Outcome.PASS, "2 GPUs: NVIDIA H100 80GB HBM3"),
        ({"count": 2, "model": "nvidia h100 80gb hbm3", "mig": "disabled"}, Outcome.PASS, "2 GPUs"),
        ({"count": 8}, Outcome.FAIL, "8 GPUs declared, 2 found"),
        ({"model": "NVIDIA A100-SXM4-80GB"}, Outcome.FAIL, "GPU 0 (0000:18:00.0): it is a NVIDIA H100"),
        ({"mig": "enabled"}, Outcome.FAIL, "MIG is disabled, and enabled is declared"),
        ({}, Outcome.INCONCLUSIVE, "the policy declares no GPUs; this node has"),
    ],
)
def test_inventory_is_compared_with_what_is_declared(declared: dict[str, Any], outcome: Outcome, said: str) -> None:
    context = check_context({nvml_gpus: node(H100, replace(H100, index=1, pci="0000:2a:00.0"))})
    answer = gpu_inventory(context, GpuInventory.model_validate(declared))
    assert answer.outcome is outcome
    assert said in answer.summary


def test_mig_is_put_right_by_the_command_that_is_named() -> None:
    answer = gpu_inventory(
        check_context({nvml_gpus: node(replace(H100, index=3, mig=True))}), GpuInventory(mig="disabled")
    )
    assert answer.findings[0].fix == "nvidia-smi -i 3 -mig 0"


@pytest.mark.parametrize(
    ("gpu", "outcome"),
    [
        (H100, Outcome.PASS),
        (V100, Outcome.PASS),
        (replace(H100, ecc_corrected=50_000_000), Outcome.PASS),
        (replace(H100, ecc_corrected=50_000_001), Outcome.FAIL),
        (replace(H100, ecc_uncorrected=1), Outcome.FAIL),
        (replace(H100, remap_pending=True), Outcome.FAIL),
        (replace(H100, remap_failed=True), Outcome.FAIL),
        (replace(V100, retired_pages=10), Outcome.PASS),
        (replace(V100, retired_pages=11), Outcome.FAIL),
        (replace(V100, retirement_pending=True), Outcome.FAIL),
        (replace(H100, ecc_corrected=None, ecc_uncorrected=None), Outcome.INCONCLUSIVE),
        (replace(H100, remap_pending=None), Outcome.INCONCLUSIVE),
    ],
)
def test_unsound_memory_fails_and_uncounted_errors_are_unknown(gpu: Gpu, outcome: Outcome) -> None:
    assert gpu_memory(check_context({nvml_gpus: node(H100, gpu)}), GpuMemory()).outcome is outcome


def test_unsound_gpus_are_named_and_a_failure_outweighs_unknown() -> None:
    gpus = node(replace(H100, ecc_corrected=None), replace(H100, index=1, pci="0000:2a:00.0", ecc_uncorrected=2))
    answer = gpu_memory(check_context({nvml_gpus: gpus}), GpuMemory())
    assert answer.outcome is Outcome.FAIL
    assert answer.summary.startswith("GPU 1 (0000:2a:00.0): 2 uncorrected memory errors; 0 are allowed")
    assert [finding.subject for finding in answer.findings] == ["GPU 0 (0000:18:00.0)", "GPU 1 (0000:2a:00.0)"]
    assert "nvidia-smi -i 1 --gpu-reset" in answer.findings[1].fix


@pytest.mark.parametrize(
    ("gpu", "outcome"),
    [
        (replace(H100, used=15 * 2**20), Outcome.PASS),
        (replace(H100, used=15 * 2**20 + 1), Outcome.FAIL),
        (replace(H100, processes=(4711,)), Outcome.FAIL),
        (replace(H100, processes=None), Outcome.INCONCLUSIVE),
    ],
)
def test_gpu_that_somebody_uses_is_not_idle(gpu: Gpu, outcome: Outcome) -> None:
    answer = gpu_idle(check_context({nvml_gpus: node(gpu)}), GpuIdle())
    assert answer.outcome is outcome
    if outcome is Outcome.FAIL:
        assert "nvidia-smi -i 0" in answer.findings[0].fix


def test_idle_holds_for_five_minutes_and_diagnostics_for_a_day() -> None:
    assert CHECKS["gpu_idle"].ttl == timedelta(minutes=5)
    assert CHECKS["dcgm"].ttl == timedelta(days=1)


def dev(root: Path, *names: str) -> Machine:
    for name in names:
        (root / name).touch()
    return Machine(dev=root)


def test_devices_are_those_of_the_gpus_minor_numbers(tmp_path: Path) -> None:
    machine = dev(tmp_path, "nvidiactl", "nvidia-uvm", "nvidia4")
    answer = gpu_devices(
        check_context({nvml_gpus: node(replace(H100, minor=4)), gpu_module.machine: machine}), OnGpus()
    )
    assert (answer.outcome, answer.summary) == (Outcome.PASS, "3 device nodes can be opened")


def test_device_that_is_missing_or_refused_is_named(tmp_path: Path) -> None:
    machine = dev(tmp_path, "nvidiactl")
    (tmp_path / "nvidia0").mkdir()  # what even root can't open for writing
    answer = gpu_devices(check_context({nvml_gpus: node(H100), gpu_module.machine: machine}), OnGpus())
    assert answer.outcome is Outcome.FAIL
    assert [(finding.subject, finding.problem) for finding in answer.findings] == [
        (str(tmp_path / "nvidia-uvm"), "it does not exist"),
        (str(tmp_path / "nvidia0"), "it can't be opened: Is a directory"),
    ]


@pytest.fixture
def dcgmi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a `dcgmi` on the PATH that notes its arguments and does what a script says."""

    def put(script: str) -> None:
        command = tmp_path / "bin/dcgmi"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        command.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return put


def diagnosed(**params: Any) -> Any:
    return run_check(
        CHECKS["dcgm"], Requirement("dcgm", Severity.BLOCKING, params), check_context({nvml_gpus: node(H100)})
    )


def test_version_3_warns_of_persistence_mode(dcgmi: Callable[..., None], tmp_path: Path) -> None:
    dcgmi(f"echo 'WARNING: not JSON'; cat {HERE / 'dcgmi3.json'}")
    evidence = diagnosed(level=2)
    assert (tmp_path / "arguments").read_text() == "diag -j -r 2\n"
    assert evidence.outcome is Outcome.WARN
    assert evidence.summary.startswith("Persistence Mode (GPU 0,1): Warn: Persistence mode for GPU 1 is disabled")
    assert evidence.measured == {"level": 2, "exit": 0, "results": 4, "version": "3.1.7"}


def test_version_4_fails_with_the_gpu_that_failed(dcgmi: Callable[..., None]) -> None:
    dcgmi(f"cat {HERE / 'dcgmi4.json'}; exit 226")
    evidence = diagnosed()
    assert evidence.outcome is Outcome.FAIL
    assert evidence.summary.startswith("memory (GPU 1): Fail: Detected 2 double-bit volatile ECC error(s) on GPU 1")
    assert evidence.measured == {"level": 1, "exit": 226, "results": 4, "version": "4.2.3"}


def written(*statuses: str, severity: int | None = None) -> str:
    results: list[dict[str, Any]] = [{"entity_id": at, "status": status} for at, status in enumerate(statuses)]
    if severity is not None:
        results[0]["warnings"] = [{"warning": "Persistence mode is off", "error_severity": severity}]
    categories = [{"category": "Deployment", "tests": [{"name": "software", "results": results}]}]
    return f"echo '{json.dumps({'DCGM Diagnostic': {'test_categories': categories}})}'"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (written("Pass", "Pass"), Outcome.PASS),
        (written("Pass", "Warn"), Outcome.WARN),
        (written("Pass", "Skip"), Outcome.WARN),
        (written("Fail", "Pass", severity=5), Outcome.WARN),
        (written("Fail", "Pass", severity=2), Outcome.FAIL),
        (written("Pass", "Not Run"), Outcome.INCONCLUSIVE),
        (written("Skip", "Skip"), Outcome.INCONCLUSIVE),
        (f"{written('Pass')}; exit 4", Outcome.INCONCLUSIVE),
        (written(), Outcome.INCONCLUSIVE),
        ("echo 'Error: unable to establish a connection' >&2; exit 1", Outcome.INCONCLUSIVE),
        ("echo '[1, {'", Outcome.INCONCLUSIVE),
        ('echo \'{"DCGM Diagnostic": {"runtime_error": "no GPU is free"}}\'; exit 3', Outcome.INCONCLUSIVE),
    ],
)
def test_only_what_ran_and_passed_is_a_pass(dcgmi: Callable[..., None], script: str, outcome: Outcome) -> None:
    dcgmi(script)
    assert diagnosed().outcome is outcome


def test_what_dcgmi_said_is_told(dcgmi: Callable[..., None]) -> None:
    dcgmi("echo 'Error: unable to establish a connection' >&2; exit 1")
    evidence = diagnosed()
    assert "dcgmi diag -j -r 1 exited with 1 after 0 tests: Error: unable to establish a connection" in evidence.summary
    assert "nvidia-dcgm" in evidence.findings[0].fix


def test_diagnostics_that_hang_are_stopped_with_all_they_started(dcgmi: Callable[..., None]) -> None:
    dcgmi("sleep 600 & wait")
    evidence = diagnosed(timeout="1s")
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "did not end within 1 s" in evidence.summary


def test_dcgm_that_is_not_installed_is_inconclusive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    evidence = diagnosed()
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "apt-get install" in evidence.findings[0].fix


def test_answers_can_be_recorded() -> None:
    answer: CheckResult = gpu_idle(check_context({nvml_gpus: node(H100, V100)}), GpuIdle())
    assert json.loads(json.dumps(answer.measured))["gpus"][1]["name"] == "Tesla V100"
