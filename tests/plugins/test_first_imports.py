"""Modules of plugins that a process may import before all others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prefect_stagegate.doors import declared


@pytest.mark.parametrize("module", sorted({place.partition(":")[0] for place in declared("spec_keys").values()}))
def test_module_of_spec_keys_may_be_the_first_import(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, timeout=60)
