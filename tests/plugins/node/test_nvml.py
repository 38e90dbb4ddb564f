"""pynvml itself asks a library of ours, loaded in the place of NVIDIA's, and its answers become facts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.environment.nvml import Gpus, find_gpus, read_gpus
from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.plugins.node.machine import Machine

HERE = Path(__file__).parent
ASK = """
import json, sys
from pathlib import Path
from dataclasses import asdict
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.environment.nvml import find_gpus, read_gpus
try:
    print(json.dumps(asdict(find_gpus(Machine(sys=Path(sys.argv[1])).pci_gpus))))
except StagegateError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
"""


@pytest.fixture(scope="module", params=[()], ids=["new"])
def library(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of the library, compiled with the parameter's flags."""
    folder = tmp_path_factory.mktemp("nvml")
    command = ["cc", "-shared", "-fPIC", "-Werror", *request.param, "-o", folder / "libnvidia-ml.so.1"]
    subprocess.run([*command, HERE / "fake_nvml.c"], check=True)
    return folder


OLD = pytest.mark.parametrize("library", [("-DOLD",)], indirect=True, ids=["before 510"])


def facts_of(library: Path, answers: Path, sys_root: str = "/nowhere", ask: str = ASK) -> dict[str, Any]:
    env = os.environ | {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(answers)}
    command = [sys.executable, "-c", ask, sys_root]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_every_fact_of_two_gpus(library: Path) -> None:
    facts = facts_of(library, HERE / "h100.txt")
    assert (facts["driver"], facts["cuda"]) == ("550.54.15", "12.4")
    assert facts["gpus"] == [
        {
            "index": 0,
            "minor": 2,
            "uuid": "GPU-11111111-2222-3333-4444-000000000000",
            "name": "NVIDIA H100 80GB HBM3",
            "pci": "0000:18:00.0",
            "memory": 85520809984,
            "used": 4325376,
            "processes": [],
            "mig": False,
            "ecc_corrected": 0,
            "ecc_uncorrected": 0,
            "retired_pages": None,
            "retirement_pending": None,
            "remap_pending": False,
            "remap_failed": False,
        },
        {
            "index": 1,
            "minor": 0,
            "uuid": "GPU-11111111-2222-3333-4444-000000000001",
            "name": "NVIDIA H100 80GB HBM3",
            "pci": "0001:9a:00.0",
            "memory": 85520809984,
            "used": 2147483648,
            "processes": [4711, 4712],
            "mig": True,
            "ecc_corrected": 12,
            "ecc_uncorrected": 1,
            "retired_pages": None,
            "retirement_pending": None,
            "remap_pending": True,
            "remap_failed": False,
        },
    ]


def test_gpu_before_ampere_tells_pages_and_no_rows(library: Path) -> None:
    (gpu,) = facts_of(library, HERE / "v100.txt")["gpus"]
    assert (gpu["retired_pages"], gpu["retirement_pending"]) == (3, False)
    assert (gpu["mig"], gpu["remap_pending"], gpu["remap_failed"]) == (None, None, None)


@OLD
def test_old_driver_is_asked_in_its_own_way(library: Path) -> None:
    gpus = facts_of(library, HERE / "h100.txt")["gpus"]
    assert [gpu["processes"] for gpu in gpus] == [[], [4711, 4712]]
    assert gpus[0]["used"] == 4325376 + 549453824  # it can't tell what it keeps for itself


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        ("init 9", "NVML returned an error: Driver Not Loaded", "modprobe nvidia"),
        ("1.error 15", "GPU 1 does not answer: GPU is lost", "dmesg"),
    ],
)
def test_failure_names_the_gpu_and_what_to_do(
    library: Path, tmp_path: Path, line: str, problem: str, hint: str
) -> None:
    (tmp_path / "answers").write_text(f"{line}\n{(HERE / 'h100.txt').read_text()}")
    facts = facts_of(library, tmp_path / "answers", str(bus(tmp_path, "0000:18:00.0")))
    assert facts["error"] == problem
    assert hint in facts["hint"]


@pytest.mark.parametrize("line", ["1.error 15", "init 999", "init 18"])
def test_library_that_fails_is_no_sign_that_there_is_no_gpu(library: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "answers").write_text(f"{line}\n{(HERE / 'h100.txt').read_text()}")
    assert "error" in facts_of(library, tmp_path / "answers", str(bus(tmp_path)))


def test_library_that_hangs_is_left_behind(library: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("hang 1\n")
    facts = facts_of(
        library,
        tmp_path / "answers",
        ask=ASK.replace("find_gpus(Machine(sys=Path(sys.argv[1])).pci_gpus)", "read_gpus(1)"),
    )
    assert facts["error"] == "NVML did not answer within 1 s"
    assert "dmesg" in facts["hint"]


def bus(root: Path, *gpus: str) -> Path:
    """A sysfs with NVIDIA's GPUs on its PCI bus, an audio device of one of them, and a network card."""
    devices = [*((gpu, "0x10de", "0x030200") for gpu in gpus), ("0000:18:00.1", "0x10de", "0x040300")]
    for address, vendor, kind in [*devices, ("0000:02:00.0", "0x15b3", "0x020000")]:
        device = root / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    return root / "sys"


def test_gpus_that_the_library_does_not_show_are_not_absent(library: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("driver 550.54.15\n")
    facts = facts_of(library, tmp_path / "answers", str(bus(tmp_path, "0000:18:00.0", "0000:2a:00.0")))
    assert facts["error"] == "NVML shows none of the GPUs on the PCI bus: 0000:18:00.0, 0000:2a:00.0"


NO_LIBRARY = "init 12\n"


def test_node_without_library_and_gpus_has_none(library: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text(NO_LIBRARY)
    assert facts_of(library, tmp_path / "answers", str(bus(tmp_path)))["gpus"] == []


def test_gpu_on_the_bus_without_a_driver_is_not_absent(library: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text(NO_LIBRARY)
    facts = facts_of(library, tmp_path / "answers", str(bus(tmp_path, "0000:18:00.0")))
    assert facts["error"].startswith("NVML returned an error")
    assert "nvidia-container-toolkit" in facts["hint"]


def test_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtra) as caught:
        read_gpus()
    assert "prefect-stagegate[gpu]" in caught.value.hint


def test_absent_package_matters_only_where_the_bus_has_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus(Machine(sys=bus(tmp_path / "without")).pci_gpus) == Gpus()
    with pytest.raises(MissingExtra):
        find_gpus(Machine(sys=bus(tmp_path / "with", "0000:18:00.0")).pci_gpus)
