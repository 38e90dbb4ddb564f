"""GPUs.

Checks on this node's GPUs, by what NVIDIA's management library says of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from prefect_stagegate.environment.nvml import Gpu, Gpus, find_gpus
from prefect_stagegate.gate.base import CheckResult, Parameters, from_findings, one_finding
from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.units import count_text, listed

HOLDS = timedelta(minutes=5)
"""A job that ends badly leaves processes and memory behind within seconds."""
MIB = 2**20


@Fact
def machine(context: CheckContext) -> Machine:  # noqa: ARG001 - a fact of every node
    """The folders where Linux describes this node."""
    return Machine()


@Fact
def nvml_gpus(context: CheckContext) -> Gpus:
    """This node's GPUs; none where it has none."""
    return find_gpus(machine(context).pci_gpus)


class OnGpus(Parameters):
    """For checks that ask GPUs."""

    absent: Literal["inconclusive", "not_applicable"] = Field(
        default="inconclusive",
        description="The outcome on a node without GPU.",
        examples=["not_applicable"],
    )


class GpuInventory(OnGpus):
    """What the node is to have. What is left out is not compared."""

    count: int | None = Field(default=None, ge=1, description="How many GPUs there must be.", examples=[8])
    model: str | None = Field(
        default=None, description="The name of each, as `nvidia-smi -L` gives it.", examples=["NVIDIA H100 80GB HBM3"]
    )
    mig: Literal["enabled", "disabled"] | None = Field(
        default=None, description="Whether each is partitioned (Multi-Instance GPU).", examples=["disabled"]
    )


class GpuMemory(OnGpus):
    """The defaults of Meta's GPU Cluster Monitoring."""

    uncorrected: int = Field(default=0, ge=0, description="Uncorrected ECC errors that a GPU may have.", examples=[0])
    corrected: int = Field(
        default=50_000_000, ge=0, description="Corrected ECC errors that a GPU may have.", examples=[1_000_000]
    )
    retired: int = Field(default=10, ge=0, description="Retired pages that a GPU may have.", examples=[0])


class GpuIdle(OnGpus):
    """The defaults of Meta's GPU Cluster Monitoring."""

    used: int = Field(default=15, ge=0, description="MiB that may be in use on a GPU.", examples=[600])
    processes: int = Field(default=0, ge=0, description="Processes that may use a GPU.", examples=[1])


