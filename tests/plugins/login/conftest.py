"""A provider, and a server where one logs in at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefect_stagegate.workspace import Workspace
from tests.plugins.login.login_server import Browser, login_server
from tests.plugins.login.lying_provider import SECRET, LyingProvider, lying_provider
from tests.support.changed_settings import change_settings
from tests.support.keys import new_key
from tests.support.scenario import Scenario


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A node with a key, and the secret of its client."""
    new_key(tmp_path / "key.pem")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    node = Scenario(tmp_path).node()
    return change_settings(node, signing_key=tmp_path / "key.pem", oidc_client_secret_file=tmp_path / "secret")


@pytest.fixture
def provider() -> Iterator[LyingProvider]:
    """A provider that tells the truth, until a test changes that."""
    with lying_provider() as provider:
        yield provider


@pytest.fixture
def url(workspace: Workspace, provider: LyingProvider) -> Iterator[str]:
    """The pages, where one logs in at the provider."""
    with login_server(workspace, "oidc", provider.issuer) as url:
        yield url


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass for sessions and logins."""
    passed = [0.0]
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(passed))
    for module in ("expiring", "oidc_login"):
        monkeypatch.setattr(f"prefect_stagegate.plugins.login.{module}.time", later)
    return passed.append


@pytest.fixture
def browser() -> Browser:
    """A browser that never was here."""
    return Browser()
