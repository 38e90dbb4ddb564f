"""Links from a task's page in Airflow to the version's page of `stagegate serve`, and to the report of its gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class VersionLink(BaseOperatorLink):
    """To the version's page, where the command's STAGEGATE_PAGES_URL says."""

    name = "Version"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's
        """The page of the version that the task was about; empty without one."""
        return str(getattr(operator, "addresses", {}).get("version", ""))


class ReportLink(BaseOperatorLink):
    """To the report of the gate that the task asked, where the command's STAGEGATE_REPORTS_URL says."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's
        """The report of the gate's last decision about the version; empty without one."""
        return str(getattr(operator, "addresses", {}).get("report", ""))


def addresses_of(document: Any, environment: Mapping[str, str]) -> dict[str, str]:
    """The addresses of what a command's JSON is about: `version`, and `report` where it is a gate's.

    Args:
        document: The command's JSON.
        environment: The command's variables.
    """
    if not (isinstance(document, dict) and document.get("dataset") and document.get("digest")):
        return {}
    dataset, digest = document["dataset"], str(document["digest"]).removeprefix("sha256:")
    pages, reports = (environment.get(f"STAGEGATE_{kind}_URL", "").rstrip("/") for kind in ("PAGES", "REPORTS"))
    addresses = {"version": f"{pages}/datasets/{dataset}/versions/{digest}"} if pages else {}
    if reports and "outcome" in document:
        addresses["report"] = f"{reports}/{dataset}/{document['target']}/{digest}.html"
    return addresses
