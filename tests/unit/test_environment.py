"""Environments: what is found below a root, what is never written down, and what a fingerprint is over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.environment import ABSENT, UNKNOWN, Environment, Weight, capture, compare
from prefect_stagegate.environment.cuda import Cuda, capture_cuda, capture_gpus, compare_cudas
from prefect_stagegate.environment.host import capture_host, capture_image, capture_volume
from prefect_stagegate.environment.limits import UNLIMITED, Limit, capture_limits, compare_limits
from prefect_stagegate.environment.python import Installed, capture_python
from prefect_stagegate.environment.variables import SECRET, capture_variables, compare_variables
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.environment import from_file, to_file
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.mounts import medium
from prefect_stagegate.testing.contexts import ENVIRONMENT

DIGEST = "sha256:" + "5d" * 32
OTHER = "sha256:" + "6e" * 32


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_environment_lists_installed_packages_and_a_fingerprint(tmp_path: Path) -> None:
    here = capture(tmp_path, os.environ)
    assert {"pytest", "pydantic", "prefect-stagegate"} <= here.python.distributions.keys()
    assert here.host.architecture == os.uname().machine
    assert here.fingerprint == capture(tmp_path / "not" / "there" / "yet", os.environ).fingerprint
    assert Environment.from_json(json.loads(json.dumps(here.to_json()))) == here
    assert not list(compare(here, here, declared=())) or {difference.weight for difference in compare(here, here)} <= {
        Weight.UNKNOWN,
        Weight.WARNING,  # installed as editable here
    }


def test_processes_of_one_environment_share_its_fingerprint(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; from prefect_stagegate.environment import capture;"
        f"print(capture(pathlib.Path({str(tmp_path)!r}), os.environ).fingerprint)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **more}
        ).stdout
        for more in ({}, {"HOSTNAME": "elsewhere", "CUDA_VISIBLE_DEVICES": "3", "STAGEGATE_NODE": "node-9"})
    ]
    assert runs[0] == runs[1]


def test_no_name_of_the_machine_is_recorded(tmp_path: Path) -> None:
    names = {socket.gethostname(), str(os.getpid())} - {"localhost"}
    here = capture(tmp_path, {})
    words = set(json.dumps(replace(here, python=replace(here.python, distributions={})).to_json()).split('"'))
    assert not names & words


@pytest.mark.parametrize("field", sorted(ENVIRONMENT.to_json()))
def test_fingerprint_is_over_every_group(field: str) -> None:
    changed = ENVIRONMENT.to_json()
    if isinstance(changed[field], str):
        changed[field] = OTHER  # type: ignore[assignment]
    else:
        name = sorted(changed[field].keys() - {"device", "distributions"})[0]
        changed[field][name] = 7 if isinstance(changed[field][name], int) else "other"
    assert Environment.from_json(changed).fingerprint != ENVIRONMENT.fingerprint


def test_name_of_the_volume_s_device_is_only_recorded() -> None:
    renamed = replace(ENVIRONMENT, volume=replace(ENVIRONMENT.volume, device="/dev/nvme1n1"))
    assert renamed.fingerprint == ENVIRONMENT.fingerprint
    assert not list(compare(ENVIRONMENT, renamed))


# ── image ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_image_comes_from_the_deployment_or_podman_or_is_unknown(tmp_path: Path) -> None:
    assert capture_image("", tmp_path) == UNKNOWN
    put(tmp_path, {"run/.containerenv": 'engine="podman"\nimage="registry/train:latest"\n'})
    assert capture_image("", tmp_path) == UNKNOWN  # a tag
    put(tmp_path, {"run/.containerenv": f'engine="podman"\nimage="registry/train@{DIGEST}"\n'})
    assert capture_image("", tmp_path) == DIGEST
    assert capture_image(OTHER, tmp_path) == OTHER


@pytest.mark.parametrize("digest", [DIGEST, f"registry:5000/train@{DIGEST}", f"registry/train:v3@{DIGEST}"])
def test_setting_takes_a_digest_with_or_without_its_image(digest: str) -> None:
    assert Settings.from_environment({"STAGEGATE_IMAGE_DIGEST": digest}).image_digest == DIGEST


@pytest.mark.parametrize("value", ["latest", "registry/train:v3", "sha256:12", DIGEST.upper()])
def test_setting_refuses_a_tag(value: str) -> None:
    with pytest.raises(UsageError, match="is no digest"):
        Settings.from_environment({"STAGEGATE_IMAGE_DIGEST": value})


def test_setting_refuses_a_pattern_that_takes_everything() -> None:
    assert Settings.from_environment({"STAGEGATE_VARIABLES": "RAY_*, SEED,"}).variables == ("RAY_*", "SEED")
    with pytest.raises(UsageError, match="which would match too many names"):
        Settings.from_environment({"STAGEGATE_VARIABLES": "SEED,*"})


# ── Python ──────────────────────────────────────────────────────────────────────────────────────────────────────

RECORD = """\
thing/__init__.py,sha256=aaa,10
"thing/a, b.py",sha256=bbb,11
thing/__pycache__/__init__.cpython-312.pyc,,
thing-1.0.dist-info/METADATA,sha256=ccc,100
"""
NOTES = """\
../../../bin/thing,sha256=ddd,200
thing-1.0.dist-info/INSTALLER,sha256=eee,4
thing-1.0.dist-info/RECORD,,
thing-1.0.dist-info/direct_url.json,sha256=fff,90
"""


def install(folder: Path, record: str | None, **more: str) -> Installed:
    files = {"METADATA": "Metadata-Version: 2.1\nName: Thing\nVersion: 1.0\n", **more}
    put(folder / "thing-1.0.dist-info", files | ({"RECORD": record} if record is not None else {}))
    return capture_python([str(folder)]).distributions["thing"]


def test_distribution_s_digest_is_independent_of_its_installer(tmp_path: Path) -> None:
    package = install(tmp_path / "a", RECORD)
    other = install(tmp_path / "b", "\n".join(reversed((NOTES + RECORD).splitlines())))
    assert package.files.startswith("sha256:")
    assert package == other
    assert install(tmp_path / "c", RECORD.replace("bbb", "bbc")).files != package.files


def test_files_of_an_editable_distribution_are_unknown(tmp_path: Path) -> None:
    assert install(tmp_path / "a", None).files == UNKNOWN
    direct_url = '{"url": "file:///src/thing", "dir_info": {"editable": true}}'
    assert install(tmp_path / "b", RECORD, **{"direct_url.json": direct_url}).files == UNKNOWN


def test_broken_metadata_hides_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, {"broken-1.dist-info/METADATA": "", "broken-1.dist-info/direct_url.json": "{"})
    install(tmp_path, RECORD)
    assert capture_python([str(tmp_path)]).distributions.keys() == {UNKNOWN, "thing"}


def test_distribution_added_meanwhile_is_captured(tmp_path: Path) -> None:
    (tmp_path / "other-2.dist-info").mkdir()
    os.utime(tmp_path, (0, 0))
    assert capture_python([str(tmp_path)]).distributions.keys() == {UNKNOWN}
    assert install(tmp_path, RECORD).version == "1.0"


# ── CUDA and GPUs ───────────────────────────────────────────────────────────────────────────────────────────────

NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)\n"


def test_cuda_is_found_in_distributions_else_in_libraries(tmp_path: Path) -> None:
    nothing = capture_cuda({}, {}, tmp_path)
    assert nothing == Cuda(ABSENT, ABSENT, ABSENT, ABSENT)
    put(tmp_path, {"proc/driver/nvidia/version": NVRM, "opt/nccl/libnccl.so.2.21.5": ""})
    put(tmp_path, {"usr/local/cuda/lib64/libcudart.so.12.4.127": "", "usr/lib64/libcudnn.so.9.1.0": ""})
    (tmp_path / "usr/lib64/libcudnn.so.9").symlink_to("libcudnn.so.9.1.0")
    environ = {"LD_LIBRARY_PATH": f"{tmp_path}/opt/nccl:"}
    assert capture_cuda({}, environ, tmp_path) == Cuda("570.86.15", "12.4.127", "9.1.0", "2.21.5")
    installed = {
        name: Installed(version, UNKNOWN)
        for name, version in {"nvidia-cuda-runtime": "13.0.88", "nvidia-nccl-cu12": "2.27.3"}.items()
    }
    assert capture_cuda(installed, environ, tmp_path) == Cuda("570.86.15", "13.0.88", "9.1.0", "2.27.3")
    put(tmp_path, {"sys/module/nvidia/version": "570.86.16\n"})
    assert capture_cuda({}, {}, tmp_path).driver == "570.86.16"


def test_driver_that_does_not_tell_its_version_is_unknown(tmp_path: Path) -> None:
    put(tmp_path, {"proc/driver/nvidia/version": "NVRM version:\n"})
    assert capture_cuda({}, {}, tmp_path).driver == UNKNOWN


def test_gpus_are_counted_by_model_without_their_serials(tmp_path: Path) -> None:
    for bus in range(3):
        model = "NVIDIA H100 80GB HBM3" if bus else "NVIDIA L4"
        text = f"Model: \t\t {model}\nGPU UUID: \t GPU-1234\n"
        put(tmp_path, {f"proc/driver/nvidia/gpus/0000:0{bus}:00.0/information": text})
    assert capture_gpus(tmp_path) == {"NVIDIA H100 80GB HBM3": 2, "NVIDIA L4": 1}


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        ({}, []),
        ({"nccl": "2.22.3"}, [Weight.WARNING]),
        ({"cudnn": "8.9.7"}, [Weight.BLOCKING]),
        ({"cudnn": ABSENT}, [Weight.BLOCKING]),
        ({"driver": UNKNOWN}, [Weight.UNKNOWN]),
        ({"driver": "550.90.07"}, [Weight.WARNING]),
        ({"driver": "470.57.02"}, [Weight.BLOCKING]),
        ({"driver": "550.90.07", "cuda": "13.0.88"}, [Weight.BLOCKING, Weight.BLOCKING]),
    ],
)
def test_cuda_by_major_release_and_by_the_oldest_driver(change: dict[str, str], weights: list[Weight]) -> None:
    there = Cuda("550.54.15", "12.4.127", "9.1.0", "2.21.5")
    assert [difference.weight for difference in compare_cudas(there, replace(there, **change))] == weights


def test_driver_that_was_too_old_there_as_well_still_blocks() -> None:
    both = Cuda("470.57.02", "12.4.127", "9.1.0", "2.21.5")
    differences = list(compare_cudas(both, both))
    assert [(difference.name, difference.weight) for difference in differences] == [("driver", Weight.BLOCKING)]
    assert differences[0].why == "CUDA 12 needs driver 525 or newer"


# ── host, limits, volume ────────────────────────────────────────────────────────────────────────────────────────


def test_system_is_what_os_release_says(tmp_path: Path) -> None:
    assert capture_host(tmp_path).os == UNKNOWN
    put(tmp_path, {"usr/lib/os-release": 'PRETTY_NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n'})
    assert capture_host(tmp_path).os == "ubuntu 24.04"


@pytest.mark.parametrize(
    ("files", "memory", "cpus"),
    [
        ({}, UNKNOWN, UNKNOWN),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, UNLIMITED, UNLIMITED),
        ({"memory.max": "8000\n", "cpu.max": "250000 100000\n"}, 8000, 2.5),
        ({"a/memory.max": "8000\n", "a/b/memory.max": "9000\n", "a/b/cpu.max": "max 100000\n"}, 8000, UNLIMITED),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, UNLIMITED, UNKNOWN),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, UNKNOWN, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "memory/memory.limit_in_bytes": "7\n"}, 7, UNLIMITED),
    ],
)
def test_narrowest_control_group_counts(tmp_path: Path, files: dict[str, str], memory: object, cpus: object) -> None:
    put(tmp_path, {"proc/self/cgroup": "0::/a/b\n"})
    put(tmp_path / "sys/fs/cgroup", files)
    limits = capture_limits(tmp_path)
    assert (limits["memory"], limits["cpus"]) == (memory, cpus)
    assert limits["shm"] == UNKNOWN


def test_less_of_what_is_declared_blocks_and_more_is_harmless() -> None:
    there: dict[str, Limit] = {"nofile": 1000, "nproc": UNLIMITED, "shm": 64, "memory": UNKNOWN}
    here: dict[str, Limit] = {"nofile": 999, "nproc": 5, "shm": UNLIMITED, "memory": 4}
    weights = {difference.name: difference.weight for difference in compare_limits(there, here)}
    assert weights == {
        "nofile": Weight.BLOCKING,
        "nproc": Weight.WARNING,
        "shm": Weight.HARMLESS,
        "memory": Weight.UNKNOWN,
    }
    assert {difference.weight for difference in compare_limits({"nproc": 6}, {"nproc": 5}, declared=("nproc",))} == {
        Weight.BLOCKING
    }


@pytest.mark.parametrize(
    ("file_system", "device", "turns", "wanted"),
    [
        ("ext4", "pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p1", "0", "nvme"),
        ("ext4", "pci0000:00/ata1/host0/block/sda/sda1", "0", "ssd"),
        ("xfs", "pci0000:00/ata1/host0/block/sdb/sdb1", "1", "rotational"),
        ("nfs4", "virtual/none/none", "0", "network"),
        ("tmpfs", "virtual/none/none", "0", "memory"),
        ("overlay", "", "", UNKNOWN),
    ],
)
def test_medium_is_the_disk_s_below_its_partition(
    tmp_path: Path, file_system: str, device: str, turns: str, wanted: str
) -> None:
    if device:
        (tmp_path / "sys/devices" / device).mkdir(parents=True)
        put((tmp_path / "sys/devices" / device).parent, {"queue/rotational": turns})
        (tmp_path / "sys/dev/block").mkdir(parents=True)
        (tmp_path / "sys/dev/block/8:1").symlink_to(tmp_path / "sys/devices" / device)
    assert medium(file_system, os.makedev(8, 1), tmp_path) == wanted


def test_volume_here_has_a_kind_and_a_size_class(tmp_path: Path) -> None:
    volume = capture_volume(tmp_path / "not" / "yet")
    stat = os.statvfs(tmp_path)
    assert volume.size_class <= stat.f_blocks * stat.f_frsize < 2 * volume.size_class
    assert volume.file_system != UNKNOWN


# ── variables ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_allowed_variables_are_recorded_without_secrets() -> None:
    environ = {
        "OMP_NUM_THREADS": "8",
        "HF_TOKEN": "hf_hidden",
        "HF_ENDPOINT": "https://me:hidden@mirror.example.org",
        "XLA_FLAGS": "",
        "CUDA_VISIBLE_DEVICES": "0",
        "PATH": "/bin",
        "WANDB_API_KEY": "hidden",
        "MY_MODE": "fast",
    }
    assert capture_variables(environ) == {"HF_ENDPOINT": SECRET, "HF_TOKEN": SECRET, "OMP_NUM_THREADS": "8"}
    more = capture_variables(environ, ("MY_*", "WANDB_API_KEY"))
    assert more["MY_MODE"] == "fast"
    assert more["WANDB_API_KEY"] == SECRET
    assert "hidden" not in json.dumps(more)


def test_declared_variables_block_and_others_warn() -> None:
    there, here = {"OMP_NUM_THREADS": "8", "HF_TOKEN": SECRET}, {"OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "0"}
    weights = {difference.name: difference.weight for difference in compare_variables(there, here)}
    assert weights == {
        "HF_TOKEN": Weight.WARNING,
        "OMP_NUM_THREADS": Weight.WARNING,
        "PYTHONHASHSEED": Weight.BLOCKING,
    }
    declared = {difference.name: difference.weight for difference in compare_variables(there, here, ("OMP_*",))}
    assert declared["OMP_NUM_THREADS"] is Weight.BLOCKING
    assert declared["PYTHONHASHSEED"] is Weight.WARNING


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_file_reads_back_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "pilot.json"
    written = to_file(ENVIRONMENT)
    path.write_text(json.dumps(written))
    assert from_file(path) == ENVIRONMENT
    broken = {
        "can't be read: No such file": None,
        "holds no environment: Expecting": "{",
        "holds no environment: 'environment'": "{}",
        "has format 9": json.dumps(written | {"stagegate_environment": 9}),
        "was changed": json.dumps(written | {"fingerprint": DIGEST}),
        "holds no environment: host.os: Field required": json.dumps(
            written | {"environment": ENVIRONMENT.to_json() | {"host": {"architecture": "x", "kernel": "", "libc": ""}}}
        ),
    }
    for problem, text in broken.items():
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(UsageError) as caught:
            from_file(path)
        assert problem in str(caught.value)
