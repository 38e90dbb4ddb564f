"""Spans of OpenTelemetry around the steps of jobs. The one import of its API, late.

Spans are made when the environment names an OTLP endpoint and the extra `otel` is installed, or when this process has
set up OpenTelemetry's SDK itself. A span's parent is the current span: that of Prefect's run, say. Where there is none,
it is the one that `TRACEPARENT` names.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.errors import install_hint, kind_of

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORT_SECONDS = 2.0
"""The longest that a command waits at its end for a collector that does not answer, unless the environment says."""
_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_SDK = "opentelemetry.sdk.trace"
_setup = threading.Lock()


class StepSpan(Observer):
    """The span of a step; does nothing where nothing is traced."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def begun(self, job: Job) -> None:
        """Start the span, and make it the parent of those that begin in the step."""
        tracer = _tracer()
        if tracer is None:
            return
        from opentelemetry import context, trace

        attributes = {"stagegate.dataset": job.dataset}
        self._span = tracer.start_span(f"stagegate.{job.name}", context=_parent(), attributes=attributes)
        if job.is_current:
            self._token = context.attach(trace.set_span_in_context(self._span))

    def ended(self, job: Job) -> None:
        """End the span with the facts of the step, and mark it as failed by the type of the step's error."""
        if self._span is None:
            return
        from opentelemetry import context
        from opentelemetry.trace import Status, StatusCode

        if self._token:
            context.detach(self._token)
        facts = {f"stagegate.{name}": fact for name, fact in job.facts.items()}
        self._span.set_attributes({"stagegate.outcome": job.outcome, **facts})
        # By its type: an error's message may quote what data say.
        if job.error and job.outcome == "error":
            self._span.set_attribute("error.type", kind_of(job.error))
            self._span.set_status(Status(StatusCode.ERROR, kind_of(job.error)))
        self._span.end()


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
