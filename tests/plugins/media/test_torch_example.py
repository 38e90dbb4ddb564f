"""The example of images, trained on by Debian's PyTorch: that of PyPI brings gigabytes of CUDA."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.readmes import unlike


@pytest.mark.system
@pytest.mark.timeout(400)
def test_broken_image_never_meets_the_training(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to("/usr/bin/python3")
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert unlike("images_to_torch", tmp_path / "digits", PATH=path) == []
