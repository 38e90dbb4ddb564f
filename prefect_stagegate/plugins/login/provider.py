"""An OpenID provider, by the library Authlib: only this module imports it.

Its requests are carried by this package's HTTP client, with no redirect, a bounded size and a bounded time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from prefect_stagegate.errors import MissingExtra, SourceError, StagegateError, UsageError, install_hint
from prefect_stagegate.plugins.login.logged_in import (
    ADDRESS,
    SUBJECT,
    LoggedInPerson,
    LoginEnded,
    LoginRefused,
    groups_of,
    word,
)
from prefect_stagegate.serve.listening import is_loopback
from prefect_stagegate.transport.http import Client, Request, Response, fetch, origin_of

try:
    from authlib.common.urls import add_params_to_uri
    from authlib.oauth2.auth import ClientAuth
    from authlib.oauth2.base import OAuth2Error
    from authlib.oauth2.client import OAuth2Client
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import InvalidKeyIdError, JoseError
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry
except ImportError as error:
    raise MissingExtra("Logging in by OpenID Connect needs Authlib", hint=install_hint("login")) from error

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Of signatures of ID tokens. None by a secret that both sides know, and not `none`."""
KEY_TYPES = ("RSA", "EC", "OKP")
"""Of public keys. Not `oct`: a published secret proves nothing."""
ANSWER_SECONDS = 10.0
"""Seconds in which the provider answers one request."""
MAX_ANSWER = 1 << 20
"""Bytes of one of its answers."""
FRESH_SECONDS = 3600.0
"""Seconds for which its document and its keys are believed."""
RETRY_SECONDS = 10.0
"""Seconds between two attempts after a failure, and between two looks for a key that is not known."""
LEEWAY = 60
"""Seconds by which its clock may differ."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OLD_GROUPS = "The groups of your login are too old to count, since its provider tells no newer ones: log in again."


class ProviderUnavailable(LoginRefused):
    """The provider does not answer, or not as a provider does."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "The pages can be read meanwhile. Try again, or ask who runs the provider.", 503)


@dataclass(frozen=True, slots=True)
class ProvedLogin:
    """What the provider gave at a login, in memory alone; the access token is empty where none can be sent."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    """Those that the ID token alone had, and UserInfo did not."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login under way."""

    nonce: str
    verifier: str
    """PKCE's: who redeems the code must know it."""
    redirect_uri: str


