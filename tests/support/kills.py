"""Ends a command within this process before one of its writes, and has none of its later writes done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = ("os.link", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
"""What readers of a folder may see. Names that begin with a dot are scratch files, which are written before."""


class Killed(BaseException):
    """What ends the command: nothing of ours catches it."""


class _Kill:
    """A kill that is about to come. Python calls it before each call of the system that it audits."""

    def __init__(self, folder: Path, write: int | str) -> None:
        self._folder, self._write, self._is_dead = str(folder), write, False
        self.done: list[str] = []

    def before(self, event: str, args: tuple[Any, ...]) -> None:
        """Count a change, and raise from the one on that is to be the first that is not done."""
        path = str(args[1] if event in CHANGES[:2] else args[0])
        if not path.startswith(self._folder) and path.startswith("/"):
            return
        is_seen = event in CHANGES and not Path(path).name.startswith(".")
        is_first = self._write in path if isinstance(self._write, str) else len(self.done) == self._write
        if self._is_dead or (is_seen and is_first):
            self._is_dead = True
            raise Killed
        if is_seen:
            self.done.append(path)


_kills: list[_Kill] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _kills:
        return
    is_written = event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event in CHANGES or is_written:
        _kills[-1].before(event, args)


sys.addaudithook(_audit)  # for good: a hook can't be taken away


@contextmanager
def killed_at(folder: Path, write: int | str) -> Iterator[list[str]]:
    """Die before a change below a folder: the one of this number, from 0, or the first whose path has this text.

    Gives the paths of the changes that were done.
    """
    kill = _Kill(folder, write)
    _kills.append(kill)
    try:
        yield kill.done
    finally:
        _kills.remove(kill)
