"""An OpenID provider that logs everybody in at once, and lies as a test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.serve.listening import listen, server_config

CLIENT, SECRET = "stagegate", "a-secret-of-the-client"
ACCESS_TOKEN = "an-access-token-of-ines"
PERSON = {
    "sub": "248289761001",
    "email": "ines@example.org",
    "email_verified": True,
    "groups": ["approvers"],
}
Key = ECKey | RSAKey


@dataclass
class LyingProvider:
    """The provider, and what it says otherwise than it should. A value None leaves the name out."""

    issuer: str = ""
    keys: list[Key] = field(default_factory=lambda: [new_key("one")])
    """It signs with the first; it publishes all in `published`, by default these."""
    published: list[Key] | None = None
    algorithm: str = "ES256"
    document: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    user_info: dict[str, Any] = field(default_factory=dict)
    """Of UserInfo alone; `claims` are of both."""
    header: dict[str, Any] = field(default_factory=dict)
    callback: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Response] = field(default_factory=dict)
    """By path, in place of its own."""
    hangs: str = ""
    """A path at which it never answers."""
    reuses_codes: bool = False
    requests: list[str] = field(default_factory=list)
    """The paths of requests so far."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        path = scope["path"]
        self.requests.append(path)
        if path == self.hangs:
            await asyncio.Event().wait()
        routes = {
            "/.well-known/openid-configuration": self._document,
            "/authorize": self._authorize,
            "/token": self._token,
            "/jwks": self._jwks,
            "/userinfo": self._user_info,
        }
        response = self.answers.get(path) or await routes[path](request)
        await response(scope, receive, send)

    async def _document(self, request: Request) -> Response:
        del request
        return JSONResponse(
            _told(
                {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/jwks",
                    "userinfo_endpoint": f"{self.issuer}/userinfo",
                    "end_session_endpoint": f"{self.issuer}/logout",
                },
                self.document,
            )
        )

    async def _authorize(self, request: Request) -> Response:
        code = secrets.token_urlsafe(16)
        asked = dict(request.query_params)
        self.codes[code] = asked
        answer = _told({"code": code, "state": asked["state"]}, self.callback)
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = (
            self.codes.get(form.get("code", "")) if self.reuses_codes else self.codes.pop(form.get("code", ""), None)
        )
        login = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        challenge = _base64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if request.headers.get("authorization") != f"Basic {login}":
            return JSONResponse({"error": "invalid_client"}, 401)
        if not asked or asked["code_challenge_method"] != "S256" or asked["code_challenge"] != challenge:
            return JSONResponse({"error": "invalid_grant", "error_description": "<script>"}, 400)
        if asked["redirect_uri"] != form["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        token = self.id_token(asked["nonce"])
        return JSONResponse(
            _told({"access_token": ACCESS_TOKEN, "token_type": "Bearer", "id_token": token}, self.tokens)
        )

    async def _user_info(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
            return JSONResponse({"error": "invalid_token"}, 401)
        said = {name: value for name, value in self.claims.items() if name in PERSON}
        return JSONResponse(_told(PERSON, said | self.user_info))

    async def _jwks(self, request: Request) -> Response:
        del request
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.published or self.keys]})

    def id_token(self, nonce: str) -> str:
        """What the provider says of the person."""
        now = int(time.time())
        claims = _told(
            {
                **PERSON,
                "iss": self.issuer,
                "aud": CLIENT,
                "exp": now + 300,
                "iat": now,
                "nonce": nonce,
            },
            self.claims,
        )
        key = self.keys[0]
        header = _told({"alg": self.algorithm, "kid": key.kid, "typ": "JWT"}, self.header)
        signed = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
        if header.get("alg") == "none":
            return f"{signed}."
        if header.get("alg") == "HS256":
            secret = key.as_pem(private=False)
            return f"{signed}.{_base64(hmac.new(secret, signed.encode(), 'sha256').digest())}"
        return jwt.encode(header, claims, key, algorithms=[self.algorithm])


def new_key(kid: str) -> ECKey:
    """A key by which ID tokens are signed."""
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})


def _told(truth: dict[str, Any], lies: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**truth, **lies}.items() if value is not None}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Run an application on this machine in a thread, as the node's servers run; gives its URL."""
    server = uvicorn.Server(server_config(app, 128))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


@contextmanager
def lying_provider() -> Iterator[LyingProvider]:
    """Run a provider that tells the truth, until a test changes that."""
    provider = LyingProvider()
    with running(provider) as provider.issuer:
        yield provider
