"""The check `metrics`: figures of runs that used a version, from MLflow, Prometheus and files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.errors import SpecError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address, DecisionOutcome, Evidence, Outcome
from prefect_stagegate.plugins.runs.metrics.metric_parameters import MetricsParameters
from prefect_stagegate.plugins.runs.metrics.metrics_check import Comparison, Incumbent, compared, metrics
from prefect_stagegate.plugins.runs.metrics.run_figures import RunFigures
from prefect_stagegate.testing.contexts import DIGEST, NOW, OTHER_DIGEST, check_context
from tests.plugins.runs.trackers import Tracker, tracker
from tests.support.gates import preview_check
from tests.support.http_servers import Handler, answering, http_server
from tests.support.keys import new_key
from tests.support.scenario import Scenario, exit_code

COMPARE = {"val/auc": {"min": 0.8, "no_worse_than": {"ref": "production", "by": 0.005}}}


class Models(Scenario):
    """A dataset whose versions models are trained on, and a gate that compares these."""

    def __init__(self, folder: Path, **parameters: Any) -> None:
        self.parameters = {"compare": COMPARE, **parameters}
        super().__init__(folder, gates={"production": {"require": [{"metrics": self.parameters}]}})

    def use(self, run: str, ref: str = "latest") -> None:
        """Open a version in a run."""
        with open_dataset(f"things@{ref}") as data:
            data.log(f"mlflow:{run}")

    def ask(self, digest: str = "") -> Evidence:
        """What the check says of a version, by default the newest."""
        decision = check(self.node(), Address("things", digest or self.head("latest")), "production")
        (evidence,) = decision.checks
        assert decision.accepted is (evidence.outcome is Outcome.PASS)
        return evidence

    def why(self) -> str:
        """Why the check can't tell, and what to do."""
        evidence = self.ask()
        assert evidence.outcome is Outcome.INCONCLUSIVE, evidence
        assert all(finding.fix for finding in evidence.findings)
        return " ".join(f"{finding.subject} {finding.problem} {finding.fix}" for finding in evidence.findings)


@pytest.fixture
def server() -> Iterator[Tracker]:
    with tracker() as running:
        yield running


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Models]:
    """Begins a scenario with one version."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for sign in ("MLFLOW_RUN_ID", "WANDB_RUN_ID", "PREFECT__FLOW_RUN_ID"):
        monkeypatch.delenv(sign, raising=False)

    def made(**parameters: Any) -> Models:
        models = Models(tmp_path, **parameters)
        for name, value in models.environment().items():
            monkeypatch.setenv(name, value)
        models.deliver("one")
        return models

    return made


@pytest.fixture
def models(begin: Callable[..., Models], server: Tracker) -> Models:
    """A version of a gate that asks MLflow, with a run."""
    models = begin(url=server.url)
    models.use("r1")
    server.log("r1", {"val/auc": 0.9})
    return models


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def judged(value: float, bounds: dict[str, Any], other: float | None = None, run: str = "a") -> Any:
    """What the check says of a figure, and of the incumbent's."""
    incumbent = Incumbent() if other is None else Incumbent(OTHER_DIGEST, RunFigures("b", None, {"auc": other}))
    found = Comparison(RunFigures(run, None, {"auc": value}), {"production": incumbent})
    parameters = MetricsParameters.model_validate({"url": "/x", "compare": {"auc": bounds}})
    return metrics(check_context({compared: found}), parameters)


@pytest.mark.parametrize(
    ("value", "bounds", "outcome"),
    [
        (0.8, {"min": 0.8}, "pass"),
        (0.79999, {"min": 0.8}, "fail"),
        (0.95, {"max": 0.95}, "pass"),
        (0.951, {"max": 0.95}, "fail"),
        (-3.0, {"min": -5, "max": 0}, "pass"),
    ],
)
def test_bounds_are_kept_to_the_last_digit(value: float, bounds: dict[str, Any], outcome: str) -> None:
    result = judged(value, bounds)
    assert result.outcome == outcome
    assert f"{value:.6g}" in result.summary


