"""S3 options, credentials, and what an object store's errors mean."""

from __future__ import annotations

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
from prefect_stagegate.transport.http import Response
from prefect_stagegate.transport.objectstore import (
    ObjectRecords,
    S3Settings,
    open_s3,
    parse_bucket_url,
    s3_options,
    translate,
)
from prefect_stagegate.transport.objectstore.credentials import resolve
from prefect_stagegate.transport.objectstore.explain import CODES, LONGEST_BODY, explain_response


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


def test_a_ca_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"/nowhere/ca\.pem"):
        open_s3(parse_bucket_url("s3://lake/"), S3Settings(ca_file="/nowhere/ca.pem", key="k", secret="s"))


XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>Mine, not yours</Message></Error>"


def explained(status: int, body: str | bytes = b"", key: str = "a", **headers: str) -> StagegateError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = Response(status, names, "", body.encode() if isinstance(body, str) else body)
    return explain_response(response, source="s3://lake/", endpoint="http://x:1", key=key)


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (403, "AccessDenied", AccessDenied, False),
        (400, "ExpiredToken", CredentialsExpired, False),
        (404, "NoSuchKey", ObjectVanished, False),
        (404, "NoSuchBucket", SourceError, False),
        (404, "", ObjectVanished, False),
        (412, "", ObjectChanged, True),
        (503, "SlowDown", SourceBusy, True),
        (502, "", SourceUnavailable, True),
        (429, "", SourceBusy, True),
        (301, "PermanentRedirect", SourceError, False),
        (418, "", SourceError, False),
        (999, "", SourceUnavailable, True),
    ],
)
def test_each_answer_has_its_meaning(status: int, code: str, kind: type[SourceError], *, retryable: bool) -> None:
    error = explained(status, XML.format(code) if code else "")
    assert (type(error), error.retryable, error.object) == (kind, retryable, "a")
    assert "{endpoint}" not in str(error)


@pytest.mark.parametrize("code", CODES)
def test_azure_code_in_a_header_means_the_same(code: str) -> None:
    """A response to HEAD has no body."""
    by_body, by_header = explained(409, XML.format(code)), explained(409, x_ms_error_code=code)
    assert (type(by_body), str(by_body)) == (type(by_header), str(by_header))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_no_question_of_the_region(status: int) -> None:
    assert "redirects to another host" in explained(status, location="http://169.254.169.254/").message


def test_not_found_without_a_key_is_no_vanished_object() -> None:
    error = explained(404, key="")
    assert type(error) is SourceError
    assert "finds nothing" in error.message


def test_a_busy_response_carries_its_retry_after() -> None:
    error = explained(503, retry_after="7")
    assert isinstance(error, SourceBusy)
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    "body", [XML.format("Unheard"), '{"error": {"code": 418, "message": "Mine, not yours"}}'], ids=["xml", "json"]
)
def test_a_response_of_unknown_meaning_is_quoted(body: str) -> None:
    assert "answers 418 I'm a Teapot: Mine, not yours" in explained(418, body).message


@pytest.mark.parametrize("length", [0, 1800, 1995, 2500])
def test_a_response_tells_no_secret(length: int) -> None:
    secret = "canary/" + "+x9" * 40
    remember(secret)
    for body in (
        XML.replace("Mine", "{secret} " * (length // len(secret)) + "{secret}"),
        '{{"error": {{"message": "{secret}"}}}}',
    ):
        message = str(explained(418, body.format("C", secret=secret)))
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
        assert len(str(explained(418, body + unit * LONGEST_BODY))) < 1000
        assert time.process_time() - begin < 1.0


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
        for _ in range(2):
            records.remove("a/1")
            assert records.read("a/1", 9) is None

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
