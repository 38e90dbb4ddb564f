"""Options that no adapter of a plugin takes are refused in a spec, at their lines."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.errors import SpecError, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec


@pytest.mark.parametrize(
    ("url", "options", "what"),
    [
        ("iceberg://lake/a.b", {"py-io-impl": "a.B"}, "py-io-impl: is no option of an Iceberg source"),
        (
            "iceberg://lake/a.b",
            {"ssl": {"client": {"cert": "x"}}},
            "ssl.client.cert: is no option of an Iceberg source",
        ),
        ("delta+file:///mnt/t", {"anon": True}, "anon: is no option of a Delta table in a folder"),
        ("postgresql://db/x#t", {"driver": "/tmp/evil.so"}, "driver: is no option of a SQL source"),
        ("hdfs://nn/", {"dfs.data.dir": "x"}, "dfs.data.dir: is no option of an HDFS source"),
        ("hf://me/x", {"cache_dir": "/etc"}, "cache_dir: is no option of the hub"),
        ("abfs://lake/", {"account_nam": "x"}, "did you mean 'account_name'?"),
        ("abfs://lake/", {"connection_string": "AccountKey=hunter2"}, "connection_string: looks like a credential"),
        ("gs://lake/", {"endpint_url": "x"}, "did you mean 'endpoint_url'?"),
        ("sftp://nas/", {"proxy_command": "x"}, "proxy_command: is no option of an SFTP source"),
    ],
)
def test_an_option_that_may_not_be_given_is_told(url: str, options: dict[str, Any], what: str) -> None:
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": options}]}
    with pytest.raises(SpecError) as caught:
        load_spec(spec, known_checks={})
    assert what in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_format_without_a_place_is_completed() -> None:
    with pytest.raises(UsageError, match=r"Did you mean delta\+"):
        open_source("delta://table", {})
