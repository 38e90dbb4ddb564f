"""Answers in JSON, for who prefers it to HTML: what `--json` of the commands prints, and errors as they print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from prefect_stagegate.cli.printing import error_values, json_document
from prefect_stagegate.errors import StagegateError

JSON, HTML = "application/json", "text/html"


def prefers_json(scope: Scope) -> bool:
    """Whether a request's Accept prefers JSON to HTML, by `q`; of two alike, the one that it names."""
    accept = ",".join(Headers(scope=scope).getlist("accept"))
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (text.strip().lower() for text in part.split(";"))
        weight = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
        try:
            weights[kind] = min(1.0, max(0.0, float(weight)))
        except ValueError:
            weights[kind] = 0.0

    def rank(kind: str) -> tuple[float, bool]:
        wider = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        weight = next((weights[each] for each in wider if each in weights), 0.0)
        return weight, kind in weights

    return rank(JSON) > rank(HTML) and rank(JSON)[0] > 0


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document of dataclasses, dictionaries and lists."""
    return Response(json_document(value) + b"\n", status, headers, JSON)


def json_error(status: int, error: StagegateError, headers: Mapping[str, str] | None = None) -> Response:
    """An error as `--json` prints it."""
    return json_response({"error": error_values(error)}, status, headers)
