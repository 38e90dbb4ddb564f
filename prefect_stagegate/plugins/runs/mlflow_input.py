"""Versions as inputs of MLflow's runs, for processes that have imported MLflow.

MLflow finds the source by its entry point, and imports this module while it is imported itself: the rest comes late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from prefect_stagegate.jobs.read import VersionInUse, locate, open_cache, read_catalog
from prefect_stagegate.model import Address

SCHEME, SOURCE_TYPE = "stagegate://", "stagegate"
DIGEST_LENGTH = 36
"""Characters of a digest that MLflow keeps: enough to name the version. The source and the tags have all of it."""


class StagegateDatasetSource(DatasetSource):  # type: ignore[misc] # MLflow is absent where types are checked
    """A version, as the source of a dataset: `stagegate://flights@sha256-4f9c…`."""

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url.removeprefix(SCHEME))
        self.url = url

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, str) and raw_source.startswith(SCHEME)

    @classmethod
    def _resolve(cls, raw_source: str) -> StagegateDatasetSource:
        return cls(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """The URL alone."""
        return {"url": self.url}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> StagegateDatasetSource:
        """What `to_dict` gave; the tracker's server may have changed it.

        Raises:
            UsageError: It names no version.
        """
        return cls(str(source_dict.get("url", "")))

    def load(self) -> Path:
        """The folder of the version on this node. Nothing keeps it there: `open_dataset` does.

        Raises:
            UnknownRef: This node does not have it.
        """
        return locate(open_cache(), self.address.counted(read_catalog())).path


def log_input(run: str, uri: str, version: VersionInUse, tags: dict[str, str]) -> None:
    """Log a version as an input of a run of the tracker at `uri`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.tracking import MlflowClient

    source = StagegateDatasetSource(version.url)
    dataset = Dataset(version.dataset, version.digest[:DIGEST_LENGTH], SOURCE_TYPE, source.to_json())
    logged = DatasetInput(dataset, [InputTag(name, value) for name, value in tags.items()])
    MlflowClient(uri).log_inputs(run, [logged])


def registered_models(run: str, uri: str, most: int) -> list[str]:
    """The models that a run has registered, as `NAME/VERSION`."""
    from mlflow.tracking import MlflowClient

    models = MlflowClient(uri).search_model_versions(f"run_id='{run}'", max_results=most)
    return [f"{model.name}/{model.version}" for model in models]
