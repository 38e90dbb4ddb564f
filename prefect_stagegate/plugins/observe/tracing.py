"""Spans of OpenTelemetry around the steps of jobs. The one import of its API, late: most processes trace nothing.

Spans are made when the environment names an OTLP endpoint and the extra `otel` is installed, or when this process has
set up OpenTelemetry's SDK itself. A span's parent is the current span: that of Prefect's run, say. Where there is none,
it is the one that `TRACEPARENT` names.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from prefect_stagegate.errors import install_hint

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

Attribute = str | int | float | bool
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORT_SECONDS = 2.0
"""The longest that a command waits at its end for a collector that does not answer, unless the environment says."""
_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_SDK = "opentelemetry.sdk.trace"
_setup = threading.Lock()


@contextmanager
def span(name: str, attributes: Mapping[str, Attribute], *, is_current: bool = True) -> Iterator[Span | None]:
    """A span during the block; None, at no cost, where nothing is traced.

    Args:
        name: Its name; the same for all spans of one kind.
        attributes: Its attributes. They are sent to others, so they hold no secret.
        is_current: Whether it is the parent of spans that begin in the block. A generator's is not: the block of a
            generator is left at each of its values.
    """
    tracer = _tracer()
    if tracer is None:
        yield None
        return
    from opentelemetry.trace import use_span

    started = tracer.start_span(name, context=_parent(), attributes=attributes)
    try:
        if is_current:
            # Their messages may quote what data say, so exceptions are recorded by their type, by the caller.
            with use_span(started, record_exception=False, set_status_on_exception=False):
                yield started
        else:
            yield started
    finally:
        started.end()


def fail_span(failed: Span, kind: str) -> None:
    """Mark a span as failed by an error of the given type."""
    from opentelemetry.trace import Status, StatusCode

    failed.set_attribute("error.type", kind)
    failed.set_status(Status(StatusCode.ERROR, kind))


def set_up_tracing() -> None:
    """Set up the SDK, where the environment names an endpoint and nobody has set it up yet.

    Called before Prefect's first run of a process, so that the spans of runs are sent, too.
    """
    if _is_wanted():
        _provide()


def _is_wanted() -> bool:
    environ = os.environ
    return (
        any(environ.get(name) for name in ENDPOINTS)
        and environ.get("OTEL_TRACES_EXPORTER", "otlp") != "none"
        and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def _tracer() -> Tracer | None:
    """The tracer of this package; None where nothing is traced."""
    if _is_wanted():
        if not _provide():
            return None
    elif _SDK not in sys.modules:
        return None
    from opentelemetry.trace import get_tracer

    return get_tracer("prefect_stagegate")


def _provide() -> bool:
    """Make sure that the process has a provider of tracers; False where its libraries are not installed."""
    with _setup:
        return _provided()


@cache
def _provided() -> bool:
    from importlib.metadata import entry_points

    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return True  # the process has set up its own
    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), "http/protobuf")
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporters = entry_points(group="opentelemetry_traces_exporter", name=_EXPORTERS.get(protocol, ""))
        exporter = next(iter(exporters)).load()
    except (ImportError, StopIteration):
        hint = install_hint("otel")
        log.warning("Spans are not sent: no exporter for the protocol %s is installed. %s", protocol, hint)
        return False
    # What the environment says of the service counts more than our name.
    has_name = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if has_name else {"service.name": "stagegate"}))
    timeout = {} if any(map(os.environ.get, TIMEOUTS)) else {"timeout": EXPORT_SECONDS}
    provider.add_span_processor(BatchSpanProcessor(exporter(**timeout)))
    trace.set_tracer_provider(provider)
    return True


def _parent() -> Context | None:
    """The context of the span that `TRACEPARENT` names; None for the current one, where there is one."""
    from opentelemetry import trace

    traceparent = os.environ.get("TRACEPARENT")
    if not traceparent or trace.get_current_span().get_span_context().is_valid:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
