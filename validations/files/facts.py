"""What a probe finds: the facts of a file, or its defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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


def nonempty(path: Path) -> Facts:
    """The file has at least one byte."""
    if path.stat().st_size == 0:
        raise UnreadableFile("the file is empty (0 bytes)")
    return Facts()


def first_line(error: BaseException) -> str:
    """An error's first line without its full stop, to be part of a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
