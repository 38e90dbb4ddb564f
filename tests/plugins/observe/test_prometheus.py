"""The alert rules and the dashboard in `deployments/`, by Prometheus' own programs, on the metrics of real jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from prefect_stagegate.errors import StagegateError, TransferFailed
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.observe.monitoring.exposition import metrics_text
from prefect_stagegate.testing.launching import answers_http, launched
from prefect_stagegate.testing.servers import free_port
from tests.support.http_servers import Handler, http_server
from tests.support.scenario import Scenario

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deployments/prometheus/alerts.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
PANELS = list(json.loads((ROOT / "deployments/grafana/dashboard.json").read_text())["panels"])
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}, {target['refId']}")
    for panel in PANELS
    for target in panel.get("targets", ())
]
TARGET = 'dataset="things",target="production"'
FAILED_STAGES = 'stagegate_steps_total{instance="n",step="stage",dataset="things",outcome="error"}'
SERIES = {
    "StagegateVersionWithdrawn": ("stagegate_target_standing{{{},standing={!r}}}".format(TARGET, "withdrawn"), "1x90"),
    "StagegateEvidenceEnded": ("stagegate_target_standing{{{},standing={!r}}}".format(TARGET, "expired"), "1x90"),
    "StagegateEvidenceEndsSoon": (f"stagegate_evidence_ends_timestamp_seconds{{{TARGET}}}", "10000x90"),
    "StagegateGateRefused": ("stagegate_target_standing{{{},standing={!r}}}".format(TARGET, "refused"), "1x90"),
    "StagegateApprovalWaits": (f"stagegate_approval_requested_timestamp_seconds{{{TARGET}}}", "-90000x90"),
    "StagegateCatalogUnreadable": ('stagegate_catalog_up{instance="n"}', "0x90"),
    "StagegateNodeBehind": ('stagegate_node_ref_current{instance="n",dataset="things",ref="production"}', "0x90"),
    "StagegateCacheNearlyFull": ('stagegate_cache_room_bytes{instance="n"}', "5x90"),
    "StagegateBlobsRotten": ('stagegate_cache_quarantined_blobs{instance="n"}', "2x90"),
    "StagegateJobsFail": (
        'stagegate_steps_total{instance="n",step="stage",dataset="things",outcome="error"}',
        "0+1x90",
    ),
    "StagegateMetricsStale": ('node_textfile_mtime_seconds{instance="n",file="/x/stagegate.prom"}', "0x90"),
}
"""What makes each alert fire within an hour and a half, sampled each minute from the time 0."""
WELL = {
    f"stagegate_target_standing{{{TARGET},standing='current'}}": "1x90",
    f"stagegate_evidence_ends_timestamp_seconds{{{TARGET}}}": "900000x90",
    f"stagegate_approval_requested_timestamp_seconds{{{TARGET}}}": "0x90",
    'stagegate_catalog_up{instance="n"}': "1x90",
    'stagegate_catalog_unreadable_records{instance="n"}': "0x90",
    'stagegate_node_ref_current{instance="n",dataset="things",ref="production"}': "1x90",
    'stagegate_cache_room_bytes{instance="n"}': "60x90",
    'stagegate_cache_used_bytes{instance="n"}': "60x90",
    'stagegate_cache_quarantined_blobs{instance="n"}': "0x90",
    FAILED_STAGES: "2x90",
    'node_textfile_mtime_seconds{instance="n",file="/x/stagegate.prom"}': "0+60x90",
}
"""The same series where all is well."""


def promtool(*words: str | Path, text: bytes | None = None) -> None:
    done = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def alerts_after(folder: Path, series: dict[str, str], expected: str) -> None:
    """Have promtool evaluate the rules for an hour and a half; `expected` alone must fire."""
    tests = [
        {"eval_time": "85m", "alertname": rule["alert"], "exp_alerts": []}
        for rule in ALERTS
        if rule["alert"] != expected
    ]
    firing = {"expr": f'count(ALERTS{{alertname="{expected}",alertstate="firing"}})', "eval_time": "85m"}
    file = folder / "alerts_test.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": "1m",
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": [{"series": name, "values": values} for name, values in series.items()],
                        "alert_rule_test": tests,
                        "promql_expr_test": [
                            {**firing, "exp_samples": [{"labels": "{}", "value": 1}] if expected else []}
                        ],
                    }
                ],
            }
        )
    )
    promtool("test", "rules", file)


def test_rules_are_valid_and_each_has_a_case() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    page = (ROOT / "docs/how-to/measure.md").read_text()
    assert {rule["alert"] for rule in ALERTS} == SERIES.keys() == set(re.findall(r"^\| `(Stagegate\w+)`", page, re.M))


def test_no_alert_fires_while_all_is_well(tmp_path: Path) -> None:
    alerts_after(tmp_path, WELL, "")


@pytest.mark.parametrize("alert", SERIES)
def test_alert_fires_alone(alert: str, tmp_path: Path) -> None:
    series, values = SERIES[alert]
    alerts_after(tmp_path, {**WELL, series: values}, alert)


class Prometheus:
    """A server of Prometheus, and what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return rows

    def rules(self) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}/api/v1/rules", timeout=10) as answer:
            return [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    gates = {
        "pilot": {"require": ["license", {"freshness": {"fail": "24h"}}]},
        "production": {"extends": "pilot", "require": [{"approval": {"count": 1, "from": ["infra"]}}]},
    }
    return Scenario(tmp_path_factory.mktemp("prometheus"), gates=gates)


def work(scenario: Scenario, text: str) -> None:
    """Jobs that move every counter."""
    scenario.deliver(text)
    scenario.promote("pilot")
    scenario.write(text + "old")
    os.utime(scenario.nas / "data.csv", (1, 1))
    scenario.stage()
    check(scenario.node(), Address("things"), "pilot")
    check(scenario.node(), Address("things", "pilot"), "production")
    (scenario.nas / "data.csv").unlink()
    with pytest.raises(StagegateError):
        scenario.stage()
    with http_server(BrokenWebsite) as url, pytest.raises(TransferFailed):
        scenario.stage(sources=[{"url": f"{url}/"}])


class BrokenWebsite(Handler):
    """Lists a file and fails when it is read."""

    def do_GET(self) -> None:
        page = b'<a href="a.csv">a.csv</a>' if self.path.endswith("/") else b""
        self.respond(200 if page else 503, page, {"Content-Type": "text/html"})

    def do_HEAD(self) -> None:
        self.respond(200, b"abc", {"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def prometheus(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that scrapes a node exporter with our text file, while jobs go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGEGATE_RETRIES", "1")
        yield from scraping(scenario, tmp_path_factory)


def scraping(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("servers")
    collected = folder / "collector"
    collected.mkdir()
    node, server = (f"127.0.0.1:{free_port()}" for _ in range(2))
    targets = [{"job_name": "node", "static_configs": [{"targets": [node]}]}]
    settings = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(RULES)]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({**settings, "scrape_configs": targets}))
    exporter = ["/usr/bin/prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile"]
    exporter += [f"--collector.textfile.directory={collected}", f"--web.listen-address={node}"]
    words = ["/usr/bin/prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--web.listen-address={server}"]
    words += [f"--storage.tsdb.path={folder / 'data'}"]
    with (
        launched(exporter, folder / "exporter.log", lambda: answers_http(f"http://{node}/metrics")),
        launched(words, folder / "prometheus.log", lambda: answers_http(f"http://{server}/-/ready")),
    ):
        for number in range(3):
            work(scenario, str(number))
            text = metrics_text(scenario.node())
            promtool("check", "metrics", text=text)
            (collected / "stagegate.prom").write_bytes(text)
            time.sleep(3)
        yield Prometheus(f"http://{server}")


@pytest.mark.parametrize("query", QUERIES)
def test_dashboard_query_answers_with_data(query: str, prometheus: Prometheus) -> None:
    for name, value in {"$__rate_interval": "2m", "$__range": "1h", "$dataset": ".*", "$instance": ".*"}.items():
        query = query.replace(name, value)
    assert "$" not in query
    rows = prometheus.query(query)
    assert rows, query
    assert any(row["value"][1] not in ("NaN", "+Inf") for row in rows)


def test_dashboard_s_variables_have_values(prometheus: Prometheus) -> None:
    board = json.loads((ROOT / "deployments/grafana/dashboard.json").read_text())
    queries = [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    for query in queries:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert match
        assert all(row["metric"][match[2]] for row in prometheus.query(match[1]))
        assert prometheus.query(match[1])


def test_rules_are_evaluated_on_real_metrics(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert [(rule["name"], rule["health"]) for rule in rules] == [(rule["alert"], "ok") for rule in ALERTS]
    states = {rule["name"]: rule["state"] for rule in rules}
    assert states["StagegateGateRefused"] == "pending"
    for rule in ALERTS:
        for name in re.findall(r"\b(?:stagegate|node)_\w+", rule["expr"]):
            assert prometheus.query(name), f"{rule['alert']} asks for {name}"
