"""What lets many cases fit into the time: retries that come soon and memory for a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate.transport.transfer import retry


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that come soon."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(retry, "LONGEST_RETRY_AFTER", 0.02)
    monkeypatch.setattr(retry, "TRIES", 2)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for what each case makes anew, in memory where that can be had."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
