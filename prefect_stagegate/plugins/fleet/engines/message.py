"""A node's report as the message of its flow run's state, which the coordinator reads."""

from __future__ import annotations

from dataclasses import asdict

import orjson
from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.plugins.fleet.barrier import NodeReport

_REPORT = TypeAdapter(NodeReport)


def to_message(report: NodeReport) -> str:
    """Write a report as JSON."""
    return orjson.dumps(asdict(report)).decode()


def from_message(message: str) -> NodeReport | None:
    """Read a report; None for a message that holds none."""
    try:
        return _REPORT.validate_json(message)
    except ValidationError:
        return None
