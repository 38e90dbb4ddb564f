"""A small REST catalog of Iceberg's for tests: it serves one table, and answers whatever a test has it answer.

    with small_catalog(table.metadata.model_dump_json(), location) as catalog:
        catalog.overrides["prefix"] = "main"

Real catalogs answer properties that pyiceberg obeys; this one can answer any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_servers import Handler, http_server


@dataclass
class SmallCatalog:
    """What the catalog answers; a test changes it between requests."""

    metadata: dict[str, Any]
    """The table's metadata, as its metadata file has them."""
    metadata_location: str
    uri: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Of the answer to `/v1/config`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Of the answer to `/v1/config`; the client's own properties lose against them."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the answer about the table."""
    redirect: str = ""
    """Where requests for the table are sent instead."""
    requests: list[str] = field(default_factory=list)
    """The paths that were asked for."""
    logins: set[str] = field(default_factory=set)
    """What came as `Authorization`."""

    def answer(self, path: str) -> dict[str, Any] | None:
        """The answer to a GET request; None where there is nothing."""
        self.requests.append(path)
        if path.startswith("/v1/config"):
            return {"defaults": self.defaults, "overrides": self.overrides}
        if "/tables/" in path:
            return {"metadata-location": self.metadata_location, "metadata": self.metadata, "config": self.config}
        return None


@contextmanager
def small_catalog(metadata: str, metadata_location: str) -> Iterator[SmallCatalog]:
    """Serve a table on the loopback interface.

    Args:
        metadata: The table's metadata, in JSON.
        metadata_location: Where they lie.
    """
    catalog = SmallCatalog(json.loads(metadata), metadata_location)

    class Answering(Handler):
        def do_GET(self) -> None:
            answer = catalog.answer(self.path)
            catalog.logins.add(self.headers.get("Authorization", ""))
            if catalog.redirect and "/tables/" in self.path:
                self.respond(302, headers={"Location": catalog.redirect})
                return
            self._send(answer)

        def do_POST(self) -> None:
            self.read_body()
            self._send({"access_token": "a-token", "token_type": "bearer"} if "oauth" in self.path else None)

        def _send(self, answer: dict[str, Any] | None) -> None:
            body = json.dumps(answer or {"error": {"message": "no such thing", "type": "x", "code": 404}}).encode()
            self.respond(200 if answer else 404, body, {"Content-Type": "application/json"})

    with http_server(Answering) as url:
        catalog.uri = url
        yield catalog
