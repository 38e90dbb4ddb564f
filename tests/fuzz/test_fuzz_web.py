"""A web server whose answers are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fuzzing.answered import answered_campaign
from fuzzing.answerer import Answerer
from fuzzing.campaign import require_clean
from fuzzing.staging import FILES, Opened, put_files

from tests.support.webservers import rclone

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]

SUMS = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())


def test_http_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with rclone("http", tmp_path) as server, Answerer(server.url) as answerer:
        put_files(server.root)
        (server.root / "SHA256SUMS").write_text(SUMS)
        folder = Opened(f"{answerer.url}/", {})
        manifest = Opened(f"{answerer.url}/SHA256SUMS", {"manifest": "checksums"})
        ways = (folder, folder, manifest)
        require_clean(answered_campaign("http", answerer, scratch / "cache", lambda draw: draw.choice(ways)))