@pytest.mark.parametrize(
    ("value", "other", "lower", "outcome"),
    [
        (0.895, 0.9, False, "pass"),
        (0.894, 0.9, False, "fail"),
        (0.99, 0.9, False, "pass"),
        (0.905, 0.9, True, "pass"),
        (0.906, 0.9, True, "fail"),
        (0.1, 0.9, True, "pass"),
    ],
)
def test_no_worse_than_by_more(value: float, other: float, lower: bool, outcome: str) -> None:
    rule = {"ref": "production", "by": 0.005, "lower_is_better": lower}
    result = judged(value, {"no_worse_than": rule}, other)
    assert result.outcome == outcome
    assert result.measured["figures"] == {DIGEST: {"auc": value}, OTHER_DIGEST: {"auc": other}}


def test_without_incumbent_it_passes_and_says_so() -> None:
    result = judged(0.5, {"no_worse_than": {"ref": "production"}})
    assert result.outcome is Outcome.PASS
    assert "production has no version to compare with" in result.summary


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.7976931348623157e308])
def test_figure_that_is_no_number_decides_nothing(value: float) -> None:
    rule = {"min": -1, "max": 1, "no_worse_than": {"ref": "production"}}
    assert judged(value, rule, 0.5).outcome is Outcome.INCONCLUSIVE
    assert judged(0.5, rule, value).outcome is Outcome.INCONCLUSIVE
    assert judged(0.5, {**rule, "min": 0.6}, value).outcome is Outcome.FAIL, "its own bound is broken all the same"


def test_run_on_both_versions_compares_nothing() -> None:
    assert judged(0.9, {"no_worse_than": {"ref": "production"}}, 0.9, run="b").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("samples", "outcome"), [(999, "inconclusive"), (1000, "pass"), (math.nan, "inconclusive")])
def test_too_few_samples_decide_nothing(samples: float, outcome: str) -> None:
    values = {"auc": 0.9, "n": samples}
    parameters = {"url": "/x", "compare": {"auc": {"min": 0.8}}, "samples": {"name": "n", "least": 1000}}
    found = Comparison(RunFigures("a", None, values), {})
    result = metrics(check_context({compared: found}), MetricsParameters.model_validate(parameters))
    assert result.outcome == outcome


@pytest.mark.parametrize(
    ("at", "problem"),
    [(NOW - timedelta(days=31), "30 d"), (NOW + timedelta(hours=1), "clock"), (None, "no time")],
)
def test_figures_that_are_not_young_decide_nothing(at: datetime | None, problem: str) -> None:
    parameters = MetricsParameters.model_validate({"url": "/x", "compare": {"auc": {"min": 0}}, "max_age": "30d"})
    found = Comparison(RunFigures("a", at, {"auc": 0.9}), {})
    with pytest.raises(Exception, match=problem):
        metrics(check_context({compared: found}), parameters)
    young = replace(found, candidate=RunFigures("a", NOW - timedelta(days=29), {"auc": 0.9}))
    assert metrics(check_context({compared: young}), parameters).until == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"compare": {"auc": {}}}, "`no_worse_than`"),
        ({"compare": {"auc": {"min": 2, "max": 1}}}, "must not be above"),
        ({"compare": {"auc": {"min": math.nan}}}, "type float"),
        ({"compare": {"auc": {"mim": 2}}}, "mim"),
        ({"keys": ["ed25519:" + "0f" * 32]}, "`from: file`"),
        ({"from": "prometheus", "run": "3f"}, "`from: mlflow or file`"),
        ({"url": "https://me:hunter2@mlflow.example.org"}, "password"),
        ({"samples": {"least": 0}}, "least"),
    ],
)
def test_spec_says_what_is_wrong(tmp_path: Path, parameters: dict[str, Any], problem: str) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": [{"metrics": parameters}]}})
    with pytest.raises(SpecError, match=problem):
        scenario.deliver("one")


# ── MLflow ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_worse_version_is_refused_with_both_figures(models: Models, server: Tracker) -> None:
    assert "no version to compare with" in models.ask().summary
    first = models.promote()
    assert models.ask(first).outcome is Outcome.PASS, "it is not compared with itself"
    second = models.deliver("two").digest
    models.use("r2")
    server.log("r2", {"val/auc": 0.85})
    refused = models.ask()
    assert refused.outcome is Outcome.FAIL
    assert "it is 0.85, more than 0.005 worse than the 0.9 of production's" in refused.findings[0].problem
    assert refused.measured["figures"] == {first: {"val/auc": 0.9}, second: {"val/auc": 0.85}}
    assert refused.measured["runs"] == {first: "mlflow:r1", second: "mlflow:r2"}
    server.log("r2", {"val/auc": 0.897})
    assert models.ask().outcome is Outcome.PASS
    assert models.promote() == second


