"""Jobs that programs start by a token, each as a process of the command, under the server's own settings and identity.

    POST /datasets/NAME/stage             stagegate stage --again NAME: the sources of `latest`, listed again
    POST /datasets/NAME/stage ref=…       stagegate stage NAME@REF: an existing version, for this node
    POST /datasets/NAME/check gate=… ref=…     stagegate check NAME@REF --gate GATE
    GET  /jobs/ID                         its state, its exit code, and what it printed

A request's words are names that were checked, and nothing else of it becomes an argument. Each start, refusal and end
is a line of the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Grant
from prefect_stagegate.errors import StagegateError, UnknownDataset, UnknownRef, UsageError
from prefect_stagegate.model import Address, check_name
from prefect_stagegate.plugins.pages.forms import FORM, audit
from prefect_stagegate.plugins.pages.json_answers import JSON, json_error, json_response
from prefect_stagegate.plugins.pages.kept import Rates
from prefect_stagegate.plugins.pages.navigation import Links
from prefect_stagegate.serve.incoming import RequestRefused, form_body, form_fields, names_in
from prefect_stagegate.workspace import Workspace

RUNNING = 2
"""Jobs that run at a time; one of a dataset."""
KEPT_SECONDS, KEPT = 3600.0, 50
"""Seconds for which a job is known after its end, and the most of such jobs."""
MAX_OUTPUT = 512 << 10
"""Bytes of a job's output that are kept. A longer document is dropped whole."""
STARTED_A_MINUTE = 20
"""Jobs that one token may start at once, and as many again in each minute."""
COMMANDS = ("stage", "check")
_FIELDS = {"stage": {"ref"}, "check": {"ref", "gate"}}


@dataclass(eq=False, slots=True)
class ProgramJob:
    """One job."""

    id: str
    command: str
    dataset: str
    who: str
    began: str
    exit: int | None = None
    """The command's exit code; negative for the signal that ended it; None while it runs."""
    ended: str = ""
    ended_at: float = 0.0
    output: bytes = b""

    @property
    def values(self) -> dict[str, Any]:
        """What programs read of it."""
        document, problem = None, ""
        if self.ended:
            try:
                document = json.loads(self.output[: MAX_OUTPUT + 1])
            except ValueError:
                problem = "it printed no document"
            if len(self.output) > MAX_OUTPUT:
                document, problem = None, f"its document has more than {MAX_OUTPUT:,} bytes"
        facts = {name: getattr(self, name) for name in ("id", "command", "dataset", "who", "began", "ended", "exit")}
        return facts | {"state": "ended" if self.ended else "running", "document": document, "problem": problem}


