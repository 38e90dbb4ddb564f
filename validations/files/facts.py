"""Probing a file: its facts, or its defect. Light to import: the probe workers start with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prefect_stagegate import doors
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    import pyarrow as pa

REWRITE = "Write it again at its source, whole, and stage again."


@dataclass(frozen=True, slots=True)
class Facts:
    """A file's columns and rows; the defaults for a probe that reads no table."""

    schema: pa.Schema | None = None
    rows: int = 0


class UnreadableFile(Exception):
    """A file's defect, as one clause without a full stop, and what to do about it."""

    def __init__(self, problem: str, fix: str = REWRITE) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


class Defect(NamedTuple):
    """What is wrong with a file, and what to do about it."""

    problem: str
    fix: str
    of_copy: bool = False
    """Whether this node or its copy is at fault, so that nothing is known about the version."""


Probe = Callable[..., Facts]
"""Takes a file's path, and the settings that the spec may give it by name."""


_FILES = "prefect_stagegate.validations.files"
DECODERS: dict[str, doors.Probe] = {
    **doors.declared("probes"),
    "parquet-pages": doors.Probe(f"{_FILES}.probes:parquet_pages", f"{_FILES}.calls:release_of_pyarrow"),
    "jsonl": doors.Probe(f"{_FILES}.texts:jsonl"),
    "text": doors.Probe(f"{_FILES}.texts:text"),
}
"""The probes that decode what strangers wrote. They run in confined workers, and not again on bytes that passed."""


def decoder(name: str) -> Probe:
    """The function of a probe that decodes."""
    found: Probe = doors.load(DECODERS[name].function)
    return found


def nonempty(path: Path) -> Facts:
    """The file has at least one byte."""
    if path.stat().st_size == 0:
        raise UnreadableFile("the file is empty (0 bytes)")
    return Facts()


def first_line(error: BaseException) -> str:
    """An error's first line without its full stop, to be part of a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def probe_copy(copy: Path, size: int, probes: Iterable[Callable[[Path], Facts]]) -> Facts | Defect:
    """Probe this node's copy of a file.

    Args:
        copy: Its path on this node.
        size: The file's bytes, by the manifest.
        probes: What to call with the path, in order.

    Returns:
        The facts of the table's probe when all probes pass, else the first defect.
    """
    try:
        # Look at this node's copy first: its faults must not count against the version.
        if (there := os.stat(copy).st_size) != size:  # noqa: PTH116 - half the time of Path.stat, for each of many files
            return fault_of_copy(f"this node's copy has {count_text(there, 'byte')}, the manifest says {size:,}")
        if not os.access(copy, os.R_OK):
            return fault_of_copy("this node's copy may not be read")
        results = [probe(copy) for probe in probes]
    except UnreadableFile as error:
        return Defect(error.problem, error.fix)
    except OSError as error:
        return fault_of_copy(f"this node's copy can't be read: {first_line(error)}")
    return next((facts for facts in results if facts.schema is not None), Facts())


def fault_of_copy(problem: str) -> Defect:
    """A fault of this node's copy."""
    return Defect(problem, "Run `stagegate verify`, then stage the version again.", of_copy=True)
