"""The versions of the CUDA stack and the models of the GPUs, read from files.

    /sys/module/nvidia/version                     the driver
    /proc/driver/nvidia/gpus/<bus>/information     Model: NVIDIA H100 80GB HBM3
    nvidia-cuda-runtime-cu12, nvidia-cudnn-cu12, nvidia-nccl-cu12   distributions, which programs in Python load first
    libcudart.so.12.4.127, libcudnn.so.9.1.0, libnccl.so.2.21.5     else libraries where the loader looks

Files say the same with and without NVML, and reading them wakes no GPU.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, EnvironmentDifference, Weight, version_weight
from prefect_stagegate.environment.python import Installed

LIBRARIES = {
    "cuda": ("nvidia-cuda-runtime", "libcudart"),
    "cudnn": ("nvidia-cudnn", "libcudnn"),
    "nccl": ("nvidia-nccl", "libnccl"),
}
"""Distribution and library by field of `Cuda`."""
FOLDERS = ("usr/local/cuda/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")
"""Where NVIDIA's packages put libraries, beside the folders of LD_LIBRARY_PATH."""
OLDEST_DRIVER = {11: "450.80.02", 12: "525", 13: "580"}
"""The oldest driver that runs a major release of CUDA: NVIDIA's "CUDA Compatibility", table 1, minor version
compatibility."""


@dataclass(frozen=True, slots=True)
class Cuda:
    """Versions; absent where the places above have none."""

    driver: str
    cuda: str
    """The runtime library."""
    cudnn: str
    nccl: str


def capture_cuda(distributions: Mapping[str, Installed], environ: Mapping[str, str], root: Path = Path("/")) -> Cuda:
    """Find the versions of the driver and the libraries, also by the LD_LIBRARY_PATH of `environ`."""
    folders = [Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    folders += [root / folder for folder in FOLDERS]
    versions = {
        field: _distribution_version(distribution, distributions) or _library_version(library, folders) or ABSENT
        for field, (distribution, library) in LIBRARIES.items()
    }
    return Cuda(_driver_version(root), **versions)


def _driver_version(root: Path) -> str:
    if not (root / "proc/driver/nvidia").exists() and not (root / "sys/module/nvidia").exists():
        return ABSENT
    # A driver is loaded, so a version that can't be read is unknown and not absent.
    try:
        return (root / "sys/module/nvidia/version").read_text().strip() or UNKNOWN
    except OSError:
        pass
    try:
        match = re.search(
            r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", (root / "proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return UNKNOWN
    return match[1] if match else UNKNOWN


def _distribution_version(name: str, distributions: Mapping[str, Installed]) -> str:
    """The version of `nvidia-nccl-cu12`, or of whichever major release is installed."""
    pattern = re.compile(rf"{name}(-cu\d+)?")
    versions = [installed.version for key, installed in distributions.items() if pattern.fullmatch(key)]
    return max(versions, key=_figures, default="")


def _library_version(name: str, folders: list[Path]) -> str:
    """The version in the name of a library's file, behind its links, in the first folder that has one."""
    for folder in folders:
        names = [Path(os.path.realpath(path)).name for path in folder.glob(f"{name}.so*")]
        versions = [match[1] for text in names if (match := re.search(r"\.so\.([\d.]+)$", text))]
        if versions:
            # Of several links to a library, the most exact name has the most dots.
            return max(versions, key=lambda text: (text.count("."), _figures(text)))
    return ""


def capture_gpus(root: Path = Path("/")) -> dict[str, int]:
    """How many GPUs of each model the driver shows."""
    models: Counter[str] = Counter()
    for path in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        try:
            match = re.search(r"^Model:\s*(.+?)\s*$", path.read_text(), re.MULTILINE)
        except OSError:
            match = None
        # A GPU whose file can't be read is still one: left out, it would show as a smaller number of GPUs.
        models[match[1] if match else UNKNOWN] += 1
    return dict(sorted(models.items()))


def compare_cudas(there: Cuda, here: Cuda) -> Iterator[EnvironmentDifference]:
    """Yield a warning for the same major release, else a block, also for a driver that is too old for CUDA here."""
    if driver_too_old := _driver_too_old(there, here):
        yield driver_too_old
    facts_here = asdict(here)
    for name, was in asdict(there).items():
        now = facts_here[name]
        # A driver that is too old is one difference, not two.
        if (was == now != UNKNOWN) or (driver_too_old and name == "driver"):
            continue
        weight = version_weight(was, now, same=1)
        why = {
            Weight.WARNING: "the same major release",
            Weight.BLOCKING: "one side has none" if ABSENT in (was, now) else "another major release",
        }.get(weight, "no file has its version")
        yield EnvironmentDifference("cuda", name, was, now, weight, why, f"Use {name} {was} here too.")


def _driver_too_old(there: Cuda, here: Cuda) -> EnvironmentDifference | None:
    major = here.cuda.partition(".")[0]
    oldest = OLDEST_DRIVER.get(int(major)) if major.isdigit() else None
    if oldest is None or here.driver in (ABSENT, UNKNOWN) or _figures(here.driver) >= _figures(oldest):
        return None
    why = f"CUDA {major} needs driver {oldest} or newer"
    fix = f"Install driver {oldest}."
    return EnvironmentDifference("cuda", "driver", there.driver, here.driver, Weight.BLOCKING, why, fix)


def compare_gpus(there: Mapping[str, int], here: Mapping[str, int]) -> Iterator[EnvironmentDifference]:
    """Yield a warning for each model whose number differs; the check `gpu_inventory` says which GPUs are required."""
    for model in sorted(there.keys() | here.keys()):
        was, now = there.get(model, 0), here.get(model, 0)
        if was != now:
            why = "memory, speed and rounding differ between models, and batches between numbers of them"
            yield EnvironmentDifference("gpus", model, str(was), str(now), Weight.WARNING, why)


def _figures(version: str) -> tuple[int, ...]:
    return tuple(int(figure) for figure in re.findall(r"\d+", version))
