"""Breaks each promise of docs/reliability.md on purpose, in a copy of the tree, and sees that its test fails.

    make mutations [ONLY="words"]     .venv/bin/python tests/faults/mutations.py [words]

What is broken stands in mutations.toml. A test that passes though its promise is broken proves nothing: mend the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILED = 1
"""Pytest's exit status when tests ran and some failed: neither a mistake in the code nor a test that isn't there."""
TIMEOUT = 900


@dataclass(frozen=True)
class Mutation:
    """One promise, and how it is broken."""

    promise: str
    file: str
    old: str
    new: str
    test: str

    def is_meant(self, words: list[str]) -> bool:
        """Whether promise, file or test have each of the words, and none of those behind a minus."""
        text = f"{self.promise} {self.file} {self.test}"
        return all(word[1:] not in text if word.startswith("-") else word in text for word in words)

    @contextmanager
    def applied(self, tree: Path) -> Iterator[None]:
        """Break the promise in a tree for the block."""
        path = tree / self.file
        text = path.read_text()
        path.write_text(text.replace(self.old, self.new))
        try:
            yield
        finally:
            path.write_text(text)


def load() -> list[Mutation]:
    """All of them."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return [Mutation(**one) for one in table["mutation"]]


def copy_tree(to: Path) -> None:
    """Copy what git knows, and what it does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run one test on the package as it stands in a tree."""
    pytest = str(Path(sys.executable).with_name("pytest"))
    command = [pytest, "-q", "-x", "-m", "", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )


def main() -> int:
    """Break them all, or those that are asked for; returns how many were not noticed."""
    chosen = [one for one in load() if one.is_meant(sys.argv[1:])]
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        for number, one in enumerate(chosen, start=1):
            with one.applied(tree):
                done = run(tree, one.test)
            noticed = done.returncode == FAILED
            unnoticed += not noticed
            print(f"{number}/{len(chosen)} {'noticed' if noticed else 'NOT NOTICED'}: {one.promise}", flush=True)
            if not noticed:
                print(f"    {one.file}, by {one.test}: exit {done.returncode}\n{done.stdout[-1500:]}", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} broken promises were noticed")
    return min(unnoticed, 100)


if __name__ == "__main__":
    sys.exit(main())
