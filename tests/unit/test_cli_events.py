from __future__ import annotations

from pathlib import Path

import pytest

from prefect_stagegate.cli.reporting import api_is_configured

URL = "http://127.0.0.1:4200/api"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".prefect").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("profiles", "environment", "configured"),
    [
        ("", {}, False),
        ("", {"PREFECT_API_URL": URL}, True),
        (f"active = 'a'\n[profiles.a]\nPREFECT_API_URL = '{URL}'", {}, True),
        (f"active = 'b'\n[profiles.a]\nPREFECT_API_URL = '{URL}'\n[profiles.b]", {}, False),
        (f"active = 'b'\n[profiles.a]\nPREFECT_API_URL = '{URL}'", {"PREFECT_PROFILE": "a"}, True),
        ("active = 'ephemeral'\n[profiles.ephemeral]\nPREFECT_SERVER_ALLOW_EPHEMERAL_MODE = 'true'", {}, False),
        ("no TOML [", {}, False),
        ("profiles = 'none'", {}, False),
    ],
)
def test_an_api_counts_that_environment_or_profile_names(
    home: Path, monkeypatch: pytest.MonkeyPatch, profiles: str, environment: dict[str, str], configured: bool
) -> None:
    (home / ".prefect/profiles.toml").write_text(profiles)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert api_is_configured() == configured
