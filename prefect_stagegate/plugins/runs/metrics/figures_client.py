"""Reads JSON from the place that a policy names: by the one HTTP client, or from a file of this node. All is bounded.

Redirects are refused: the policy names the server, and no other may answer or get the credentials.
"""

from __future__ import annotations

import json
import netrc
from base64 import b64encode
from pathlib import Path
from typing import Any

from prefect_stagegate.durable import read_file
from prefect_stagegate.errors import AccessDenied, Cancelled, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.plugins.runs.metrics.metric_parameters import MetricsParameters
from prefect_stagegate.redaction import remember, remember_access
from prefect_stagegate.sources.web.web_options import web_settings
from prefect_stagegate.spec.urls import local_path
from prefect_stagegate.transport.http import Client, Request, environment_proxies, fetch, origin_of

MAX_ANSWER = 4 << 20
"""Bytes of one answer or file."""
ANSWER_SECONDS = 20.0
"""Time limit of one request."""
CHECK_URL = "Check the `url` of metrics in the gate, and the proxy if there is one."
_DENIED, _REDIRECTS, _FAILED, _GONE = (401, 403), range(300, 400), 500, (404, 410)


def read_json(context: CheckContext, parameters: MetricsParameters, url: str) -> Any:
    """The JSON at a web address or in a file of this node; None where there is none.

    Raises:
        SourceError: It can't be read, is too large, or is no JSON.
        UsageError: The credentials can't be found, or the address is no absolute path and no web address.
    """
    path = local_path(url) if parameters.source == "file" else None
    try:
        data = _from_server(context, parameters, url) if path is None else _from_file(path)
        return None if data is None else json.loads(data)
    except SourceError as error:
        error.hint = error.hint or CHECK_URL
        raise
    except (ValueError, RecursionError) as error:
        raise SourceError("What stands there is no JSON", hint=CHECK_URL, source=url) from error


def _from_file(path: str) -> bytes | None:
    if not Path(path).is_absolute():
        hint = "Write an absolute path, or a web address."
        raise UsageError(f"The `url` of metrics is the relative path {path!r}", hint=hint)
    try:
        return read_file(Path(path), MAX_ANSWER)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise SourceError(f"{path} can't be read: {why}", hint="It must be a file, no link.") from error


def _from_server(context: CheckContext, parameters: MetricsParameters, url: str) -> bytes | None:
    def stop() -> None:
        if context.cancel and context.cancel.is_set():
            raise Cancelled(f"The check of {context.address} was stopped", dataset=context.dataset)

    address = origin_of(url).address
    login, authority = _login(context, parameters, url)
    allowed = tuple(context.workspace.settings.allowed_hosts)
    client = Client(allowed, authority, ANSWER_SECONDS, environment_proxies(), redirects=False)
    request = Request(url, {"Accept": "application/json", **login}, client, limit=MAX_ANSWER, timeout=ANSWER_SECONDS)
    response = fetch(request, check=stop)
    if response.status in _GONE:
        return None
    if response.status in _DENIED:
        hint = "Name a block by `credentials` in the gate, or write the host's entry into ~/.netrc."
        raise AccessDenied(f"{address} refused the credentials ({response.status})", hint=hint)
    if response.status in _REDIRECTS:
        hint = "Write the address that it redirects to into the gate, if it is right."
        raise SourceError(f"{address} redirects to another address ({response.status})", hint=hint)
    if not response.is_success:
        kind = SourceUnavailable if response.status >= _FAILED else SourceError
        raise kind(f"{address} answers {response.status}", hint="Check the server, then check the version again.")
    return bytes(response.body)


def _login(context: CheckContext, parameters: MetricsParameters, url: str) -> tuple[dict[str, str], str]:
    """The headers of a login, and the path of a further certificate authority; empty where nothing is given."""
    if parameters.credentials:
        options = dict(context.workspace.resolve_credentials(parameters.credentials))
        remember_access(url, options)
        settings = web_settings(url, options)
        return settings.request_headers(), settings.ca_file
    try:
        # Not `authenticators`: a policy could name any host, and get the entry `default`.
        found = netrc.netrc().hosts.get(origin_of(url).host)
    except FileNotFoundError:
        found = None
    except (OSError, ValueError, netrc.NetrcParseError):
        # The library's message repeats words of the file.
        hint = "Mend its lines, and run `chmod 600 ~/.netrc`; or name a block by `credentials` in the gate."
        raise UsageError("~/.netrc can't be read, or others can read it", hint=hint) from None
    if found is None:
        return {}, ""
    remember(found[2])
    return {"Authorization": f"Basic {b64encode(f'{found[0]}:{found[2]}'.encode()).decode()}"}, ""
