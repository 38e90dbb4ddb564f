"""A source whose object never ends, for what is ended in the middle of a staging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIZE = 100_000_000


class Dripping(BaseHTTPRequestHandler):
    """Answers with an object of 100 MB that never ends."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.send_header("ETag", '"1"')
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        try:
            for _ in range(600):
                self.wfile.write(b"x" * 100)
                time.sleep(0.1)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def endless_source() -> Iterator[str]:
    """The URL of an object that never ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/object.bin"
    finally:
        server.shutdown()


def wait_until(condition: Callable[[], object], seconds: float = 30) -> float:
    """Wait for a condition; returns the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "it took too long"
        time.sleep(0.05)
    return time.monotonic() - start
