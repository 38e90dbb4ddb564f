"""Other programs in place of the processes that run queries."""

from __future__ import annotations

import sys

import pytest

SERVER = "prefect_stagegate.validations.queries.query_server"


def serve_queries_by(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run a program as the server that forks readers."""
    monkeypatch.setattr(f"{SERVER}.COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(f"{SERVER}.QueryServer.running", None)


def read_queries_by(monkeypatch: pytest.MonkeyPatch, reply: str) -> None:
    """Answer each request by an expression, as a file could that took the reader over."""
    serve = "import os, time\nfrom prefect_stagegate.validations.queries import query_process\n"
    serve_queries_by(monkeypatch, f"{serve}query_process._reply = lambda *_: {reply}\nquery_process.main()")
