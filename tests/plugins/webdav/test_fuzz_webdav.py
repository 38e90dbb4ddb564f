"""A server whose answers are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.answered import answered_campaign
from fuzzing.answerer import Answerer
from fuzzing.campaign import require_clean
from fuzzing.staging import Opened, put_files

from tests.support.webservers import rclone

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]


def test_webdav_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with rclone("webdav", tmp_path) as server, Answerer(server.url) as answerer:
        put_files(server.root)
        opened = Opened(f"webdav+{answerer.url}/", {})
        require_clean(answered_campaign("webdav", answerer, scratch / "cache", lambda _: opened))
