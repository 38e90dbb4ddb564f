"""Forms of pages: each protection refuses what would get by without it, and nothing is recorded then."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address, Approval, Identity
from prefect_stagegate.plugins.answers import PLUGIN
from prefect_stagegate.plugins.pages import forms
from prefect_stagegate.serve import incoming
from tests.plugins.answer_server import GATES, Browsing, answering, answers_to, logged_in, request_path
from tests.plugins.pages.page_server import page_server
from tests.support.scenario import ADA, INES, OWNERS, Scenario

THINGS = Address("things", "latest")
OLA = Identity("ola@example.org", "declared")
WHO = Callable[..., Browsing]


class Asked(Scenario):
    """A dataset whose newest version waits for somebody of infra."""

    def __init__(self, folder: Path) -> None:
        two = {"count": 2, "from": ["infra"]}
        gates = {**GATES, "production": {"extends": "pilot", "require": ["digest", {"approval": two}]}}
        super().__init__(folder, gates=gates, owners=OWNERS | {"infra": f"{INES.name}, {OLA.name}"})
        self.deliver("one")
        self.promote("pilot")
        check(self.node(), THINGS, "production")
        self.path = request_path(self.node())

    @property
    def answers(self) -> list[Approval]:
        """The answers on record."""
        return answers_to(self.node(), self.path)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


@pytest.fixture
def who(asked: Asked) -> Iterator[WHO]:
    with answering(asked.node()) as at:
        yield at


APPROVE = {"answer": "approve", "reason": "seen"}


def test_form_records_what_the_command_records(asked: Asked, who: WHO) -> None:
    sent = who(INES.name).answer(asked.path, **APPROVE)
    assert (sent.status_code, sent.headers["location"]) == (303, asked.path)
    (answer,) = asked.answers
    assert (answer.approver.name, answer.approved, answer.reason) == (INES.name, True, "seen")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_changes_nothing(asked: Asked, who: WHO, method: str) -> None:
    before = list(asked.node().catalog.records.keys("datasets/things/"))
    form = who(INES.name).form(asked.path)
    query = "&".join(f"{name}={value}" for name, value in (form | APPROVE).items())
    assert who(INES.name).get(f"{asked.path}?{query}", method).status_code == 200
    assert list(asked.node().catalog.records.keys("datasets/things/")) == before


def test_without_a_session_nobody_answers(asked: Asked, who: WHO) -> None:
    form = who(INES.name).form(asked.path)
    sent = who("").send(asked.path, form | APPROVE)
    assert sent.status_code == 403
    assert "nobody is logged in" in sent.text
    assert 'href="/login?next=' in sent.text
    assert asked.answers == []


@pytest.mark.parametrize("origin", ["-", "null", "http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_forms_of_other_origins_are_refused(asked: Asked, who: WHO, origin: str) -> None:
    ines = who(INES.name)
    assert ines.send(asked.path, ines.form(asked.path) | APPROVE, Origin=origin).status_code == 403
    assert asked.answers == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_browsers_say_where_a_form_is_from(asked: Asked, who: WHO, site: str) -> None:
    ines = who(INES.name)
    assert ines.send(asked.path, ines.form(asked.path) | APPROVE, Sec_Fetch_Site=site).status_code == 403
    assert asked.answers == []


def test_origin_is_that_of_the_pages_url(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_PAGES_URL", "https://data.example.org:443/stagegate")
    with answering(asked.node()) as at:
        ines = at(INES.name)
        form = ines.form(asked.path) | APPROVE
        assert ines.send(asked.path, form).status_code == 403
        assert ines.send(asked.path, form, Origin="https://data.example.org").status_code == 303


def test_missing_or_altered_token_is_refused(asked: Asked, who: WHO) -> None:
    ines = who(INES.name)
    token = ines.form(asked.path)["token"]
    payload, _, mac = token.rpartition(".")
    for other in ("", ".", payload, f"{payload}.", f".{mac}", f"{payload}x.{mac}", f"{payload}.{mac[:-1]}", "é.ü"):
        assert ines.send(asked.path, {"token": other} | APPROVE).status_code == 403
    assert asked.answers == []


def test_token_of_another_session_is_refused(asked: Asked, who: WHO) -> None:
    for other in (OLA.name, f"{INES.name}:earlier"):
        form = who(other).form(asked.path)
        assert who(INES.name).send(asked.path, form | APPROVE).status_code == 403
    assert asked.answers == []


def test_token_of_another_page_is_refused(asked: Asked, who: WHO) -> None:
    asked.deliver("two")
    asked.promote("pilot")
    check(asked.node(), THINGS, "production")
    ines = who(INES.name)
    form = ines.form(asked.path)
    assert ines.send(request_path(asked.node()), form | APPROVE).status_code == 403
    assert asked.answers == []


def test_token_is_used_once(asked: Asked, who: WHO) -> None:
    ines = who(INES.name)
    form = ines.form(asked.path)
    # Refused by the job, so that the page is as it was: only the token is another.
    assert ines.send(asked.path, form | {"answer": "decline"}).status_code == 422
    again = ines.send(asked.path, form | APPROVE)
    assert again.status_code == 409
    assert "sent already" in again.text
    assert asked.answers == []


def test_old_token_is_refused_and_the_reason_kept(asked: Asked, who: WHO, monkeypatch: pytest.MonkeyPatch) -> None:
    ines = who(INES.name)
    monkeypatch.setattr(forms, "TOKEN_SECONDS", -1.0)
    sent = ines.answer(asked.path, answer="approve", reason="seen </textarea><b>twice")
    assert sent.status_code == 409
    assert "seen &lt;/textarea&gt;&lt;b&gt;twice</textarea>" in sent.text
    assert asked.answers == []


def test_page_that_grew_old_is_shown_anew(asked: Asked, who: WHO) -> None:
    ines = who(INES.name)
    form = ines.form(asked.path)
    approve(asked.node(OLA), THINGS, "production", approved=False, reason="March looks wrong")
    sent = ines.send(asked.path, form | APPROVE)
    assert sent.status_code == 409
    assert "Changed since: the answers" in sent.text
    assert "March looks wrong" in sent.text
    assert [answer.approver.name for answer in asked.answers] == [OLA.name]
    again = dict(re.findall(r'name="(token)" value="([^"]+)"', sent.text))
    assert ines.send(asked.path, again | APPROVE).status_code == 303


def test_two_tabs_answer_once(asked: Asked, who: WHO) -> None:
    ines = who(INES.name)
    tabs = [ines.form(asked.path) for _ in range(2)]
    assert [ines.send(asked.path, tab | APPROVE).status_code for tab in tabs] == [303, 409]
    assert len(asked.answers) == 1


def test_two_people_at_once_both_count(asked: Asked, who: WHO) -> None:
    people = [who(INES.name), who(OLA.name)]
    shown = [person.form(asked.path) for person in people]
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda person, form: person.send(asked.path, form | APPROVE), people, shown))
    assert {answer.status_code for answer in sent} <= {303, 409}
    # Who was told that the page is old looks at the other's answer, and sends again.
    for person, answer in zip(people, sent, strict=True):
        if answer.status_code == 409:
            assert "1 of 2 approvals" in answer.text
            assert person.answer(asked.path, **APPROVE).status_code == 303
    assert sorted(answer.approver.name for answer in asked.answers) == [INES.name, OLA.name]
    assert check(asked.node(), THINGS, "production").accepted


def test_refusal_says_what_the_login_lacks(asked: Asked) -> None:
    def lacking(app: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            visitor = scope["stagegate.visitor"]
            await app({**scope, "stagegate.visitor": replace(visitor, hint="Log in once more.")}, receive, send)

        return logged_in(answer)

    with page_server(asked.node(), wrap=lacking) as url:
        sent = Browsing(url, "eva@example.org").answer(asked.path, **APPROVE)
    assert sent.status_code == 422
    assert "Log in once more." in sent.text


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "multipart/form-data; boundary=x", "", f"{forms.FORM}; charset=utf-16"]
)
def test_other_kinds_of_bodies_are_refused(asked: Asked, who: WHO, kind: str) -> None:
    ines = who(INES.name)
    assert ines.send(asked.path, ines.form(asked.path) | APPROVE, Content_Type=kind).status_code == 415
    assert asked.answers == []


@pytest.mark.parametrize("body", ["token=a&token=b", "a=%ff", "\xe9=1", "&".join(f"a{n}=1" for n in range(40))])
def test_forms_that_say_two_things_are_refused(asked: Asked, who: WHO, body: str) -> None:
    headers = {"Origin": who("").url, "Cookie": f"who={INES.name}", "Content-Type": forms.FORM}
    sent = httpx.post(who("").url + asked.path, content=body.encode("latin-1"), headers=headers)
    assert sent.status_code == 400


def test_large_forms_are_refused(asked: Asked, who: WHO) -> None:
    ines = who(INES.name)
    form = ines.form(asked.path) | APPROVE | {"reason": "x" * incoming.MAX_BODY}
    assert ines.send(asked.path, form).status_code == 413
    headers = {"Origin": ines.url, "Cookie": f"who={INES.name}", "Content-Type": forms.FORM}
    parts = (b"x" * 4096 for _ in range(40))  # without a length
    assert httpx.post(ines.url + asked.path, content=parts, headers=headers).status_code == 413
    assert asked.answers == []


def test_slow_forms_are_cut_off(asked: Asked, who: WHO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "BODY_SECONDS", 0.2)
    host, port = who("").url.removeprefix("http://").split(":")
    head = [f"POST {asked.path} HTTP/1.1", f"Host: {host}:{port}", f"Origin: {who('').url}", f"Cookie: who={INES.name}"]
    head += [f"Content-Type: {forms.FORM}", "Content-Length: 100", "", "token="]
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall("\r\n".join(head).encode())
        assert connection.recv(4096).split(b" ")[1] == b"408"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
def test_no_other_method_acts(asked: Asked, who: WHO, method: str) -> None:
    ines = who(INES.name)
    headers = {"Origin": ines.url, "Cookie": f"who={INES.name}", "X-HTTP-Method-Override": "POST"}
    form = ines.form(asked.path) | APPROVE | {"_method": "POST"}
    sent = httpx.request(method, ines.url + asked.path, data=form, headers=headers)
    assert sent.status_code in (405, 400)
    assert asked.answers == []


@pytest.mark.parametrize("path", ["/", "/datasets", "/datasets/things", "/datasets/things/policy", "/style.css", "/no"])
def test_pages_without_a_form_take_none(who: WHO, path: str) -> None:
    sent = who(INES.name).send(path, APPROVE)
    assert (sent.status_code, sent.headers["allow"]) == (405, "GET, HEAD")


def test_forms_of_one_session_are_limited(asked: Asked, who: WHO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "SENT_A_MINUTE", 3)
    statuses = [who(INES.name).send(asked.path, {"token": "x"}).status_code for _ in range(5)]
    assert statuses == [403, 403, 403, 429, 429]
    assert who(OLA.name).answer(asked.path, **APPROVE).status_code == 303


def test_forms_of_one_address_are_limited(asked: Asked, who: WHO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "SENT_A_MINUTE_FROM", 3)
    statuses = [who("").send(asked.path, APPROVE).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]
    assert who(INES.name).answer(asked.path, **APPROVE).status_code == 303  # whom strangers at the address can't stop


def test_used_tokens_of_a_session_are_bounded(asked: Asked, who: WHO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_NONCES", 2)
    ines = who(INES.name)
    assert [ines.answer(asked.path, answer="decline").status_code for _ in range(3)] == [422, 422, 429]


def test_each_answer_and_refusal_is_logged(asked: Asked, who: WHO, caplog: pytest.LogCaptureFixture) -> None:
    ines = who(INES.name)
    form = ines.form(asked.path)
    with caplog.at_level(logging.INFO, forms.__name__):
        who("").send(asked.path, form | APPROVE)
        ines.send(asked.path, form | {"answer": "approve", "reason": "seen\nrefused: \u202eby"})
        ines.send(asked.path, form | APPROVE)
    lines = [record.getMessage() for record in caplog.records if record.name == forms.__name__]
    assert [line.split(":")[0] for line in lines] == ["refused", "done", "refused"]
    assert all(line.isascii() and line.isprintable() for line in lines)
    known = json.loads(lines[1].removeprefix("done: "))
    assert (known["who"], known["page"], known["form"]["answer"]) == (INES.name, asked.path, "approve")
    assert form["token"] not in "".join(lines)


def test_requester_is_told_who_may(asked: Asked, who: WHO) -> None:
    sent = who(ADA.name).answer(asked.path, **APPROVE)
    assert sent.status_code == 422
    assert "ada made the request and can&#39;t answer it" in sent.text
    assert f"infra ({INES.name}, {OLA.name})" in sent.text
    assert ">seen</textarea>" in sent.text
    assert asked.answers == []


def test_group_that_changed_meanwhile_is_told(asked: Asked, who: WHO) -> None:
    from prefect_stagegate.jobs.gating.policy import adopt

    ines = who(INES.name)
    form = ines.form(asked.path)
    adopt(asked.node(), asked.spec(owners=OWNERS | {"infra": f"kim@example.org, {OLA.name}"}), reason="Ines moved")
    sent = ines.send(asked.path, form | APPROVE)
    assert sent.status_code == 409
    assert "the policy" in sent.text
    assert asked.answers == []


def test_hostile_names_and_reasons_are_text(asked: Asked, who: WHO) -> None:
    script = "<script>document.title='owned'</script>"
    sent = who(f"{script}@x").answer(asked.path, answer="decline", reason=f"</textarea>{script}")
    assert sent.status_code == 422
    assert script not in sent.text
    approve(asked.node(INES), THINGS, "production", approved=False, reason=f"{script}\u202e")
    shown = who(OLA.name).get(asked.path).text
    assert script not in shown
    assert "\u202e" not in shown
    assert "&lt;script&gt;" in shown


def test_forms_work_below_a_base_path(asked: Asked) -> None:
    with answering(asked.node(), base="/stagegate") as at:
        ines = at(INES.name)
        origin = ines.url.removesuffix("/stagegate")
        sent = ines.send(asked.path, ines.form(asked.path) | APPROVE, Origin=origin)
        assert (sent.status_code, sent.headers["location"]) == (303, f"/stagegate{asked.path}")


STRANGE = (
    "%2e%2e",
    "%00",
    "%0a",
    "%2f",
    "THINGS",
    "a" * 300,
    "%ed%a0%80",
    "%ff",
    "{}",
    "0" * 64,
    "%F0%9F%98%80",
    "_policy",
)


@pytest.mark.parametrize("path", PLUGIN.answers.values())
def test_strange_addresses_have_no_page(who: WHO, path: str) -> None:
    ines = who(INES.name)
    known = {"dataset": "things", "target": "production", "request": "x", "version": "0" * 64, "check": "license"}
    for name in re.findall(r"{(\w+)}", path):
        for strange in STRANGE:
            address = path.format(**{"policy": "0" * 64, **known, name: strange})
            read, sent = ines.get(address), ines.send(address, APPROVE)
            assert {read.status_code, sent.status_code} <= {404, 405, 403, 429}, (address, read.text[-500:])
