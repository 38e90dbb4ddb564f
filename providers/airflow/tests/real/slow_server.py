"""A web server with small files that hands out one in every second, and counts."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class SlowServer:
    """The server of one folder.

    Attributes:
        url: Where the folder is.
        sent: How often each file was sent to its end.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.sent: Counter[str] = Counter()
        turn = threading.Lock()
        sent = self.sent

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def copyfile(self, source: Any, outputfile: Any) -> None:
                if self.path.endswith("/"):
                    super().copyfile(source, outputfile)
                    return
                with turn:
                    if self.is_gone():
                        return
                    time.sleep(seconds)
                    if not self.is_gone():
                        super().copyfile(source, outputfile)
                        sent[self.path] += 1

            def is_gone(self) -> bool:
                """Whether the client has closed the connection; what is sent to it then arrives nowhere."""
                readable, _, _ = select.select([self.connection], [], [], 0)
                try:
                    return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
                except OSError:
                    return True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@contextmanager
def slow_server(folder: Path, seconds: float = 1.0) -> Iterator[SlowServer]:
    """Serve a folder during the block."""
    slow = SlowServer(folder, seconds)
    thread = threading.Thread(target=slow.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield slow
    finally:
        slow.server.shutdown()
        slow.server.server_close()
        thread.join()
