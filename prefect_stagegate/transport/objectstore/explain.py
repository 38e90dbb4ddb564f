"""Turns an object store's error into one of this package's typed errors.

obstore gives the server's response as text only. The tables below are searched by its error code, else by its HTTP
status, else by words of the HTTP client. Responses that this package's own client received use the same tables.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from prefect_stagegate.errors import (
    AccessDenied,
    AdapterFailed,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import RedactedError
from prefect_stagegate.transport.http import origin_of, retry_after


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of the tables: the kind of error, its sentence (which may name the `{endpoint}`) and its hint."""

    kind: type[StagegateError]
    message: str
    hint: str = ""


_AZURE_KEYS = "Check the account's key or signature, and that it belongs to this account."
_KEYS = "Check the access key and secret, and that they belong to this endpoint."
_REGION = "Set `client_kwargs: {region_name: …}` to the region of the bucket."
_LATER = "Requests are retried a few times; if all fail, try later or with fewer parallel transfers."
_ANSWER = "Check the server's address and port, and that it runs."

_VANISHED = Meaning(ObjectVanished, "The object is gone", "It was deleted or renamed after it was listed.")
_CHANGED = Meaning(ObjectChanged, "The object changed while it was read", "Stage again to read its new content.")
_NO_BUCKET = Meaning(
    SourceError, "The bucket doesn't exist at {endpoint}", "Check the bucket's name, the endpoint and the region."
)
_REFUSED = Meaning(
    AccessDenied,
    "Access is denied",
    "These credentials may not list or read here. Ask the bucket's owner for s3:ListBucket and s3:GetObject.",
)
_REFUSED_BLOB = Meaning(
    AccessDenied,
    "Access is denied",
    "These credentials may not list or read here. Ask the account's owner for the role Storage Blob Data Reader.",
)
_BUSY = Meaning(SourceBusy, "{endpoint} is too busy", _LATER)
_EXPIRED = Meaning(CredentialsExpired, "The credentials have expired", "Log in again, and repeat the command.")
_BROKEN = Meaning(SourceUnavailable, "{endpoint} failed", _LATER)

CODES: dict[str, Meaning] = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": Meaning(SourceError, "The bucket's name is not valid", "Check the source's URL."),
    "NoSuchKey": _VANISHED,
    "NoSuchVersion": _VANISHED,
    "PreconditionFailed": _CHANGED,
    "InvalidAccessKeyId": Meaning(AccessDenied, "{endpoint} doesn't know the access key", _KEYS),
    "SignatureDoesNotMatch": Meaning(AccessDenied, "The secret doesn't belong to the access key", _KEYS),
    "InvalidToken": Meaning(AccessDenied, "The session token is not valid", "Log in again."),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": Meaning(AccessDenied, "This machine's clock is wrong", "Set the clock (chronyc makestep)."),
    "AccessDenied": _REFUSED,
    "AllAccessDisabled": _REFUSED,
    "InvalidObjectState": Meaning(SourceError, "The object is archived", "Restore it from its archive class first."),
    "PermanentRedirect": Meaning(SourceError, "The bucket lies in another region", _REGION),
    "AuthorizationHeaderMalformed": Meaning(SourceError, "The bucket lies in another region", _REGION),
    "SlowDown": _BUSY,
    "TooManyRequests": _BUSY,
    "RequestTimeout": _BROKEN,
    "InternalError": _BROKEN,
    "ServiceUnavailable": _BUSY,
    # Azure Blob Storage's own
    "AccountIsDisabled": Meaning(AccessDenied, "The storage account is disabled", "Ask its owner."),
    "AuthenticationFailed": Meaning(AccessDenied, "{endpoint} doesn't accept the credentials", _AZURE_KEYS),
    "AuthorizationFailure": Meaning(AccessDenied, "{endpoint} doesn't accept the credentials", _AZURE_KEYS),
    "AuthorizationPermissionMismatch": _REFUSED_BLOB,
    "BlobArchived": Meaning(SourceError, "The blob is archived", "Rehydrate it from its archive tier first."),
    "BlobNotFound": _VANISHED,
    "ConditionNotMet": _CHANGED,
    "ContainerNotFound": Meaning(
        SourceError, "The container doesn't exist at {endpoint}", "Check the container's name and the account."
    ),
    "InsufficientAccountPermissions": _REFUSED_BLOB,
    "InvalidAuthenticationInfo": Meaning(AccessDenied, "The token is not valid", "Log in again."),
    "NoAuthenticationInformation": _REFUSED_BLOB,
    "OperationTimedOut": _BROKEN,
    "PublicAccessNotPermitted": _REFUSED_BLOB,
    "ServerBusy": _BUSY,
}
"""By the code in the response's body, in S3's, Google's and Azure's protocols."""

