"""Logging in by OpenID Connect: what works, and each lie of a provider that is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from prefect_stagegate.workspace import Workspace
from tests.plugins.login.login_server import SESSION, Browser, login_server, send
from tests.plugins.login.lying_provider import LyingProvider, new_key


def test_login_shows_the_person_and_their_groups(url: str, provider: LyingProvider, browser: Browser) -> None:
    assert browser.sees(f"{url}/")["name"] is None
    response = browser.get(f"{url}/login?next=/datasets%3Fpage%3D2")
    seen = json.loads(response.body)
    assert (seen["name"], seen["subject"], seen["issuer"]) == ("ines@example.org", "248289761001", provider.issuer)
    assert (seen["groups"], seen["path"]) == (["approvers"], "/datasets")
    assert browser.visited[-1] == f"{url}/datasets?page=2"
    assert browser.sees(f"{url}/")["name"] == "ines@example.org"
    assert provider.requests.count("/.well-known/openid-configuration") == 1
    assert provider.requests.count("/jwks") == 1


def test_cookies_are_for_this_server_alone(url: str, browser: Browser) -> None:
    browser.get(f"{url}/login")
    for attributes in browser.attributes.values():
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(attributes.replace(" ", "").split(";"))
        assert "domain" not in attributes
    assert len(browser.cookies[SESSION]) == 43


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"claims": {"iss": "https://evil.example"}}, "invalid_claim iss"),
        ({"claims": {"iss": None}}, "missing_claim iss"),
        ({"claims": {"aud": "another-client"}}, "invalid_claim aud"),
        ({"claims": {"aud": None}}, "missing_claim aud"),
        ({"claims": {"aud": ["another-client", "stagegate"]}}, "missing_claim azp"),
        ({"claims": {"azp": "another-client"}}, "invalid_claim azp"),
        ({"claims": {"nonce": "another"}}, "invalid_claim nonce"),
        ({"claims": {"nonce": None}}, "missing_claim nonce"),
        ({"claims": {"exp": int(time.time()) - 120}}, "expired_token"),
        ({"claims": {"exp": None}}, "missing_claim exp"),
        ({"claims": {"exp": "tomorrow"}}, "invalid_claim exp"),
        ({"claims": {"nbf": int(time.time()) + 3600}}, "invalid_claim nbf"),
        ({"claims": {"iat": int(time.time()) + 3600}}, "invalid_claim iat"),
        ({"claims": {"sub": None}}, "missing_claim sub"),
        ({"claims": {"sub": ["a"]}}, "invalid_claim sub"),
        ({"claims": {"sub": "a\nb"}}, "name for the person is none"),
        ({"claims": {"sub": "a" * 300}}, "name for the person is none"),
        ({"claims": {"groups": [f"g{n}" for n in range(300)]}}, "more than 200"),
        ({"claims": {"groups": {"a": 1}}}, "list of groups is none"),
        ({"claims": {"groups": ["a\x00"]}}, "A group has no name"),
        ({"claims": {"groups": ["a" * 300]}}, "A group has no name"),
        ({"header": {"alg": "none"}}, "unsupported_algorithm"),
        ({"header": {"alg": "HS256"}}, "unsupported_algorithm"),
        ({"header": {"kid": "unknown"}}, "invalid_key_id"),
        ({"published": [new_key("one")]}, "bad_signature"),
        ({"tokens": {"id_token": None}}, "no ID token"),
        ({"tokens": {"id_token": "a.b.c"}}, "proves nothing"),
        ({"tokens": {"id_token": "e30." * 20_000}}, "proves nothing"),
        ({"tokens": {"error": "access_denied"}}, "refuses the login: access_denied"),
        ({"user_info": {"sub": "another"}}, "is of somebody else"),
        ({"user_info": {"sub": None}}, "is of somebody else"),
        ({"callback": {"state": "another"}}, "did not begin here"),
        ({"callback": {"state": None}}, "did not begin here"),
        ({"callback": {"code": None}}, "it sent no code"),
        ({"callback": {"code": "another"}}, "refuses the login: invalid_grant"),
        ({"callback": {"code": None, "error": "access_denied"}}, "refuses the login: access_denied"),
        ({"callback": {"error": "<b>sorry</b>"}}, "it sent no code"),
        ({"callback": {"iss": "https://evil.example"}}, "another provider"),
        ({"document": {"authorization_response_iss_parameter_supported": True}}, "another provider"),
    ],
)
def test_lies_log_nobody_in(
    url: str, provider: LyingProvider, browser: Browser, lies: dict[str, Any], why: str
) -> None:
    for name, value in lies.items():
        setattr(provider, name, value)
    response = browser.get(f"{url}/login")
    assert response.status in (400, 403), response.body
    assert why in response.body.decode()
    assert "<b>" not in response.body.decode()
    assert SESSION not in browser.cookies
    assert browser.sees(f"{url}/")["name"] is None


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"issuer": "https://evil.example"}, "calls itself otherwise"),
        ({"issuer": None}, "calls itself otherwise"),
        ({"authorization_endpoint": None}, "it is no URL"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint can"),
        ({"authorization_endpoint": "http://login.example.org/"}, "it has no TLS"),
        ({"token_endpoint": "http://login.example.org/"}, "it has no TLS"),
        ({"userinfo_endpoint": "http://login.example.org/"}, "it has no TLS"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri can"),
        ({"jwks_uri": ["https://login.example.org/"]}, "it is no URL"),
    ],
)
def test_wrong_documents_are_refused(
    url: str, provider: LyingProvider, browser: Browser, document: dict[str, Any], why: str
) -> None:
    provider.document = document
    response = browser.get(f"{url}/login")
    assert response.status == 503
    assert why in response.body.decode()
    assert browser.sees(f"{url}/")["name"] is None


@pytest.mark.parametrize("claims", [{"email_verified": False}, {"email_verified": None}, {"email_verified": "true"}])
def test_unproved_address_is_no_name(
    url: str, provider: LyingProvider, browser: Browser, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    seen = json.loads(browser.get(f"{url}/login").body)
    assert seen["name"] == f"{provider.issuer}#248289761001"


@pytest.mark.parametrize(
    "email", ["ines", "ines@example.org, eva@example.org", "înes@example.org", "a@b@c", 7, ["a@b"]]
)
def test_odd_address_is_no_name(url: str, provider: LyingProvider, browser: Browser, email: object) -> None:
    provider.claims = {"email": email}
    assert json.loads(browser.get(f"{url}/login").body)["name"] == f"{provider.issuer}#248289761001"


def test_provider_may_take_new_keys(url: str, provider: LyingProvider, browser: Browser) -> None:
    browser.get(f"{url}/login")
    provider.keys = [new_key("two")]
    other = Browser()
    assert json.loads(other.get(f"{url}/login").body)["name"] == "ines@example.org"
    # A provider whose keys never fit is not asked for them at each login.
    provider.header = {"kid": "three"}
    for _ in range(3):
        assert Browser().get(f"{url}/login").status == 403
    assert provider.requests.count("/jwks") == 2


def test_answer_of_the_provider_counts_once(url: str, provider: LyingProvider, browser: Browser) -> None:
    provider.reuses_codes = True
    browser.get(f"{url}/login")
    callback = next(address for address in browser.visited if "/login/callback" in address)
    again = browser.get(callback)
    assert again.status == 400
    assert b"was used before" in again.body


def test_login_ends_after_ten_minutes(url: str, browser: Browser, clock: Callable[[float], None]) -> None:
    to_provider = browser.get(f"{url}/login", follow=False).headers["location"]
    clock(601)
    assert b"took too long" in browser.get(to_provider).body
    assert SESSION not in browser.cookies


def test_login_of_another_browser_is_refused(url: str, browser: Browser) -> None:
    # Whoever sends somebody a link with their own code would have them act under their own name.
    to_provider = browser.get(f"{url}/login", follow=False).headers["location"]
    victim = Browser()
    victim.get(f"{url}/login", follow=False)
    response = victim.get(to_provider)
    assert response.status == 403
    assert b"another browser" in response.body
    assert SESSION not in victim.cookies


def test_two_tabs_log_in_at_once(url: str, browser: Browser) -> None:
    one, two = (browser.get(f"{url}/login?next=/{tab}", follow=False).headers["location"] for tab in ("one", "two"))
    assert json.loads(browser.get(one).body)["path"] == "/one"
    assert json.loads(browser.get(two).body)["name"] == "ines@example.org"


def test_code_of_another_login_is_refused(url: str, provider: LyingProvider, browser: Browser) -> None:
    stolen = browser.get(browser.get(f"{url}/login", follow=False).headers["location"], follow=False)
    code = stolen.headers["location"].split("code=")[1].split("&")[0]
    provider.callback = {"code": code}
    attacker = Browser()
    # By PKCE: the thief's login has another verifier.
    assert b"invalid_grant" in attacker.get(f"{url}/login").body


def test_providers_are_not_mixed_up(workspace: Workspace, provider: LyingProvider, url: str, browser: Browser) -> None:
    # The honest provider's code comes in the answer that another one's login waits for.
    provider.callback = {"iss": provider.issuer}
    provider.document = {"authorization_response_iss_parameter_supported": True}
    with login_server(workspace, "oidc", provider.issuer) as other:
        assert json.loads(browser.get(f"{other}/login").body)["name"] == "ines@example.org"
    provider.callback = {"iss": "https://honest.example"}
    assert b"another provider" in Browser().get(f"{url}/login").body


@pytest.mark.parametrize(
    "target",
    [
        *("//evil.example", "/\\evil.example", "https://evil.example", "\\\\evil.example", "javascript:alert(1)", ""),
        *("/%0d%0aX: y", "/login", "/logout", "evil.example", "/\t/evil.example"),
    ],
)
def test_login_leads_to_this_server_alone(url: str, browser: Browser, target: str) -> None:
    browser.get(f"{url}/login?next={target}" if "%" in target else f"{url}/login?next=" + _quoted(target))
    assert browser.visited[-1] == f"{url}/"


@pytest.mark.parametrize("host", ["[", "[::.]:1", "a b", "localhost:x", "localhost@evil.example"])
def test_login_survives_a_host_that_is_none(url: str, host: str) -> None:
    response = send("GET", f"{url}/login", {"Host": host})
    assert response.status == 303
    assert f"redirect_uri={quote(url, safe='')}%2Flogin" in response.headers["location"]


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def test_query_that_says_two_things_is_refused(url: str, browser: Browser) -> None:
    browser.get(f"{url}/login", follow=False)
    assert browser.get(f"{url}/login/callback?state=a&state=b&code=c").status == 400


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks", "/userinfo"])
@pytest.mark.parametrize("lie", ["huge", "redirect", "html", "list", "deep", "status", "hangs"])
def test_odd_answers_of_the_provider_stop_no_page(
    url: str, provider: LyingProvider, browser: Browser, path: str, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.login.provider.ANSWER_SECONDS", 1.0)
    if lie == "hangs":
        provider.hangs = path
    else:
        provider.answers[path] = {
            "huge": JSONResponse({"a": "b" * (2 << 20)}),
            "redirect": RedirectResponse(f"{provider.issuer}/elsewhere"),
            "html": HTMLResponse("<html>"),
            "list": JSONResponse([]),
            "deep": Response("[" * 100_000),
            "status": JSONResponse({}, 500),
        }[lie]
    response = browser.get(f"{url}/login")
    assert response.status in (403, 503), response.body
    assert "/elsewhere" not in provider.requests
    assert browser.sees(f"{url}/datasets")["name"] is None


def test_absent_provider_leaves_pages_readable(workspace: Workspace, browser: Browser) -> None:
    with login_server(workspace, "oidc", "http://127.0.0.1:1") as url:
        assert browser.sees(f"{url}/")["login"] == "/login"
        response = browser.get(f"{url}/login")
        assert response.status == 503
        assert b"can be read meanwhile" in response.body
