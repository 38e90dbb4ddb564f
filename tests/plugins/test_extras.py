"""A family whose library is absent says which extra brings it."""

from __future__ import annotations

import re
import sys

import pytest

from prefect_stagegate.doors import sources
from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.sources import open_source


@pytest.mark.parametrize(
    ("library", "url"),
    [
        ("asyncssh", "sftp://nas/x/"),
        ("deltalake", "delta+file:///x"),
        ("hdfs_native", "hdfs://nn:1/x/"),
        ("huggingface_hub", "hf://datasets/me/things/"),
        ("oras.auth.token", "oci://127.0.0.1:1/things:latest"),
        ("pyiceberg.utils.config", "iceberg://lake/ns.things"),
    ],
)
def test_missing_library_is_told_with_its_extra(library: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if re.match(r"prefect_stagegate\.plugins\.(sftp|exchange)\.", name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra) as caught:
        open_source(url)
    extra = sources()[url.partition(":")[0]].extra
    assert caught.value.hint == f'Install it: pip install "prefect-stagegate[{extra}]"'
