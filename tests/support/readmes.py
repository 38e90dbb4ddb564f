"""The READMEs of examples, whose commands run in a copy of the example's folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support.transcript import reader, rerun

EXAMPLES = Path(__file__).parents[2] / "examples"
_CHANGING = re.compile(r"\b[0-9a-f]{12,64}\b|\b\d+(\.\d+)? k?B\b")
"""Digests and sizes, which another release of pyarrow or Pillow writes otherwise."""


def unlike(name: str, folder: Path, **environment: str) -> list[str]:
    """Run the README of an example; returns the lines that it shows otherwise, digests and sizes left out."""
    shutil.copytree(EXAMPLES / name, folder, dirs_exist_ok=True)
    readme = (folder / "README.md").read_text()
    printed = rerun(readme, folder, {**reader(folder), **environment})
    shown, now = (_CHANGING.sub("…", text).splitlines() for text in (readme, printed))
    return [line for line in now if line not in shown] + [line for line in shown if line not in now]
