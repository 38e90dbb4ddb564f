"""What a server may answer instead of a hub's listing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefect_stagegate.errors import AdapterFailed, SourceError, UsageError
from prefect_stagegate.sources import open_source
from tests.support.http_servers import answering


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    with answering() as serve:
        yield serve


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b'{"sha": "a"}', b'[{"path": "a", "type": "file"}]'])
def test_a_hub_that_answers_without_sense_is_told(serve: Callable[..., str], body: bytes) -> None:
    source = open_source("hf://datasets/me/things", {"endpoint": serve(body), "token": False})
    with pytest.raises(SourceError, match="doesn't answer like a Hugging Face hub") as caught:
        list(source.list())
    assert not isinstance(caught.value, AdapterFailed)


BROKEN = ("http://a..b", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://a b", "http://[", "http://")


@pytest.mark.parametrize("url", BROKEN)
def test_a_hub_s_endpoint(url: str) -> None:
    with pytest.raises(UsageError, match="is no http or https URL") as raised:
        open_source("hf://datasets/owner/name", {"endpoint": url})
    assert url.rstrip("/") in str(raised.value)
