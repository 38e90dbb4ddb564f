"""The shipped automations, loaded into a real Prefect server with the block of each channel that the page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.automations import Automation

from prefect_stagegate.tasks._support import notify, version_events

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/be-told.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = {re.findall(r"notifications import (\w+)", code)[0]: code for code in CODE}
SECRETS = {
    "SlackWebhook": "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx",
    "MicrosoftTeamsWebhook": "https://prod-1.westeurope.logic.azure.com:443/workflows/0a/triggers/manual/paths/invoke?sig=x",
    "PagerDutyWebHook": "0123456789abcdef0123456789abcdef:u+0123456789",
    "SendgridEmail": "SG.0123456789",
}
AUTOMATIONS = (ROOT / "deployments/automations.yaml").read_text()


def test_each_channel_of_the_page_is_tried() -> None:
    assert BLOCKS.keys() == SECRETS.keys()


@pytest.mark.parametrize("channel", SECRETS)
def test_automations_load_with_the_block_of_a_channel(
    channel: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", SECRETS[channel])
    exec(compile(BLOCKS[channel], str(ROOT), "exec"), {})
    output = capsys.readouterr().out
    assert SECRETS[channel] not in output
    block = UUID(output.strip())
    document = yaml.safe_load(AUTOMATIONS.replace("BLOCK_ID", str(block)))
    for described in document["automations"]:
        automation = Automation(**{**described, "name": f"{described['name']} by {channel}"})
        automation.create()
        stored: Any = Automation.read(id=automation.id)
        assert stored.actions[0].block_document_id == block
        automation.delete()


def test_automations_wait_for_events_that_exist() -> None:
    emitted = {
        str(name)
        for name in [*vars(version_events).values(), *vars(notify).values()]
        if str(name).startswith("stagegate.")
    }
    expected = {name for one in yaml.safe_load(AUTOMATIONS)["automations"] for name in one["trigger"]["expect"]}
    # The tests of their plugins see these emitted.
    assert expected - {"stagegate.fleet.incomplete", "stagegate.watch.answered"} == emitted - {
        "stagegate.version.staged",
        "stagegate.gate.passed",
        "stagegate.ref.moved",
    }


def test_templates_name_only_fields_of_their_events() -> None:
    shown = (ROOT / "docs/events.md").read_text()
    for automation in yaml.safe_load(AUTOMATIONS)["automations"]:
        (name,) = automation["trigger"]["expect"]
        (example,) = re.findall(
            rf"^[^\n|]*`{re.escape(name)}`[^\n|]*\n```json\n(.*?)```", shown, re.MULTILINE | re.DOTALL
        )
        action = automation["actions"][0]
        fields = set(re.findall(r"event\.payload\.(\w+)", action["subject"] + action["body"]))
        assert fields <= set(re.findall(r'"(\w+)":', example)), name
