"""Options and identities of Google's object store. No server is asked."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from prefect_stagegate.errors import AccessDenied, MissingExtra, UsageError
from prefect_stagegate.plugins.gcs import gcs
from prefect_stagegate.plugins.gcs.gcs import GcsSettings, gcs_settings, open_gcs
from prefect_stagegate.plugins.gcs.google import identify
from prefect_stagegate.sources import open_source
from prefect_stagegate.transport.objectstore import parse_bucket_url
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.store import BucketPath
from tests.support.object_requests import KEY, LIFE, BlockedProvider, headers_of, url_of

LAKE = BucketPath("lake", "")


def test_google_s_identities_in_the_words_of_gcsfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = {"type": "service_account", "client_email": "me@acme.example"}
    assert identify("anon", url="gs://lake/")[0].kind == "none"
    assert identify("ya29.token", url="gs://lake/")[1].current() == "ya29.token"
    with pytest.raises(UsageError, match="can't be read"):
        identify(str(tmp_path / "absent.json"), url="gs://lake/")
    with pytest.raises(AccessDenied, match="There are no credentials"):
        identify(account, url="gs://lake/")  # it has no key
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", None)
    with pytest.raises(MissingExtra, match=r"prefect-stagegate\[gcs\]"):
        open_source("gs://lake/", {"token": account})


def test_without_credentials_google_s_hint_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(AccessDenied, match="GOOGLE_APPLICATION_CREDENTIALS"):
        open_source("gs://lake/")


def test_google_s_options() -> None:
    assert gcs_settings({"token": "anon", "endpoint_url": "http://x:1", "access": "read_only"}).endpoint == "http://x:1"
    with pytest.raises(UsageError, match="endpoint_url"):
        gcs_settings({"endpoint": "x"})
    with pytest.raises(UsageError, match="no project is set"):
        open_gcs(LAKE, GcsSettings(token="anon", requester_pays=True))


def test_a_google_request_waits_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BlockedProvider(token="t0ken")
    keeper = CredentialKeeper(lambda: Credential(str(provider()["token"])))
    monkeypatch.setattr(gcs, "identify", lambda *_, **__: (LIFE, keeper))
    store = open_gcs(parse_bucket_url("gs://lake/"), gcs_settings({"requester_pays": "me"}))
    begin = time.monotonic()
    assert store.get_request(KEY) is None
    assert time.monotonic() - begin < 1
    provider.gate.set()
    store.prepare()
    assert headers_of(store)["Authorization"] == "Bearer t0ken"
    assert headers_of(store)["x-goog-user-project"] == "me"
    expected = "https://storage.googleapis.com/lake/folder%2Fna%C3%AFve%20%2541%2B%23.bin?generation=17"
    assert url_of(store, version="17") == expected


@pytest.mark.parametrize(("token", "header"), [("anon", None), ("ya29.token", "Bearer ya29.token")])
def test_a_fixed_token_of_google_needs_nobody(token: str, header: str | None) -> None:
    store = open_gcs(parse_bucket_url("gs://lake/"), gcs_settings({"token": token}))
    assert headers_of(store).get("Authorization") == header
