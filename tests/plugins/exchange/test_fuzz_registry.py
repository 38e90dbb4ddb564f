"""A registry whose answers are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.answered import answered_campaign
from fuzzing.answerer import Answerer
from fuzzing.campaign import require_clean
from fuzzing.staging import FILES, Opened

from tests.plugins.exchange.registries import small_registry

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]


def test_registry_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    with small_registry() as registry, Answerer(f"http://{registry.host}") as answerer:
        registry.tag("me/things", "v1", FILES)
        opened = Opened(f"oci://{answerer.url.removeprefix('http://')}/me/things:v1", {})
        require_clean(answered_campaign("registry", answerer, scratch / "cache", lambda _: opened))
