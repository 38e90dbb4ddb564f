"""Logging in at Glewlwyd, a real OpenID provider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefect_stagegate.workspace import Workspace
from tests.plugins.login.glewlwyd import glewlwyd
from tests.plugins.login.login_server import Browser, login_server
from tests.support.changed_settings import change_settings


@pytest.mark.system
def test_real_provider_logs_somebody_in(workspace: Workspace, tmp_path: Path, browser: Browser) -> None:
    # The address under which people find the pages: the provider sends browsers back there alone.
    workspace = change_settings(workspace, pages_url="http://localhost:8445/")
    with (
        glewlwyd(tmp_path / "provider", "http://localhost:8445/login/callback") as provider,
        login_server(workspace, "oidc", provider.issuer) as url,
    ):
        start = browser.get(f"{url}/login?next=/datasets", follow=False).headers["location"]
        back = provider.log_in(start)
        assert back.startswith("http://localhost:8445/login/callback?")
        seen = json.loads(browser.get(back.replace("http://localhost:8445", url)).body)
        assert (seen["name"], seen["path"], seen["issuer"]) == ("ines@example.org", "/datasets", provider.issuer)
        assert seen["groups"] == ["approvers", "data"]
        provider.set_groups("data")
        assert json.loads(browser.post(f"{url}/datasets").body)["groups"] == ["data"]
        assert browser.sees(f"{url}/")["groups"] == ["data"]
        # It takes no code twice.
        assert browser.get(back.replace("http://localhost:8445", url)).status == 400
        page = browser.post(f"{url}/logout", token=seen["logout"]).body.decode()
        assert f'<a href="{provider.issuer}/end_session?id_token_hint=' in page
        assert browser.sees(f"{url}/")["name"] is None
