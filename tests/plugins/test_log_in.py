"""Logging in to the pages of `stagegate serve`, as a person does it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address, DecisionOutcome
from prefect_stagegate.plugins.pages.server import serve_pages
from prefect_stagegate.testing.servers import free_port
from tests.plugins.answer_server import answers_to, hidden, request_path
from tests.plugins.login.glewlwyd import PASSWORD, USER, glewlwyd
from tests.plugins.login.login_server import SESSION, Browser
from tests.plugins.login.lying_provider import SECRET, LyingProvider, lying_provider
from tests.support.browser import chromium, opened
from tests.support.keys import new_key
from tests.support.scenario import OWNERS, Scenario

NAME = "ines@example.org"


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path)
    scenario.deliver("one")
    new_key(tmp_path / "key.pem")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    return scenario


@pytest.fixture
def provider() -> Iterator[LyingProvider]:
    with lying_provider() as provider:
        yield provider


@contextmanager
def serving(scenario: Scenario, *words: str, bind: str = "127.0.0.1:0") -> Iterator[str]:
    """Run the command; gives the pages' URL without a slash at its end."""
    settings = scenario.environment(
        STAGEGATE_SIGNING_KEY=str(scenario.folder / "key.pem"),
        STAGEGATE_OIDC_CLIENT_SECRET_FILE=str(scenario.folder / "secret"),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_stagegate", "serve", "--bind", bind, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(scenario.folder), **settings},
    )
    try:
        assert process.stdout
        yield process.stdout.readline().split(" at ")[1].strip().rstrip("/")
    finally:
        process.kill()
        process.communicate()


def text_of(browser: Browser, url: str) -> str:
    return browser.get(url).body.decode()


def test_pages_show_who_is_logged_in(scenario: Scenario, provider: LyingProvider) -> None:
    browser = Browser()
    with serving(scenario, "--oidc", provider.issuer) as url:
        page = text_of(browser, f"{url}/datasets/things?page=1")
        (link,) = re.findall(r'<a href="(/login\?next=[^"]+)">Log in</a>', page)
        page = text_of(browser, f"{url}{link}")
        assert browser.visited[-1] == f"{url}/datasets/things?page=1"
        assert NAME in page
        assert browser.get(f"{url}/datasets").headers["cache-control"] == "no-store"
        (token,) = re.findall(r'name="token" value="([0-9a-f]{64})"><button>Log out', page)
        assert browser.post(f"{url}/logout", token=token).status == 200
        page = text_of(browser, f"{url}/datasets/things")
        assert NAME not in page
        assert ">Log in</a>" in page
        assert browser.send("POST", f"{url}/login").status == 405


def test_proxy_names_the_person_on_the_pages(scenario: Scenario) -> None:
    browser = Browser()
    with serving(scenario, "--trusted-header", "X-Forwarded-Email", "--trusted-proxy", "127.0.0.1") as url:
        page = browser.get(url, {"X-Forwarded-Email": NAME}).body.decode()
        assert NAME in page
        assert "Log out" not in page
        assert "Log in" not in text_of(browser, url)


def test_answers_of_people_who_logged_in_count(tmp_path: Path, provider: LyingProvider) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    logins = {"keys": [new_key(tmp_path / "key.pem").public], "groups": {"infra": ["approvers"]}}
    approval = {"count": 1, "from": ["infra"], "proof": "login", "logins": logins}
    gates = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": [{"approval": approval}]}}
    scenario = Scenario(tmp_path, gates=gates, owners=OWNERS | {"infra": "nobody@example.org"})
    scenario.deliver("one")
    scenario.promote("pilot")
    assert check(scenario.node(), Address("things", "latest"), "production").outcome is DecisionOutcome.WAITING
    path = request_path(scenario.node())
    with serving(scenario, "--oidc", provider.issuer) as url:
        # Two, since the name of whoever asked is only declared.
        for person in ("ines", "eva"):
            provider.claims = {"sub": person, "email": f"{person}@example.org"}
            browser = Browser()
            page = text_of(browser, f"{url}/login?next={path}")
            fields = dict(hidden(page)) | {"answer": "approve", "reason": "seen"}
            assert browser.post(f"{url}{path}", {"Origin": url}, **fields).status == 303, page
    decision = check(scenario.node(), Address("things", "latest"), "production")
    assert decision.outcome is DecisionOutcome.ACCEPTED, decision
    answers = answers_to(scenario.node(), path)
    assert [(answer.approver.name, answer.approver.source) for answer in answers] == [
        ("ines@example.org", "login"),
        ("eva@example.org", "login"),
    ]


def test_programs_read_by_tokens_where_people_log_in(
    scenario: Scenario, provider: LyingProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scenario.run("token", "create", "--for", "ci") == 0
    (token,) = re.findall(r"sgt_\S+", capsys.readouterr().out)
    with serving(scenario, "--oidc", provider.issuer, "--login-required") as url:
        assert Browser().get(f"{url}/metrics").status == 401
        assert Browser().get(f"{url}/metrics", {"Authorization": f"Bearer {token}"}).status == 200


@pytest.mark.parametrize(
    ("login", "message"),
    [
        (("oidc", "https://login.example.org"), "Logins need a key"),
        (("saml", "https://login.example.org"), "--saml needs a plugin that is not installed"),
        ((), "--login-required needs a way to log in"),
    ],
)
def test_logins_that_can_t_work_are_refused(tmp_path: Path, login: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        serve_pages(Scenario(tmp_path).node(), "0.0.0.0:0", login=login, login_required=True)
    assert message in str(refused.value)


@pytest.mark.parametrize("words", [("--trusted-header", "X-Name"), ("--trusted-proxy", "127.0.0.1")])
def test_half_a_proxy_is_refused(
    scenario: Scenario, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scenario.run("serve", *words) == 2
    assert "--trusted-header together with --trusted-proxy" in capsys.readouterr().err


@pytest.mark.system
def test_browser_logs_in_and_out(scenario: Scenario, provider: LyingProvider) -> None:
    with (
        serving(scenario, "--oidc", provider.issuer, "--login-required") as url,
        chromium() as browser,
        opened(browser, f"{url}/datasets") as shown,
    ):
        page = shown.page
        assert page.url == f"{url}/datasets"
        assert page.locator("li.visitor").text_content() == NAME
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        assert cookies[SESSION]["secure"]
        assert cookies[SESSION]["httpOnly"]
        assert page.evaluate("() => document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{url}/logout")
        assert page.get_by_role("heading").text_content() == "You are logged out"
        assert page.get_by_role("link", name="Log out there, too").get_attribute("href").startswith(provider.issuer)  # type: ignore[union-attr]
        assert SESSION not in {cookie["name"] for cookie in page.context.cookies()}
        assert [text for text in shown.complaints if not text.startswith(provider.issuer)] == []
        assert shown.violations() == []


@pytest.mark.system
def test_browser_logs_in_at_a_real_provider(scenario: Scenario) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with (
        glewlwyd(scenario.folder / "provider", f"http://{bind}/login/callback") as provider,
        serving(scenario, "--oidc", provider.issuer, bind=bind) as url,
        chromium() as browser,
        opened(browser, f"{url}/datasets") as shown,
    ):
        page = shown.page
        page.get_by_role("link", name="Log in").click()
        page.wait_for_url(re.compile("login.html"))
        page.fill("#username", USER)
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_label("email").check()
        page.get_by_role("button", name="Grant access").click()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"{url}/datasets")
        assert page.locator("li.visitor").text_content() == NAME
