"""HTTP servers of tests' own: on the loopback interface, in a thread, and quiet.

class Refusing(Handler):
    def do_GET(self) -> None:
        self.respond(500, b"no")

with http_server(Refusing) as url: …
with file_server(folder) as url: …
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Handler(BaseHTTPRequestHandler):
    """Answers requests, and logs none."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def read_body(self) -> bytes:
        """The request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def respond(self, status: int, body: Buffer = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a response; to HEAD, without its body."""
        self.send_response(status)
        for name, value in {"Content-Length": str(memoryview(body).nbytes), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class FileHandler(Handler, SimpleHTTPRequestHandler):
    """Python's own web server of files: it knows neither ranges nor etags."""


class Server(ThreadingHTTPServer):
    """A server of many clients, who may leave when they like."""

    request_queue_size = 128  # beyond it a connection's first packet is dropped, and sent again after seconds

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback when a client hangs up: many do when a response is damaged, or they have read enough."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def http_server(
    handler: Callable[..., BaseHTTPRequestHandler], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Run a server on a free port during the block; gives its URL, without a slash at its end."""
    with Server((host, 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"{'https' if tls else 'http'}://{host}:{server.server_port}"
        finally:
            server.shutdown()


def file_server(
    folder: Path, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AbstractContextManager[str]:
    """Serve a folder's files during the block; gives its URL, without a slash at its end."""
    return http_server(partial(FileHandler, directory=str(folder)), host, tls)


@contextmanager
def answering() -> Iterator[Callable[..., str]]:
    """Starts servers that give one answer to everything: each call gives the address of another one."""
    with ExitStack() as running:

        def serve(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> str:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if length is not None:
                sent["Content-Length"] = str(length)

            class Answering(Handler):
                def do_GET(self) -> None:
                    self.respond(status, body, sent)

                do_PROPFIND = do_HEAD = do_GET

            return running.enter_context(http_server(Answering))

        yield serve
