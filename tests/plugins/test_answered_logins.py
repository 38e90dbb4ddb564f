"""Answers of people who logged in: what is recorded, whose group counts, and that a waiting run goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_stagegate.doors import PageRequest, Visitor
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.approve import open_request
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.answers import request_page
from prefect_stagegate.plugins.login.logged_in import LoggedInPerson
from prefect_stagegate.workspace import Workspace
from tests.integration import test_approval as runs
from tests.plugins.answer_server import answers_to, hidden, request_path
from tests.plugins.login.login_server import Browser
from tests.plugins.login.lying_provider import SECRET, lying_provider
from tests.plugins.test_log_in import serving
from tests.support.keys import new_key
from tests.support.scenario import INES, Scenario

platform = runs.platform
ISSUER = "https://login.example.org"
OLA, KIM = "ola@example.org", "kim@example.org"


class LoginScenario(Scenario):
    """A gate that counts members of the provider's group `platform`, by their logins."""

    def __init__(self, folder: Path, key: str = "server.pem") -> None:
        self.key = new_key(folder / key)
        logins = {"keys": [self.key.public], "groups": {"infra": ["platform"]}}
        approval = {"approval": {"count": 1, "from": ["infra"], "proof": "login", "logins": logins}}
        gates: dict[str, Any] = {"pilot": {"require": ["license"]}}
        super().__init__(folder, gates=gates | {"production": {"extends": "pilot", "require": [approval]}})

    def visitor(self, name: str, *groups: str) -> Visitor:
        return LoggedInPerson(name, ISSUER, f"subject of {name}", groups).visitor(self.key, "secret")

    def sent(self, visitor: Visitor, **form: str) -> PageRequest:
        return sent(self.node(), visitor, open_request(self.node(), Address("things"), "production").id, **form)


def sent(workspace: Workspace, visitor: Visitor, request: str, **form: str) -> PageRequest:
    names = {"dataset": "things", "target": "production", "request": request}
    return PageRequest(workspace, names, "", print, print, visitor, "", form)


@pytest.fixture
def scenario(tmp_path: Path) -> LoginScenario:
    return waiting(LoginScenario(tmp_path))


def waiting(scenario: LoginScenario) -> LoginScenario:
    """Ask for an approval."""
    scenario.deliver("one")
    scenario.promote("pilot")
    check(scenario.node(), Address("things"), "production")
    return scenario


def test_logged_in_members_are_counted_by_their_login(scenario: LoginScenario) -> None:
    for name in (OLA, KIM):  # two, since who asked is not known by a login
        request_page.act(scenario.sent(scenario.visitor(name, "platform", "staff"), answer="approve"))
    people = request_page.request_page(scenario.sent(scenario.visitor(OLA))).people
    assert [(reply.approver.name, reply.approver.source) for reply in people.counted] == [
        (OLA, "login"),
        (KIM, "login"),
    ]
    assert check(scenario.node(), Address("things"), "production").accepted


def test_member_who_left_the_group_must_not_answer(scenario: LoginScenario) -> None:
    with pytest.raises(UsageError, match=f"{OLA} can't answer for production: not an address of infra"):
        request_page.act(scenario.sent(scenario.visitor(OLA, "staff"), answer="approve"))
    assert request_page.request_page(scenario.sent(scenario.visitor(OLA))).people.counted == ()


def test_person_who_logs_in_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command itself: from the link in a message over the provider's page to the record."""
    scenario = waiting(LoginScenario(tmp_path, "key.pem"))
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    path, browser = request_path(scenario.node()), Browser()
    with lying_provider() as provider, serving(scenario, "--oidc", provider.issuer) as url:
        (link,) = set(re.findall(r'href="(/login[?]next=[^"]+)"', browser.get(f"{url}{path}").body.decode()))
        page = browser.get(f"{url}{link}").body.decode()
        assert browser.visited[-1] == f"{url}{path}"
        form = {**dict(hidden(page)), "answer": "approve", "reason": "seen"}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": url}
        sent = browser.send("POST", f"{url}{path}", headers, urlencode(form).encode())
        assert sent.status == 303, sent.body[-2000:]
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "pages.forms" in line)
    assert "done: {" in line
    assert INES.name in line
    (answer,) = answers_to(scenario.node(), path)
    assert (answer.approver.name, answer.approver.source, answer.reason) == (INES.name, "login", "seen")


def test_group_that_vanished_before_the_click_is_refused(tmp_path: Path) -> None:
    scenario = waiting(LoginScenario(tmp_path, "key.pem"))
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    path, browser = request_path(scenario.node()), Browser()
    with lying_provider() as provider, serving(scenario, "--oidc", provider.issuer) as url:
        provider.claims = {"email": OLA, "groups": ["platform"]}
        page = browser.get(f"{url}/login?next={path}").body.decode()
        fields = dict(hidden(page)) | {"answer": "approve", "reason": "seen"}
        provider.user_info = {"groups": ["staff"]}
        refused = browser.post(f"{url}{path}", {"Origin": url}, **fields)
        assert refused.status == 422
        assert "not an address of infra" in refused.body.decode()
        assert answers_to(scenario.node(), path) == []
        provider.user_info = {}
        fields |= dict(hidden(refused.body.decode()))
        assert browser.post(f"{url}{path}", {"Origin": url}, **fields).status == 303
    (answer,) = answers_to(scenario.node(), path)
    assert answer.approver.name == OLA


@pytest.mark.system
@pytest.mark.timeout(240)
def test_waiting_run_goes_on_at_once(platform: runs.Platform, tmp_path: Path) -> None:
    dataset = runs.Dataset(tmp_path)
    run = platform.start(spec=dataset.spec(), approval_timeout=3600, **dataset.on)
    platform.reaches(run, "Suspended")
    (asked,) = dataset.requests()
    request = sent(dataset.node("ines"), Visitor("ines", None, "secret"), asked.id, answer="approve", reason="seen")
    assert request_page.request_page(request).waits == 1
    with temporary_settings({PREFECT_API_URL: platform.url}):
        request_page.act(request)
    platform.reaches(run, "Completed")
    assert dataset.head("production") == asked.digest
