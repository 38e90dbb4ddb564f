"""Versions and sources as Prefect's assets: their keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.assets import Asset

from prefect_stagegate.model import NAME_LENGTH
from prefect_stagegate.tasks._support.assets import KEY_LENGTH, source_key, version_key

SCHEMES = ("s3", "S3A", "https", "sftp", "abfs", "git+https", "file", "gs")


@given(st.sampled_from(SCHEMES), st.text(max_size=700))
def test_prefect_takes_the_key_of_any_source(scheme: str, rest: str) -> None:
    for url in (f"{scheme}://{rest}", f"/{rest}", f"zip://*.csv::{scheme}://{rest}"):
        assert Asset(key=source_key(url)).key == source_key(url)


def test_prefect_takes_the_key_of_the_longest_version() -> None:
    key = version_key("x" * NAME_LENGTH, "sha256:" + "f" * 64)
    assert Asset(key=key).key == key


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host.example.org/data/?sig=secret#secret",
        "sftp://me:secret@host.example.org/data/",
        "zip://a.csv::https://me:secret@host.example.org/x.zip?token=secret",
    ],
)
def test_no_credential_of_a_source_is_in_its_key(url: str) -> None:
    assert "host.example.org/" in source_key(url)
    assert "secret" not in source_key(url)


def test_long_urls_that_differ_at_their_end_keep_different_keys() -> None:
    keys = {source_key(f"s3://lake/{'x' * 600}/{end}") for end in "ab"}

    assert [len(key) for key in keys] == [KEY_LENGTH] * 2