def test_evidence_ends_with_other_figures_or_run(models: Models, server: Tracker) -> None:
    def reason() -> str:
        (planned,) = preview_check(models.node(), Address("things", models.head("latest")), "production")
        return planned.reason if planned.evidence is None else ""

    assert models.ask().outcome is Outcome.PASS
    assert not reason()
    server.log("r1", {"val/auc": 0.91})
    assert "another figures" in reason()
    server.log("r1", {"val/auc": 0.9})
    assert not reason()
    models.use("r2")
    server.log("r2", {"val/auc": 0.9})
    del server.runs["r1"]  # of two in one second, either is the newest
    assert "another run" in reason()
    server.runs.clear()
    assert reason()


def test_version_counts_only_with_a_run_of_its_own(models: Models, server: Tracker) -> None:
    first = models.promote()
    models.deliver("two")
    assert "No run in MLflow is recorded" in models.why()
    assert "open_dataset('things@sha256:" in models.why()
    server.log("r1", {"val/auc": 0.9}, inputs=[first])
    models.use("r1")
    assert "other versions as its inputs" in models.why()


def test_named_run_must_have_used_the_version(begin: Callable[..., Models], server: Tracker) -> None:
    models = begin(url=server.url, run="r9")
    server.log("r9", {"val/auc": 0.9})
    assert "No use of things@sha256:" in models.why()
    models.use("r9")
    models.use("r10")
    assert models.ask().outcome is Outcome.PASS
    assert set(server.asked) == {"r9"}
    server.log("r9")
    assert "it is missing" in models.why()


def test_newest_run_with_all_metrics_counts(models: Models, server: Tracker) -> None:
    for run, status, metric in (
        ("r2", "RUNNING", "val/auc"),
        ("r3", "FINISHED", "val/f1"),
        ("r4", "FAILED", "val/auc"),
    ):
        models.use(run)
        server.log(run, {metric: 0.99}, status)
    assert models.ask().measured["runs"] == {models.head("latest"): "mlflow:r1"}
    del server.runs["r1"]
    why = models.why()
    assert "mlflow:r4 has not ended, or failed" in why
    assert "mlflow:r3 has no val/auc" in why


def changed(answer: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """A copy of an answer with another value somewhere."""
    copy = json.loads(json.dumps(answer))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return dict(copy)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("run", "data", "metrics", 0, "value"), "NaN", "is nan"),
        (("run", "data", "metrics", 0, "value"), "Infinity", "is inf"),
        (("run", "data", "metrics", 0, "value"), 1.7976931348623157e308, "is 1.79769e+308"),
        (("run", "data", "metrics", 0, "value"), True, "has no val/auc"),
        (("run", "data", "metrics", 0, "value"), None, "has no val/auc"),
        (("run", "data", "metrics", 0, "key"), "val/AUC", "has no val/auc"),
        (("run", "data", "metrics"), 7, "doesn't answer like MLflow"),
        (("run", "data"), [], "doesn't answer like MLflow"),
        (("run", "info", "run_id"), "another", "answered by another run"),
        (("run", "info", "lifecycle_stage"), "deleted", "is deleted"),
        (("run", "info", "status"), None, "has not ended"),
        (("run",), None, "doesn't answer like MLflow"),
    ],
)
def test_odd_run_of_mlflow_decides_nothing(
    models: Models, server: Tracker, path: tuple[Any, ...], value: Any, problem: str
) -> None:
    server.runs["r1"] = changed(server.runs["r1"], *path, value=value)
    assert problem in models.why()


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"", 200, "is no JSON"),
        (b"[" * 200_000, 200, "is no JSON"),
        (b"[]", 200, "is not known there"),
        (b"<html>", 200, "is no JSON"),
        (b"oops", 503, "answers 503"),
        (b"oops", 400, "answers 400"),
        (b"oops", 401, "refused the credentials"),
        (b"{}" + b" " * (5 << 20), 200, "more than the permitted"),
    ],
)
def test_odd_answer_decides_nothing(begin: Callable[..., Models], body: bytes, status: int, problem: str) -> None:
    with answering() as serve:
        models = begin(url=serve(body, status=status))
        models.use("r1")
        assert problem in models.why()


