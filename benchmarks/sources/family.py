"""What a family of sources is to the benchmark, and the sets of files that it serves."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

Options = Mapping[str, Any]
Served = AbstractContextManager[tuple[str, Options]]
"""A URL and its options, for as long as the server runs."""
FILES = {"large": "4 files of 128 MiB", "small": "2,000 files of 4 kB"}


class Family(ABC):
    """How files are served, and how others copy them."""

    client: ClassVar[str]
    """The best client's name and flags."""
    imports: ClassVar[tuple[str, ...]] = ()
    """The modules that `copy` uses."""
    sets: ClassVar[Mapping[str, str]] = FILES
    """What is copied: `large` and `small`, in words."""

    @abstractmethod
    def serve(self, files: Path, folder: Path) -> Served:
        """Serve the files of a folder named after its set; `folder` is empty and the server's own."""

    @abstractmethod
    def copy(self, url: str, options: Options, out: Path) -> None:
        """Copy all below the URL by the client, into the folder `out`, which is there."""


def linked(files: Path, into: Path) -> None:
    """Let a server have the files in its own folder; they take no space twice."""
    shutil.copytree(files, into / files.name, copy_function=os.link)


def filled(client: Any, files: Path, place: str) -> None:
    """Put the files into a folder of an fsspec file system."""
    client.put([str(file) for file in files.iterdir()], [f"{place}/{file.name}" for file in files.iterdir()])


def sizes(files: Path) -> dict[str, int]:
    """What lies in the folder, by name."""
    return {file.name: file.stat().st_size for file in sorted(files.iterdir())}
