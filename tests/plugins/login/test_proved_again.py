"""Forms of somebody who is logged in: the provider says anew who they are, and in which groups."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.plugins.login.login_server import SESSION, Browser
from tests.plugins.login.lying_provider import ACCESS_TOKEN, LyingProvider

INES = "ines@example.org"


def sent(browser: Browser, url: str) -> dict[str, Any]:
    """What the pages know of who sends a form."""
    response = browser.post(f"{url}/datasets")
    assert response.status == 200, response.body
    seen: dict[str, Any] = json.loads(response.body)
    return seen


@pytest.mark.parametrize("groups", [["staff"], [], None])
def test_group_that_vanished_since_the_login_is_gone(
    url: str, provider: LyingProvider, browser: Browser, groups: list[str] | None
) -> None:
    before = json.loads(browser.get(f"{url}/login").body)
    provider.user_info = {"groups": groups}
    now = sent(browser, url)
    assert (before["groups"], now["groups"]) == (["approvers"], groups or [])
    assert now["at"] == before["at"]
    assert now["secret"] == before["secret"]


def test_group_that_came_since_the_login_counts(url: str, provider: LyingProvider, browser: Browser) -> None:
    browser.get(f"{url}/login")
    provider.user_info = {"groups": ["approvers", "admins"]}
    assert sent(browser, url)["groups"] == ["approvers", "admins"]


def test_reading_asks_no_provider(url: str, provider: LyingProvider, browser: Browser) -> None:
    browser.get(f"{url}/login")
    provider.requests.clear()
    browser.sees(f"{url}/datasets")
    assert provider.requests == []
    sent(browser, url)
    assert provider.requests == ["/userinfo"]
    assert Browser().post(f"{url}/datasets").status == 200  # the pages refuse it: nobody is logged in
    assert provider.requests == ["/userinfo"]


@pytest.mark.parametrize("lie", [401, 403, "somebody else"])
def test_login_that_the_provider_ended_ends(
    url: str, provider: LyingProvider, browser: Browser, lie: int | str
) -> None:
    browser.get(f"{url}/login")
    if isinstance(lie, int):
        provider.answers["/userinfo"] = JSONResponse({}, lie)
    else:
        provider.user_info = {"sub": lie}
    response = browser.post(f"{url}/datasets")
    assert response.status == 403
    assert b"Nothing was done. The provider" in response.body
    assert b"Log in again." in response.body
    assert browser.sees(f"{url}/")["name"] is None


@pytest.mark.parametrize("lie", [JSONResponse({}, 500), JSONResponse([]), RedirectResponse("/jwks"), None])
def test_form_is_refused_while_the_provider_is_away(
    url: str, provider: LyingProvider, browser: Browser, lie: Response | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.login.provider.ANSWER_SECONDS", 1.0)
    browser.get(f"{url}/login")
    if lie:
        provider.answers["/userinfo"] = lie
    else:
        provider.hangs = "/userinfo"
    for _ in range(2):
        response = browser.post(f"{url}/datasets")
        assert response.status == 503
        assert response.body.count(b"Nothing was done.") == 1
        assert browser.sees(f"{url}/")["name"] == INES
    provider.answers.clear()
    provider.hangs = ""
    assert sent(browser, url)["groups"] == ["approvers"]


@pytest.mark.parametrize("lies", [{"document": {"userinfo_endpoint": None}}, {"user_info": {"groups": None}}])
def test_groups_of_an_id_token_count_for_a_quarter_of_an_hour(
    url: str, provider: LyingProvider, browser: Browser, lies: dict[str, Any], clock: Callable[[float], None]
) -> None:
    for name, value in lies.items():
        setattr(provider, name, value)
    browser.get(f"{url}/login")
    clock(890)
    now = sent(browser, url)
    assert (now["groups"], now["hint"]) == (["approvers"], "")
    clock(20)
    now = sent(browser, url)
    assert (now["name"], now["groups"]) == (INES, [])
    assert "log in again" in now["hint"]


def test_groups_of_user_info_need_no_new_login(url: str, browser: Browser, clock: Callable[[float], None]) -> None:
    browser.get(f"{url}/login")
    clock(1000)
    now = sent(browser, url)
    assert (now["groups"], now["hint"]) == (["approvers"], "")


def test_another_name_since_the_login_needs_the_page_anew(url: str, provider: LyingProvider, browser: Browser) -> None:
    before = json.loads(browser.get(f"{url}/login").body)
    provider.user_info = {"email": "ines.new@example.org"}
    now = sent(browser, url)
    assert now["name"] == "ines.new@example.org"
    assert now["secret"] != before["secret"]  # so that no form counts which showed the earlier name


@pytest.mark.parametrize(
    "told",
    [{"email": "eva@example.org", "email_verified": None}, {"email_verified": False}, {"email": None}],
)
def test_address_is_verified_by_what_says_it(
    url: str, provider: LyingProvider, browser: Browser, told: dict[str, Any]
) -> None:
    provider.user_info = told
    seen = json.loads(browser.get(f"{url}/login").body)
    assert seen["name"] == f"{provider.issuer}#248289761001"


def test_user_info_alone_may_have_address_and_groups(url: str, provider: LyingProvider, browser: Browser) -> None:
    provider.claims = dict.fromkeys(("email", "email_verified", "groups"))
    provider.user_info = {"email": INES, "email_verified": True, "groups": ["approvers"]}
    seen = json.loads(browser.get(f"{url}/login").body)
    assert (seen["name"], seen["groups"]) == (INES, ["approvers"])


@pytest.mark.parametrize("token", [None, "", "a\r\nX: y", ["a"]])
def test_no_odd_access_token_is_sent(url: str, provider: LyingProvider, browser: Browser, token: object) -> None:
    provider.tokens = {"access_token": token}
    seen = json.loads(browser.get(f"{url}/login").body)
    assert (seen["name"], seen["groups"]) == (INES, ["approvers"])
    assert "/userinfo" not in provider.requests


def test_access_token_is_in_no_log(
    url: str, provider: LyingProvider, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        browser.get(f"{url}/login")
        for answer in (JSONResponse({"error": ACCESS_TOKEN}, 500), JSONResponse({}, 401)):
            provider.answers["/userinfo"] = answer
            assert ACCESS_TOKEN.encode() not in browser.post(f"{url}/datasets").body
    assert SESSION in browser.cookies
    assert "login refused" in caplog.text
    assert ACCESS_TOKEN not in caplog.text
