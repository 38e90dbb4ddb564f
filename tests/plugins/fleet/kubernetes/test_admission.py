"""The admission policy of the agents by Google's CEL: the API server of these tests is too old to know it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plugins.fleet.kubernetes.cluster import CHART_TOOLS

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[4]
POLICY = next(yaml.safe_load_all((ROOT / "deployments/kubernetes/cluster/admission-policy.yaml").read_text()))["spec"]
JUDGE = """
import json, sys
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
names = {name: cel.Type.DYN for name in ("request", "object", "oldObject")}
environment = cel.NewEnv(variables=names, extensions=[ext_optional.ExtOptional()])
holds = lambda item, data: environment.compile(item["expression"]).eval(data=data).value() is True
policy, requests = json.load(sys.stdin)
for data in requests:
    applies = all(holds(condition, data) for condition in policy["matchConditions"])
    refusals = (item["message"] for item in policy["validations"] if not holds(item, data))
    print(next(refusals, "") if applies else "")
"""
"""Prints the message of the first validation that refuses each request; an empty line for one that passes."""
AGENT = "system:serviceaccount:stagegate-production:stagegate-agent-production"


def change(account: str, on: str, node: str, **spec: Any) -> dict[str, Any]:
    """A change of a Node by an account whose pod runs on a node."""
    extra = {"authentication.kubernetes.io/node-name": [on]} if on else {}
    old = {"metadata": {"name": node}, "spec": {}}
    return {
        "request": {"userInfo": {"username": account, "extra": extra}},
        "object": old | {"spec": spec},
        "oldObject": old,
    }


def test_an_agent_writes_no_node_but_its_own() -> None:
    requests = {
        "its own": change(AGENT, "gpu-1", "gpu-1"),
        "another": change(AGENT, "gpu-1", "gpu-2"),
        "a token of no pod": change(AGENT, "", "gpu-1"),
        "a taint": change(AGENT, "gpu-1", "gpu-1", taints=[{"key": "x", "effect": "NoSchedule"}]),
        "a kubelet": change("system:node:gpu-2", "", "gpu-2", unschedulable=True),
    }
    judged = subprocess.run(
        [CHART_TOOLS / "cel/bin/python", "-c", JUDGE],
        input=json.dumps([POLICY, list(requests.values())]),
        capture_output=True,
        text=True,
        check=True,
    )
    refused = dict(zip(requests, judged.stdout.splitlines(), strict=True))
    assert [what for what, message in refused.items() if message] == ["another", "a token of no pod", "a taint"]