STATUSES: dict[int, Meaning] = {
    301: CODES["PermanentRedirect"],
    401: _REFUSED,
    403: _REFUSED,
    404: Meaning(SourceError, "{endpoint} finds nothing at this address", "Check the endpoint and the bucket's name."),
    408: _BROKEN,
    412: _CHANGED,
    416: _CHANGED,
    429: _BUSY,
    503: _BUSY,
}

REFUSED = Meaning(SourceUnavailable, "Connection refused by {endpoint}", _ANSWER)
"""Nobody listens there."""

_NO_RANGES = Meaning(SourceError, "{endpoint} doesn't support byte ranges", "Only whole objects can be read from it.")
_NO_LISTING = Meaning(SourceError, "{endpoint} sends something else than a listing", "Check the endpoint's address.")
_UNRESOLVED = Meaning(SourceUnavailable, "Could not resolve the name of {endpoint}", "Check its spelling and the DNS.")
_NO_ENDPOINT = "For a server of your own, set `options: {endpoint_url: …}` at the source, or AWS_ENDPOINT_URL."
_UNTRUSTED = Meaning(SourceError, "The certificate of {endpoint} is not trusted", "Set `verify:` to the CA's PEM file.")
_NO_TLS = Meaning(SourceError, "{endpoint} doesn't speak TLS", "Use http:// in endpoint_url.")
_SILENT = Meaning(SourceUnavailable, "{endpoint} stopped answering", _LATER)
_CUT_OFF = Meaning(SourceUnavailable, "The connection to {endpoint} broke before the end of the response", _LATER)

_REDIRECTS = Meaning(
    SourceError,
    "{endpoint} redirects to another host, and requests with credentials follow no redirect",
    "`curl -I` with the endpoint's address shows where. If that is the right server, set `endpoint_url` to it.",
)

WORDS: dict[str, Meaning] = {
    # What a connection to `client.NOWHERE` ends with, the latter where the kernel has no IPv6.
    "Invalid argument": _REDIRECTS,
    "Address family not supported": _REDIRECTS,
    "non-partial response": _NO_RANGES,
    "Connection refused": REFUSED,
    "invalid list response": _NO_LISTING,
    "dns error": _UNRESOLVED,
    "failed to lookup address": _UNRESOLVED,
    "certificate": _UNTRUSTED,
    "InvalidContentType": _NO_TLS,
    "corrupt message": _NO_TLS,
    "builder error": Meaning(SourceError, "{endpoint} is no usable address", "It looks like https://host:port."),
    "TimedOut": _SILENT,
    "timed out": _SILENT,
    "error decoding response body": _CUT_OFF,
    "response body error": _CUT_OFF,
    "error sending request": Meaning(SourceUnavailable, "The connection to {endpoint} failed", _ANSWER),
}
"""By words of the HTTP client, the most exact first: several may stand in one text."""

_CODE = re.compile(r"(?:<Code>|An error occurred \()(\w+)")
_STATUS = re.compile(r"status code: (\d{3})")
_STATUS_LINE = re.compile(r"status code: (\d{3}(?: [A-Za-z' -]+)?)")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_LONGEST_MESSAGE = 300
_LONGEST_REDACTED = 2000
"""Characters of a server's message that are searched for secrets, since the search may be slow; the rest is cut."""
LONGEST_BODY = 1 << 16
"""Bytes of a response's body that are searched."""
_KNOWN_STATUSES = frozenset(http.HTTPStatus)
_BAD_PATH = re.compile(r'path: ("(?:[^"\\]|\\.)*")')


