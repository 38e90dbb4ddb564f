"""The pages say what the code does."""

from pathlib import Path

import pytest

from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Scope
from prefect_stagegate.readiness import CHECKS, Renewal
from prefect_stagegate.settings import SETTINGS, Setting

REFERENCE = (Path(__file__).parents[2] / "docs/reference.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_the_reference_has_every_setting_as_it_is(setting: Setting) -> None:
    row = next(line for line in REFERENCE.splitlines() if line.startswith(f"| `{setting.variable}` |"))
    for part in (setting.default, setting.values, setting.meaning):
        assert part in row


def test_the_reference_has_every_check_that_is_built_and_no_other() -> None:
    section = REFERENCE.split("## Checks")[1].split("## Commands")[0]
    named = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    assert named == CHECKS.keys()


def test_the_reference_has_every_exit_code() -> None:
    assert all(f"| {code.value} |" in REFERENCE for code in ExitCode)


@pytest.mark.parametrize(
    ("begins", "means"), [("- Costly", Renewal.COSTLY), ("- Settled", Renewal.SETTLED)], ids=["costly", "settled"]
)
def test_the_reference_tells_what_the_start_of_a_run_does_not_ask(begins: str, means: Renewal) -> None:
    sentence = REFERENCE.split(begins)[1].split(".")[0]
    assert set(sentence.split("`")[1::2]) == {name for name, check in CHECKS.items() if check.renewal is means}


def test_the_reference_tells_which_checks_speak_about_the_node() -> None:
    row = REFERENCE.split("| the node (")[1].split(")")[0]
    assert set(row.split(", ")) == {name for name, check in CHECKS.items() if check.scope is Scope.NODE}