@Check("gpu_inventory", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def gpu_inventory(context: CheckContext, parameters: GpuInventory) -> CheckResult:
    """Whether this node has the GPUs that the policy declares: how many, which model, partitioned (MIG) or not.

    Any difference fails. Inconclusive where nothing is declared.
    """
    gpus = nvml_gpus(context)
    if not gpus.gpus:
        return no_gpu(parameters)
    here = f"{count_text(len(gpus.gpus), 'GPU')}: {listed(sorted({gpu.name for gpu in gpus.gpus}))}"
    if (parameters.count, parameters.model, parameters.mig) == (None, None, None):
        fix = f"Declare them in the gate: gpu_inventory: {{count: {len(gpus.gpus)}, model: {gpus.gpus[0].name}}}"
        problem = f"the policy declares no GPUs; this node has {here}"
        return one_finding(Outcome.INCONCLUSIVE, "gpu_inventory", problem, fix)
    return gpu_result(here, tuple(_undeclared(gpus, parameters)), gpus)


def _undeclared(gpus: Gpus, declared: GpuInventory) -> Iterator[Finding]:
    if declared.count is not None and len(gpus.gpus) != declared.count:
        problem = f"{count_text(declared.count, 'GPU')} declared, {len(gpus.gpus)} found"
        yield Finding("count", problem, "See which is missing: nvidia-smi -L; lspci -d 10de: ; dmesg | grep -i xid")
    for gpu in gpus.gpus:
        if declared.model is not None and gpu.name.casefold() != declared.model.casefold():
            fix = "Run on a node of the declared kind, or change `model` of gpu_inventory."
            yield Finding(gpu.label, f"it is a {gpu.name}, and {declared.model} is declared", fix)
        if declared.mig is not None and bool(gpu.mig) != (declared.mig == "enabled"):
            state = "enabled" if gpu.mig else "disabled"
            fix = f"nvidia-smi -i {gpu.index} -mig {int(declared.mig == 'enabled')}"
            yield Finding(gpu.label, f"MIG is {state}, and {declared.mig} is declared", fix)


@Check("gpu_devices", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def gpu_devices(context: CheckContext, parameters: OnGpus) -> CheckResult:
    """Whether this process can open the device nodes that CUDA needs: /dev/nvidiactl, nvidia-uvm, and one a GPU.

    One that is missing or refused fails. Each is opened for reading and writing, and closed.
    """
    gpus = nvml_gpus(context)
    if not gpus.gpus:
        return no_gpu(parameters)
    names = ["nvidiactl", "nvidia-uvm", *(f"nvidia{_minor(gpu)}" for gpu in gpus.gpus)]
    findings = tuple(finding for name in names if (finding := _unopened(machine(context).dev / name)))
    return gpu_result(f"{count_text(len(names), 'device node')} can be opened", findings, gpus)


def _minor(gpu: Gpu) -> int:
    # Without the driver's own number, NVML's order is the best guess.
    return gpu.index if gpu.minor is None else gpu.minor


def _unopened(node: Path) -> Finding | None:
    # Opened, and not only looked up: a node that exists may still be refused to this process.
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        made = "nvidia-modprobe -c0 -u"
        return Finding(str(node), "it does not exist", f"{made}; in a container, give it the GPUs: --gpus all")
    except OSError as error:
        return Finding(str(node), f"it can't be opened: {error.strerror}", f"ls -l {node}; id")
    return None


@Check("gpu_memory", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def gpu_memory(context: CheckContext, parameters: GpuMemory) -> CheckResult:
    """Whether the memory of this node's GPUs is sound, by what ECC counted since the driver was loaded.

    At most `uncorrected` (0) uncorrected errors, `corrected` (50,000,000) corrected ones and `retired` (10) pages out
    of use, no page or row that waits for a reset, and no row that could not be remapped: passes. Anything over fails.
    A GPU that does not count them (ECC is off) is inconclusive.

    The limits are those of Meta's GPU Cluster Monitoring (GCM). GPUs before Ampere retire pages, later ones remap rows.
    """
    gpus = nvml_gpus(context)
    if not gpus.gpus:
        return no_gpu(parameters)
    findings = tuple(finding for gpu in gpus.gpus for finding in _unsound(gpu, parameters))
    return gpu_result(f"the memory of {count_text(len(gpus.gpus), 'GPU')} is sound", findings, gpus)


def _unsound(gpu: Gpu, limits: GpuMemory) -> Iterator[Finding]:
    reset = f"Drain the node, then reset it: nvidia-smi -i {gpu.index} --gpu-reset"
    replace = f"Drain the node and have the GPU replaced; evidence: nvidia-smi -i {gpu.index} -q -d ECC,ROW_REMAPPER"
    if gpu.ecc_corrected is None or gpu.ecc_uncorrected is None:
        fix = f"Turn ECC on, and restart the node: nvidia-smi -i {gpu.index} -e 1"
        yield Finding(gpu.label, "it counts no memory errors: ECC is off", fix, Outcome.INCONCLUSIVE)
    elif gpu.remap_pending is None and gpu.retired_pages is None:
        fix = f"nvidia-smi -i {gpu.index} -q -d ROW_REMAPPER,PAGE_RETIREMENT"
        yield Finding(gpu.label, "it reports neither retired pages nor remapped rows", fix, Outcome.INCONCLUSIVE)
    if (count := gpu.ecc_uncorrected or 0) > limits.uncorrected:
        yield Finding(gpu.label, f"{count:,} uncorrected memory errors; {limits.uncorrected:,} are allowed", reset)
    if (count := gpu.ecc_corrected or 0) > limits.corrected:
        yield Finding(gpu.label, f"{count:,} corrected memory errors; {limits.corrected:,} are allowed", replace)
    if (count := gpu.retired_pages or 0) > limits.retired:
        yield Finding(gpu.label, f"{count:,} retired pages; {limits.retired:,} are allowed", replace)
    if gpu.remap_failed:
        yield Finding(gpu.label, "a row could not be remapped: the spare rows are used up", replace)
    if gpu.remap_pending:
        yield Finding(gpu.label, "a row waits to be remapped", reset)
    if gpu.retirement_pending:
        yield Finding(gpu.label, "a page waits to be retired", reset)


@Check("gpu_idle", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def gpu_idle(context: CheckContext, parameters: GpuIdle) -> CheckResult:
    """Whether nothing else uses this node's GPUs: at most `used` (15) MiB taken and `processes` (0) on each.

    More fails. What the driver keeps for itself is not counted where it tells (since 510). The limits are those of
    Meta's GCM.
    """
    gpus = nvml_gpus(context)
    if not gpus.gpus:
        return no_gpu(parameters)
    findings = tuple(finding for gpu in gpus.gpus for finding in _busy(gpu, parameters))
    most = max(gpu.used for gpu in gpus.gpus) / MIB
    return gpu_result(f"{count_text(len(gpus.gpus), 'GPU')} idle, at most {most:.0f} MiB in use", findings, gpus)


def _busy(gpu: Gpu, limits: GpuIdle) -> Iterator[Finding]:
    seen = f"Find the processes: nvidia-smi -i {gpu.index}; fuser -v /dev/nvidia{_minor(gpu)}"
    if gpu.processes is None:
        yield Finding(gpu.label, "it doesn't report which processes use it", seen, Outcome.INCONCLUSIVE)
    elif len(gpu.processes) > limits.processes:
        processes = listed([str(pid) for pid in gpu.processes])
        yield Finding(gpu.label, f"processes that use it: {processes}", seen)
    if gpu.used > limits.used * MIB:
        problem = f"{gpu.used / MIB:.0f} MiB are in use, and {limits.used} are allowed"
        yield Finding(gpu.label, problem, seen)


def no_gpu(parameters: OnGpus) -> CheckResult:
    """The answer on a node without GPUs. It is never a pass."""
    if parameters.absent == "not_applicable":
        return CheckResult(Outcome.NOT_APPLICABLE, "this node has no GPU")
    fix = "Run the check on a node with GPUs, or set `absent: not_applicable` where none is needed."
    problem = "NVML and the PCI bus show no GPU"
    return one_finding(Outcome.INCONCLUSIVE, "node", problem, fix, summary="this node has no GPU")


def gpu_result(good: str, findings: Sequence[Finding], gpus: Gpus) -> CheckResult:
    """Make the answer from findings: the worst one decides, and without any it passes with the summary `good`."""
    measured = {"driver": gpus.driver, "cuda": gpus.cuda, "gpus": [_measured(gpu) for gpu in gpus.gpus]}
    answer = from_findings(good, findings, measured)
    return replace(answer, summary=f"{answer.summary}, and {len(findings) - 1} more") if len(findings) > 1 else answer


def _measured(gpu: Gpu) -> dict[str, Any]:
    names = ("index", "uuid", "name", "pci", "memory", "used", "mig", "ecc_corrected", "ecc_uncorrected")
    more = ("retired_pages", "retirement_pending", "remap_pending", "remap_failed")
    return {name: getattr(gpu, name) for name in (*names, *more)} | {"processes": len(gpu.processes or ())}
