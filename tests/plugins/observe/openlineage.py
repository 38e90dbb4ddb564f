"""A server that takes OpenLineage events, and what compares each event with OpenLineage's own model of it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Union
from urllib.parse import urlsplit
from uuid import UUID

import attr
from openlineage.client import event_v2, facet_v2
from openlineage.client.generated.base import BaseFacet

from tests.support.http_servers import Handler, http_server

FACETS: dict[str, type[BaseFacet]] = {
    "columnLineage": facet_v2.column_lineage_dataset.ColumnLineageDatasetFacet,
    "dataQualityAssertions": facet_v2.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "ownership": facet_v2.ownership_dataset.OwnershipDatasetFacet,
    "parent": facet_v2.parent_run.ParentRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "storage": facet_v2.storage_dataset.StorageDatasetFacet,
    "tags": facet_v2.tags_run.TagsRunFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
}
"""The facets that events of this package have. OpenLineage generates these classes from its JSON schemas."""


@dataclass
class Receiver:
    """A running server."""

    url: str
    events: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 201
    """What it answers."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a server on the loopback interface that keeps the events it is sent."""

    class Receiving(Handler):
        def do_POST(self) -> None:
            body = self.read_body()
            if running.status < 300:
                running.events.append(json.loads(body))
                running.headers.append(dict(self.headers))
            self.respond(running.status)

    with http_server(Receiving) as url:
        running = Receiver(url)
        yield running


def check_event(event: dict[str, Any]) -> None:
    """Compare an event with OpenLineage's own classes: no other key, each required one, and values of their types."""
    _check(event, event_v2.RunEvent, "event")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo
    assert event["eventType"] in event_v2.RunState.__members__
    assert str(UUID(event["run"]["runId"])) == event["run"]["runId"]
    assert urlsplit(event["producer"]).scheme == "urn"
    json.dumps(event, ensure_ascii=False).encode()  # no half of a character, which other languages refuse


def _check(value: Any, kind: Any, where: str) -> None:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        _check(value, inner, where)
    elif origin is list:
        assert isinstance(value, list), where
        for number, each in enumerate(value):
            _check(each, arguments[0], f"{where}[{number}]")
    elif origin is dict:
        assert isinstance(value, dict), where
        for key, each in value.items():
            is_facet = isinstance(arguments[1], type) and issubclass(arguments[1], BaseFacet)
            _check(each, FACETS[key] if is_facet else arguments[1], f"{where}.{key}")
    elif attr.has(kind):
        _check_object(value, kind, where)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        assert value in kind.__members__, where
    elif kind is not Any:
        assert type(value) is kind, f"{where} is {value!r}, no {kind}"


def _check_object(value: Any, kind: Any, where: str) -> None:
    assert isinstance(value, dict), where
    hints = typing.get_type_hints(kind)
    known = {each.name: each for each in attr.fields(kind)}
    assert value.keys() <= known.keys(), f"{where} has {value.keys() - known.keys()}"
    required = {name for name, each in known.items() if each.default is attr.NOTHING} | (
        {"_producer", "_schemaURL"} if issubclass(kind, BaseFacet) else set()
    )
    assert required <= value.keys(), f"{where} lacks {required - value.keys()}"
    for key, each in value.items():
        _check(each, hints[key], f"{where}.{key}")
    if issubclass(kind, BaseFacet):
        # A job's ownership has the same fields as a dataset's.
        assert value["_schemaURL"].rpartition("#")[0].endswith("Facet.json"), where
