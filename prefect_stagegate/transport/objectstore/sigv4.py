"""AWS Signature Version 4 in the headers of a request to S3.

Range and conditions are not signed, so a caller may add them. Neither is the empty body of a request that reads an
object (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html).
"""

from __future__ import annotations

import hashlib
import hmac
import time

ALGORITHM = "AWS4-HMAC-SHA256"
PAYLOAD = "UNSIGNED-PAYLOAD"
CHECKSUMS = "ENABLED"
"""Has a GET or HEAD response tell the checksum that the object was stored with."""


class SigV4Signer:
    """Signs requests with one access key. Safe to use from many threads.

    `token` is the session token of a temporary key; empty for a key without one.
    """

    def __init__(
        self, access_key: str, secret: str, *, region: str, token: str = "", requester_pays: bool = False
    ) -> None:
        self._access_key, self._secret, self._region = access_key, secret, region
        self._key: tuple[str, str, bytes] = ("", "", b"")
        self._dated: tuple[int, bytes, str, str, str, dict[str, str]] = (-1, b"", "", "", "", {})
        extra = {"x-amz-request-payer": "requester" if requester_pays else "", "x-amz-security-token": token}
        # The signature's rules collapse blanks, so they are collapsed in what is sent, too.
        self._extra = {name: " ".join(value.split()) for name, value in extra.items() if value}

    def headers(
        self, method: str, host: str, path: str, query: str = "", payload: str = "", *, now: float | None = None
    ) -> dict[str, str]:
        """The headers to send with a request. Never log them.

        Args:
            method: `GET`, `HEAD`, `PUT` or `DELETE`.
            host: The Host header: lower case, without the scheme's default port.
            path: The path as it goes on the wire, percent-encoded once.
            query: The query as it goes on the wire, its parameters sorted and encoded, each with its `=`.
            payload: The SHA-256 of the body; empty for a request that reads an object.
            now: Seconds since the epoch; None: the clock's.
        """
        second = int(time.time() if now is None else now)
        if payload:
            dated = self._date(second, {"x-amz-content-sha256": payload})
        else:
            dated = self._dated
            if dated[0] != second:
                # In one assignment, as below.
                fixed = {"x-amz-checksum-mode": CHECKSUMS, "x-amz-content-sha256": PAYLOAD}
                self._dated = dated = self._date(second, fixed)
        _, key, tail, head, authorization, fixed = dated
        request = f"{method}\n{path}\n{query}\nhost:{host}\n{tail}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(key, f"{head}{digest}".encode(), "sha256").hex()
        return {"Authorization": authorization + signature, **fixed}

    def _date(self, second: int, headers: dict[str, str]) -> tuple[int, bytes, str, str, str, dict[str, str]]:
        """What all requests of one second share: key, end of the request, beginning of what is signed, headers."""
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope, key = self._key_of(timestamp[:8])
        # The signature's rules want the names sorted, and so they are.
        headers = {**headers, "x-amz-date": timestamp, **self._extra}
        names = ";".join(("host", *headers))
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        tail = f"{lines}\n{names}\n{headers['x-amz-content-sha256']}"
        authorization = f"{ALGORITHM} Credential={self._access_key}/{scope}, SignedHeaders={names}, Signature="
        return second, key, tail, f"{ALGORITHM}\n{timestamp}\n{scope}\n", authorization, headers

    def _key_of(self, day: str) -> tuple[str, bytes]:
        """The scope and the signing key of a day, which is derived once."""
        cached, scope, key = self._key
        if cached != day:
            scope, key = f"{day}/{self._region}/s3/aws4_request", f"AWS4{self._secret}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = day, scope, key  # in one assignment: other threads see the old or the new one whole
        return scope, key
