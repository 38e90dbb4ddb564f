"""The pages say what the code does."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from pages.generate import PAGES
from pages.settings import SETTINGS
from pages.spec import SECTIONS
from prefect_stagegate import flows, tasks
from prefect_stagegate.cache.job_progress import JobProgress, Phase
from prefect_stagegate.cli.app import commands_for
from prefect_stagegate.cli.commands import TITLES
from prefect_stagegate.cli.printing import error_values
from prefect_stagegate.doors import sources
from prefect_stagegate.errors import ExitCode, NotReady
from prefect_stagegate.gate import CHECKS, Renewal, known_checks
from prefect_stagegate.model.settings import Setting
from prefect_stagegate.spec import SourceSpec, json_schema, load_spec
from prefect_stagegate.spec.suites import SuiteSpec

DOCS = Path(__file__).parents[2] / "docs"
REQUIRE_READY = (DOCS / "how-to/require-readiness.md").read_text()


GENERATED = {name: (DOCS / "reference" / name).read_text() for name in PAGES}


def test_index_of_decisions_has_each_with_its_title() -> None:
    index = (DOCS / "decisions/index.md").read_text()
    for file in DOCS.glob("decisions/0*.md"):
        number, _, title = file.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        assert f"- [{number.zfill(4)}]({file.name}) {title}\n" in index


@pytest.mark.parametrize("name", PAGES)
def test_reference_page_is_current(name: str) -> None:
    assert GENERATED[name] == PAGES[name](), "make reference writes it"


def test_reference_has_no_other_pages() -> None:
    assert {file.name for file in DOCS.glob("reference/*")} == PAGES.keys()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_the_reference_has_every_setting_as_it_is(setting: Setting) -> None:
    row = next(line for line in GENERATED["settings.md"].splitlines() if line.startswith(f"- `{setting.variable}` ("))
    for part in (setting.default, setting.values, setting.meaning):
        assert part in row


def headings(text: str) -> list[str]:
    """The headings of a page, without those that stand in its code."""
    return re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


def test_checks_page_has_every_check() -> None:
    page = GENERATED["checks.md"]
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == CHECKS.keys()
    assert set(re.findall(r"\[`(\w+)`\]\(#", page.split("\n## ")[0])) == CHECKS.keys()


def test_checks_page_has_every_parameter() -> None:
    sections = dict(zip(CHECKS, [""] * len(CHECKS), strict=True))
    for section in GENERATED["checks.md"].split("\n### ")[1:]:
        sections[section.partition("\n")[0]] = section
    for name, check in CHECKS.items():
        for key, field in check.parameters.model_fields.items():
            assert re.search(rf"^- .*`{field.alias or key}` \(", sections[name], re.MULTILINE)


def test_cli_page_has_every_command_in_order() -> None:
    known = commands_for([])
    commands = [
        f"stagegate {command.words}"
        for title in TITLES
        for first in known
        if first.title == title
        for command in (first, *(other for other in known if other.words.startswith(f"{first.words} ")))
    ]
    assert [heading for heading in headings(GENERATED["cli.md"]) if heading.startswith("stagegate ")] == commands


def test_tasks_page_has_every_task_and_flow() -> None:
    page = GENERATED["tasks.md"]
    for name in (*tasks.__all__, *tasks.OFFERED, *flows.__all__, *flows.OFFERED):
        assert f"\n### {name}\n" in page or f"`await {name}(…)`" in page


def test_code_on_the_tasks_page_runs() -> None:
    code = GENERATED["tasks.md"].split("```python\n")[1].split("```")[0]
    defined: dict[str, object] = {"__name__": "page"}
    exec(compile(code, "tasks.md", "exec"), defined)
    assert {"release", "train"} <= defined.keys()


def test_spec_page_has_every_mapping() -> None:
    models = {name for name, schema in json_schema(known_checks())["$defs"].items() if "properties" in schema}
    assert models == {section.model.__name__ for section in SECTIONS}


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", GENERATED["spec.md"], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_on_the_spec_page_loads(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent / "examples")
    values = yaml.safe_load(example)
    if "expectations" in values:
        SuiteSpec.model_validate(values)
        return
    for table in values.get("contract", {}).get("tables", {}).values():
        table.setdefault("files", "*.csv")
    gates = {"pilot": {"require": ["schema"]}, **values.get("gates", {})}
    load_spec({**yaml.safe_load(EXAMPLES[0]), **values, "gates": gates}, known_checks=known_checks())


def test_the_page_tells_which_checks_are_settled() -> None:
    sentence = REQUIRE_READY.split("- Settled")[1].split(".")[0]
    assert set(sentence.split("`")[1::2]) == {
        name for name, check in CHECKS.items() if check.renewal is Renewal.SETTLED
    }


SOURCES = (DOCS / "sources.md").read_text()


@pytest.mark.parametrize("scheme", [scheme for scheme in sources() if scheme])
def test_the_table_of_families_has_every_scheme_and_its_extra(scheme: str) -> None:
    rows = SOURCES.split("## Families")[1].split("\n## ")[0].splitlines()
    row = next((row for row in rows if f"`{scheme}://" in row), None)
    assert row, f"docs/sources.md lacks a row for {scheme}://"
    extra = sources()[scheme].extra
    assert f"`{extra}`" in row or not extra


def test_the_page_of_sources_has_every_key_of_a_source() -> None:
    keys = set(re.findall(r"`(\w+)[`:]", SOURCES)) | set(re.findall(r"^    (\w+):", SOURCES, re.MULTILINE))
    assert SourceSpec.model_fields.keys() <= keys


ORCHESTRATORS = (DOCS / "how-to/orchestrators.md").read_text()


def test_orchestrators_page_shows_what_the_files_have() -> None:
    files = [path.read_text() for path in (DOCS.parent / "deployments/orchestrators").iterdir()]
    shown = re.findall(r"^```(?:python|yaml|sh|crontab)\n(.*?)^```", ORCHESTRATORS, re.MULTILINE | re.DOTALL)
    assert len(shown) == 7
    assert [block for block in shown if not any(block in text for text in files)] == []


def test_orchestrators_page_shows_the_documents_as_they_are() -> None:
    lines = re.findall(r"^```json\n(.*?)^```", ORCHESTRATORS, re.MULTILINE | re.DOTALL)
    error, transfer, *_ = [json.loads(line) for block in lines for line in block.splitlines()]
    assert error == {"error": error_values(NotReady("", dataset="")) | error["error"]}
    assert transfer["progress"].keys() == asdict(JobProgress(Phase.FETCHING)).keys()


def test_orchestrators_page_has_every_exit_code() -> None:
    assert all(f"| {code.value} |" in ORCHESTRATORS for code in ExitCode)
