"""What a server may answer instead of a listing of WebDAV."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefect_stagegate.errors import AdapterFailed, SourceError
from prefect_stagegate.sources import open_source
from tests.support.http_servers import answering


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    with answering() as serve:
        yield serve


def refused(url: str, **options: str) -> SourceError:
    with pytest.raises(SourceError) as error:
        list(open_source(url, options).list())
    assert not isinstance(error.value, AdapterFailed), error.value
    return error.value


@pytest.mark.parametrize("encoding", ["UTF-1", "UTF-7", "idna"])
def test_webdav_in_an_unknown_encoding_is_no_listing(serve: Callable[..., str], encoding: str) -> None:
    url = serve(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode(), status=207)
    assert "no XML" in str(refused(f"webdav+{url}/"))
