"""Pages name tests that exist; each promise of docs/reliability.md is broken on purpose by a mutation."""

import ast
import re
from pathlib import Path

import pytest
from mutations import ROOT, Mutation, load

PAGE = (ROOT / "docs/reliability.md").read_text()
SOURCES = (ROOT / "docs/sources.md").read_text()
MUTATIONS = load()
TEST = re.compile(r"`(tests/[\w/]+\.py::[\w:]+)`")
ABUSE = PAGE.split("## Who may do what\n")[1].split("\n## ")[0]
PROMISED = PAGE.replace(ABUSE, "")
PROMISES = [line[2:].partition(" `tests/")[0] for line in PROMISED.splitlines() if re.match("- .*`tests/", line)]


def exists(test: str) -> bool:
    """Whether a test of that name stands in that file, in that class."""
    file, *names = test.split("::")
    within: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body if (ROOT / file).exists() else []
    for name in names:
        definitions = [
            node for node in within if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        ]
        if not definitions:
            return False
        within = definitions[0].body
    return True


@pytest.mark.parametrize("test", sorted(set(TEST.findall(PAGE + SOURCES)) | {mutation.test for mutation in MUTATIONS}))
def test_every_test_that_is_named_exists(test: str) -> None:
    assert exists(test)


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert not exists("tests/project/test_reliability.py::test_nothing")
    assert not exists("tests/unit/test_nothing.py::test_nothing")


def test_everything_that_nobody_can_do_has_a_test() -> None:
    rows = [line for line in ABUSE.splitlines() if line.startswith("- ")]
    assert len(rows) > 25
    assert not [row for row in rows if not TEST.search(row)]


def test_each_of_the_fourteen_traps_has_its_test() -> None:
    rows = SOURCES.split("## Traps")[1].split("\n## ")[0].splitlines()
    assert [int(row.partition(".")[0]) for row in rows if TEST.search(row)] == list(range(1, 15))


def test_each_promise_has_a_mutation_and_each_mutation_a_promise() -> None:
    assert len(PROMISES) > 40
    assert sorted(PROMISES) == sorted({f"{mutation.promise}." for mutation in MUTATIONS})


@pytest.mark.parametrize(
    "mutation", MUTATIONS, ids=lambda mutation: f"{mutation.promise[:40]}-{Path(mutation.test).name[:40]}"
)
def test_mutations_change_one_place_and_cite_a_promise_s_test(mutation: Mutation) -> None:
    file, broken = mutation.broken(ROOT)
    ast.parse(broken)
    assert broken != file.read_text()
    (row,) = [line for line in PROMISED.splitlines() if line.startswith(f"- {mutation.promise}. `tests/")]
    assert f"`{mutation.test}`" in row


def test_names_of_tests_have_at_most_60_characters() -> None:
    texts = [file.read_text() for file in (ROOT / "tests").rglob("*.py")]
    assert not [name for text in texts for name in re.findall(r"def (test_\w+)", text) if len(name) > 60]


def test_the_page_has_one_place_for_the_figures_of_the_long_run() -> None:
    assert PAGE.count("<!-- soak: begin -->") == PAGE.count("<!-- soak: end -->") == 1
