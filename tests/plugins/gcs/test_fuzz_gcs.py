"""A server whose answers are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.answered import answered_campaign
from fuzzing.answerer import Answerer
from fuzzing.campaign import require_clean
from fuzzing.staging import FILES, Opened

from tests.plugins.clouds import Cloud

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]


def test_gcs_keeps_its_promise(tmp_path: Path, scratch: Path, gcs: Cloud) -> None:
    url = gcs.bucket("fuzzed")
    client = gcs.client()
    for name, data in FILES.items():
        client.pipe_file(f"fuzzed/{name}", data)
    with Answerer(gcs.endpoint_url) as answerer:
        opened = Opened(f"{url}/", {**gcs.storage_options, "endpoint_url": answerer.url})
        require_clean(answered_campaign("gcs", answerer, scratch / "cache", lambda _: opened))
