"""A family whose library is absent says which extra brings it."""

from __future__ import annotations

import sys

import pytest

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.sources import open_source


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("delta+file:///mnt/table", "deltalake", "delta"),
        ("iceberg://lake/ns.table", "pyiceberg.utils.config", "iceberg"),
        ("hf://datasets/me/things", "huggingface_hub", "hf"),
    ],
)
def test_an_absent_library_is_named_by_its_extra(
    url: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra) as caught:
        open_source(url)
    assert f"prefect-stagegate[{extra}]" in caught.value.hint