def test_body_without_an_end_is_cut_off(begin: Callable[..., Models]) -> None:
    class Endless(Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" " * 65536)

    with http_server(Endless) as url:
        models = begin(url=url)
        models.use("r1")
        assert "more than the permitted" in models.why()


def test_redirect_leads_to_no_other_server(begin: Callable[..., Models], server: Tracker) -> None:
    server.log("r1", {"val/auc": 0.9})
    with answering() as serve:
        place = f"{server.url}/api/2.0/mlflow/runs/get?run_id=r1"
        models = begin(url=serve(b"", status=302, Location=place))
        models.use("r1")
        assert "redirects to another address (302)" in models.why()
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1", "Connection refused"),
        ("http://169.254.169.254/", "cloud-metadata addresses are blocked"),
        ("mlflow.example.org", "only http and https"),
        ("sqlite:///mlflow.db", "only http and https"),
    ],
)
def test_address_that_can_t_be_asked_decides_nothing(begin: Callable[..., Models], url: str, problem: str) -> None:
    models = begin(url=url)
    models.use("r1")
    assert problem in models.why()


def test_gate_without_a_url_decides_nothing(begin: Callable[..., Models]) -> None:
    assert "names no `url`" in begin().why()


def test_target_that_is_none_is_no_first_version(begin: Callable[..., Models], server: Tracker) -> None:
    models = begin(url=server.url, compare={"val/auc": {"no_worse_than": {"ref": "prodution"}}})
    models.use("r1")
    server.log("r1", {"val/auc": 0.9})
    assert "has no target 'prodution'" in models.why()


def test_incumbent_without_figures_is_no_first_version(models: Models, server: Tracker) -> None:
    models.promote()
    models.deliver("two")
    models.use("r2")
    server.log("r2", {"val/auc": 0.9})
    del server.runs["r1"]
    assert "it can't be compared with production's" in models.why()
    server.log("r2", {"val/auc": 0.7})
    assert models.ask().outcome is Outcome.FAIL


