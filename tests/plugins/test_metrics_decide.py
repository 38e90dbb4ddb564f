"""The example in which metrics decide, on MLflow's own server, in the environment of `make test-trackers`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.readmes import EXAMPLES, unlike


@pytest.mark.system
@pytest.mark.timeout(900)
def test_poisoned_labels_are_refused_and_a_fall_goes_back(tmp_path: Path) -> None:
    path = f"{EXAMPLES.parent}/.trackers/bin:{os.environ['PATH']}"
    folder = tmp_path / "digits"
    environment = {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent), "MLFLOW_TRACKING_URI": "http://127.0.0.1:5077"}
    try:
        assert unlike("metrics_decide", folder, **environment) == []
    finally:
        with suppress(OSError, ValueError):
            os.kill(int((folder / "server.pid").read_text()), signal.SIGTERM)
