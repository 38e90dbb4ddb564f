"""S3 options, credentials, and what an object store's errors mean."""

from __future__ import annotations

import http
import re
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.doors import Kind, sources
from prefect_stagegate.durable import NotARecord
from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
    UsageError,
)
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.web import web_options
from prefect_stagegate.transport.objectstore import (
    ObjectRecords,
    S3Settings,
    object_store_options,
    open_s3,
    parse_bucket_url,
    s3_options,
    translate,
)
from prefect_stagegate.transport.objectstore.credentials import resolve
from prefect_stagegate.transport.objectstore.explain import (
    CODES,
    LONGEST_BODY,
    STATUSES,
    bad_key,
    explain,
    explain_response,
)


@pytest.fixture(autouse=True)
def _no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


class TestOptions:
    """fsspec's names, translated by one table."""

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"key": "k", "secret": "s", "token": "t"}, S3Settings(key="k", secret="s", token="t")),
            ({"anon": True}, S3Settings(anonymous=True)),
            ({"anon": "false"}, S3Settings()),
            ({"endpoint_url": "http://x:1"}, S3Settings(endpoint="http://x:1")),
            ({"client_kwargs": {"region_name": "eu-west-1", "endpoint_url": "http://x"}},
             S3Settings(region="eu-west-1", endpoint="http://x")),
            ({"config_kwargs": {"s3": {"addressing_style": "virtual"}}}, S3Settings(virtual_host=True)),
            ({"addressing_style": "path"}, S3Settings(virtual_host=False)),
            ({"client_kwargs": {"verify": "/etc/ca.pem"}}, S3Settings(ca_file="/etc/ca.pem")),
            ({"verify": True}, S3Settings()),
            ({"use_ssl": False}, S3Settings(tls=False)),
            ({"requester_pays": True}, S3Settings(requester_pays=True)),
            ({"profile": "onprem", "default_block_size": 5, "token": None}, S3Settings(profile="onprem")),
            ({"etag_is_md5": False}, S3Settings(etag_is_md5=False)),
        ],
    )  # fmt: skip
    def test_each_option_has_its_setting(self, options: dict[str, Any], expected: S3Settings) -> None:
        assert translate(options) == (expected, ())

    def test_what_only_s3fs_knows_is_told(self) -> None:
        options = {"s3_additional_kwargs": {"RequestPayer": "x"}, "config_kwargs": {"proxies": {"http": "p"}}}
        assert set(translate(options)[1]) == {"s3_additional_kwargs.RequestPayer", "config_kwargs.proxies.http"}

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"endpoint": "x"}, "endpoint_url"),
            ({"colour": "red"}, "Known: addressing_style, anon, "),
            ({"verify": False}, "PEM file"),
            ({"addressing_style": "odd"}, "path, virtual or auto"),
            ({"key": "k"}, "both `key` and `secret`"),
        ],
    )
    def test_what_nobody_knows_is_refused_with_a_hint(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(UsageError) as caught:
            translate(options)
        assert says in f"{caught.value}"

    @pytest.mark.parametrize(
        ("scheme", "translations"),
        [
            ("s3", s3_options.TRANSLATIONS),
            ("https", web_options.TRANSLATIONS),
        ],
    )
    def test_each_translated_option_is_a_permitted_one(self, scheme: str, translations: dict[str, Any]) -> None:
        assert not [name for name in translations if sources()[scheme].kind(name) in (None, Kind.IGNORED)]


class TestCredentials:
    """What was given, else the environment, else the AWS files; and nothing is mixed."""

    def credential(self, settings: S3Settings) -> tuple[str, str, str | None]:
        provider = resolve(settings, url="s3://lake/").provider
        assert provider
        credentials = provider()
        return credentials["access_key_id"], credentials["secret_access_key"], credentials["token"]

    def test_given_keys_win_and_take_no_token_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "env")
        assert self.credential(S3Settings(key="k", secret="s")) == ("k", "s", None)
        assert self.credential(S3Settings()) == ("env", "env", "env")

    def test_a_profile_that_is_named_wins_over_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env")
        (tmp_path / "credentials").write_text(
            "[default]\naws_access_key_id = d\naws_secret_access_key = d\n"
            "[onprem]\naws_access_key_id = p\naws_secret_access_key = q\n"
        )
        (tmp_path / "config").write_text("[profile onprem]\nregion = eu-north-1\nendpoint_url = http://minio:9000\n")
        assert self.credential(S3Settings(profile="onprem")) == ("p", "q", None)
        settings = resolve(S3Settings(profile="onprem"), url="s3://lake/").settings
        assert (settings.region, settings.endpoint) == ("eu-north-1", "http://minio:9000")

    def test_the_default_profile_is_the_last_resort(self, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id = d\naws_secret_access_key = e\n")
        assert self.credential(S3Settings()) == ("d", "e", None)

    def test_a_profile_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(UsageError, match="nowhere"):
            resolve(S3Settings(profile="nowhere"), url="s3://lake/")

    def test_without_any_credentials_the_hint_says_what_to_set(self) -> None:
        with pytest.raises(AccessDenied) as caught:
            resolve(S3Settings(), url="s3://lake/")
        assert "AWS_ACCESS_KEY_ID" in caught.value.hint
        assert "anon" in caught.value.hint

    def test_anonymous_asks_nobody(self) -> None:
        assert resolve(S3Settings(anonymous=True), url="s3://lake/").provider is None

    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_an_endpoint_that_is_given_wins_over_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        settings = S3Settings(endpoint="http://127.0.0.1:2", key="k", secret="s")
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:2"):
            open_s3(parse_bucket_url("s3://lake/"), settings).get("a", 9)
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1"):
            open_s3(parse_bucket_url("s3://lake/"), S3Settings(key="k", secret="s")).get("a", 9)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("http://me:pw@x", "holds credentials"),
        ("http://", "no usable address"),
        ("http://x:99999", "no usable address"),
        ("http://me:pw@[x", "no usable address"),
    ],
)
def test_unusable_endpoint_is_refused_and_not_quoted(endpoint: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        open_s3(parse_bucket_url("s3://lake/"), S3Settings(endpoint=endpoint, key="k", secret="s"))
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.1", "0x7f.1"])
def test_bucket_stands_before_no_endpoint_address(host: str) -> None:
    settings = S3Settings(endpoint=f"http://{host}:8333", virtual_host=True, key="k", secret="s")
    with pytest.raises(UsageError, match=re.escape(f"no bucket's name can stand before {host}")) as caught:
        open_s3(parse_bucket_url("s3://lake/raw/"), settings)
    assert caught.value.source == "s3://lake/"
    assert "addressing_style: path" in str(caught.value)


@pytest.mark.parametrize(
    ("virtual", "endpoint", "host"),
    [(True, "http://minio:9000", "http://lake.minio:9000"), (False, "http://minio:9000", "http://minio:9000")],
)
def test_delta_finds_the_bucket_in_the_style_that_is_asked(virtual: bool, endpoint: str, host: str) -> None:
    settings = S3Settings(endpoint=endpoint, virtual_host=virtual, key="k", secret="s")
    options = object_store_options("s3://lake/t", settings, idle=5)
    assert (options["aws_endpoint"], options["aws_virtual_hosted_style_request"]) == (host, str(virtual).lower())


def test_delta_at_aws_has_a_bucket_with_dots_in_the_path() -> None:
    options = object_store_options("s3://my.lake/t", S3Settings(key="k", secret="s"), idle=5)
    assert options["aws_virtual_hosted_style_request"] == "false"


def test_a_ca_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"/nowhere/ca\.pem"):
        open_s3(parse_bucket_url("s3://lake/"), S3Settings(ca_file="/nowhere/ca.pem", key="k", secret="s"))


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (OSError("status code: 403 Forbidden: <Code>AccessDenied</Code>"), AccessDenied, False),
        (OSError("status code: 400: <Code>ExpiredToken</Code>"), CredentialsExpired, False),
        (FileNotFoundError("status code: 404: <Code>NoSuchKey</Code>"), ObjectVanished, False),
        (FileNotFoundError("status code: 404: <Code>NoSuchBucket</Code>"), SourceError, False),
        (FileNotFoundError("gone"), ObjectVanished, False),
        (OSError("status code: 412 Precondition Failed"), ObjectChanged, True),
        (OSError("status code: 503 Service Unavailable: <Code>SlowDown</Code>"), SourceBusy, True),
        (OSError("status code: 502 Bad Gateway: <html>"), SourceUnavailable, True),
        (OSError("status code: 429 Too Many Requests"), SourceBusy, True),
        (OSError("status code: 301: <Code>PermanentRedirect</Code>"), SourceError, False),
        (OSError("status code: 418 I'm a teapot"), SourceError, False),
        (OSError("error sending request: invalid peer certificate: UnknownIssuer"), SourceError, False),
        (OSError("error sending request: operation timed out"), SourceUnavailable, True),
        (OSError("something nobody foresaw"), SourceError, False),
    ],
)
def test_each_answer_has_its_meaning(error: Exception, kind: type[SourceError], *, retryable: bool) -> None:
    explained = explain(error, source="s3://lake/", endpoint="http://x:1", key="a")
    assert (type(explained), explained.retryable, explained.object) == (kind, retryable, "a")
    assert "{endpoint}" not in str(explained)


