"""`deployments/orchestrators/argo-workflow.yaml`: by the models of Argo's API, and with its commands run."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.support.orchestrators import ENVIRONMENT, FILES
from tests.support.scenario import INES, Scenario

Run = Callable[..., CompletedProcess[str]]
MANIFESTS = list(yaml.safe_load_all((FILES / "argo-workflow.yaml").read_text()))
TEMPLATES = {template["name"]: template for template in MANIFESTS[0]["spec"]["templates"]}
# Hera's models ignore what they don't know: it is missing when they are written again.
VALIDATE = """
import json, sys
from hera.workflows import models

for manifest in json.load(sys.stdin):
    model = getattr(models, manifest["kind"]).model_validate(manifest)
    print(model.model_dump_json(by_alias=True, exclude_none=True))
"""


def written_again(manifests: list[Any]) -> list[Any]:
    """The manifests as the models of Argo's API write what they read."""
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", "-c", VALIDATE],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.system
def test_manifests_keep_the_models_of_argo() -> None:
    assert written_again(MANIFESTS) == MANIFESTS
    misspelled = json.loads(json.dumps(MANIFESTS).replace("retryStrategy", "retryStrategie"))
    assert written_again(misspelled) != misspelled


@pytest.mark.parametrize(
    ("name", "retried"), [("stage", {3, 143}), ("promote", {3, 143}), ("check-and-wait", {3, 4, 143})]
)
def test_exit_codes_decide_what_is_tried_again(name: str, retried: set[int]) -> None:
    expression = TEMPLATES[name]["retryStrategy"]["expression"]
    match = re.fullmatch(r"lastRetry.status == 'Error' \|\| asInt\(lastRetry.exitCode\) in (\[[\d, ]+\])", expression)
    assert match
    assert set(json.loads(match[1])) == retried


def test_the_workflow_s_commands_lead_to_production(tmp_path: Path, run_stagegate: Run) -> None:
    approval = {"approval": {"count": 1, "from": ["infra"]}}
    data = Scenario(
        tmp_path, "nycflights", gates={"pilot": {"require": ["cache_fit"]}, "production": {"require": [approval]}}
    )
    spec = data.spec_file()
    data.write("origin,delay\nJFK,4\n")
    outputs: dict[str, str] = {}

    def run(container: dict[str, Any], version: str) -> CompletedProcess[str]:
        places = {"{{inputs.parameters.version}}": version, "/etc/stagegate/nycflights.yaml": str(spec)}
        assert container["command"] == ["stagegate"]
        return run_stagegate(*[places.get(word, word) for word in container["args"]])

    for task in TEMPLATES["main"]["dag"]["tasks"]:
        template = TEMPLATES[task["template"]]
        version = ""
        if "arguments" in task:
            (parameter,) = task["arguments"]["parameters"]
            digest = json.loads(outputs["stage"])["digest"]
            version = parameter["value"].replace("{{=jsonpath(tasks.stage.outputs.result, '$.digest')}}", digest)
            assert version == f"nycflights@{digest}"
        for container in [*template.get("initContainers", []), template["container"]]:
            done = run(container, version)
            if task["template"] == "check-and-wait":
                assert done.returncode == 4, done.stderr
                approve = ("approve", version, "--to", "production", "--identity", INES.name)
                assert run_stagegate(*approve).returncode == 0
                done = run(container, version)
            assert done.returncode == 0, done.stderr
        outputs[task["name"]] = done.stdout
    assert outputs["train"] == "data.csv\n"
    assert data.head("production") == digest
