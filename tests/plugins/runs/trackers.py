"""A server of a test's own that answers as MLflow's and Prometheus' APIs are documented, with what the test says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_servers import Handler, http_server


class Tracker:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, Any] = {}
        """MLflow's runs by id."""
        self.series: dict[str, list[Any]] = {}
        """Prometheus' series by the query."""
        self.asked: list[str] = []
        """What was asked for: a run's id, or a query."""
        self.logins: list[str | None] = []

    def log(
        self, run: str, figures: Mapping[str, Any] | None = None, status: str = "FINISHED", inputs: Sequence[str] = ()
    ) -> None:
        """Log a run with its figures; `inputs` are its versions."""
        logged = [
            {"tags": [{"key": "stagegate.dataset", "value": "things"}, {"key": "stagegate.digest", "value": digest}]}
            for digest in inputs
        ]
        metrics = [{"key": key, "value": value, "timestamp": 1, "step": 0} for key, value in (figures or {}).items()]
        info = {"run_id": run, "status": status, "end_time": 1.8e12, "lifecycle_stage": "active"}
        self.runs[run] = {"run": {"info": info, "data": {"metrics": metrics}, "inputs": {"dataset_inputs": logged}}}

    def expose(self, metric: str, value: object, *, digest: str, **labels: str) -> None:
        """Add a series of a metric."""
        query = f'{{__name__="{metric}",digest="{digest}"}}'
        found = {"metric": {"__name__": metric, "digest": digest, **labels}, "value": [1.7e9, value]}
        self.series.setdefault(query, []).append(found)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """The status and JSON of an answer."""
        if path == "/api/v1/query":
            (asked,) = query["query"]
            result = {"resultType": "vector", "result": self.series.get(asked, [])}
            answer: tuple[int, Any] = (200, {"status": "success", "data": result})
        elif path == "/api/2.0/mlflow/runs/get":
            (asked,) = query["run_id"]
            found = self.runs.get(asked)
            answer = (200, found) if found else (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        else:
            asked, answer = path, (404, {})
        self.asked.append(asked)
        return answer


@contextmanager
def tracker() -> Iterator[Tracker]:
    """Run the server for the time of a block."""
    state = Tracker()

    class Answering(Handler):
        def do_GET(self) -> None:
            state.logins.append(self.headers.get("Authorization"))
            parts = urlsplit(self.path)
            status, body = state.answer(parts.path, parse_qs(parts.query))
            self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    with http_server(Answering) as state.url:
        yield state
