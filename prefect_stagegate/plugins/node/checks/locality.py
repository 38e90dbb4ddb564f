"""Distance between cache and GPUs.

The check on how far the cache's volume is from the GPUs that read from it.
"""

from __future__ import annotations

from datetime import timedelta

from prefect_stagegate.checks.storage import cache_volume
from prefect_stagegate.environment.nvml import Gpu
from prefect_stagegate.gate.base import CheckResult
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.plugins.node.checks.gpu import OnGpus, gpu_result, machine, no_gpu, nvml_gpus
from prefect_stagegate.plugins.node.machine import Machine

HOLDS = timedelta(days=1)
"""Cards move when a node is opened; a cache moves by a setting."""
UNKNOWN = "unknown"
SWITCH, BRIDGE, NODE, OTHER = "same PCIe switch", "same host bridge", "same NUMA node", "other NUMA node"
NEAR = (SWITCH, BRIDGE, NODE)


@Check("gpu_locality", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def gpu_locality(context: CheckContext, parameters: OnGpus) -> CheckResult:
    """How far the disks under the cache are from each GPU: by the PCI tree and the NUMA nodes that sysfs shows.

    On the GPU's NUMA node passes; on another one warns, for every byte then crosses the link between the sockets;
    unknown (a network file system, a virtual disk) is inconclusive. Of several disks the farthest counts. In words of
    `nvidia-smi topo -m`: the same switch is PIX and PXB, the same host bridge PHB, the same node NODE, another one SYS.
    """
    gpus = nvml_gpus(context)
    if not gpus.gpus:
        return no_gpu(parameters)
    folder = cache_volume(context).path
    disks = machine(context).controllers(folder)
    distances = {gpu.label: _farthest(machine(context), gpu, disks) for gpu in gpus.gpus}
    findings = tuple(
        finding for gpu in gpus.gpus if (finding := _finding(gpu, distances[gpu.label], str(folder), disks))
    )
    answer = gpu_result(f"{', '.join(disks)} under the cache is near every GPU", findings, gpus)
    measured = {"disks": list(disks), "distance": distances}
    return CheckResult(answer.outcome, answer.summary, answer.findings, measured)


def distance(machine: Machine, first: str, second: str) -> str:
    """How far two PCI devices are from each other: the closest of `SWITCH`, `BRIDGE`, `NODE`, `OTHER`, or `UNKNOWN`."""
    shared = 0  # the length of the common path from the root complex
    for ours, theirs in zip(machine.pci_path(first), machine.pci_path(second), strict=False):
        if ours != theirs:
            break
        shared += 1
    if shared:
        return SWITCH if shared > 1 else BRIDGE
    nodes = machine.numa_node(first), machine.numa_node(second)
    if None in nodes:
        return UNKNOWN
    return NODE if nodes[0] == nodes[1] else OTHER


def _farthest(machine: Machine, gpu: Gpu, disks: tuple[str, ...]) -> str:
    distances = {distance(machine, gpu.pci, disk) for disk in disks}
    # Reading waits for the farthest disk of a volume; one that can't be placed may be farther still.
    return next((candidate for candidate in (UNKNOWN, OTHER, NODE, BRIDGE, SWITCH) if candidate in distances), UNKNOWN)


def _finding(gpu: Gpu, how_far: str, folder: str, disks: tuple[str, ...]) -> Finding | None:
    if how_far in NEAR:
        return None
    if how_far == UNKNOWN:
        fix = f"See what lies under it: findmnt -T {folder}; lsblk -s; nvidia-smi topo -m"
        return Finding(gpu.label, f"its distance to {folder} is unknown", fix, Outcome.INCONCLUSIVE)
    fix = "Set STAGEGATE_CACHE to a volume on the GPU's node, or bind the job to the disk's: numactl --cpunodebind"
    return Finding(gpu.label, f"{', '.join(disks)} under {folder} is on the {how_far}", fix, Outcome.WARN)