def test_login_goes_to_its_host_alone(models: Models, server: Tracker, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine mlflow.example.org login ada password hunter2-a\ndefault login ada password hunter2-b\n")
    netrc.chmod(0o600)
    assert models.ask().outcome is Outcome.PASS
    assert set(server.logins) == {None}
    netrc.write_text("machine 127.0.0.1 login ada password hunter2-c\n")
    server.log("r1", {"val/auc": 0.91})
    assert models.ask().outcome is Outcome.PASS
    assert server.logins[-1] == "Basic YWRhOmh1bnRlcjItYw=="
    netrc.write_text("machine 127.0.0.1 login ada hunter2-d\n")
    why = models.why()
    assert "~/.netrc can't be read" in why
    assert "hunter2" not in why


def test_token_of_a_block_is_sent_and_not_recorded(begin: Callable[..., Models], server: Tracker) -> None:
    models = begin(url=server.url, credentials="stagegate-source/mlflow")
    models.use("r1")
    server.log("r1", {"val/auc": 0.9})
    assert "loads no blocks" in models.why()
    node = replace(models.node(), resolve_credentials=lambda _: {"token": "hunter2-token"})
    assert check(node, Address("things", models.head("latest")), "production").outcome is DecisionOutcome.ACCEPTED
    assert set(server.logins) == {"Bearer hunter2-token"}
    assert not [path for path in models.folder.rglob("*.json") if b"hunter2" in path.read_bytes()]


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def live(begin: Callable[..., Models], server: Tracker) -> Models:
    """A gate that asks Prometheus."""
    return begin(**{"from": "prometheus", "url": server.url})


def test_series_with_the_digest_counts(live: Models, server: Tracker) -> None:
    assert "has no series" in live.why()
    server.expose("val/auc", "0.9", digest=live.head("latest"), run="canary")
    passed = live.ask()
    assert passed.outcome is Outcome.PASS
    assert passed.measured["runs"] == {live.head("latest"): "canary"}


def test_moving_figure_ends_evidence_only_with_a_bound(live: Models, server: Tracker) -> None:
    digest = live.head("latest")
    for value in ("0.9", "0.85"):
        server.series.clear()
        server.expose("val/auc", value, digest=digest)
        (planned,) = preview_check(live.node(), Address("things", digest), "production")
        if value == "0.9":
            assert live.promote() == digest
        else:
            assert planned.evidence is not None
    server.series.clear()
    server.expose("val/auc", "0.5", digest=digest)
    assert live.ask().outcome is Outcome.FAIL
    assert live.node().catalog.history("things", "production")[-1].action.value == "withdraw"


@pytest.mark.parametrize(
    ("series", "problem"),
    [
        ([{"value": [0, "NaN"]}], "is nan"),
        ([{"value": [0, "+Inf"]}], "is inf"),
        ([{"value": [0, "many"]}], "has no series"),
        ([{"value": [0, "0.9"]}] * 2, "2 series of val/auc"),
        ([{"value": [0, "0.9"], "digest": OTHER_DIGEST}], "another series than that"),
        ([{"value": [0, "0.9"], "__name__": "val/f1"}], "another series than that"),
        ([{"value": "0"}], "doesn't answer like Prometheus"),
        ([7], "doesn't answer like Prometheus"),
    ],
)
def test_odd_series_decide_nothing(live: Models, server: Tracker, series: list[Any], problem: str) -> None:
    digest = live.head("latest")
    server.expose("val/auc", "0.9", digest=digest)
    (query,) = server.series
    server.series[query] = [
        {"metric": {"__name__": "val/auc", "digest": digest, **each}, "value": each.get("value")}
        if isinstance(each, dict)
        else each
        for each in series
    ]
    assert problem in live.why()


def test_labels_and_names_can_t_leave_the_query(begin: Callable[..., Models], server: Tracker) -> None:
    name = 'auc"} or vector(1) #\\'
    models = begin(**{"from": "prometheus", "url": server.url, "compare": {name: {"min": 0.1}}, "labels": {"a b": '"'}})
    assert "has no series" in models.why()
    digest = models.head("latest")
    assert server.asked[-1] == f'{{__name__={json.dumps(name)},"a b"="\\"",digest="{digest}"}}'


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def written(begin: Callable[..., Models], tmp_path: Path) -> Callable[..., Models]:
    """A gate that reads files of evaluations; writes one."""
    (tmp_path / "evaluations").mkdir()

    def made(content: object = None, name: str = "{hex}", **parameters: Any) -> Models:
        place = f"{tmp_path}/evaluations/{{digest}}.json"
        models = begin(**{"from": "file", "url": place, **parameters})
        write(models, content, name)
        return models

    return made


def write(models: Models, content: object, name: str = "{hex}") -> Path:
    """Write what somebody says of the newest version; DIGEST in it is its digest."""
    digest = models.head("latest")
    path = models.folder / "evaluations" / f"{name.format(hex=digest.removeprefix('sha256:'))}.json"
    if content is not None:
        path.write_text(json.dumps(content).replace("DIGEST", digest))
    return path


GOOD = {"digest": "DIGEST", "metrics": {"val/auc": 0.9}, "samples": 2000, "run": "slurm:77"}


def test_file_that_names_the_digest_counts(written: Callable[..., Models]) -> None:
    models = written(GOOD, samples={"least": 1000})
    passed = models.ask()
    assert passed.outcome is Outcome.PASS, passed
    digest = models.head("latest")
    assert passed.measured["figures"] == {digest: {"samples": 2000.0, "val/auc": 0.9}}
    assert passed.measured["runs"] == {digest: "slurm:77"}


def test_newest_of_several_evaluations_counts(written: Callable[..., Models]) -> None:
    old, new = ({**GOOD, "at": f"2026-0{month}-01T00:00:00Z", "metrics": {"val/auc": month / 10}} for month in (7, 9))
    models = written([new, old, {**GOOD, "digest": OTHER_DIGEST, "at": "2026-10-01T00:00:00Z"}])
    assert "0.9" in models.ask().summary


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "There are no figures"),
        ({**GOOD, "digest": OTHER_DIGEST}, "There are no figures of"),
        ({**GOOD, "digest": "DIGEST"[:3]}, "There are no figures of"),
        ([], "There are no figures of"),
        ("0.9", "There are no figures of"),
        ({**GOOD, "metrics": [0.9]}, "answer like a file of figures"),
        ({**GOOD, "at": "yesterday"}, "answer like a file of figures"),
        ({**GOOD, "metrics": {}}, "is missing"),
        ({**GOOD, "metrics": {"val/auc": math.nan}}, "is nan"),
        ({"payload": "e30=", "payloadType": "x", "signatures": []}, "There are no figures of"),
        ({"payload": 7}, "There are no figures of"),
    ],
)
def test_odd_file_decides_nothing(written: Callable[..., Models], content: object, problem: str) -> None:
    assert problem in written(content).why()