class Provider:
    """Asks an OpenID provider. Its methods may block.

    Args:
        issuer: Its URL.
        client_id: This server's name there.
        secret: Its secret there; empty for a public client.
        scopes: What is asked of it.
        groups_claim: The claim that lists groups.
        client: How its requests are sent.

    Raises:
        UsageError: The issuer is no URL of a provider.
    """

    def __init__(
        self, issuer: str, *, client_id: str, secret: str, scopes: str, groups_claim: str, client: Client
    ) -> None:
        if why := _why_unsafe(issuer):
            raise UsageError(f"{issuer!r} can't be an OpenID provider: {why}", hint="Write --oidc https://…")
        self.issuer = issuer
        self._client_id, self._secret, self._scopes = client_id, secret, scopes
        self._groups_claim, self._client = groups_claim, client
        self._document = _Cached(self._discover)
        self._keys = _Cached(self._fetch_keys)

    def authorization_url(self, attempt: Attempt, state: str) -> str:
        """Where a browser is sent to log in.

        Raises:
            ProviderUnavailable: There is no telling.
        """
        document = self._document.get()
        url, _ = self._oauth(attempt.redirect_uri).create_authorization_url(
            document["authorization_endpoint"], state=state, code_verifier=attempt.verifier, nonce=attempt.nonce
        )
        return str(url)

    def require_issuer(self, given: str | None) -> None:
        """Refuse a callback of another provider, where this one says which are its own (RFC 9207).

        Raises:
            LoginRefused: It says it of another, or says nothing.
            ProviderUnavailable: There is no telling.
        """
        is_said = self._document.get().get("authorization_response_iss_parameter_supported") is True
        if given != self.issuer if is_said else given not in (None, self.issuer):
            raise LoginRefused("The login is an answer of another provider")

    def identify(self, attempt: Attempt, code: str) -> tuple[LoggedInPerson, ProvedLogin]:
        """Who a code stands for, by the ID token and by UserInfo, which comes first where both say something.

        Raises:
            LoginRefused: The provider refuses the code, or its ID token or UserInfo proves nothing to this server.
            ProviderUnavailable: It does not answer.
        """
        document = self._document.get()
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        client = self._oauth(attempt.redirect_uri, method if self._secret else "none")
        try:
            tokens = client.fetch_token(
                document["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=attempt.verifier,
            )
        except OAuth2Error as refusal:
            raise LoginRefused(f"The provider refuses the login: {word(refusal.error)}") from None
        except (ValueError, TypeError, RecursionError):
            raise ProviderUnavailable("The provider did not answer as one does") from None
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str):
            raise LoginRefused("The provider sent no ID token", "Its client must have the scope `openid`.")
        claims, given = self._claims(id_token, attempt.nonce), tokens.get("access_token")
        access_token = given if isinstance(given, str) and given.isascii() and given.isprintable() else ""
        told = self._user_info(access_token, claims["sub"])
        kept = {name: value for name, value in claims.items() if name not in told}
        return self._person({**kept, **told}), ProvedLogin(id_token, access_token, {**kept, "sub": claims["sub"]})

    def identify_again(self, login: ProvedLogin, *, is_fresh: bool) -> LoggedInPerson:
        """Who somebody is now; the groups of their ID token count only while the login is fresh.

        Raises:
            LoginEnded: The provider takes the access token no longer, or UserInfo is of somebody else.
            LoginRefused: It does not answer, or lists groups that can't be used.
        """
        told = self._user_info(login.access_token, login.claims["sub"])
        claims = {**login.claims, **told}
        if is_fresh or self._groups_claim in told:
            return self._person(claims)
        return self._person({**claims, self._groups_claim: ()}, OLD_GROUPS)

    def _user_info(self, access_token: str, subject: str) -> Mapping[str, Any]:
        """What UserInfo says of somebody's address and groups; nothing where there is none."""
        endpoint = self._document.get().get("userinfo_endpoint")
        if not (endpoint and access_token):
            return {}
        told = self._json(endpoint, access_token)
        if told.get("sub") != subject:
            raise LoginEnded("The provider's UserInfo is of somebody else")
        # Both or none: no address is verified by what another answer said of another one.
        pair = ("email", "email_verified")
        names = [*(pair if told.keys() & set(pair) else ()), *({self._groups_claim} & told.keys())]
        return {"sub": subject} | {name: told.get(name) for name in names}

    def logout_url(self, id_token: str, back: str) -> str:
        """Where a browser ends its session at the provider; empty where it offers none, or does not answer."""
        try:
            endpoint = self._document.get().get("end_session_endpoint")
        except ProviderUnavailable:
            return ""
        if not endpoint or _why_unsafe(endpoint):
            return ""
        parameters = {"id_token_hint": id_token, "client_id": self._client_id, "post_logout_redirect_uri": back}
        return str(add_params_to_uri(endpoint, list(parameters.items())))

    def _oauth(self, redirect_uri: str, method: str = "none") -> OAuth2Client:
        return OAuth2Client(
            self,
            self._client_id,
            self._secret,
            token_endpoint_auth_method=method,
            scope=self._scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: ClientAuth) -> _Answer:
        """Send a form, as the library's client asks its session to."""
        url, sent, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return _Answer(self._fetch(Request(url, sent, self._client, "POST", body.encode())))

    def _discover(self) -> Mapping[str, Any]:
        document = self._json(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.issuer:
            raise ProviderUnavailable(f"The provider calls itself otherwise than {self.issuer}")
        for name in (*ENDPOINTS, *({"userinfo_endpoint"} & document.keys())):
            if why := _why_unsafe(document.get(name)):
                raise ProviderUnavailable(f"The provider's {name} can't be used: {why}")
        return document

    def _fetch_keys(self) -> KeySet:
        listed = self._json(self._document.get()["jwks_uri"]).get("keys")
        keys = []
        for key in listed if isinstance(listed, list) else ():
            # One that can't be used says nothing about the others.
            if isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig":
                with suppress(JoseError, ValueError, TypeError, KeyError):
                    keys += KeySet.import_key_set({"keys": [key]}).keys
        if not keys:
            raise ProviderUnavailable("The provider has no keys that can be used")
        return KeySet(keys)

    def _claims(self, id_token: str, nonce: str) -> Mapping[str, Any]:
        """What an ID token says, once it is proved to be the provider's, for this server, of this login, and of now."""
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        try:
            try:
                token = jwt.decode(id_token, self._keys.get(), registry=registry)
            except InvalidKeyIdError:  # the provider may have new ones
                token = jwt.decode(id_token, self._keys.get(again=True), registry=registry)
            wanted = {"iss": self.issuer, "aud": self._client_id}
            options = {name: {"essential": True, "value": value} for name, value in wanted.items()}
            claims = CodeIDToken(token.claims, token.header, options, {"nonce": nonce, "client_id": self._client_id})
            claims.validate(leeway=LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = f"{word(getattr(error, 'error', ''))} {word(getattr(error, 'claim', ''))}".strip()
            raise LoginRefused(f"The provider's ID token proves nothing here: {why or type(error).__name__}") from None
        return dict(claims)

    def _person(self, claims: Mapping[str, Any], hint: str = "") -> LoggedInPerson:
        subject, email = claims["sub"], claims.get("email")
        if not SUBJECT.fullmatch(subject):
            raise LoginRefused("The provider's name for the person is none", "Ask who runs the provider.")
        is_proved = claims.get("email_verified") is True and isinstance(email, str) and ADDRESS.fullmatch(email)
        # Never an address: those have no colon, and this begins with the issuer's.
        name = str(email) if is_proved else f"{self.issuer}#{subject}"
        return LoggedInPerson(name, self.issuer, subject, groups_of(claims.get(self._groups_claim)), hint)

    def _json(self, url: str, access_token: str = "") -> Mapping[str, Any]:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {access_token}"} if access_token else {})
        response = self._fetch(Request(url, headers, self._client))
        if access_token and response.status in (401, 403):
            raise LoginEnded("The provider takes this login no longer")
        try:
            value = json.loads(response.body) if response.is_success else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ProviderUnavailable(f"The provider did not answer as one does (status {response.status})")
        return value

    def _fetch(self, request: Request) -> Response:
        request.limit, request.timeout = MAX_ANSWER, ANSWER_SECONDS
        try:
            return fetch(request)
        except StagegateError as error:
            raise ProviderUnavailable(f"The provider does not answer: {error.message}") from error


class _Answer:
    """A response as the library reads it."""

    def __init__(self, response: Response) -> None:
        self.status_code, self._body = response.status, response.body

    def json(self) -> Any:
        return json.loads(self._body)

    def raise_for_status(self) -> None:
        if self.status_code >= 400:  # noqa: PLR2004 - HTTP's errors
            raise ProviderUnavailable(f"The provider did not answer as one does (status {self.status_code})")


class _Cached:
    """A value that is fetched when it is old, and not at once again after a failure."""

    def __init__(self, fetch_value: Callable[[], Any]) -> None:
        self._fetch = fetch_value
        self._value: Any = None
        self._at = self._again_at = self._failed_at = float("-inf")
        self._failure: ProviderUnavailable | None = None

    def get(self, *, again: bool = False) -> Any:
        """The value; `again` fetches it though it is fresh, if that was not done just now.

        Raises:
            ProviderUnavailable: It can't be fetched, or could not just now.
        """
        now = time.monotonic()
        if again and now - self._again_at > RETRY_SECONDS:
            self._again_at = now
        elif now - self._at < FRESH_SECONDS:
            return self._value
        if self._failure and now - self._failed_at < RETRY_SECONDS:
            raise self._failure
        try:
            self._value = self._fetch()
        except ProviderUnavailable as failure:
            self._failure, self._failed_at = failure, now
            raise
        self._at, self._failure = now, None
        return self._value


def _why_unsafe(url: object) -> str:
    """Why nothing of a login may be sent to a URL; empty where it may."""
    if not isinstance(url, str) or not url.isascii() or any(sign in url for sign in " \t\r\n#\\"):
        return "it is no URL"
    try:
        origin = origin_of(url)
    except SourceError as error:
        return error.message
    if origin.scheme != "https" and not is_loopback(origin.host):
        return "it has no TLS"
    return ""