def summary(error: StagegateError) -> tuple[type[StagegateError], str, str, str]:
    return type(error), error.message, error.hint, error.object


PLACE = {"source": "s3://lake/", "endpoint": "http://x:1", "key": "a"}
XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>Mine, not yours</Message></Error>"


@pytest.mark.parametrize("code", [*CODES, "Unheard"])
def test_a_response_means_what_obstore_would_say(code: str) -> None:
    body = XML.format(code)
    by_obstore = explain(OSError(f"status code: 409 Conflict: {body}"), **PLACE)
    assert summary(explain_response(409, {}, body.encode(), **PLACE)) == summary(by_obstore)
    if code in CODES:  # a HEAD has no body, and what doesn't know the code quotes it
        assert summary(explain_response(409, {"X-Ms-Error-Code": code}, b"", **PLACE)) == summary(by_obstore)


@pytest.mark.parametrize("status", [*STATUSES, 304, 307, 400, 405, 418, 500, 502, 504, 599, 999])
def test_a_status_means_what_obstore_would_say(status: int) -> None:
    error = FileNotFoundError if status == 404 else OSError
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    by_obstore = explain(error(f"status code: {status} {phrase}: "), **PLACE)
    assert summary(explain_response(status, {}, b"", **PLACE)) == summary(by_obstore)


