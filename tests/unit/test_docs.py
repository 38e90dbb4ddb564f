"""The pages say what the code does."""

from pathlib import Path

import pytest

from prefect_stagegate.errors import ExitCode
from prefect_stagegate.readiness import CHECKS
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
    assert named == {name for name, check in CHECKS.items() if check.built}


def test_the_reference_has_every_exit_code() -> None:
    assert all(f"| {code.value} |" in REFERENCE for code in ExitCode)
