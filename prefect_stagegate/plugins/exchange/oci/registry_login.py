"""Logins to registries: Docker's and Podman's stored ones, and the tokens that registries ask for, by the library oras.

Only this folder imports oras. Its requests are carried by this package's HTTP client, which decides which addresses are
connected to, which redirects are followed, and how much is read.
"""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect_stagegate.errors import AccessDenied, MissingExtra, SourceError, UsageError, install_hint
from prefect_stagegate.plugins.exchange.oci.oci_options import OciSettings
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.wrappers.timeout import call_with_timeout
from prefect_stagegate.transport.http import PAGE_SECONDS, Client, Request, fetch, origin_of
from prefect_stagegate.transport.http.request_policy import require_sendable

try:
    from oras.auth.token import TokenAuth
    from oras.auth.utils import parse_auth_header
    from oras.provider import Registry
    from requests import PreparedRequest, Response, Session  # noqa: TID251 - it sends nothing by itself
    from requests.adapters import BaseAdapter  # noqa: TID251
    from requests.structures import CaseInsensitiveDict  # noqa: TID251
except ImportError as error:
    raise MissingExtra("The client library for oci is not installed", hint=install_hint("oci")) from error

UPLOAD_IDLE = 300.0
"""Seconds for which an upload may stand still, and in which it is answered after its last byte: some registries hash it
again."""
HELPER_SECONDS = 30.0
"""Seconds that Docker's credential helper may take."""
LARGEST_ANSWER = 16 << 20
"""Bytes of an answer: of a manifest or a token."""
LONGEST_CHALLENGE = 4096
"""Characters of a WWW-Authenticate header that are read."""
TOKEN_SERVERS = {
    "docker.io": "auth.docker.io",
    "index.docker.io": "auth.docker.io",
    "registry-1.docker.io": "auth.docker.io",
    "registry.gitlab.com": "gitlab.com",
}
"""The hosts of token servers that public registries are known to have beside their own."""
_CHALLENGES = re.compile(r",\s*(?=[A-Za-z]+ +[a-z]+=)")
"""Between the challenges of one header: some registries take tokens and passwords."""
_SET_BY_CLIENT = ("connection", "content-length", "transfer-encoding")


class RegistryRequests(Registry):  # type: ignore[misc] # oras ships no types
    """The library's requests without its retries: they take two minutes, also where the server refuses."""

    do_request = Registry.do_request.__wrapped__


