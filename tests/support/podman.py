"""Podman with a store of its own, and this project's two images in it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CPU, CUDA = "prefect-stagegate", "prefect-stagegate:cuda"
DOCKERFILES = {CPU: ROOT / "deployments/Dockerfile", CUDA: ROOT / "deployments/Dockerfile.cuda"}
BASES = ("localhost/python:3.13-slim", "localhost/nvidia/cuda:12.8.1-base-ubuntu24.04")
"""The names by which the Dockerfiles find their bases. Here both are Debian's own packages."""
CONFINED = ("--init", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""How deployments/README.md runs the images."""


class Podman:
    """Podman's command line over a store in `folder`, which nothing else uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "tmp").mkdir()
        # crun refuses machines with both versions of control groups. Podman's own limits may be above this machine's.
        limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        ulimits = [f"{name}={':'.join(map(str, resource.getrlimit(limit)))}" for name, limit in limits.items()]
        configuration = folder / "containers.conf"
        configuration.write_text(
            f'[engine]\nruntime = "runc"\n[containers]\nnetns = "none"\ndefault_ulimits = {json.dumps(ulimits)}\n'
        )
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(configuration),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "TMPDIR": str(folder / "tmp"),
        }

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command of podman; its two outputs are pipes unless `options` say otherwise."""
        stores = (f"--root={self._folder / 'store'}", f"--runroot={self._folder / 'run'}")
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            ["podman", *stores, *words], env=self._environment, stdin=subprocess.DEVNULL, text=True, **options
        )

    def __call__(self, *words: str | Path, seconds: float = 300) -> str:
        """Run a command of podman and return what it printed; fail with all that it said when it fails."""
        process = self.start(*words)
        try:
            printed, said = process.communicate(timeout=seconds)
        finally:
            process.kill()
        assert process.returncode == 0, f"podman {' '.join(map(str, words))}\n{printed}{said}"
        return printed

    def run(self, image: str, *command: str | Path, options: tuple[str, ...] = ()) -> str:
        """Run a command in a new container of an image, confined and without a network."""
        return self("run", "--rm", *CONFINED, *options, image, *command)

    def import_bases(self) -> None:
        """Make a base of Debian's packages and give it the names of both bases."""
        packages = "--include=ca-certificates,python3,python3-venv"
        archive = self._folder / "base.tar"
        making: list[str | Path] = ["mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", archive]
        made = subprocess.run(making, capture_output=True, text=True, check=False, timeout=600)
        assert made.returncode == 0, made.stderr
        self("import", "--quiet", archive, BASES[0])
        archive.unlink()
        self("tag", *BASES)

    def build(self, image: str) -> None:
        """Build one of the images from its Dockerfile; only that of `CPU` keeps its layers, which takes longer."""
        trusted = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
        self(
            *("build", "--quiet", "--format=docker", "--pull=never", "--network=host", *trusted),
            f"--layers={str(image == CPU).lower()}",
            *("--file", DOCKERFILES[image], "--tag", image, ROOT),
            seconds=1500,
        )

    def remove_all(self) -> None:
        """Remove every container, and the store."""
        self("rm", "--all", "--force", "--time=0")
        subprocess.run(["umount", "--quiet", self._folder / "store/overlay"], check=False)
        shutil.rmtree(self._folder)


@contextmanager
def podman_with_images() -> Iterator[Podman]:
    """Podman with both images, built anew; 3 GB in /var/tmp, which are removed afterwards."""
    podman = Podman(Path(tempfile.mkdtemp(prefix="images-", dir="/var/tmp")))
    try:
        podman.import_bases()
        with ThreadPoolExecutor() as pool:
            list(pool.map(podman.build, DOCKERFILES))
        yield podman
    finally:
        podman.remove_all()
