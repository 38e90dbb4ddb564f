"""The CUDA stack and the GPUs, as files tell them.

    /sys/module/nvidia/version                     the driver
    /proc/driver/nvidia/gpus/<bus>/information     Model: NVIDIA H100 80GB HBM3
    nvidia-cuda-runtime-cu12, nvidia-cudnn-cu12, nvidia-nccl-cu12   distributions, which programs in Python load first
    libcudart.so.12.4.127, libcudnn.so.9.1.0, libnccl.so.2.21.5     else libraries where the loader looks

They tell the same with and without NVML, and wake no GPU.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, Difference, Weight, version_weight
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
    """Versions; absent where none was found in the places above."""

    driver: str
    cuda: str
    """The runtime library."""
    cudnn: str
    nccl: str


def capture_cuda(distributions: Mapping[str, Installed], environ: Mapping[str, str], root: Path = Path("/")) -> Cuda:
    """Look for the driver and the libraries.

    Args:
        distributions: What is installed for Python.
        environ: The variables of the process, for LD_LIBRARY_PATH.
        root: The root of the file system.
    """
    folders = [Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    folders += [root / folder for folder in FOLDERS]
    found = {
        field: _distributed(distribution, distributions) or _library(library, folders) or ABSENT
        for field, (distribution, library) in LIBRARIES.items()
    }
    return Cuda(_driver(root), **found)


def _driver(root: Path) -> str:
    if not (root / "proc/driver/nvidia").exists() and not (root / "sys/module/nvidia").exists():
        return ABSENT
    try:
        return (root / "sys/module/nvidia/version").read_text().strip() or UNKNOWN
    except OSError:
        pass
    try:
        found = re.search(
            r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", (root / "proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return UNKNOWN
    return found[1] if found else UNKNOWN


def _distributed(name: str, distributions: Mapping[str, Installed]) -> str:
    """The version of `nvidia-nccl-cu12`, or of whichever major release is installed."""
    found = [one.version for known, one in distributions.items() if re.fullmatch(rf"{name}(-cu\d+)?", known)]
    return max(found, key=_figures, default="")


def _library(name: str, folders: list[Path]) -> str:
    """The version in the name of the file that a library's link leads to, in the first folder that has one."""
    for folder in folders:
        names = [Path(os.path.realpath(path)).name for path in folder.glob(f"{name}.so*")]
        versions = [match[1] for text in names if (match := re.search(r"\.so\.([\d.]+)$", text))]
        if versions:
            return max(versions, key=lambda text: (text.count("."), _figures(text)))
    return ""


def capture_gpus(root: Path = Path("/")) -> dict[str, int]:
    """How many GPUs of each model the driver shows."""
    models: Counter[str] = Counter()
    for path in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        try:
            found = re.search(r"^Model:\s*(.+?)\s*$", path.read_text(), re.MULTILINE)
        except OSError:
            found = None
        models[found[1] if found else UNKNOWN] += 1
    return dict(sorted(models.items()))


def compare_cudas(there: Cuda, here: Cuda) -> Iterator[Difference]:
    """The same major release warns, another blocks, and so does a driver that is too old for the runtime here."""
    if too_old := _too_old(there, here):
        yield too_old
    ours = asdict(here)
    for name, was in asdict(there).items():
        now = ours[name]
        if (was == now != UNKNOWN) or (too_old and name == "driver"):
            continue
        weight = version_weight(was, now, same=1)
        why = {
            Weight.WARNING: "the same major release",
            Weight.BLOCKING: "one of them has none" if ABSENT in (was, now) else "another major release",
        }.get(weight, "no file tells it")
        yield Difference("cuda", name, was, now, weight, why, f"Use {name} {was} here too.")


def _too_old(there: Cuda, here: Cuda) -> Difference | None:
    major = here.cuda.partition(".")[0]
    oldest = OLDEST_DRIVER.get(int(major)) if major.isdigit() else None
    if oldest is None or here.driver in (ABSENT, UNKNOWN) or _figures(here.driver) >= _figures(oldest):
        return None
    why = f"CUDA {major} needs driver {oldest} or newer"
    return Difference("cuda", "driver", there.driver, here.driver, Weight.BLOCKING, why, f"Install driver {oldest}.")


def compare_gpus(there: Mapping[str, int], here: Mapping[str, int]) -> Iterator[Difference]:
    """Other GPUs warn: `gpu_inventory` knows which ones are wanted."""
    for model in sorted(there.keys() | here.keys()):
        was, now = there.get(model, 0), here.get(model, 0)
        if was != now:
            why = "memory, speed and rounding differ between models, and batches between numbers of them"
            yield Difference("gpus", model, str(was), str(now), Weight.WARNING, why)


def _figures(version: str) -> tuple[int, ...]:
    return tuple(int(figure) for figure in re.findall(r"\d+", version))