class RegistryLogin(TokenAuth):  # type: ignore[misc] # oras ships no types
    """Logs in as a registry asks: by a token of its token server, or by name and password with each request.

    Args:
        registry: Host, and port where one is written.
        settings: Its name and password, or its token, win over stored logins.
        url: Of the source, for messages.
        secure: Whether the registry is asked over TLS: then its token server must be, too.
        looks_up: Whether stored logins may be used.
    """

    def __init__(self, registry: str, settings: OciSettings, *, url: str, secure: bool, looks_up: bool = True) -> None:
        super().__init__()
        self._url, self._secure = url, secure
        self._origin = origin_of(f"{'https' if secure else 'http'}://{registry}")
        self.session = Session()
        self._tls_verify = True
        # The whole header's value, so that threads never see the scheme of one login and the token of another.
        self.token = f"Bearer {settings.token}" if settings.token else None
        self._is_fixed = bool(settings.token)
        self._token_hosts = {TOKEN_SERVERS.get(self._origin.host, "")}
        """Hosts beside the registry's own to which the login may go."""
        self.who = "the token of the options"
        require_sendable(self.get_auth_header())
        if settings.username:
            self.set_basic_auth(settings.username, settings.password)
            self._token_hosts.add(settings.token_server.lower())
            self.who = f"{settings.username!r} of the options"
        elif not settings.token and looks_up:
            self._look_up(registry)
        elif not settings.token:
            self.who = "nobody (stored logins are not sent without TLS because a spec says so)"
        self.is_anonymous = self.token is None and not hasattr(self, "_basic_auth")

    def get_auth_header(self) -> dict[str, str]:
        """The header of requests to the registry; none before the first login."""
        return {"Authorization": self.token} if self.token else {}

    def authenticate_request(
        self, original: Response, headers: Mapping[str, str] | None, refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        """Log in by a response with 401 or 403, and return the headers of the request that is sent again.

        The library would send a token again that has expired, or that permits less than the request needs.

        Raises:
            AccessDenied: The registry asks for a login, and there is none, or it is refused.
            SourceError: It asks for one in an unknown way.
        """
        del refresh
        refused = str(original.request.headers.get("Authorization", ""))
        login = self.log_in(original.url, original.headers.get("www-authenticate", ""), refused)
        return {**(headers or {}), "Authorization": login}, True

    def log_in(self, url: str, header: str, refused: str) -> str:
        """Log in as a WWW-Authenticate header of the response from a URL asks.

        `refused` is the Authorization header of the refused request; empty where it had none. Returns the new one.
        """
        # Storage that the registry redirects to may ask, too: it would name a token server of its own.
        if origin_of(url) != self._origin:
            raise self.denied(url)
        # The library takes a minute to read 80,000 letters.
        challenges = _CHALLENGES.split(header[:LONGEST_CHALLENGE])
        challenge = next((text for text in challenges if text.lower().startswith(("basic", "bearer"))), "")
        basic: str | None = getattr(self, "_basic_auth", None)
        if challenge.lower().startswith("basic"):
            # Another thread may have logged in since the request was sent.
            if basic is None or refused == f"Basic {basic}":
                raise self.denied(url)
            self.token = f"Basic {basic}"
            return self.token
        if self._is_fixed or not challenge:
            raise self.denied(url)
        parameters = parse_auth_header(challenge)
        self._require_realm(parameters.realm or "")
        try:
            token: Any = self.request_token(parameters) if basic else self.request_anonymous_token(parameters)
            require_sendable({"Authorization": token or ""})
        except (ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
            message = f"{urlsplit(parameters.realm).netloc} doesn't answer like a token server of registries"
            raise SourceError(message, source=self._url) from error
        if not token:
            raise self.denied(url)
        remember(token)
        self.token = login = f"Bearer {token}"
        return login

    def denied(self, url: str) -> AccessDenied:
        """The error for a login that is missing or refused at a URL."""
        if (origin := origin_of(url)) != self._origin:
            message = f"The registry redirects to {origin.address}, which denies access"
            return AccessDenied(message, hint="No login is sent there. Ask who runs the registry.", source=self._url)
        hint = f"Tried with: {self.who}. Log in by `docker login`, `podman login` or `oras login`, or name a block."
        return AccessDenied("The registry denies access", hint=hint, source=self._url)

    def _require_realm(self, realm: str) -> None:
        """Refuse a token server unless it is the registry, or has TLS and a host of the registry or credentials."""
        message, hint, scheme = "", "Check the registry's configuration.", realm.partition("://")[0].lower()
        try:
            origin = origin_of(realm) if scheme in ("http", "https") else None
        except SourceError:
            message = "The registry names a token server whose host or port can't be used"
        else:
            is_own = origin == self._origin or (self.is_anonymous and not self._secure)
            if not realm:
                message = "The registry names no token server"
            elif not origin or (scheme == "http" and not is_own):
                message = "The registry names a token server without TLS"
            elif not (is_own or self.is_anonymous or origin.host in {self._origin.host, *self._token_hosts}):
                message = f"The registry has its login sent to another host, {origin.address}"
                hint = f"If it is the registry's own: `token_server: {origin.host}` beside the password, or for stored "
                hint += f"logins `docker login {origin.host}`."
        if message:
            raise SourceError(message, hint=hint, source=self._url) from None

    def _look_up(self, registry: str) -> None:
        """Find the login that `docker login` or `podman login` stored, if there is one."""
        files = list(configuration_files())
        for file in files:
            try:
                stored = json.loads(file.read_bytes())
                self._auth_config = {key: stored.get(key) or {} for key in ("auths", "credHelpers", "credsStore")}
                if not call_with_timeout(partial(self._load_auth, registry), HELPER_SECONDS):
                    continue
                login = b64decode(self._basic_auth, validate=True).decode(errors="replace")
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                # Not the error's text, which may quote a credential.
                message = f"The stored logins in {file} can't be used ({type(error).__name__})"
                raise UsageError(message, hint="Log in again, or remove the file.", source=self._url) from None
            # Not the spec's `token_server`, since the password is not the spec's.
            self._token_hosts.update(map(str.lower, self._auth_config["auths"]))
            self.who = f"the login in {file}"
            remember(self._basic_auth, login.partition(":")[2])
            return
        places = ", ".join(map(str, files)) or "no file with logins exists"
        self.who = f"nobody (looked for {registry} in: {places})"


class Transport(BaseAdapter):
    """Carries the library's requests by this package's HTTP client."""

    def __init__(self, client: Client, check: Callable[[], object]) -> None:
        super().__init__()
        self._client, self._check = client, check

    def send(self, request: PreparedRequest, **_: Any) -> Response:  # type: ignore[override]
        """Send a request, and return its last response; an upload is read as it is sent."""
        body: Any = request.body
        is_upload = hasattr(body, "rewind")
        headers = {name: str(value) for name, value in request.headers.items() if name.lower() not in _SET_BY_CLIENT}
        received = fetch(
            Request(
                str(request.url),
                headers,
                replace(self._client, idle=UPLOAD_IDLE) if is_upload else self._client,
                str(request.method),
                body.encode() if isinstance(body, str) else None if is_upload else body,
                body if is_upload else None,
                limit=LARGEST_ANSWER,
                timeout=None if is_upload else PAGE_SECONDS,
            ),
            check=self._check,
        )
        response = Response()
        # A redirect that this package's client does not follow is followed by nobody.
        response.status_code, response.url = received.status, received.url
        response_headers = {
            name: value for name, value in received.headers.items() if name != "location" or received.is_success
        }
        response.headers = CaseInsensitiveDict(response_headers)
        response.raw, response.request = io.BytesIO(received.body), request
        return response

    def close(self) -> None:
        """Do nothing: connections belong to the process."""


def session_over(client: Client, check: Callable[[], object]) -> Session:
    """A session of the library whose requests this package's client carries, and `check` may end."""
    session = Session()
    session.trust_env = False  # no .netrc, and no proxy but the client's
    session.headers.clear()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Transport(client, check))
    return session


def configuration_files() -> Iterator[Path]:
    """The files in which Docker, Podman and ORAS store logins, the first to look in first; only those that exist."""
    docker = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser() / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    podman = [
        os.environ.get("REGISTRY_AUTH_FILE"),
        f"{runtime}/containers/auth.json" if runtime else None,
        "~/.config/containers/auth.json",
    ]
    for file in (docker, *(Path(name).expanduser() for name in podman if name)):
        if file.is_file():
            yield file
