"""The pages say what the code does."""

import re
from pathlib import Path

import pytest

from prefect_stagegate.cli.catalogue import inserted
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Outcome, Scope, Severity
from prefect_stagegate.readiness import CHECKS, Renewal, run_check
from prefect_stagegate.readiness.registry import _checks
from prefect_stagegate.settings import SETTINGS, Setting
from prefect_stagegate.sources import SCHEMES
from prefect_stagegate.sources.extras import extra_of
from prefect_stagegate.spec import Requirement, SourceSpec
from prefect_stagegate.testing.contexts import check_context

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference.md").read_text()
REQUIRE_READY = (DOCS / "how-to/require-readiness.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_the_reference_has_every_setting_as_it_is(setting: Setting) -> None:
    row = next(line for line in REFERENCE.splitlines() if line.startswith(f"| `{setting.variable}` |"))
    for part in (setting.default, setting.values, setting.meaning):
        assert part in row


def test_the_catalogue_on_the_page_is_the_code_s() -> None:
    page = (DOCS / "readiness.md").read_text()
    assert page == inserted(page), "make catalogue writes it"
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == CHECKS.keys()


def test_the_check_on_the_page_works_as_it_stands() -> None:
    code = (DOCS / "readiness.md").read_text().split("```python\n")[1].split("```")[0]
    before = dict(_checks)
    try:
        exec(compile(code, "readiness.md", "exec"), {"__name__": "page"})
        requirement = Requirement("few_files", Severity.BLOCKING, {"most": 1})
        assert run_check(CHECKS["few_files"], requirement, check_context()).outcome is Outcome.FAIL
    finally:
        _checks.clear()
        _checks.update(before)


def test_the_reference_has_every_exit_code() -> None:
    assert all(f"| {code.value} |" in REFERENCE for code in ExitCode)


@pytest.mark.parametrize(
    ("begins", "means"), [("- Costly", Renewal.COSTLY), ("- Settled", Renewal.SETTLED)], ids=["costly", "settled"]
)
def test_the_page_tells_what_the_start_of_a_run_does_not_ask(begins: str, means: Renewal) -> None:
    sentence = REQUIRE_READY.split(begins)[1].split(".")[0]
    assert set(sentence.split("`")[1::2]) == {name for name, check in CHECKS.items() if check.renewal is means}


def test_the_page_tells_which_checks_speak_about_the_node() -> None:
    row = REQUIRE_READY.split("| the node (")[1].split(")")[0]
    assert set(row.split(", ")) == {name for name, check in CHECKS.items() if check.scope is Scope.NODE}


SOURCES = (DOCS / "sources.md").read_text()


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme])
def test_the_table_of_families_has_every_scheme_and_its_extra(scheme: str) -> None:
    rows = SOURCES.split("## Families")[1].split("\n## ")[0].splitlines()
    row = next((row for row in rows if f"`{scheme}://" in row), None)
    assert row, f"docs/sources.md lacks a row for {scheme}://"
    assert f"`{extra_of(scheme)}`" in row or not extra_of(scheme)


def test_the_page_of_sources_has_every_key_of_a_source() -> None:
    told = set(re.findall(r"`(\w+)[`:]", SOURCES)) | set(re.findall(r"^    (\w+):", SOURCES, re.MULTILINE))
    assert SourceSpec.model_fields.keys() <= told
