"""The application that answers requests for pages: which address shows which page, and what errors look like.

/                                                      whose turn it is, and the picture of the pipeline
/datasets                                              the picture of all datasets
/datasets/NAME                                         versions in time, turns, moves
/datasets/NAME/policy                                  gates, proposals, history
/datasets/NAME/compare?old=…&new=…                     two versions
/datasets/NAME/versions/HEX                            checks, expectations, profiles, lineage
/datasets/NAME/versions/HEX/files                      its files
/datasets/NAME/versions/HEX/decisions/TARGET/HEX       the report of a decision
/nodes, /metrics, …                                    what plugins add
/style.css, /copy.js, /logo.svg
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.doors import Grant, Page, PageRequest, Visitor, load
from prefect_stagegate.errors import RefConflict, StagegateError, UnknownRef, UsageError
from prefect_stagegate.plugins.pages import documents
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.forms import TOKEN, Forms, LoggedOut, ShownForm, audit
from prefect_stagegate.plugins.pages.html import values_of
from prefect_stagegate.plugins.pages.json_answers import json_error, json_response, prefers_json
from prefect_stagegate.plugins.pages.navigation import Links, slice_of
from prefect_stagegate.plugins.pages.program_jobs import COMMANDS, ProgramJobs
from prefect_stagegate.plugins.pages.rendering import added_pages, render, static_text
from prefect_stagegate.plugins.pages.views.comparison_page import comparison_page
from prefect_stagegate.plugins.pages.views.dataset_page import dataset_page
from prefect_stagegate.plugins.pages.views.inbox_page import inbox_page
from prefect_stagegate.plugins.pages.views.picture import datasets_page
from prefect_stagegate.plugins.pages.views.policy_page import policy_page
from prefect_stagegate.plugins.pages.views.version_page import files_page, version_page
from prefect_stagegate.redaction import redact
from prefect_stagegate.serve.incoming import RequestRefused, path_below
from prefect_stagegate.show import Document, document_of
from prefect_stagegate.show.document import legible
from prefect_stagegate.show.trimming import fitted

PAGES_AT_A_TIME = 8
"""Pages that are made at a time; further requests wait."""
PAGE_SECONDS = 20.0
"""Seconds that a page may take, the wait included; then the request gets 503."""
ACT_SECONDS = 60.0
"""The same of a sent form: flow runs are resumed meanwhile."""
JOB_PATHS = {command: f"/datasets/{{dataset}}/{command}" for command in COMMANDS}
"""Where programs start jobs."""
ReadPage: TypeAlias = Callable[[CatalogView, Request], object]
_SCOPE: ContextVar[Scope] = ContextVar("scope")
"""Of the request that is answered."""

log = logging.getLogger(__name__)


def pages_app(view: CatalogView, links: Links) -> ASGIApp:
    """The application without its guard."""
    pages, jobs = _Pages(view, links), ProgramJobs(view.workspace, links)
    version = "/datasets/{dataset}/versions/{version}"
    shown: Iterable[tuple[str, ReadPage, str, documents.ReadValues]] = (
        ("/", inbox_page, "inbox.html", documents.statuses),
        ("/datasets", datasets_page, "datasets.html", documents.statuses),
        ("/datasets/{dataset}", dataset_page, "dataset.html", documents.versions),
        ("/datasets/{dataset}/policy", policy_page, "policy.html", documents.policy),
        ("/datasets/{dataset}/compare", comparison_page, "comparison.html", documents.comparison),
        (version, version_page, "version.html", documents.version),
        (f"{version}/files", files_page, "files.html", documents.version),
    )
    routes = [
        *(Route(path, pages.endpoint(partial(pages.page, read, text), values)) for path, read, text, values in shown),
        Route(f"{version}/decisions/{{target}}/{{decision}}", pages.endpoint(pages.decision, documents.decision)),
        *(Route(page.path, pages.endpoint(partial(pages.added, page))) for page in added_pages() if not page.act),
        *(Route(page.path, pages.answerable(page), methods=["GET", "POST"]) for page in added_pages() if page.act),
        *(Route(path, partial(jobs.begin, command), methods=["POST"]) for command, path in JOB_PATHS.items()),
        Route("/jobs/{job}", jobs.show),
        Route("/style.css", partial(_static, "text/css", ("document.css", "pages.css"))),
        Route("/copy.js", partial(_static, "text/javascript", ("copy.js",))),
        Route("/logo.svg", partial(_static, "image/svg+xml", ("logo.svg",))),
    ]
    routes.append(Route("/{path:path}", pages.endpoint(pages.nothing)))
    router = Router(routes, redirect_slashes=False)
    return _below(router, links.base)


def form_paths(links: Links) -> tuple[re.Pattern[str], ...]:
    """The paths to which forms may be sent, with and without the base path."""
    paths = [page.path for page in added_pages() if page.act] + [*JOB_PATHS.values()]
    return tuple(compile_path(f"{base}{path}")[0] for base in {"", links.base} for path in paths)


def _below(app: ASGIApp, base: str) -> ASGIApp:
    """The application below a base path, for what a program's token is about."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "path": path_below(base, scope["path"])}
        _SCOPE.set(scope)
        grant: Grant | None = scope.get("stagegate.grant")
        if grant and grant.datasets and not _is_about(grant, scope["path"]):
            problem = f"This token is only for {', '.join(sorted(grant.datasets))}"
            await json_error(403, StagegateError(problem, hint="Read /datasets/NAME."))(scope, receive, send)
            return
        await app(scope, receive, send)

    return answer


