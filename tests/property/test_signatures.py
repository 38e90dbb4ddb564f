"""Signatures of requests for S3 objects are botocore's, whatever the key, the addressing and the credential."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import S3Requests
from prefect_stagegate.transport.objectstore.sigv4 import SigV4Signer

ACCESS_KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalr/+XUtn", "eu-north-1"
NOW, DAY = 1_790_000_000.0, 86_400
KEYS = (
    "a.bin",
    "flights/2013 01.parquet",
    "d//b",
    "/a",
    "a/../b",
    "./..",
    "dir/",
    "a+b=c&d?e#f",
    "%41%2F%",
    "-._~!$'()*,;:@[]",
    "naïve/日本/😀",
    "tab\tline\r\nnul\0del\x7f",
    "not utf-8 \udcff\udc80",
    "quotes \"'<>`\\^{|}",
)
BUCKETS = ("http://127.0.0.1:8333/lake", "https://lake.s3.eu-north-1.amazonaws.com", "http://[::1]:9000/a%20b/lake")
VERSIONS = ("", "3/L4+kqtJl=cp&X ~")
TOKENS = ("", "FwoGZ/+==")


def by_botocore(method: str, url: str, token: str, *, payer: bool, now: float) -> dict[str, str]:
    headers = {"x-amz-checksum-mode": "ENABLED"} | ({"x-amz-request-payer": "requester"} if payer else {})
    request = AWSRequest(method=method, url=url, headers=headers)
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    with patch("botocore.auth.get_current_datetime", return_value=datetime.fromtimestamp(now, UTC)):
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET, token or None), "s3", REGION).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def assert_signed_alike(method: str, bucket: str, key: str, version: str, token: str, *, payer: bool) -> None:
    signer = SigV4Signer(ACCESS_KEY, SECRET, region=REGION, token=token, requester_pays=payer)
    requests = S3Requests(bucket, CredentialKeeper(lambda: Credential(signer), Credential(signer)))
    with patch(
        "prefect_stagegate.transport.objectstore.sigv4.time.gmtime",
        return_value=datetime.fromtimestamp(NOW, UTC).timetuple(),
    ):
        made = requests.request(key, version, method)
    assert made
    url, headers = made
    assert url.isascii()
    assert urlsplit(url).geturl() == url
    ours = {name.lower(): value for name, value in headers.items()}
    assert ours == by_botocore(method, url, token, payer=payer, now=NOW)


@pytest.mark.parametrize("payer", [False, True], ids=["owner pays", "requester pays"])
@pytest.mark.parametrize("token", TOKENS, ids=["no token", "token"])
@pytest.mark.parametrize("version", VERSIONS, ids=["current", "version"])
@pytest.mark.parametrize("bucket", BUCKETS, ids=["path", "virtual", "path below a path"])
def test_signature_is_botocores(bucket: str, version: str, token: str, *, payer: bool) -> None:
    for method, key in itertools.product(("GET", "HEAD"), KEYS):
        assert_signed_alike(method, bucket, key, version, token, payer=payer)


@given(
    key=st.text(min_size=1)
    .map(lambda text: text.encode("utf-8"))
    .flatmap(lambda text: st.binary().map(lambda more: (text + more).decode("utf-8", "surrogateescape"))),
    version=st.text(),
    bucket=st.sampled_from(BUCKETS),
    token=st.sampled_from(TOKENS),
    payer=st.booleans(),
)
def test_signature_of_any_key_is_botocores(key: str, version: str, bucket: str, token: str, *, payer: bool) -> None:
    assert_signed_alike("GET", bucket, key, version, token, payer=payer)


def test_each_day_has_its_key() -> None:
    signer = SigV4Signer(ACCESS_KEY, SECRET, region=REGION)
    for now in (NOW, NOW + DAY, NOW):
        expected = by_botocore("GET", "http://x/lake/a", "", payer=False, now=now)
        assert signer.headers("GET", "x", "/lake/a", now=now)["Authorization"] == expected["authorization"]


def test_a_token_with_line_ends_adds_no_header() -> None:
    signer = SigV4Signer("k", "s", region="r", token="a\r\nX-Evil: 1")
    assert not any("\n" in value or "\r" in value for value in signer.headers("GET", "x", "/a").values())
