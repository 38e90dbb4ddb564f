"""The figures of a run on a version: of MLflow, of Prometheus, or in a file.

MLflow says how good a run became; that it used the version says the catalog's record of uses. Series of Prometheus and
files name the version's digest. A file is JSON, and signed where the gate names keys:

    {"digest": "sha256:…", "metrics": {"val/auc": 0.91}, "samples": 2000, "run": "slurm:7", "at": "2026-03-01T03:00Z"}

or a list of these. A signed one is a DSSE envelope around such an object in canonical JSON.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from prefect_stagegate.clock import moment
from prefect_stagegate.errors import SourceError, StagegateError
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.records.signing import signers
from prefect_stagegate.plugins.runs.metrics.figures_client import CHECK_URL, read_json
from prefect_stagegate.plugins.runs.metrics.metric_parameters import MetricsParameters
from prefect_stagegate.plugins.runs.use_records import TrackedRun, clean, has_use, read_uses

NEWEST = 20
"""Runs of a version that MLflow is asked for, the newest first, until one has ended and has all metrics."""
SHOWN = 3
"""Runs whose problems an error names."""
PAYLOAD_TYPE = "application/vnd.prefect-stagegate.figures+json"
"""The payload type of signed figures in DSSE envelopes."""
MOST_IN_FILE = 1000
"""Objects of one file that are looked at."""
_OLDEST = datetime.min.replace(tzinfo=UTC)


class NoFigures(StagegateError):
    """There are no figures that count for a version."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The figures of one run on one version."""

    run: str
    """`mlflow:3f2a…`, cleaned; empty where the source names none."""
    at: datetime | None
    """When the run ended, or the figures were taken; None where the source does not say."""
    values: Mapping[str, float]
    """By metric; NaN and infinite ones too. Of those that were asked for, only what the source has."""

    def problem(self, metric: str) -> str:
        """Why a metric can't be compared; empty where it can. MLflow stores infinity as the greatest float."""
        value = self.values.get(metric)
        if value is None:
            return "is missing"
        return "" if math.isfinite(value) and abs(value) < sys.float_info.max else f"is {value:g}"

    def as_json(self) -> dict[str, float | str]:
        """The figures as JSON values; a text for each that is no finite number."""
        return {name: value if math.isfinite(value) else str(value) for name, value in sorted(self.values.items())}


def figures_of(context: CheckContext, parameters: MetricsParameters, digest: str, run: str = "") -> RunFigures:
    """The figures of a run on a version; without a run, of the newest that ended and has all metrics.

    Raises:
        NoFigures: No figures there count for the version.
        SourceError: The server or file can't be read.
        UsageError: The address or the credentials can't be used.
    """
    read = {"mlflow": _of_mlflow, "file": _of_file, "prometheus": _of_prometheus}[parameters.source]
    return read(context, parameters, digest, run)


def _of_mlflow(context: CheckContext, parameters: MetricsParameters, digest: str, run: str) -> RunFigures:
    catalog, version = context.workspace.catalog, f"{context.dataset}@{digest[:19]}"
    if run:
        named = TrackedRun("mlflow", run.removeprefix("mlflow:"))
        if not has_use(catalog, context.dataset, digest, named):
            hint = "Open the version in that run by `open_dataset`, or name another `run` in the gate."
            raise NoFigures(f"No use of {version} by {named} is recorded", hint=hint)
        figures, problem = _run_of_mlflow(context, parameters, digest, named)
        if problem:
            raise NoFigures(f"{named} {problem}", hint="End the run, or name another `run` in the gate.")
        return figures
    uses, _ = read_uses(catalog, context.dataset, digest, NEWEST)
    problems = []
    for each in (use.run for use in uses if use.run.tool == "mlflow"):
        figures, problem = _run_of_mlflow(context, parameters, digest, each)
        missing = [name for name in parameters.names if name not in figures.values]
        if not problem and not missing:
            return figures
        problems.append(f"{each} {problem or 'has no ' + ', '.join(missing)}")
    if problems:
        hint = "End the run, and log these metrics in it: `mlflow.log_metric`."
        why = f"No run that used {version} has ended with all metrics: {'; '.join(problems[:SHOWN])}"
        raise NoFigures(why, hint=hint)
    hint = f"Train on it in a run: `with mlflow.start_run(), open_dataset('{version}')`."
    raise NoFigures(f"No run in MLflow is recorded that used {version}", hint=hint)


def _run_of_mlflow(
    context: CheckContext, parameters: MetricsParameters, digest: str, run: TrackedRun
) -> tuple[RunFigures, str]:
    """A run's figures, and why they don't count; empty where they do."""
    address = f"{parameters.place}/api/2.0/mlflow/runs/get?{urlencode({'run_id': run.id})}"
    answer = read_json(context, parameters, address)
    if not answer:
        return RunFigures(str(run), None, {}), "is not known there"
    with _written_as(parameters, "MLflow"):
        found, info = answer["run"], answer["run"]["info"]
        metrics = [(metric["key"], metric.get("value")) for metric in found["data"].get("metrics", [])]
        logged = (found.get("inputs") or {}).get("dataset_inputs") or []
        tags = [{tag["key"]: tag.get("value") for tag in item.get("tags") or []} for item in logged]
        ended = _number(info.get("end_time"))
        at = datetime.fromtimestamp(ended / 1000, UTC) if ended else None
        figures = RunFigures(str(run), at, _numbers(metrics, parameters.names))
        if info["run_id"] != run.id:
            return figures, "is answered by another run"
        if info.get("lifecycle_stage", "active") != "active":
            return figures, "is deleted"
        if info.get("status") != "FINISHED":
            return figures, "has not ended, or failed"
    # The tracker knows better than a record that anybody may have written.
    inputs = {each.get("stagegate.digest") for each in tags if each.get("stagegate.dataset") == context.dataset}
    return figures, "has other versions as its inputs" if inputs and digest not in inputs else ""


