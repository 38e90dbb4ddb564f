"""Specs that name what none may, and jobs that meet them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.doctor import examine
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.spec.source_specs import SourceSpec
from prefect_stagegate.transport.http import request_policy as policy
from prefect_stagegate.workspace import Workspace
from tests.support.http_servers import Handler, http_server


def written(url: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A spec as somebody writes it."""
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": options, **more}]}


def unchecked(url: str, options: dict[str, Any], **more: Any) -> Spec:
    """A spec whose options nobody looked at, as an older release stored it."""
    spec = load_spec(written("file:///", {}, **more), known_checks={})
    source = SourceSpec.model_construct(**{**dict(spec.sources[0]), "url": url, "options": options})
    return Spec.model_construct(**{**dict(spec), "sources": (source,)})


def try_stage(workspace: Workspace, spec: Spec) -> None:
    with suppress(StagegateError):
        stage(workspace, spec)


def try_doctor(workspace: Workspace, spec: Spec) -> None:
    examine(spec, workspace.settings, lambda _: {})


both_jobs = pytest.mark.parametrize("job", [try_stage, try_doctor])


@contextmanager
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A server at an address that no source may have, and what it was asked for."""
    requests: list[str] = []

    class Recording(Handler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_PUT = do_POST = do_GET

    monkeypatch.setattr(policy, "BLOCKED_NETWORKS", (ip_network("127.0.0.2/32"),))
    with http_server(Recording, "127.0.0.2") as url:
        yield url, requests
