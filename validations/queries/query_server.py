"""Starts the process of each `queries` block: a server imports the libraries once, and forks; see `query_process`."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, ClassVar

from prefect_stagegate.validations.worker.confinement import environment

COMMAND = (sys.executable, "-P", "-m", "prefect_stagegate.validations.queries.query_process")


class QueryServer:
    """The server of this process, which ends with it or when unused for a while."""

    running: ClassVar[QueryServer | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, stderr: IO[bytes]) -> None:
        self.control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            variables = environment(os.environ, os.devnull)
            # A group of its own: a terminal's Ctrl-C is for this process.
            self.process = subprocess.Popen(
                COMMAND, stdin=theirs.fileno(), stdout=stderr, stderr=stderr, env=variables, process_group=0
            )
        QueryServer.running = self
        atexit.register(self.end)

    def end(self) -> None:
        """End it. The readers that it forked stay."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        QueryServer.running = None


class QueryReader:
    """A process that reads files of strangers. Its keeper kills it, and all that it started, for `end`."""

    def __init__(self, stderr: IO[bytes], seconds: float) -> None:
        """Have the server fork it; where that takes longer than `seconds`, it counts as dead."""
        with QueryServer.lock:
            # A server that runs may be about to end.
            if not ((server := QueryServer.running) and self._is_forked(server, stderr, seconds)):
                if server:
                    server.end()
                server = QueryServer(stderr)
                if not self._is_forked(server, stderr, seconds):
                    server.end()
        self.stream = self.channel.makefile("rwb")

    def _is_forked(self, server: QueryServer, stderr: IO[bytes], seconds: float) -> bool:
        self.channel, readers = socket.socketpair()
        self.keeper, keepers = socket.socketpair()
        self.keeper.settimeout(seconds)
        with suppress(OSError), readers, keepers:
            descriptors = [readers.fileno(), keepers.fileno(), stderr.fileno()]
            socket.send_fds(server.control, [b"fork"], descriptors)
        with suppress(OSError):
            if self.keeper.recv(1):
                self.keeper.settimeout(None)
                return True
        self.close()
        return False

    def send(self, line: bytes) -> None:
        """Send it a line; nothing where it died."""
        with suppress(OSError, ValueError):
            self.stream.write(line + b"\n")
            self.stream.flush()

    def read(self, most: int) -> bytes:
        """Read a line of at most so many bytes, or what it wrote of one before it ended."""
        with suppress(OSError, ValueError):
            return self.stream.readline(most)
        return b""

    def end(self) -> None:
        """Kill it with all that it started, and let no thread wait for its answer. Other threads may call it."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
            self.keeper.shutdown(socket.SHUT_WR)
            self.keeper.recv(1)

    def close(self) -> None:
        """End it, and close the sockets."""
        self.end()
        self.channel.close()
        self.keeper.close()
