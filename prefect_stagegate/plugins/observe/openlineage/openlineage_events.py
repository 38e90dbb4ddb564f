"""Lineage as OpenLineage's run events, made and sent by its own client. The one import of its library.

A thread of its own sends the events of a run, in order: the job never waits for a server before its end.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from openlineage.client import OpenLineageClient
from openlineage.client import event_v2 as events
from openlineage.client import facet_v2 as facets
from openlineage.client.uuid import generate_new_uuid

from prefect_stagegate import __version__
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.plugins.observe import LINEAGE_CONFIGURATION
from prefect_stagegate.plugins.observe.openlineage.dataset_names import DatasetName, clean
from prefect_stagegate.plugins.observe.openlineage.lineage_datasets import Assertion, LineageDataset
from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import Described
from prefect_stagegate.redaction import remember_access

PRODUCER = f"urn:prefect-stagegate:{__version__}"
INTEGRATION = "STAGEGATE"
NAMESPACE = "stagegate"
"""The namespace of jobs, where `OPENLINEAGE_NAMESPACE` names none."""
TRANSPORT_SECONDS = 5.0
"""How long a transport with a queue of its own may take to send what is in it."""
_PARENT_PARTS = 3
T = TypeVar("T")


class LineageClient(OpenLineageClient):
    """OpenLineage's client, which reads no configuration from the working directory, and changes no environment."""

    def _alias_env_vars(self) -> None:
        # It would write the server's URL and key into this process's environment, for all of its children.
        pass

    @staticmethod
    def _find_yaml_config_path() -> str | None:
        configured = os.environ.get("OPENLINEAGE_CONFIG")
        path = Path(configured or LINEAGE_CONFIGURATION).expanduser()
        if path.is_file():
            return str(path)
        if configured:
            raise ValueError(f"OPENLINEAGE_CONFIG names {configured}, which is no file")
        return None


def open_client() -> LineageClient:
    """The client that OpenLineage's configuration describes.

    Raises:
        ValueError: It names no transport.
    """
    # Unless the user asks for it: the URL of the repository around the working directory may hold a password.
    client = LineageClient(config={"facets": {"source_code_location": {"disabled": True}}})
    transport = client.config.transport or {}
    # Errors of the transport are shown.
    auth = {name: value for name, value in dict(transport.get("auth") or {}).items() if name != "type"}
    key = {"OPENLINEAGE_API_KEY": os.environ.get("OPENLINEAGE_API_KEY", "")}
    remember_access(
        str(transport.get("url") or os.environ.get("OPENLINEAGE_URL", "")), {**transport, "auth": auth, **key}
    )
    if client.transport.kind == "console" and transport.get("type") != "console":
        raise ValueError("OpenLineage's configuration names no transport: set OPENLINEAGE_URL, or `transport:`")
    return client


class EventSender:
    """Sends the events of one run.

    Attributes:
        job: The job's name.
    """

    def __init__(self, job: str, dataset: str, target: str, tags: Mapping[str, str]) -> None:
        self.job = ".".join(filter(None, (dataset, job, target)))
        self._kind, self._tags = job.upper(), tags
        self._run = str(generate_new_uuid())
        self._queue: queue.SimpleQueue[events.RunEvent | None] = queue.SimpleQueue()
        self._problem = ""
        self._thread = threading.Thread(target=self._work, name="stagegate-lineage", daemon=True)
        self._thread.start()

    def send(self, state: str, described: Described, error: str = "") -> None:
        """Queue an event: `START`, `COMPLETE`, `FAIL` or `ABORT`, the last two with an error's message."""
        event = events.RunEvent(
            eventTime=stamp(now()),
            eventType=events.RunState[state],
            run=events.Run(self._run, self._run_facets(error)),
            job=events.Job(os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE, self.job, self._job_facets(described)),
            inputs=[_input(dataset) for dataset in described.inputs],
            outputs=[_output(dataset) for dataset in described.outputs],
            producer=PRODUCER,
        )
        self._queue.put(event)

    def close(self, seconds: float) -> str:
        """Wait until all events are sent, and say why one was not; empty when all were."""
        self._queue.put(None)
        self._thread.join(seconds)
        return f"the transport took longer than {seconds:g} s" if self._thread.is_alive() else self._problem

    def _work(self) -> None:
        client: LineageClient | None = None
        while event := self._queue.get():
            try:
                client = client or open_client()
                client.emit(event)
            except Exception as error:  # noqa: BLE001 - whatever ails the transport, the job goes on
                self._problem = f"{type(error).__name__}: {error}"
        if client and not client.close(timeout=TRANSPORT_SECONDS):
            self._problem = self._problem or "the transport did not send them in time"

    def _run_facets(self, error: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "processing_engine": _facet(
                facets.processing_engine_run.ProcessingEngineRunFacet, version=__version__, name="prefect-stagegate"
            ),
            "tags": _facet(
                facets.tags_run.TagsRunFacet,
                tags=[
                    facets.tags_run.TagsRunFacetFields(key, clean(value), INTEGRATION)
                    for key, value in self._tags.items()
                ],
            ),
        }
        if error:
            made["errorMessage"] = _facet(
                facets.error_message_run.ErrorMessageRunFacet, message=clean(error), programmingLanguage="Python"
            )
        if parent := _parent(os.environ.get("OPENLINEAGE_PARENT_ID", "")):
            made["parent"] = parent
        return made

    def _job_facets(self, described: Described) -> dict[str, Any]:
        made: dict[str, Any] = {
            "jobType": _facet(
                facets.job_type_job.JobTypeJobFacet,
                processingType="BATCH",
                integration=INTEGRATION,
                jobType=self._kind,
            )
        }
        owners = {
            owner: kind for each in (*described.inputs, *described.outputs) for kind, owner in each.owners.items()
        }
        if owners:
            made["ownership"] = _facet(
                facets.ownership_job.OwnershipJobFacet,
                owners=[facets.ownership_job.Owner(owner, kind) for owner, kind in owners.items()],
            )
        return made


