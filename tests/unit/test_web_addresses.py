"""What a user names that is no address of the web: it is told as his mistake, before anybody is asked."""

from __future__ import annotations

import gc
import sys
import traceback
from typing import Any

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.sources import open_source

BROKEN = ("http://a..b", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://a b", "http://[", "http://")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Any:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    yield
    gc.collect()
    assert ignored == []


@pytest.mark.parametrize("url", BROKEN)
def test_a_source_s_url(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_source(f"{url}/data/")
    assert raised.value.source == f"{url}/data/"
    assert "host" in raised.value.hint


def test_a_password_that_looks_like_a_port_is_told_to_nobody() -> None:
    with pytest.raises(UsageError) as raised:
        open_source("http://me:canary/secret@127.0.0.1/data/")
    assert "canary" not in "".join(traceback.format_exception(raised.value)).partition("Error: ")[2]
