"""A receiver of OpenTelemetry's protocol over HTTP: it reads the protobuf messages that real collectors read."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.http_servers import Handler, http_server


@dataclass(frozen=True)
class ReceivedSpan:
    name: str
    id: str
    parent: str
    trace: str
    attributes: dict[str, Any]
    failed: bool
    service: str
    library: str


@dataclass
class Collector:
    """What was received."""

    url: str = ""
    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What sends spans here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url}

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReceivedSpan:
        (span,) = self.named(name)
        return span

    def receive(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [
                    ReceivedSpan(
                        span.name,
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.trace_id.hex(),
                        _values(span.attributes),
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        service,
                        scope.scope.name,
                    )
                    for span in scope.spans
                ]


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Receive spans during the block."""
    received = Collector()

    class Receiving(Handler):
        def do_POST(self) -> None:
            body = self.read_body()
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            received.receive(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.respond(200, answer, {"Content-Type": "application/x-protobuf"})

    with http_server(Receiving) as url:
        received.url = url
        yield received