def test_file_must_be_one_of_this_node(written: Callable[..., Models]) -> None:
    models = written(url="evaluations/{digest}.json")
    assert "is the relative path" in models.why()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "huge"])
def test_what_is_no_plain_file_is_not_read(written: Callable[..., Models], kind: str) -> None:
    models = written()
    path = write(models, None)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        with path.open("wb") as file:
            file.truncate(5 << 20)
    assert "can't be read" in models.why()


def test_only_figures_signed_by_a_named_key_count(
    written: Callable[..., Models], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = new_key(tmp_path / "key.pem"), new_key(tmp_path / "other.pem")
    models = written(GOOD, keys=[key.public])
    assert "No key that the gate names signed" in models.why()
    path = write(models, None)
    plain = tmp_path / "plain.json"
    plain.write_bytes(path.read_bytes())

    def sign(by: str) -> dict[str, Any]:
        assert exit_code(["figures", str(plain), "--key", str(tmp_path / by)]) == 0
        envelope: dict[str, Any] = json.loads(capsys.readouterr().out)
        return envelope

    capsys.readouterr()
    write(models, sign("other.pem"))
    assert "No key that the gate names signed" in models.why()
    signed = sign("key.pem")
    better = {**json.loads(plain.read_text()), "metrics": {"val/auc": 0.99}}
    payload = other.sign(better, signed["payloadType"])["payload"]
    for forged in (
        {**signed, "payload": payload},
        {**signed, "signatures": []},
        key.sign(json.loads(plain.read_text())),  # as a statement of an attestation
    ):
        write(models, forged)
        assert "No key that the gate names signed" in models.why()
    write(models, [{**better, "at": "2099-01-01T00:00:00Z"}, signed])
    assert "val/auc is 0.9;" in models.ask().summary


def test_command_signs_only_figures(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    new_key(tmp_path / "key.pem")
    words = ["figures", str(path), "--key", str(tmp_path / "key.pem"), "--output", str(tmp_path / "out.json")]
    assert exit_code(words) == 2
    for text in ("x", "[7]", "{}", '{"digest": "a", "metrics": {"a": NaN}}'):
        path.write_text(text)
        assert exit_code(words) == 2, text
    path.write_text(json.dumps(GOOD))
    assert exit_code(words) == 0
    assert json.loads((tmp_path / "out.json").read_text())["signatures"]


def test_file_on_a_web_server_counts(begin: Callable[..., Models], server: Tracker) -> None:
    with answering() as serve:
        models = begin(**{"from": "file", "url": f"{server.url}/{{digest}}.json"})
        assert "There are no figures" in models.why()
        assert server.asked[-1] == f"/{models.head('latest').removeprefix('sha256:')}.json"
        content = json.dumps(GOOD).replace("DIGEST", models.head("latest")).encode()
        models.parameters["url"] = serve(content)
        assert models.run("policy", "adopt", str(models.spec_file()), "--reason", "another place") == 0
        assert models.ask().outcome is Outcome.PASS


def test_figures_of_next_year_are_told_apart(written: Callable[..., Models]) -> None:
    late = (datetime.now(UTC) + timedelta(days=300)).isoformat()
    assert "a clock is wrong" in written({**GOOD, "at": late}, max_age="30d").why()
