"""A server whose answers are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.answered import answered_campaign
from fuzzing.answerer import Answerer
from fuzzing.campaign import require_clean
from fuzzing.staging import FILES, Opened

from tests.plugins.hub.small_hub import small_hub

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]


def test_hub_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with small_hub() as hub, Answerer(hub.endpoint) as answerer:
        hub.put_all("datasets/me/things", FILES)
        hub.endpoint, hub.cdn = answerer.url, answerer.url.replace("127.0.0.1", "localhost")
        opened = Opened("hf://datasets/me/things/", {"endpoint": answerer.url, "token": False})
        require_clean(answered_campaign("hub", answerer, scratch / "cache", lambda _: opened))
