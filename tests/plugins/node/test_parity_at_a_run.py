"""A run whose environment is another than the one that its gate accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_require_ready import RunScenario, failed, run, scenario

__all__ = ["scenario"]
pytestmark = pytest.mark.usefixtures("prefect_server")


def test_another_environment_is_compared_here_and_now(
    scenario: RunScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.production.append("parity_python")
    scenario.to_production("first")
    run(scenario.train().result)
    other = tmp_path / "site" / "intruder-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: intruder\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(other.parent))

    assert "intruder: 1.0 here, absent in pilot" in failed(scenario.train())