def explain(error: Exception, *, source: str, endpoint: str, key: str = "") -> StagegateError:
    """The typed error for what obstore raised about the object `key` of `source`."""
    text = str(error)
    meaning = _meaning(error, text)
    if meaning is None:
        # Responses and broken connections come as obstore's own errors or an OSError; a ValueError is the adapter's.
        kind = AdapterFailed if isinstance(error, ValueError) else SourceError
        return kind(f"{endpoint} {_summary(text)}{_server_message(text)}", source=source, object=key)
    if meaning is REFUSED:
        return refused(_address(endpoint), source=source, key=key)
    hint = _NO_ENDPOINT if meaning is _UNRESOLVED and endpoint == "AWS" else meaning.hint
    return meaning.kind(meaning.message.format(endpoint=endpoint), hint=hint, source=source, object=key)


def explain_response(
    status: int, headers: Mapping[str, str], body: bytes, *, source: str, endpoint: str, key: str = ""
) -> StagegateError:
    """The typed error for a response of another client than obstore.

    The names of headers may be in any case. `x-ms-error-code` is Azure's code, since a HEAD response has no body;
    Retry-After goes into a `SourceBusy`. The first `LONGEST_BODY` bytes of the body are searched. `key` is empty when
    the request named none.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    phrase = http.HTTPStatus(status).phrase if status in _KNOWN_STATUSES else ""
    code = f"<Code>{azure_code}</Code>" if (azure_code := lowered.get("x-ms-error-code")) else ""
    # Written in the form of obstore's errors, so that the same patterns and tables serve both.
    text = f"status code: {status} {phrase}: {code}{body[:LONGEST_BODY].decode(errors='replace')}"
    missing = bool(key) and status == http.HTTPStatus.NOT_FOUND
    error = explain(FileNotFoundError(text) if missing else OSError(text), source=source, endpoint=endpoint, key=key)
    if isinstance(error, SourceBusy):
        error.retry_after = retry_after(lowered)
    return error


def _meaning(error: Exception, text: str) -> Meaning | None:
    # The code first: servers use one status for several causes.
    if (code := _CODE.search(text)) and code[1] in CODES:
        return CODES[code[1]]
    if isinstance(error, FileNotFoundError):
        return _VANISHED
    if status := _STATUS.search(text):
        number = int(status[1])
        return STATUSES.get(number) or (_BROKEN if number >= 500 else None)  # noqa: PLR2004 - HTTP's own border
    return next((meaning for word, meaning in WORDS.items() if word in text), None)


def refused(address: str, *, source: str, key: str = "") -> SourceUnavailable:
    """The error for a server that refuses connections, the same for all kinds of sources.

    `address` is its host and port.
    """
    return SourceUnavailable(REFUSED.message.format(endpoint=address), hint=REFUSED.hint, source=source, object=key)


def _address(endpoint: str) -> str:
    """Host and port of an endpoint; an endpoint without an address (`AWS`, `memory`) stays as it is."""
    with suppress(SourceError):
        return origin_of(endpoint).address
    return endpoint


def cause_of(error: Exception) -> Exception:
    """What obstore raised, as the cause of a typed error, without the response's body, which may hold secrets."""
    return RedactedError(redact(f"{type(error).__name__}: the server {_summary(str(error))}")).with_traceback(
        error.__traceback__
    )


def _summary(text: str) -> str:
    """What the server did: the response's status, else obstore's words without what they quote of a response."""
    first = text.partition("\n")[0]
    if status_line := _STATUS_LINE.search(first):
        return f"answers {status_line[1]}"
    return "failed: " + _QUOTED.sub('"…"', first)


def _server_message(text: str) -> str:
    """The message of the error document that the server sent; empty when it sent none."""
    # Behind it obstore repeats its error in Rust's form.
    body = text.partition("\n\nDebug source")[0]
    document = body.find("<Error>")
    if document >= 0 and (message := _MESSAGE.search(body, document)):
        return _quoted(message[1])
    try:
        return _quoted(str(json.loads(body[body.index("{") :])["error"]["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _quoted(message: str) -> str:
    """A server's message without secrets, cut to its longest length."""
    if len(message) > _LONGEST_REDACTED:
        # At a blank: half a secret would not be recognized.
        message = message[:_LONGEST_REDACTED].rpartition(" ")[0]
    return f": {redact(message)[:_LONGEST_MESSAGE]}" if message else ""


def bad_key(error: Exception, *, source: str) -> SourceError:
    """The error for a listing that ends at a key which obstore refuses; it names the key."""
    name = _BAD_PATH.search(str(error))
    return SourceError(
        f"The source holds a key that no dataset may have: {name[1] if name else error}",
        hint="Rename the object, or set the source's `url:` to a folder without it.",
        source=source,
    )
