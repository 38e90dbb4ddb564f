"""Serves a table's bucket to deltalake on the loopback interface, through this package's HTTP client.

deltalake's own client follows redirects and checks no address, so the relay is the one endpoint that it reaches. Its
access key is a secret made for each relay: other processes of the machine are refused.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.sources.buckets.s3_source import S3Source
from prefect_stagegate.transport.http import Response

NOWHERE = "http://[fe80::1]:1"
"""A proxy that no connection reaches, and no packet is sent to: a link-local address without its interface."""
_CONDITIONS = ("Range", "If-Match")
_FORWARDED = ("content-range", "content-type", "etag", "last-modified")


class LogRelay(ThreadingHTTPServer):
    """Answers deltalake's requests for the bucket of `source` until `close`."""

    def __init__(self, source: S3Source) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._source, self._secret = source, secrets.token_hex(32)
        self.failure: StagegateError | None = None
        """Why a request failed last, which deltalake tells in words of its own."""
        threading.Thread(target=self.serve_forever, name="stagegate-log-relay", daemon=True).start()

    @property
    def options(self) -> dict[str, str]:
        """Options of deltalake that name the relay, and nothing else, as the place of the table."""
        return {
            "aws_endpoint": f"http://127.0.0.1:{self.server_port}",
            "aws_allow_http": "true",
            "aws_region": "us-east-1",
            "aws_virtual_hosted_style_request": "false",
            "aws_skip_signature": "false",
            "aws_access_key_id": self._secret,
            "aws_secret_access_key": self._secret,
            # Else it would reach the relay by the environment's proxy.
            "proxy_url": NOWHERE,
            "proxy_excludes": "127.0.0.1",
            # The requests behind the relay have limits and retries of their own.
            "timeout": "1d",
            "max_retries": "0",
        }

    def close(self) -> None:
        """Answer no further request."""
        self.shutdown()
        self.server_close()

    def answer(self, method: str, target: str, headers: Message) -> Response:
        """The response to one request of deltalake."""
        key = headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        if not hmac.compare_digest(key.encode(), self._secret.encode()):
            return Response(HTTPStatus.FORBIDDEN, {}, "")
        path, _, query = target.partition("?")
        conditions = {name: str(headers[name]) for name in _CONDITIONS if name in headers}
        try:
            response = self._source.forward(method, "/".join(("", *path.split("/")[2:])), query, conditions)
            # An object may be missing: deltalake looks for some. A missing bucket has no listing.
            if not response.is_success and (query or response.status != HTTPStatus.NOT_FOUND):
                raise self._source.refusal(response, "")
        except StagegateError as error:
            self.failure = error
            return Response(HTTPStatus.BAD_REQUEST, {}, "")
        return response


class _Handler(BaseHTTPRequestHandler):
    server: LogRelay
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_GET(self) -> None:
        response = self.server.answer(self.command, self.path, self.headers)
        self.send_response(response.status)
        for name in _FORWARDED:
            if name in response.headers:
                self.send_header(name, response.headers[name])
        is_head = self.command == "HEAD"
        length = response.headers.get("content-length", "0") if is_head else str(len(response.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if not is_head:
            self.wfile.write(response.body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Log nothing: deltalake's errors, or `failure`, say what went wrong."""