class ProgramJobs:
    """Starts jobs, and tells of them.

    Args:
        workspace: The server's.
        links: Addresses of pages.
    """

    def __init__(self, workspace: Workspace, links: Links) -> None:
        self._workspace, self._links = workspace, links
        self._jobs: dict[str, ProgramJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rates = Rates(1000)

    async def begin(self, command: str, request: Request) -> Response:
        """Start a job, unless the request may not."""
        fields: Mapping[str, str] = {}
        try:
            grant = _granted(request, command)
            fields = await _read(request, _FIELDS[command])
            (dataset,) = names_in(request.path_params, "dataset")
            words = _words(command, dataset, fields)
            await anyio.to_thread.run_sync(require_dataset, self._workspace.catalog, dataset)
            job = self._add(ProgramJob(secrets.token_hex(8), command, dataset, grant.name, stamp(now())))
        except RequestRefused as refusal:
            audit(request, f"refused: {refusal.problem}", fields)
            return json_error(refusal.status, StagegateError(refusal.problem, hint=refusal.hint))
        except StagegateError as error:
            audit(request, f"refused: {error.message}", fields)
            unknown = isinstance(error, UnknownRef | UnknownDataset)
            return json_error(404 if unknown else 422 if isinstance(error, UsageError) else 503, error)
        task = asyncio.create_task(self._run(job, words, request, fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        audit(request, f"began job {job.id}", fields)
        return json_response(job.values, 202, {"Location": self._links("jobs", job.id)})

    async def show(self, request: Request) -> Response:
        """Tell of a job."""
        self._forget()
        job = self._jobs.get(request.path_params["job"])
        grant: Grant | None = request.scope.get("stagegate.grant")
        if job is None or (grant and not grant.covers(job.dataset)):
            hint = f"Jobs are kept for {KEPT_SECONDS / 60:g} minutes after their end."
            return json_error(404, UnknownRef("There is no such job", hint=hint))
        return json_response(job.values)

    def _add(self, job: ProgramJob) -> ProgramJob:
        if not self._rates.take(job.who, STARTED_A_MINUTE):
            raise RequestRefused(429, "This token started too many jobs.", "Wait a minute.")
        running = [other for other in self._jobs.values() if not other.ended]
        if same := next((other for other in running if other.dataset == job.dataset), None):
            raise RequestRefused(
                409, f"Job {same.id} of {job.dataset} runs.", f"Read {self._links('jobs', same.id)} until it ended."
            )
        if len(running) >= RUNNING:
            raise RequestRefused(429, f"{RUNNING} jobs run.", "Try again when one ended.")
        self._jobs[job.id] = job
        self._forget()
        return job

    def _forget(self) -> None:
        ended = [job for job in self._jobs.values() if job.ended]  # in the order of their starts
        for position, job in enumerate(ended):
            if len(ended) - position > KEPT or time.monotonic() - job.ended_at > KEPT_SECONDS:
                del self._jobs[job.id]

    async def _run(self, job: ProgramJob, words: list[str], request: Request, fields: Mapping[str, str]) -> None:
        output = bytearray()
        try:
            process = await self._start(words)
            while part := await process.stdout.read(1 << 16):  # type: ignore[union-attr]
                output += part[: MAX_OUTPUT + 1 - len(output)]  # the rest is read and dropped, so that it goes on
            job.exit = await process.wait()
        finally:
            job.output, job.ended, job.ended_at = bytes(output), stamp(now()), time.monotonic()
            audit(request, f"job {job.id} ended with {job.exit}", fields)

    async def _start(self, words: list[str]) -> Process:
        workspace = self._workspace
        environment = dict(os.environ)
        # As the server's own options said, which go before the settings.
        environment |= {"STAGEGATE_CACHE": str(workspace.cache.root), "STAGEGATE_CATALOG": workspace.catalog.url}
        if workspace.identity.source == "declared":
            environment["STAGEGATE_IDENTITY"] = workspace.identity.name
        module = f"{__package__}.job_process"
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(os.getpid()),
            *words,
            stdin=DEVNULL,
            stdout=PIPE,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is for the server, whose end then ends it
        )


def _granted(request: Request, command: str) -> Grant:
    grant: Grant | None = request.scope.get("stagegate.grant")
    if grant is None:
        raise RequestRefused(401, "Jobs are started with a token.", "`stagegate token create --for NAME --may stage`")
    if command not in grant.scopes or not grant.covers(request.path_params["dataset"]):
        raise RequestRefused(403, f"This token may not {command} here.", "`stagegate token list` shows what it may.")
    return grant


async def _read(request: Request, known: set[str]) -> Mapping[str, str]:
    """The fields of a request's body, a form or JSON."""
    body, kind = await form_body(request), request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, FORM, ""):
        raise RequestRefused(415, f"A job is asked for as {JSON} or {FORM}.", "")
    fields: Any = form_fields(body) if kind == FORM else {}
    if body and kind != FORM:
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise RequestRefused(400, "The request is no object of texts.", 'For example {"gate": "pilot"}.')
    if unknown := sorted(fields.keys() - known):
        raise RequestRefused(400, f"{unknown[0][:80]!r} is no field here.", f"Known: {', '.join(sorted(known))}.")
    return fields


def _words(command: str, dataset: str, fields: Mapping[str, str]) -> list[str]:
    """The words of a command.

    Raises:
        UsageError: A name is none.
    """
    address = str(Address.parse(f"{dataset}@{fields['ref']}" if fields.get("ref") else dataset))
    if command == "stage":
        return ["stage", "--json", "--compact", *([] if fields.get("ref") else ["--again"]), "--", address]
    gate = check_name("target", fields.get("gate", ""))
    return ["check", "--json", "--compact", "--quiet", f"--gate={gate}", "--", address]
