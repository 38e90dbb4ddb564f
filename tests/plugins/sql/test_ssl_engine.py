"""A URL of PostgreSQL names no code."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import certifi
import pytest

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed


def test_a_url_names_no_ssl_engine(tmp_path: Path) -> None:
    """Libpq loads what stands before the colon of `sslkey` as a shared library."""
    with agreeing(tmp_path) as (address, engine, marker):
        parameters = f"sslmode=require&sslcert={certifi.where()}&sslkey={engine}:key"
        with pytest.raises(StagegateError) as caught:
            listed(open_source(f"postgresql://{address}/db?{parameters}#t"))
        assert not marker.exists()
    assert "SSL engine" in str(caught.value)


@contextmanager
def agreeing(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """A server that says yes to TLS as PostgreSQL does; a shared library; what is there once that is loaded."""
    marker, code = folder / "engine-ran", folder / "engine.c"
    code.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void run(void) {"
        f'close(open("{marker}", O_CREAT | O_WRONLY, 0600)); }}'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "engine.so", code], check=True)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say_yes() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                connection.recv(8)
                connection.sendall(b"S")
                connection.recv(1)

        threading.Thread(target=say_yes, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", folder / "engine.so", marker