def test_bucket_without_an_endpoint_points_to_endpoint_url() -> None:
    error = OSError("dns error: failed to lookup address information")
    hints = [explain(error, source="s3://lake/", endpoint=at).hint for at in ("AWS", "https://minio:9000")]
    assert ["endpoint_url" in hint and "AWS_ENDPOINT_URL" in hint for hint in hints] == [True, False]


def test_not_found_without_a_key_is_no_vanished_object() -> None:
    error = explain_response(404, {}, b"", **{**PLACE, "key": ""})
    assert type(error) is SourceError
    assert "finds nothing" in error.message


def test_a_busy_response_carries_its_retry_after() -> None:
    error = explain_response(503, {"Retry-After": "7"}, b"", **PLACE)
    assert isinstance(error, SourceBusy)
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    "body", [XML.format("Unheard"), '{"error": {"code": 418, "message": "Mine, not yours"}}'], ids=["xml", "json"]
)
def test_a_response_of_unknown_meaning_is_quoted(body: str) -> None:
    assert "answers 418 I'm a Teapot: Mine, not yours" in explain_response(418, {}, body.encode(), **PLACE).message


@pytest.mark.parametrize("length", [0, 1800, 1995, 2500])
def test_a_response_tells_no_secret(length: int) -> None:
    secret = "canary/" + "+x9" * 40
    remember(secret)
    for body in (
        XML.replace("Mine", "{secret} " * (length // len(secret)) + "{secret}"),
        '{{"error": {{"message": "{secret}"}}}}',
    ):
        message = str(explain_response(418, {}, body.format("C", secret=secret).encode(), **PLACE))
        assert "canary" not in message
        assert "+x9" not in message


@pytest.mark.parametrize(
    "unit",
    [
        b"<Error>",
        b"<Error><Message>",
        b"<Code>",
        b"{",
        b'{"error":',
        b"\\",
        b"token",
        b'token="',
        b"\xff",
        b"An error occurred (",
    ],
)
@pytest.mark.parametrize("start", [b"", b"<Error><Message>token ", b'{"error": {"message": "token '])
def test_a_hostile_body_is_explained_in_linear_time(start: bytes, unit: bytes) -> None:
    remember("wJalrXUtnFEMIsecret")
    for end in (b"", b"</Message></Error>", b'"}}'):
        body = (start + unit * LONGEST_BODY)[: LONGEST_BODY - len(end)] + end
        begin = time.process_time()
        assert len(str(explain_response(418, {}, body + unit * LONGEST_BODY, **PLACE))) < 1000
        assert time.process_time() - begin < 1.0


def test_a_bad_key_is_named_with_its_line_break() -> None:
    assert r'"a\nb"' in str(bad_key(ValueError('BadSegment {\n path: "a\\nb",\n }'), source="s3://lake/"))


class TestRecords:
    """A catalog's records: the second create is refused, and listings are sorted."""

    @pytest.fixture
    def records(self, request: pytest.FixtureRequest) -> ObjectRecords:
        return ObjectRecords(f"memory://{request.node.name}/some/folder")

    def test_what_was_stored_is_read(self, records: ObjectRecords) -> None:
        assert records.read("a/1", 9) is None
        assert records.create("a/1", b"one")
        assert not records.create("a/1", b"two")
        assert records.read("a/1", 9) == b"one"
        records.replace("a/1", b"three")
        assert records.read("a/1", 9) == b"three"

    def test_end_of_a_record(self, records: ObjectRecords) -> None:
        assert records.read_end("a", 3) is None
        records.create("a", b"0123456789")
        assert (records.read_end("a", 3), records.read_end("a", 99)) == (b"789", b"0123456789")

    def test_larger_record_than_its_bound_is_not_read(self, records: ObjectRecords) -> None:
        records.create("a", b"0123456789")
        with pytest.raises(NotARecord, match="it has 10 bytes, and such a record has at most 9"):
            records.read("a", 9)

    def test_keys_and_folders(self, records: ObjectRecords) -> None:
        for key in ("d/b/1", "d/a/2", "d/a/1", "e/1"):
            records.create(key, b"")
        assert list(records.keys("d/")) == ["d/a/1", "d/a/2", "d/b/1"]
        assert records.folders("d/") == ["a", "b"]
        assert list(records.keys("nothing/")) == []

    def test_the_same_name_is_the_same_store(self, records: ObjectRecords) -> None:
        records.create("a", b"1")
        assert ObjectRecords(records.url).read("a", 9) == b"1"

    @pytest.mark.parametrize("url", ["http://x/", "gs://x/", "s3://"])
    def test_other_places_are_refused(self, url: str) -> None:
        with pytest.raises(UsageError):
            ObjectRecords(url)