def _facet(kind: Callable[..., T], **values: Any) -> T:
    """A facet that names this package as its producer; the library's default is one for the whole process."""
    return kind(producer=PRODUCER, **values)


def _parent(text: str) -> Any:
    """The run that started this one, as `OPENLINEAGE_PARENT_ID` names it: namespace/job/run; None for no such text."""
    parts = text.rsplit("/", _PARENT_PARTS - 1)
    try:
        namespace, job, run = parts[0], parts[1], str(UUID(parts[2]))
    except (IndexError, ValueError):
        return None
    return _facet(
        facets.parent_run.ParentRunFacet,
        run=facets.parent_run.Run(run),
        job=facets.parent_run.Job(clean(namespace), clean(job)),
    )


def _input(dataset: LineageDataset) -> events.InputDataset:
    found: dict[str, Any] = {}
    if dataset.assertions:
        found["dataQualityAssertions"] = _facet(
            facets.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
            assertions=[_assertion(each) for each in dataset.assertions],
        )
    name = dataset.name
    return events.InputDataset(name.namespace, name.name, inputFacets=found, facets=_dataset_facets(dataset))


def _output(dataset: LineageDataset) -> events.OutputDataset:
    written: dict[str, Any] = {}
    if dataset.files is not None:
        written["outputStatistics"] = _facet(
            facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
            size=dataset.bytes,
            fileCount=dataset.files,
        )
    made = _dataset_facets(dataset)
    if dataset.sources and dataset.columns:
        made["columnLineage"] = _facet(
            facets.column_lineage_dataset.ColumnLineageDatasetFacet,
            fields={
                column: facets.column_lineage_dataset.Fields([_input_field(each, column) for each in dataset.sources])
                for column in dataset.columns
            },
        )
    name = dataset.name
    return events.OutputDataset(name.namespace, name.name, outputFacets=written, facets=made)


def _dataset_facets(dataset: LineageDataset) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if dataset.version:
        made["version"] = _facet(
            facets.dataset_version_dataset.DatasetVersionDatasetFacet, datasetVersion=dataset.version
        )
    if dataset.layer:
        made["storage"] = _facet(
            facets.storage_dataset.StorageDatasetFacet,
            storageLayer=dataset.layer,
            fileFormat=dataset.format or None,
        )
    if dataset.columns:
        made["schema"] = _facet(
            facets.schema_dataset.SchemaDatasetFacet,
            fields=[
                facets.schema_dataset.SchemaDatasetFacetFields(column, kind, ordinal_position=position)
                for position, (column, kind) in enumerate(dataset.columns.items(), start=1)
            ],
        )
    if dataset.owners:
        made["ownership"] = _facet(
            facets.ownership_dataset.OwnershipDatasetFacet,
            owners=[facets.ownership_dataset.Owner(owner, kind) for kind, owner in dataset.owners.items()],
        )
    return made


def _assertion(found: Assertion) -> Any:
    return facets.data_quality_assertions_dataset.Assertion(
        assertion=found.name,
        success=found.passed,
        column=found.column or None,
        severity=found.severity,
        description=found.description or None,
        actual=found.actual or None,
    )


def _input_field(source: DatasetName, column: str) -> Any:
    """The column of a source that a column is, byte for byte."""
    return facets.column_lineage_dataset.InputField(
        source.namespace,
        source.name,
        column,
        [facets.column_lineage_dataset.Transformation("DIRECT", "IDENTITY", masking=False)],
    )
