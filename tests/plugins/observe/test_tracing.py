"""Spans of jobs, as a collector receives them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.plugins.observe.otlp import Collector, collector
from tests.support.scenario import Scenario

GATES = {"pilot": {"require": ["license", "schema"]}}
CONTRACT = {"tables": {"things": {"files": "*.csv", "columns": {"a": "int"}}}}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    found = Scenario(tmp_path, gates=GATES, contract=CONTRACT)
    found.write("a\n1\n")
    return found


def run(scenario: Scenario, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as OpenTelemetry is set up once in each."""
    return subprocess.run(
        [sys.executable, "-m", "prefect_stagegate", *map(str, words)],
        env={**os.environ, **scenario.environment(**environment)},
        cwd=scenario.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_each_step_of_a_job_is_a_span(scenario: Scenario) -> None:
    with collector() as received:
        for words in (["stage", scenario.spec_file()], ["check", "things", "--gate", "pilot"], ["promote", "things"]):
            more = ["--to", "pilot"] if words[0] == "promote" else []
            done = run(scenario, *words, *more, **received.environment)
            assert done.returncode == 0, done.stderr
    stage, check, promote = (received.one(f"stagegate.{name}") for name in ("stage", "check", "promote"))
    assert {received.one(f"stagegate.{name}").parent for name in ("list", "plan", "transfer", "publish")} == {stage.id}
    assert {span.parent for span in received.named("stagegate.evidence")} == {check.id}
    assert received.one("stagegate.decide").parent == check.id
    assert received.one("stagegate.validate").trace == check.trace
    digest = scenario.head("pilot")
    about = {"stagegate.dataset": "things", "stagegate.digest": digest}
    assert stage.attributes.items() >= {**about, "stagegate.bytes": 4, "stagegate.outcome": "ok"}.items()
    assert check.attributes.items() >= {**about, "stagegate.target": "pilot", "stagegate.outcome": "accepted"}.items()
    assert promote.attributes.items() >= {**about, "stagegate.target": "pilot"}.items()
    assert {(span.service, span.library) for span in received.spans} == {("stagegate", "prefect_stagegate")}


def test_spans_join_the_trace_of_whoever_started_the_command(scenario: Scenario) -> None:
    with collector() as received:
        run(scenario, "stage", scenario.spec_file(), TRACEPARENT=PARENT, **received.environment)
    stage = received.one("stagegate.stage")
    assert f"00-{stage.trace}-{stage.parent}-01" == PARENT


def test_failed_step_names_the_error_s_type_and_no_secret(scenario: Scenario) -> None:
    secret = "correct-horse-battery"
    source = {"url": "s3://lake/things/", "options": {"endpoint_url": "http://127.0.0.1:9"}}
    keys = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": secret}
    with collector() as received:
        done = run(scenario, "stage", scenario.spec_file(sources=[source]), **keys, **received.environment)
    assert done.returncode == 3, done.stderr
    assert received.one("stagegate.stage").failed
    assert received.one("stagegate.stage").attributes["error.type"] == "SourceUnavailable"
    assert not any(secret.encode() in body for body in received.bodies)


def test_prefect_s_spans_of_runs_are_sent_and_joined(scenario: Scenario, prefect_server: None) -> None:
    from prefect.settings import PREFECT_API_URL

    flow = scenario.folder / "flow.py"
    flow.write_text("from prefect_stagegate.flows import stage\nstage('things.yaml')\n")
    scenario.spec_file()
    with collector() as received:
        environment = scenario.environment(PREFECT_API_URL=str(PREFECT_API_URL.value()), **received.environment)
        words = [sys.executable, str(flow)]
        subprocess.run(
            words, env={**os.environ, **environment}, cwd=scenario.folder, check=True, timeout=100, capture_output=True
        )
    by_id = {span.id: span for span in received.spans}
    task = by_id[received.one("stagegate.stage").parent]
    assert task.library == "prefect"
    assert task.attributes["prefect.run.type"] == "task"
    assert by_id[task.parent].attributes["prefect.run.type"] == "flow"


@pytest.mark.parametrize("server", ["absent", "silent"])
def test_collector_that_does_not_answer_holds_nobody_up(scenario: Scenario, server: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if server == "silent":
            listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        plain, traced = Seconds(), Seconds()
        with plain:
            run(scenario, "stage", scenario.spec_file())
        with traced:
            done = run(scenario, "stage", scenario.spec_file(), OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    # Both wait for the same busy machine; the exporter gives up after two seconds.
    assert traced.took < 2 * plain.took + 8


def test_without_the_extra_a_command_says_so_once_and_works(scenario: Scenario) -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from prefect_stagegate.cli import main\nmain(['stage', 'things.yaml'])\n"
    )
    scenario.spec_file()
    environment = scenario.environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        cwd=scenario.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('pip install "prefect-stagegate[otel]"') == 1


def test_nothing_of_opentelemetry_is_loaded_without_an_endpoint(scenario: Scenario) -> None:
    script = (
        "import sys; from prefect_stagegate.cli import main\n"
        "try: main(['stage', 'things.yaml'])\n"
        "finally: print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    scenario.spec_file()
    environment = {**os.environ, **scenario.environment()}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=environment, cwd=scenario.folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


class Seconds:
    """Measures a block."""

    took = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.took = time.monotonic() - self._began


def test_the_receiver_reads_real_messages() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received = Collector()
    received.receive(ExportTraceServiceRequest().SerializeToString())
    assert received.spans == []
