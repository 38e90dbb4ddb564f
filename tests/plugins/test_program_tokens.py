"""Programs at the pages: a token is taken or refused, and none ever answers for a person."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx import Response

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.pages import bearers
from prefect_stagegate.plugins.pages.bearers import FAILURES_A_MINUTE
from prefect_stagegate.plugins.pages.rendering import added_pages
from prefect_stagegate.plugins.tokens.token_records import create_token, revoke_token
from tests.plugins.answer_server import GATES, answers_to, logged_in, request_path
from tests.plugins.pages.page_server import page_server
from tests.support.scenario import INES, Scenario

FIXED = "0123456789abcdef0123"
ALL = ("stage", "check")


class Waiting(Scenario):
    """A dataset whose newest version waits for an approval, after an earlier one reached production."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, gates=GATES)
        for text in ("zero", "one"):
            self.deliver(text)
            self.promote(*(["pilot"] if text == "one" else []))
        check(self.node(), Address("things", "latest"), "production")
        self.path = request_path(self.node())

    def token(self, *scopes: str, datasets: tuple[str, ...] = ()) -> str:
        return create_token(self.node(), "ci", scopes, datasets, 30)[1]


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


@pytest.fixture
def url(waiting: Waiting) -> Iterator[str]:
    """A server that wants its own token, with a way to log in."""
    with page_server(waiting.node(), token=FIXED, wrap=logged_in) as url:
        yield url


def asked(url: str, token: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any) -> Response:
    known = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(method, url, headers=known | (headers or {}), timeout=60, **more)


def records(scenario: Scenario) -> dict[str, bytes]:
    """All that the catalog has of datasets."""
    root = scenario.folder / "catalog"
    return {str(path): path.read_bytes() for path in (root / "datasets").rglob("*") if path.is_file()}


def test_program_reads_with_its_token(waiting: Waiting, url: str) -> None:
    assert asked(f"{url}/datasets/things", waiting.token()).status_code == 200
    assert asked(f"{url}/datasets/things", FIXED).status_code == 200
    assert asked(f"{url}/datasets/things", "").status_code == 401


