"""What servers may answer instead of a listing, and parts of objects that are longer or shorter than asked for."""

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


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'[{"name": "a", "type": "file", "size": 1e999, "mtime": "Thu, 01 Jan 1970 00:01:00 GMT"}]',
        b'[{"name": "a", "type": "file", "size": 1, "mtime": "Thu, 01 Jan %d 00:01:00 GMT"}]' % 9**30,
    ],
)
def test_a_page_of_impossible_numbers_is_no_listing(serve: Callable[..., str], body: bytes) -> None:
    assert "no listing" in str(refused(f"{serve(body, Content_Type='application/json')}/"))


def test_a_manifest_may_name_any_bytes(serve: Callable[..., str]) -> None:
    url = serve(b"0" * 64 + b"  a\xff.bin\n")
    (obj,) = open_source(f"{url}/SUMS", {"manifest": "checksums"}).list()
    assert obj.key == "a\udcff.bin"
