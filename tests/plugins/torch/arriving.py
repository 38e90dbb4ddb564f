"""A version that one node has, for others that read it early, and what loaders of tests read and decode with."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Version

COUNT = 23
"""Files of `files/`, and samples of `samples/`. No number of ranks or workers of the tests divides it."""
SHARDS = [4, 1, 5, 3, 2, 4, 3]
"""Samples of each shard."""


def write_source(folder: Path) -> Path:
    """Write files of numbers: alone, in pairs, and in tars."""
    for name in ("files", "samples", "shards"):
        (folder / name).mkdir(parents=True)
    for number in range(COUNT):
        (folder / f"files/{number:02}.txt").write_text(str(number))
        # Other bytes than those of a file: a blob may come by any of its paths.
        (folder / f"samples/{number:02}.in.txt").write_text(f"{number}\n")
        (folder / f"samples/{number:02}.cls").write_text(f"{number % 3}\n")
    for shard, size in enumerate(SHARDS):
        with tarfile.open(folder / f"shards/{shard}.tar", "w") as tar:
            for sample in range(size):
                for suffix, text in (("txt", f"{10 * shard + sample}"), ("cls", f"{shard}")):
                    member = tarfile.TarInfo(f"in/{sample}.{suffix}")
                    member.size = len(text)
                    tar.addfile(member, io.BytesIO(text.encode()))
    return folder


SAMPLES = [10 * shard + sample for shard, size in enumerate(SHARDS) for sample in range(size)]
"""What `read_numbers` gives of all shards, in the manifest's order."""


def stage_elsewhere(folder: Path, url: str) -> Version:
    """Stage what lies at a URL on a node of its own, into the catalog of the folder."""
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": url}]}
    return stage(open_workspace(folder / "other", folder / "catalog"), spec)


def go_to_node(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "cache") -> None:
    """Read from a cache of this name from now on, which is empty at first."""
    monkeypatch.setenv("STAGEGATE_CATALOG", str(folder / "catalog"))
    monkeypatch.setenv("STAGEGATE_CACHE", str(folder / name))


def number_in(path: Path) -> int:
    return int(path.read_text())


def pair_in(paths: Mapping[str, Path]) -> tuple[int, int]:
    return number_in(paths["in.txt"]), number_in(paths["cls"])


def read_numbers(path: Path) -> Iterator[int]:
    from prefect_stagegate.torch import read_tar

    return (int(sample["txt"]) for sample in read_tar(path))


def tell_process(worker: int) -> None:
    """Leave a file whose name has the worker's process."""
    (Path(os.environ["STAGEGATE_CACHE"]).parent / f"worker-{os.getpid()}").touch()