def _is_about(grant: Grant, path: str) -> bool:
    """Whether a page is about one dataset that a grant covers, or about a job, which says so itself."""
    first, _, rest = path.removeprefix("/").partition("/")
    return first == "jobs" or (first == "datasets" and rest.partition("/")[0] in grant.datasets)


async def _static(kind: str, files: tuple[str, ...], request: Request) -> Response:
    del request
    return Response(static_text(*files), media_type=kind, headers={"Cache-Control": "private, max-age=60"})


class _Pages:
    """Makes pages, each in a thread."""

    def __init__(self, view: CatalogView, links: Links) -> None:
        self._view, self._links = view, links
        self._limiter = anyio.CapacityLimiter(PAGES_AT_A_TIME)
        self._forms = Forms(view.workspace.settings.pages_url)

    def endpoint(
        self,
        page: Callable[[Request], Response],
        values: documents.ReadValues | None = None,
        seconds: float = 0.0,
    ) -> Callable[[Request], Awaitable[Response]]:
        """The coroutine that answers requests by a function which may wait for the catalog: a page, or its values."""

        async def answer(request: Request) -> Response:
            limit = seconds or PAGE_SECONDS
            make = partial(self.document, values) if values and prefers_json(request.scope) else page
            try:
                async with asyncio.timeout(limit):
                    return await anyio.to_thread.run_sync(
                        self._made, make, request, abandon_on_cancel=True, limiter=self._limiter
                    )
            except TimeoutError:
                text = f"The page was not ready within {limit:g} s."
                return self._error(503, "The catalog is slow", text, "Load it again; what was read or done is kept.")

        return answer

    def answerable(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """The coroutine that shows a page with an `act`, and answers its forms."""

        async def answer(request: Request) -> Response:
            if request.method != "POST":
                return await self.endpoint(partial(self.shown, page, ShownForm()))(request)
            try:
                visitor, fields = await self._forms.read(request)
            except RequestRefused as refusal:
                audit(request, f"refused: {refusal.problem}")
                if not isinstance(refusal, LoggedOut):
                    return self._error(refusal.status, "This did not work", refusal.problem, refusal.hint)
                form = ShownForm(problem=refusal.problem, hint=refusal.hint)
                return await self.endpoint(partial(self.shown, page, form, status=refusal.status))(request)
            return await self.endpoint(partial(self.sent, page, visitor, fields), seconds=ACT_SECONDS)(request)

        return answer

    def _made(self, make: Callable[[Request], Response], request: Request) -> Response:
        try:
            return make(request)
        except UsageError as error:
            return self._error(404, "Nothing here", error.message, error.hint, error)
        except StagegateError as error:
            log.warning("%r can't be shown: %r", request.scope["path"], str(error))
            return self._error(503, "This can't be shown", error.message, error.hint, error)
        except Exception:
            # One page that can't be made must not end the others; its text may hold anything.
            log.exception("%r can't be shown", request.scope["path"])
            return self._error(500, "This can't be shown", "The page has an error; the server's log has more.", "")

    def _error(self, status: int, title: str, problem: str, hint: str, error: StagegateError | None = None) -> Response:
        if prefers_json(_SCOPE.get()):
            return json_error(status, error or StagegateError(problem, hint=hint))
        values = {"title": title, "problem": redact(problem), "hint": redact(hint)}
        return self._response("error.html", "", status, **values)

    def _response(self, template: str, section: str, status: int = 200, **values: Any) -> Response:
        scope = _SCOPE.get()
        here = f"{scope['path']}?{scope['query_string'].decode()}".removesuffix("?")
        login = {name: scope.get(f"stagegate.{name}", "") for name in ("visitor", "login", "logout")}
        values |= {"links": self._links, "catalog": self._view.catalog.url, "here": here}
        text = render(template, section=section, **login, **values)
        # What is shown to one person stays in no browser after their logout.
        return HTMLResponse(text, status, {"Cache-Control": "no-store"} if login["visitor"] else None)

    def _link(self, request: Request) -> Callable[..., str]:
        """The address of the same page with another query."""
        parts = [part for part in request.scope["path"].split("/") if part]
        return lambda **query: self._links(*parts, **query)

    def document(self, read: documents.ReadValues, request: Request) -> Response:
        """What a program gets for a page, and where the other parts of it are."""
        values, cut = read(self._view, request)
        numbers = {"prev": cut.number - 1, "next": cut.number + 1} if cut else {}
        link, query = self._link(request), dict(request.query_params)
        others = [
            f'<{link(**query | {"page": number})}>; rel="{name}"'
            for name, number in numbers.items()
            if cut and 1 <= number <= cut.pages
        ]
        return json_response(values, headers={"Link": ", ".join(others)} if others else {})

    def nothing(self, request: Request) -> Response:
        """Say that an address has no page."""
        raise UnknownRef(f"There is no page {request.scope['path'][:200]}")

    def page(self, read: ReadPage, template: str, request: Request) -> Response:
        """What a function reads, in its template."""
        section = "Inbox" if template == "inbox.html" else "Datasets"
        return self._response(template, section, page=read(self._view, request), link=self._link(request))

    def decision(self, request: Request) -> Response:
        """The report of a decision."""
        report = documents.decision_report(self._view, request)

        def page(document: Document) -> str:
            values = {"dataset": report.dataset, "digest": report.digest, **values_of(document)}
            return bytes(self._response("decision.html", "Datasets", **values).body).decode()

        return HTMLResponse(fitted(legible(document_of(report)), page))

    def _asked(self, request: Request, visitor: Visitor | None = None, **more: Any) -> PageRequest:
        part = partial(slice_of, request.query_params.get("page", ""))
        accept, login = request.headers.get("accept", ""), request.scope.get("stagegate.login", "")
        workspace = self._view.workspace_of(visitor) if visitor else self._view.workspace
        return PageRequest(workspace, request.path_params, accept, part, self._view.recent, visitor, login, **more)

    def shown(self, page: Page, form: ShownForm, request: Request, *, status: int = 200) -> Response:
        """A page with an `act`, and what became of the form that was sent to it."""
        facts: dict[str, object] = {}
        visitor: Visitor | None = request.scope.get("stagegate.visitor")
        asked = self._asked(request, visitor, rely=facts.update)
        made = load(page.function)(asked)
        if visitor and facts:
            form = replace(form, token=self._forms.token(visitor, request.scope["path"], facts))
        link = self._link(request)
        response = self._response(page.template, page.section, status, page=made, link=link, form=form, asked=asked)
        response.headers["Cache-Control"] = "no-store"
        return response

    def sent(self, page: Page, visitor: Visitor, fields: Mapping[str, str], request: Request) -> Response:
        """Do what a form says, unless it may not act; then the page as it is now, with the reason."""
        facts: dict[str, object] = {}
        asked = self._asked(request, visitor, form=fields, rely=facts.update)
        values = {name: value for name, value in fields.items() if name != TOKEN}
        try:
            load(page.function)(asked)
            changed = self._forms.use(visitor, request.scope["path"], fields.get(TOKEN, ""), facts)
            if not changed:
                address = load(page.act)(asked)
                audit(request, "done", fields)
                return RedirectResponse(f"{self._links.base}{address}", 303)
            status, problem, hint = 409, "Nothing was done: the page changed since you loaded it.", "Read it again."
        except RequestRefused as refusal:
            changed, status, problem, hint = (), refusal.status, refusal.problem, refusal.hint
        except StagegateError as error:
            changed, problem, hint = (), redact(error.message), f"{redact(error.hint)} {visitor.hint}".strip()
            status = 409 if isinstance(error, RefConflict) else 422 if isinstance(error, UsageError) else 503
        except Exception:
            audit(request, "failed by a defect", fields)
            raise
        # Of what can't be read or reached, nobody knows whether it was done.
        outcome = "failed" if status == 503 else "refused"  # noqa: PLR2004
        audit(request, f"{outcome}: {problem} {', '.join(changed)}".strip(), fields)
        return self.shown(page, ShownForm("", values, problem, hint, changed), request, status=status)

    def added(self, page: Page, request: Request) -> Response:
        """What a plugin adds."""
        made = load(page.function)(self._asked(request))
        if page.template:
            return self._response(page.template, page.section, page=made, link=self._link(request))
        text, kind = made
        return Response(text, headers={"Content-Type": kind})
