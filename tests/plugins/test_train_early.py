"""The example that trains early in a run of MLflow, in the environment of `make test-torch`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.readmes import EXAMPLES, unlike


@pytest.mark.system
@pytest.mark.timeout(300)
def test_training_begins_early_and_its_run_knows_the_data(tmp_path: Path) -> None:
    path = f"{EXAMPLES.parent}/.torch/bin:{os.environ['PATH']}"
    assert unlike("train_early", tmp_path / "scans", PATH=path, PYTHONPATH=str(EXAMPLES.parent)) == []
    assert len((EXAMPLES / "train_early/train.py").read_text().splitlines()) <= 80