def test_wrong_secret_is_refused(waiting: Waiting, url: str) -> None:
    token = waiting.token()
    for wrong in (f"{token[:-2]}xx", "sgt_", f"sgt_{'0' * 12}_{'x' * 43}", f"{token}x"):
        refused = asked(url, wrong, headers={"Accept": "application/json"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "unknown, expired or revoked" in refused.json()["error"]["message"]


def test_open_server_refuses_a_wrong_token(waiting: Waiting) -> None:
    with page_server(waiting.node()) as url:
        assert asked(url, f"sgt_{'0' * 12}_{'x' * 43}").status_code == 401
        assert asked(url, "somebody-else's").status_code == 200


def test_revoked_token_ends_within_seconds(waiting: Waiting, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bearers.KNOWN_SECONDS <= 5
    monkeypatch.setattr(bearers, "KNOWN_SECONDS", 0.2)
    token = waiting.token()
    assert asked(url, token).status_code == 200
    revoke_token(waiting.node(), token[4:16], "moved")
    time.sleep(0.3)
    assert asked(url, token).status_code == 401


@pytest.mark.parametrize("place", ["?token={}", "?access_token={}", "?authorization=Bearer%20{}", "{}"])
def test_token_in_an_address_is_not_taken(waiting: Waiting, url: str, place: str) -> None:
    assert asked(f"{url}/{place.format(waiting.token())}", "").status_code == 401


def test_token_elsewhere_is_not_taken(waiting: Waiting, url: str) -> None:
    token = waiting.token()
    for headers in ({"Cookie": f"token={token}"}, {"X-Api-Key": token}, {"Authorization": token}):
        assert asked(url, "", headers=headers).status_code == 401
    assert httpx.get(url, auth=("anybody", token)).status_code == 401


def test_guesses_are_bounded_and_good_tokens_go_on(waiting: Waiting, url: str) -> None:
    token = waiting.token()
    assert asked(url, token).status_code == 200
    statuses = [asked(url, f"sgt_{number:012x}_{'x' * 43}").status_code for number in range(FAILURES_A_MINUTE + 5)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert asked(url, token).status_code == 200


def test_token_for_a_dataset_reads_no_other(waiting: Waiting, url: str) -> None:
    token = waiting.token("stage", datasets=("things",))
    for path in ("/datasets/things", "/datasets/things/policy", waiting.path):
        assert asked(url + path, token).status_code == 200
    for path in ("/", "/datasets", "/nodes", "/metrics", "/datasets/thing", "/datasets/other", "//datasets/things"):
        refused = asked(url + path, token)
        assert (refused.status_code, "only for things" in refused.text) == (403, True)
    assert asked(f"{url}/datasets/other/stage", token, "POST").status_code == 403


def test_no_token_answers_on_any_page(waiting: Waiting, url: str) -> None:
    acts = [page.path for page in added_pages() if page.act]
    assert len(acts) >= 4
    token, before = waiting.token(*ALL), records(waiting)
    ines = {"Cookie": f"who={INES.name}", "Origin": url, "Sec-Fetch-Site": "same-origin"}
    names = {"dataset": "things", "target": "production", "request": waiting.path.rpartition("/")[2]}
    names |= {"version": waiting.head("latest")[7:], "check": "license", "policy": "0" * 64}
    # Even with the cookie and the form of a person who may answer: the token decides.
    form = httpx.get(url + waiting.path, headers=ines, auth=("any", FIXED)).text.partition('name="token" value="')[2]
    fields = {"token": form.partition('"')[0], "answer": "approve", "reason": "seen", "until": "1d"}
    assert fields["token"]
    fields |= {"to": waiting.head("production")[7:], "leaving": waiting.head("production")[7:]}
    for path in acts:
        sent = asked(url + path.format(**names), token, "POST", data=fields, headers=ines)
        assert sent.status_code in {403, 404}, path
    assert records(waiting) == before
    assert answers_to(waiting.node(), waiting.path) == []
    own = httpx.post(url + waiting.path, data=fields, headers=ines, auth=("any", FIXED))
    assert own.status_code == 303  # the same form, by the person


@pytest.mark.parametrize("verb", ["promote", "approve", "rollback", "waive", "adopt", "fetch", "../stage"])
def test_there_is_no_route_to_promote(waiting: Waiting, url: str, verb: str) -> None:
    token, before = waiting.token(*ALL), records(waiting)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert asked(f"{url}/datasets/things/{verb}", token, method).status_code in {404, 405}
    assert records(waiting) == before


def test_cookie_beside_a_token_counts_for_nothing(waiting: Waiting, url: str) -> None:
    page = asked(url + waiting.path, waiting.token(), headers={"Cookie": f"who={INES.name}"}).text
    assert 'name="token"' not in page
    assert INES.name not in asked(f"{url}/nothing", waiting.token(), headers={"Cookie": f"who={INES.name}"}).text


def test_token_gets_into_no_log_or_answer(waiting: Waiting, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = waiting.token(*ALL)
    answers = [
        asked(f"{url}/datasets/things", token),
        asked(f"{url}/datasets/things/stage", token, "POST", data={"wrong": "x"}),
        asked(f"{url}/datasets/things", f"{token}x"),
        asked(url + waiting.path, token, "POST"),
    ]
    assert not any(token in answer.text for answer in answers)
    assert not [record for record in caplog.records if token in record.getMessage() and "httpx" not in record.name]


def test_catalog_that_does_not_answer_grants_nothing(waiting: Waiting, url: str) -> None:
    token = waiting.token()
    (waiting.folder / f"catalog/tokens.made/token/{token[4:16]}/00000001.json").write_text("{")
    assert asked(url, token).status_code == 503