def _of_prometheus(context: CheckContext, parameters: MetricsParameters, digest: str, _: str) -> RunFigures:
    """One instant query a metric. Prometheus itself leaves out what was not scraped for 5 minutes."""
    values: dict[str, float] = {}
    runs: set[str] = set()
    for name in parameters.names:
        wanted = {"__name__": name, **parameters.labels, "digest": digest}
        # By `__name__`, since a name may hold what a selector can't: `val/auc`. JSON escapes as PromQL does.
        selector = ",".join(f"{_label(key)}={json.dumps(text, ensure_ascii=False)}" for key, text in wanted.items())
        query = urlencode({"query": f"{{{selector}}}"})
        answer = read_json(context, parameters, f"{parameters.place}/api/v1/query?{query}")
        with _written_as(parameters, "Prometheus"):
            series = [(item["metric"], item["value"][1]) for item in answer["data"]["result"]]
            others = any(labels.get(key) != text for labels, _ in series for key, text in wanted.items())
            runs |= {clean(labels.get("run", "")) for labels, _ in series}
        if len(series) > 1 or others:
            hint = "Name more `labels` in the gate, so that one is left; and check its `url`."
            problem = "another series than that" if others else f"{len(series)} series"
            raise NoFigures(f"Prometheus answers with {problem} of {name} and this digest", hint=hint)
        values |= _numbers([(name, text) for _, text in series], [name])
    if not values:
        hint = "The label `digest` must hold the whole digest, with `sha256:`."
        raise NoFigures(f"Prometheus has no series of {context.dataset}@{digest[:19]}", hint=hint)
    return RunFigures(", ".join(sorted(runs - {""})), context.now, values)


def _label(name: str) -> str:
    """A label's name as a selector has it: quoted where it is none of the classic ones."""
    return name if name.isascii() and name.replace("_", "a").isalnum() else json.dumps(name, ensure_ascii=False)


def _of_file(context: CheckContext, parameters: MetricsParameters, digest: str, run: str) -> RunFigures:
    version, place = f"{context.dataset}@{digest[:19]}", parameters.place.replace("{digest}", digest[len("sha256:") :])
    content = read_json(context, parameters, place)
    items = content[:MOST_IN_FILE] if isinstance(content, list) else [content]
    named = [(item, found) for item in items if (found := _content(item)).get("digest") == digest]
    named = [(item, found) for item, found in named if run in ("", found.get("run"))]
    if not named:
        whose = f"{version} by {clean(run)}" if run else version
        hint = "Evaluate a model of it, and write the version's digest beside the figures: `digest`."
        raise NoFigures(f"There are no figures of {whose}", hint=hint, source=place)
    if not (signed := [found for item, found in named if _is_signed(item, found, parameters.keys)]):
        hint = "Sign them: `stagegate figures FILE --key KEY.pem`."
        raise NoFigures(f"No key that the gate names signed the figures of {version}", hint=hint, source=place)
    read, samples = [], parameters.samples.name if parameters.samples else ""
    with _written_as(parameters, "a file of figures"):
        for found in signed:
            pairs = [(samples, found.get("samples")), *found["metrics"].items()]
            at = moment(found["at"]) if "at" in found else None
            read.append(RunFigures(clean(found.get("run") or ""), at, _numbers(pairs, parameters.names)))
    return max(read, key=lambda figures: figures.at or _OLDEST)


def _content(item: Any) -> Mapping[str, Any]:
    """What an object or the envelope around it says; nothing where it is neither."""
    if isinstance(item, Mapping) and "payload" in item:
        try:
            item = json.loads(base64.b64decode(item["payload"], validate=True))
        except (ValueError, TypeError, RecursionError):
            return {}
    return item if isinstance(item, Mapping) else {}


def _is_signed(item: Mapping[str, Any], content: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    if not keys:
        return True
    try:
        return "payload" in item and bool(signers(item, content, PAYLOAD_TYPE, keys))
    except ValueError:  # NaN, or half a character, which no signer wrote
        return False


def _numbers(pairs: Iterable[tuple[object, object]], names: Iterable[str]) -> dict[str, float]:
    """The figures of some metrics among pairs of a name and what a server says of it; the last of a name counts."""
    wanted = set(names)
    read = ((name, _number(value)) for name, value in pairs if isinstance(name, str) and name in wanted)
    return {name: value for name, value in read if value is not None}


def _number(value: object) -> float | None:
    """A figure as a server writes it: 0.5, "+Inf"; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


@contextmanager
def _written_as(parameters: MetricsParameters, what: str) -> Iterator[None]:
    """Raise the error for a place that answers otherwise than it should."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise SourceError(f"It doesn't answer like {what}", hint=CHECK_URL, source=parameters.place) from error
