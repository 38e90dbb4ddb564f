from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from prefect_stagegate.checks.source_access import Lifetime, credential_life, read_probe
from prefect_stagegate.gate import CheckResult
from prefect_stagegate.gate.base import NoParameters
from prefect_stagegate.jobs.staging.probe import SourceProbe
from prefect_stagegate.model import CredentialLife, Outcome
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.contexts import NOW, a_spec, check_context
from prefect_stagegate.transport.expiry import ends_at

ENDS = 1_772_334_000.0
"""2026-03-01T03:00:00Z"""


def jwt(claims: object) -> str:
    head, body = (urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims))
    return f"{head}.{body}.c2ln"


def ask(*lives: CredentialLife, run: timedelta = timedelta(hours=1)) -> CheckResult:
    return credential_life(check_context(life_of_credentials=lambda at: lives[at % len(lives)]), Lifetime(run=run))


def temporary(left: timedelta) -> CredentialLife:
    return CredentialLife("temporary", "a session token", (NOW + left).timestamp())


@pytest.mark.parametrize(
    ("minutes", "outcome"), [(120, Outcome.PASS), (119, Outcome.WARN), (60, Outcome.WARN), (59, Outcome.FAIL)]
)
def test_credentials_must_outlast_a_run(minutes: int, outcome: Outcome) -> None:
    answer = ask(temporary(timedelta(minutes=minutes)), CredentialLife("static", "a static access key"))
    assert answer.outcome is outcome


def test_a_pass_ends_when_it_would_be_none() -> None:
    assert ask(temporary(timedelta(hours=5))).until == NOW + timedelta(hours=3)
    assert ask(CredentialLife("renewed", "a role")).until is None


def test_an_end_that_nobody_knows_is_inconclusive() -> None:
    assert ask(CredentialLife("unknown", "a session token")).outcome is Outcome.INCONCLUSIVE
    late = ask(CredentialLife("unknown", "a session token"), temporary(timedelta(minutes=1)))
    assert late.outcome is Outcome.FAIL


TWICE = a_spec(sources=[{"url": "s3://lake/a/", "include": ["*.csv"]}, {"url": "s3://lake/a/", "exclude": ["*.csv"]}])
"""Two sources of one URL, which may have credentials of their own."""


def test_each_source_of_one_url_needs_credentials_that_last() -> None:
    lives = [temporary(timedelta(minutes=1)), temporary(timedelta(hours=5))]
    result = credential_life(check_context(spec=TWICE, life_of_credentials=lambda at: lives[at]), Lifetime())
    assert result.outcome is Outcome.FAIL
    assert list(result.measured) == ["s3://lake/a/", "s3://lake/a/ (source 2)"]


def test_each_source_of_one_url_is_measured() -> None:
    probes = [SourceProbe("s3://lake/a/", "a.csv", 1, 0.1), SourceProbe("s3://lake/a/", "b.bin", 2, 0.2)]
    result = read_probe(check_context(spec=TWICE, probe_source=lambda at: probes[at]), NoParameters())
    assert [measured["object"] for measured in result.measured.values()] == ["a.csv", "b.bin"]


@pytest.mark.parametrize(("allowed", "outcome"), [(False, Outcome.INCONCLUSIVE), (True, Outcome.WARN)])
def test_source_that_may_be_empty_only_warns_of_it(allowed: bool, outcome: Outcome) -> None:
    spec = a_spec(sources=[{"url": "s3://lake/flights/"}, {"url": "s3://lake/late/", "may_be_empty": allowed}])
    probes = [SourceProbe("s3://lake/flights/", "a.parquet", 4096, 0.01), SourceProbe("s3://lake/late/")]
    result = read_probe(check_context(spec=spec, probe_source=lambda at: probes[at]), NoParameters())
    assert (result.outcome, [finding.subject for finding in result.findings]) == (outcome, ["s3://lake/late/"])


def test_a_source_without_credentials_is_not_asked() -> None:
    assert ask(CredentialLife("none", "a local folder")).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    "secret",
    [
        jwt({"exp": ENDS}),
        f"Bearer {jwt({'exp': ENDS})}",
        "https://host/x?sv=1&se=2026-03-01T03:00:00Z&sig=a%2Bb",
        "X-Amz-Date=20260301T020000Z&X-Amz-Expires=3600&X-Amz-Signature=0",
    ],
)
def test_credentials_say_when_they_end(secret: str) -> None:
    assert ends_at(secret) == ENDS


@pytest.mark.parametrize("secret", ["", "a.b.c", jwt([]), jwt({"exp": "soon"}), "se=never&sig=x", "hunter2", "é.é.é"])
def test_what_says_no_end_has_none(secret: str) -> None:
    assert ends_at(secret) is None


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        ({}, {"anon": True}, ("none", None)),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, {}, ("static", None)),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}, {}, ("unknown", None)),
        (
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_SESSION_TOKEN": "c",
                "AWS_CREDENTIAL_EXPIRATION": "2026-03-01T03:00:00Z",
            },
            {},
            ("temporary", ENDS),
        ),
        ({}, {"key": "a", "secret": "b", "token": jwt({"exp": ENDS})}, ("temporary", ENDS)),
    ],
)
def test_s3_tells_how_long_its_credentials_last(
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    options: Mapping[str, object],
    expected: tuple[str, float | None],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    life = open_source("s3://lake/", options).credential_life()
    assert (life.kind, life.ends) == expected


def test_other_sources_tell_what_their_options_tell(tmp_path: Path) -> None:
    def kind(url: str, **options: object) -> str:
        return open_source(url, options).credential_life().kind

    assert kind(str(tmp_path)) == "none"
    assert kind("memory://x/") == "none"
    assert kind("https://example.org/data/") == "none"
    assert kind("https://example.org/data/", headers={"Authorization": "Bearer abcdefgh"}) != "none"
    assert kind("https://example.org/data/", headers={"Authorization": f"Bearer {jwt({'exp': ENDS})}"}) == "temporary"
