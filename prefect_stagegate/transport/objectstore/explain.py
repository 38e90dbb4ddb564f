"""Turns an object store's response into one of this package's typed errors: by its error code, else by its status."""

from __future__ import annotations

import http
import json
import re
from dataclasses import dataclass

from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.redaction import redact
from prefect_stagegate.transport.http import Response, retry_after
from prefect_stagegate.transport.http.request_policy import REDIRECT_STATUSES


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

_REDIRECTS = Meaning(
    SourceError,
    "{endpoint} redirects to another host, and requests with credentials follow no redirect",
    "`curl -I` with the endpoint's address shows where. If that is the right server, set `endpoint_url` to it.",
)

_CODE = re.compile(r"<Code>(\w+)")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_LONGEST_MESSAGE = 300
_LONGEST_REDACTED = 2000
"""Characters of a server's message that are searched for secrets, since the search may be slow; the rest is cut."""
LONGEST_BODY = 1 << 16
"""Bytes of a response's body that are searched."""
_KNOWN_STATUSES = frozenset(http.HTTPStatus)


def explain_response(response: Response, *, source: str, endpoint: str, key: str = "") -> StagegateError:
    """The typed error for a response of 300 or above to a request about the object `key`, or about the bucket.

    `x-ms-error-code` is Azure's code, since a HEAD response has no body; Retry-After goes into a `SourceBusy`. The
    first `LONGEST_BODY` bytes of the body are searched.
    """
    headers, body = response.headers, bytes(response.body[:LONGEST_BODY]).decode(errors="replace")
    meaning = _meaning(
        response.status, headers.get("x-ms-error-code", ""), body, redirects="location" in headers, key=key
    )
    if meaning is None:
        phrase = http.HTTPStatus(response.status).phrase if response.status in _KNOWN_STATUSES else ""
        answer = f"{response.status} {phrase}".strip()
        return SourceError(f"{endpoint} answers {answer}{_server_message(body)}", source=source, object=key)
    error = meaning.kind(meaning.message.format(endpoint=endpoint), hint=meaning.hint, source=source, object=key)
    if isinstance(error, SourceBusy):
        error.retry_after = retry_after(headers)
    return error


def _meaning(status: int, azure_code: str, body: str, *, redirects: bool, key: str) -> Meaning | None:
    # The code first: servers use one status for several causes.
    code = azure_code or ((match := _CODE.search(body)) and match[1])
    if code in CODES:
        return CODES[code]
    if redirects and status in REDIRECT_STATUSES:
        return _REDIRECTS
    if key and status == http.HTTPStatus.NOT_FOUND:
        return _VANISHED
    return STATUSES.get(status) or (_BROKEN if status >= 500 else None)  # noqa: PLR2004 - HTTP's own border


def _server_message(body: str) -> str:
    """The message of the error document that the server sent; empty when it sent none."""
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
