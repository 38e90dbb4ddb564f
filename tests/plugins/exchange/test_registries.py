"""Registries against the contract of sources."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from prefect_stagegate.testing.sources import Place, SourceContract
from tests.plugins.exchange.registries import DebianRegistry, SmallRegistry, debian_registry, small_registry
from tests.support.places import NOBODY, WIRE
from tests.support.webservers import PASSWORD as WEB_PASSWORD
from tests.support.webservers import USER as WEB_USER


class TestRegistry(SourceContract):
    """Artifacts of a registry that gives tokens, whose blobs are at another server."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        with small_registry(login="token") as registry:
            registry.elsewhere = f"http://localhost:{registry.host.rpartition(':')[2]}"
            yield _registry_place(registry)


@pytest.mark.system
class TestDebianRegistry(SourceContract):
    """Debian's docker-registry, with a password."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with debian_registry(tmp_path / "registry", password=True) as registry:
            yield _registry_place(registry)


def _registry_place(registry: SmallRegistry | DebianRegistry) -> Place:
    options = {"username": WEB_USER, "password": WEB_PASSWORD}
    return Place(
        f"oci://{registry.host}/me/things:v1/",
        options,
        put=partial(registry.put, "me/things", "v1"),
        remove=partial(registry.remove, "me/things", "v1"),
        denied={**options, "password": "wrong"},
        anonymous={},
        unreachable=(f"oci://{NOBODY}/me/things:v1", options),
        keeps=True,
        library=("json.loads", WIRE),
    )
