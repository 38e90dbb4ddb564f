"""Sessions after a login: how they begin, end, and whom they belong to."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_stagegate.doors import LoginOptions
from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.plugins.login.expiring import Expiring
from prefect_stagegate.plugins.login.oidc_login import MAX_SESSIONS_EACH, OidcLogin
from prefect_stagegate.workspace import Workspace
from tests.plugins.login.login_server import SESSION, Browser, login_server, pages
from tests.plugins.login.lying_provider import ACCESS_TOKEN, SECRET, LyingProvider
from tests.support.changed_settings import change_settings


def test_logout_ends_the_session_on_the_server(url: str, browser: Browser) -> None:
    browser.get(f"{url}/login")
    stolen = browser.cookies[SESSION]
    response = browser.post(f"{url}/logout", token=browser.sees(f"{url}/")["logout"])
    assert response.status == 200
    assert SESSION not in browser.cookies
    thief = Browser()
    thief.cookies[SESSION] = stolen
    assert thief.sees(f"{url}/")["name"] is None


def test_logout_leads_to_the_logout_of_the_provider(url: str, provider: LyingProvider, browser: Browser) -> None:
    browser.get(f"{url}/login")
    page = browser.post(f"{url}/logout", token=browser.sees(f"{url}/")["logout"]).body.decode()
    assert f'<a href="{provider.issuer}/logout?id_token_hint=' in page
    assert "post_logout_redirect_uri=http%3A%2F%2F127.0.0.1" in page


@pytest.mark.parametrize("endpoint", [None, "javascript:alert(1)", "http://login.example.org/out"])
def test_odd_logout_of_the_provider_is_not_shown(
    url: str, provider: LyingProvider, browser: Browser, endpoint: str | None
) -> None:
    provider.document = {"end_session_endpoint": endpoint}
    browser.get(f"{url}/login")
    page = browser.post(f"{url}/logout", token=browser.sees(f"{url}/")["logout"]).body.decode()
    assert "You are logged out" in page
    assert "there, too" not in page


@pytest.mark.parametrize("token", ["", "0" * 64, "ü"])
def test_form_of_another_page_logs_nobody_out(url: str, browser: Browser, token: str) -> None:
    browser.get(f"{url}/login")
    assert browser.post(f"{url}/logout", token=token).status == 403
    assert browser.sees(f"{url}/")["name"] == "ines@example.org"


def test_large_form_logs_nobody_out(url: str, browser: Browser) -> None:
    browser.get(f"{url}/login")
    assert browser.post(f"{url}/logout", token="x" * 70_000).status == 413


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/login"), ("HEAD", "/login/callback"), ("GET", "/logout")])
def test_other_methods_do_nothing(url: str, browser: Browser, method: str, path: str) -> None:
    browser.get(f"{url}/login")
    assert browser.send(method, f"{url}{path}").status == 405
    assert browser.sees(f"{url}/")["name"] == "ines@example.org"


def test_login_gives_a_new_session_name(url: str, browser: Browser) -> None:
    # Somebody may have put a name that they know into this browser.
    attacker = Browser()
    attacker.get(f"{url}/login")
    known = attacker.cookies[SESSION]
    browser.cookies[SESSION] = known
    browser.get(f"{url}/login")
    assert browser.cookies[SESSION] != known
    assert attacker.sees(f"{url}/")["name"] is None


def test_made_up_session_name_is_nobodys(url: str, browser: Browser) -> None:
    browser.cookies[SESSION] = "A" * 43
    assert browser.sees(f"{url}/")["name"] is None
    browser.get(f"{url}/login")
    assert browser.cookies[SESSION] != "A" * 43


def test_idle_session_ends(url: str, browser: Browser, clock: Callable[[float], None]) -> None:
    browser.get(f"{url}/login")
    for _ in range(3):
        clock(1700)
        assert browser.sees(f"{url}/")["name"] == "ines@example.org"
    clock(1900)
    assert browser.sees(f"{url}/")["name"] is None


def test_session_ends_though_it_is_used(url: str, browser: Browser, clock: Callable[[float], None]) -> None:
    browser.get(f"{url}/login")
    for _ in range(17):
        clock(1690)
        assert browser.sees(f"{url}/")["name"] == "ines@example.org"
    clock(1690)
    assert browser.sees(f"{url}/")["name"] is None


def test_sessions_have_secrets_of_their_own(url: str, browser: Browser) -> None:
    browser.get(f"{url}/login")
    other = Browser()
    other.get(f"{url}/login")
    assert browser.sees(f"{url}/")["secret"] != other.sees(f"{url}/")["secret"]


def test_sessions_of_one_person_are_bounded(url: str, provider: LyingProvider) -> None:
    browsers = [Browser() for _ in range(MAX_SESSIONS_EACH + 2)]
    for number, browser in enumerate(browsers):
        provider.claims = {"sub": "eva", "email": "eva@example.org"} if number == 1 else {}
        browser.get(f"{url}/login")
    names = [browser.sees(f"{url}/")["name"] for browser in browsers]
    assert names == [None, "eva@example.org", *["ines@example.org"] * MAX_SESSIONS_EACH]


def test_values_under_names_are_bounded() -> None:
    values: Expiring[int] = Expiring(60, 3)
    names = [values.put(number) for number in range(5)]
    assert [values.get(name) for name in names] == [None, None, 2, 3, 4]
    assert len(values) == 3


def test_base_path_is_kept(workspace: Workspace, provider: LyingProvider, browser: Browser) -> None:
    with login_server(workspace, "oidc", provider.issuer, base="/stagegate") as url:
        browser.get(f"{url}/login?next=/datasets")
        assert browser.visited[-1] == f"{url}/datasets"
        page = browser.post(f"{url}/logout", token=browser.sees(f"{url}/")["logout"]).body.decode()
        assert 'href="/stagegate/login"' in page


def test_strangers_read_nothing_where_login_is_required(
    workspace: Workspace, provider: LyingProvider, browser: Browser
) -> None:
    with login_server(workspace, "oidc", provider.issuer, required=True) as url:
        assert browser.get(f"{url}/metrics").status == 401
        refused = browser.get(f"{url}/datasets?page=2", {"Accept": "text/html,*/*"}, follow=False)
        assert (refused.status, refused.headers["location"]) == (303, "/login?next=/datasets%3Fpage%3D2")
        assert browser.sees(f"{url}/style.css")["name"] is None
        assert json.loads(browser.get(url + refused.headers["location"]).body)["name"] == "ines@example.org"
        assert browser.visited[-1] == f"{url}/datasets?page=2"


def test_logins_and_refusals_are_recorded_without_secrets(
    url: str, provider: LyingProvider, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "prefect_stagegate.plugins.login"):
        browser.get(f"{url}/login")
        browser.post(f"{url}/datasets")
        browser.post(f"{url}/logout", token=browser.sees(f"{url}/")["logout"])
        provider.claims = {"aud": "another"}
        browser.get(f"{url}/login")
    lines = [message for name, _, message in caplog.record_tuples if name.endswith("login.logged_in")]
    assert [line.partition(":")[0] for line in lines] == ["login", "logout", "login refused"]
    assert json.loads(lines[0].partition(": ")[2]) == {
        "from": "127.0.0.1",
        "who": "ines@example.org",
        "issuer": provider.issuer,
        "subject": "248289761001",
    }
    secrets = [SECRET, ACCESS_TOKEN, *browser.cookies.values()]
    for visited in browser.visited:
        secrets += [part.partition("=")[2] for part in visited.partition("?")[2].split("&") if len(part) > 30]
    assert not [secret for secret in secrets if secret and secret in caplog.text and "http" not in secret]


@pytest.mark.parametrize(
    ("issuer", "message"),
    [
        ("http://login.example.org", "it has no TLS"),
        ("ftp://login.example.org", "can't be an OpenID provider"),
        ("login.example.org", "can't be an OpenID provider"),
        ("https://login example.org", "it is no URL"),
    ],
)
def test_provider_without_tls_is_refused(workspace: Workspace, issuer: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OidcLogin(pages, LoginOptions(workspace, "", False, (issuer,)))


def test_pages_without_tls_are_refused(workspace: Workspace) -> None:
    workspace = change_settings(workspace, pages_url="http://data.example.org/")
    with pytest.raises(UsageError, match="without TLS"):
        OidcLogin(pages, LoginOptions(workspace, "", False, ("https://login.example.org",)))


def test_server_without_a_key_is_refused(workspace: Workspace) -> None:
    workspace = change_settings(workspace, signing_key=None)
    with pytest.raises(UsageError) as refused:
        OidcLogin(pages, LoginOptions(workspace, "", False, ("https://login.example.org",)))
    assert "stagegate key" in refused.value.hint


def test_server_for_others_without_its_address_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError) as refused:
        OidcLogin(pages, LoginOptions(workspace, "", False, ("https://login.example.org",), is_local=False))
    assert "STAGEGATE_PAGES_URL" in refused.value.hint


def test_secret_that_others_read_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(UsageError, match="Everybody may read"):
        OidcLogin(pages, LoginOptions(workspace, "", False, ("https://login.example.org",)))


def test_missing_library_is_told_with_its_extra(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prefect_stagegate.plugins.login.provider", raising=False)
    monkeypatch.setitem(sys.modules, "authlib.oauth2.client", None)
    with pytest.raises(MissingExtra) as refused:
        OidcLogin(pages, LoginOptions(workspace, "", False, ("https://login.example.org",)))
    assert refused.value.hint == 'Install it: pip install "prefect-stagegate[login]"'


def test_pages_url_is_where_one_comes_back(workspace: Workspace, provider: LyingProvider, browser: Browser) -> None:
    workspace = change_settings(workspace, pages_url="https://data.example.org/stagegate/")
    with login_server(workspace, "oidc", provider.issuer, base="/stagegate") as url:
        location = browser.get(f"{url}/login", {"Host": "evil.example"}, follow=False).headers["location"]
        assert "redirect_uri=https%3A%2F%2Fdata.example.org%2Fstagegate%2Flogin%2Fcallback" in location


def test_unknown_address_of_the_server_is_refused(url: str, browser: Browser) -> None:
    assert browser.get(f"{url}/login", {"Host": "evil.example"}, follow=False).status == 503
