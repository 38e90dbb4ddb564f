"""Breaks each promise of docs/reliability.md on purpose, in a copy of the tree, and sees that its test fails.

    make mutations [ONLY="words"]     .venv/bin/python tests/faults/mutations.py [words]

What is broken stands in mutations.toml. A test that passes though its promise is broken proves nothing: mend the test.
So does one that fails anyway: first all tests run on a copy where nothing is broken, and each must pass.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).parents[2]
SHIPPED = ("prefect_stagegate", "tasks", "flows", "validations", "deployments")
FAILED = 1
"""Pytest's exit status when tests ran and some failed: neither a mistake in the code nor a test that isn't there."""
TIMEOUT = 900


class Span(NamedTuple):
    """The lines of a function, class or module."""

    file: Path
    first: int
    last: int


@dataclass(frozen=True)
class Mutation:
    """One promise, and how it is broken."""

    promise: str
    function: str
    """The end of a dotted name that no other function, class or module ends with: `Budget.take`."""
    old: str
    """Stands once in the function, whatever its spaces and line breaks."""
    new: str
    test: str

    def is_meant(self, words: list[str]) -> bool:
        """Whether promise, function or test have each of the words, and none of those behind a minus."""
        text = f"{self.promise} {self.function} {self.test}"
        return all(word[1:] not in text if word.startswith("-") else word in text for word in words)

    def broken(self, tree: Path) -> tuple[Path, str]:
        """The file in a tree that has the function, and its text with the promise broken.

        Raises:
            LookupError: The function or `old` is not there, or more than once.
        """
        (span,) = spans(tree).get(self.function, ()) or _fail(f"no function ends with {self.function}")
        lines = span.file.read_text().splitlines(keepends=True)
        text = "".join(lines[span.first - 1 : span.last])
        places = list(re.finditer(r"\s+".join(map(re.escape, self.old.split())), text))
        if len(places) != 1:
            raise LookupError(f"{self.function} has {len(places)} times: {self.old}")
        (match,) = places
        # Later lines of `new` are indented as the line is that it stands in.
        line = text[text.rfind("\n", 0, match.start()) + 1 :]
        new = self.new.replace("\n", "\n" + line[: len(line) - len(line.lstrip())])
        lines[span.first - 1 : span.last] = [text[: match.start()] + new + text[match.end() :]]
        return span.file, "".join(lines)

    @contextmanager
    def applied(self, tree: Path) -> Iterator[None]:
        """Break the promise in a tree for the block."""
        path, broken = self.broken(tree)
        text = path.read_text()
        path.write_text(broken)
        try:
            yield
        finally:
            path.write_text(text)


def _fail(problem: str) -> NoReturn:
    raise LookupError(problem)


@cache
def spans(tree: Path) -> Mapping[str, Sequence[Span]]:
    """The functions, classes and modules of the shipped code, by each end of their dotted names."""
    spans_by_name = defaultdict(list)
    for part in SHIPPED:
        for file in sorted((tree / part).rglob("*.py")):
            module = ".".join(file.relative_to(tree).with_suffix("").parts).removesuffix(".__init__")
            text = file.read_text()
            for name, span in [(module, Span(file, 1, text.count("\n"))), *_definitions(ast.parse(text), module, file)]:
                parts = name.split(".")
                for length in range(1, len(parts) + 1):
                    spans_by_name[".".join(parts[-length:])].append(span)
    return spans_by_name


def _definitions(node: ast.AST, prefix: str, file: Path) -> Iterator[tuple[str, Span]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            yield name, Span(file, child.lineno, child.end_lineno or child.lineno)
            yield from _definitions(child, name, file)
        elif isinstance(child, ast.stmt):
            yield from _definitions(child, prefix, file)


def load() -> list[Mutation]:
    """All of them."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return [Mutation(**entry) for entry in table["mutation"]]


def copy_tree(to: Path) -> None:
    """Copy what git knows, and what it does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


def run(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the package as it stands in a tree, up to the first that fails."""
    pytest = str(Path(sys.executable).with_name("pytest"))
    command = [pytest, "-q", "-x", "-m", "", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    timeout = TIMEOUT * len(tests)
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=timeout
    )


def main() -> int:
    """Break them all, or those that are asked for; returns how many were not noticed."""
    chosen = [mutation for mutation in load() if mutation.is_meant(sys.argv[1:])]
    if not chosen:
        print(f"No promise has the words {' '.join(sys.argv[1:])}")
        return 1
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)  # some tests act as users who must be able to import from it
        copy_tree(tree)
        whole = run(tree, *sorted({mutation.test for mutation in chosen}))
        if whole.returncode:
            print(f"A test fails though no promise is broken: exit {whole.returncode}\n{whole.stdout[-1500:]}")
            return 1
        for number, mutation in enumerate(chosen, start=1):
            with mutation.applied(tree):
                done = run(tree, mutation.test)
            noticed = done.returncode == FAILED and "\nFAILED " in done.stdout  # not only a fixture's error
            unnoticed += not noticed
            print(f"{number}/{len(chosen)} {'noticed' if noticed else 'NOT NOTICED'}: {mutation.promise}", flush=True)
            if not noticed:
                print(
                    f"    {mutation.function}, by {mutation.test}: exit {done.returncode}\n{done.stdout[-1500:]}",
                    flush=True,
                )
    print(f"{len(chosen) - unnoticed} of {len(chosen)} broken promises were noticed")
    return min(unnoticed, 100)


if __name__ == "__main__":
    sys.exit(main())
