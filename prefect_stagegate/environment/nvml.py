"""This machine's GPUs, by NVIDIA's management library (NVML). No other module imports its Python package, pynvml.

The extra `gpu` installs the package. The library itself, `libnvidia-ml.so.1`, comes with the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from prefect_stagegate.environment import UNKNOWN
from prefect_stagegate.errors import MissingExtra, StagegateError

T = TypeVar("T")
ANSWERS = 60.0
"""Seconds that NVML may take. Without persistence mode it first wakes each GPU, which is slow."""
LOOK = "Look at what `nvidia-smi` and `dmesg | grep -i -e nvrm -e xid` say."


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. A field is None where the GPU's model, driver or mode does not report it."""

    index: int
    """Its place in NVML's order, as in `nvidia-smi -i`."""
    minor: int | None
    """The number of its device node: `/dev/nvidia<minor>`."""
    uuid: str
    name: str
    pci: str
    """Its PCI address as sysfs writes it: `0000:3b:00.0`."""
    memory: int
    """Bytes."""
    used: int
    """Bytes in use. Where the driver reports its own share separately, without it."""
    processes: tuple[int, ...] | None
    """Ids of the processes that compute or draw on it, each id once."""
    mig: bool | None
    """Whether it is partitioned (Multi-Instance GPU)."""
    ecc_corrected: int | None
    """Memory errors that were corrected since the driver was loaded. None where ECC is off."""
    ecc_uncorrected: int | None
    """Memory errors that were not corrected since the driver was loaded. None where ECC is off."""
    retired_pages: int | None
    """Pages that were retired for good. Reported by GPUs before Ampere."""
    retirement_pending: bool | None
    """Whether a page waits for a reset to be retired."""
    remap_pending: bool | None
    """Whether a row waits for a reset to be remapped. Reported by GPUs since Ampere."""
    remap_failed: bool | None
    """Whether a row could not be remapped: the spare rows are used up."""

    @property
    def label(self) -> str:
        """Its name in texts: `GPU 3 (0000:3b:00.0)`."""
        return f"GPU {self.index} ({self.pci})"


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs of a machine, and their driver."""

    driver: str = UNKNOWN
    """Version of the driver: `550.54.15`."""
    cuda: str = UNKNOWN
    """Newest version of CUDA that the driver supports: `12.4`."""
    gpus: tuple[Gpu, ...] = ()


class _NoDriver(StagegateError):
    """NVML or the driver is not there."""


def find_gpus(pci_gpus: Callable[[], Collection[str]]) -> Gpus:
    """Read the GPUs from NVML. None are returned only where the PCI bus, by `pci_gpus`, shows none either.

    Raises:
        StagegateError: The bus shows GPUs, and NVML shows none or can't be used.
    """
    try:
        gpus = read_gpus()
    except (MissingExtra, _NoDriver):
        if pci_gpus():  # a GPU without its driver is not absent
            raise
        return Gpus()
    # A node whose driver hides its GPUs must not count as a node without GPUs.
    if not gpus.gpus and (on_bus := pci_gpus()):
        hint = "Give this process its GPUs: the device nodes, the container's devices, the cgroup."
        raise StagegateError(f"NVML shows none of the GPUs on the PCI bus: {', '.join(on_bus)}", hint=hint)
    return gpus


def read_gpus(seconds: float = ANSWERS) -> Gpus:
    """Read from NVML every GPU that this process can see.

    Args:
        seconds: How long it may take. A call about a GPU that fell off its bus may never return.

    Raises:
        MissingExtra: pynvml isn't installed.
        StagegateError: The library isn't there, the driver isn't loaded, a GPU doesn't answer, or nothing does in time.
    """
    nvml = _pynvml()
    answers: list[Gpus | StagegateError] = []

    def query() -> None:
        try:
            answers.append(_query_gpus(nvml))
        except StagegateError as error:
            answers.append(error)

    # A hung call can't be stopped, so it runs in a thread that is left behind.
    thread = threading.Thread(target=query, name="nvml", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise StagegateError(f"NVML did not answer within {seconds:g} s", hint=LOOK)
    if isinstance(answers[0], StagegateError):
        raise answers[0]
    return answers[0]


def _query_gpus(nvml: ModuleType) -> Gpus:
    try:
        nvml.nvmlInit()
        try:
            version = int(_query(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2) or 0)  # 12040 is CUDA 12.4
            cuda = f"{version // 1000}.{version % 1000 // 10}" if version else UNKNOWN
            gpus = tuple(_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
            return Gpus(_query(nvml, nvml.nvmlSystemGetDriverVersion) or UNKNOWN, cuda, gpus)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        absences = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        kind = _NoDriver if error.value in absences else StagegateError
        raise kind(f"NVML returned an error: {error}", hint=_hint(nvml, error)) from error


def _pynvml() -> ModuleType:
    try:
        import pynvml
    except ImportError as error:
        hint = "Install it: pip install 'prefect-stagegate[gpu]'"
        raise MissingExtra("Reading NVIDIA's GPUs needs nvidia-ml-py, which is not installed", hint=hint) from error
    library: ModuleType = pynvml
    return library


def _hint(nvml: ModuleType, error: Any) -> str:
    if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "Install the driver, or give the container its GPUs: nvidia-container-toolkit, `--gpus all`."
    if error.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "Load the driver: `modprobe nvidia`; `dmesg | grep -i nvrm` says why it did not load."
    if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "The driver was updated while it was loaded. Restart the node to load the new one."
    return LOOK


def _read(nvml: ModuleType, index: int) -> Gpu:
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        return _facts(nvml, index, device)
    except nvml.NVMLError as error:
        raise StagegateError(f"GPU {index} does not answer: {error}", hint=_hint(nvml, error)) from error


def _facts(nvml: ModuleType, index: int, device: Any) -> Gpu:
    def query(function: Callable[..., T], *arguments: Any) -> T | None:
        return _query(nvml, function, device, *arguments)

    # The second version of the call reports the driver's own memory apart; older drivers know only the first.
    memory = query(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2) or nvml.nvmlDeviceGetMemoryInfo(device)
    mig = query(nvml.nvmlDeviceGetMigMode)
    remapped = query(nvml.nvmlDeviceGetRemappedRows)
    pending = query(nvml.nvmlDeviceGetRetiredPagesPendingStatus)
    volatile = nvml.NVML_VOLATILE_ECC
    return Gpu(
        index=index,
        minor=query(nvml.nvmlDeviceGetMinorNumber),
        uuid=nvml.nvmlDeviceGetUUID(device),
        name=nvml.nvmlDeviceGetName(device),
        pci=_address(nvml.nvmlDeviceGetPciInfo(device)),
        memory=memory.total,
        used=memory.used,
        processes=_processes(nvml, device),
        mig=None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        ecc_corrected=query(nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, volatile),
        ecc_uncorrected=query(nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, volatile),
        retired_pages=_retired(nvml, device),
        retirement_pending=None if pending is None else bool(pending),
        remap_pending=None if remapped is None else bool(remapped[2]),
        remap_failed=None if remapped is None else bool(remapped[3]),
    )


def _query(nvml: ModuleType, function: Callable[..., T], *arguments: Any) -> T | None:
    """Call an NVML function; None where this GPU or this driver does not support it."""
    unknown = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION)
    try:
        return function(*arguments)
    except nvml.NVMLError as error:
        if error.value in unknown:
            return None
        raise


def _address(pci: Any) -> str:
    """The PCI address as sysfs writes it: with a domain of four digits, where NVML writes eight."""
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _processes(nvml: ModuleType, device: Any) -> tuple[int, ...] | None:
    compute = _query(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v3, device)
    graphics = _query(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, device)
    if compute is None:  # drivers before 510
        compute = _query(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v2, device)
        graphics = _query(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses_v2, device)
    return None if compute is None else tuple(sorted({process.pid for process in (*compute, *(graphics or ()))}))


def _retired(nvml: ModuleType, device: Any) -> int | None:
    causes = (
        nvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        nvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    pages = [_query(nvml, nvml.nvmlDeviceGetRetiredPages, device, cause) for cause in causes]
    return None if any(retired is None for retired in pages) else sum(len(retired or ()) for retired in pages)
