"""Places that the contract of sources is tried on: folders below a server."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.testing.sources import Place

NOBODY = "127.0.0.1:1"
"""A port that nobody listens on."""
WIRE = "prefect_stagegate.transport.http.exchange.head_of"
"""Reads the head of an answer: what stands below it is the socket."""
RCLONE_LACKS = "\n\t"
"""rclone shows pictures of them instead."""


def folder(root: Path, url: str, **facts: object) -> Place:
    """A place whose objects are the files of a folder."""
    put, remove = partial(_write, root), lambda key: (root / key).unlink()
    return Place(url, put=put, remove=remove, **facts)  # type: ignore[arg-type]


def _write(root: Path, key: str, data: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(data)


def assert_refusal_is_told(url: str, options: dict[str, Any]) -> None:
    """Nobody listens at the port of a source's server: the error says what to do. `{}` stands for host and port."""
    address = f"127.0.0.1:{free_port()}"
    given = {name: value.format(address) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(SourceUnavailable) as caught:
        list(open_source(url.format(address), given).list())
    assert caught.value.message == f"Connection refused by {address}"
    assert caught.value.hint == "Check the server's address and port, and that it runs."
    assert caught.value.retryable
