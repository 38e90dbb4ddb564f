"""Airflow's operators, triggers, hook and decorator for the `stagegate` command."""

from __future__ import annotations

from importlib.metadata import metadata, version
from typing import Any

__version__ = version("airflow-provider-stagegate")

_PACKAGE = "airflow_provider_stagegate"
_INTEGRATION = "Stagegate"


def get_provider_info() -> dict[str, Any]:
    """What Airflow registers of this package."""
    return {
        "package-name": "airflow-provider-stagegate",
        "name": _INTEGRATION,
        "description": "Stages data beside the GPUs, and lets a DAG go on only with a version that passed its gate.",
        "versions": [__version__],
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"], **_documentation()}],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.hook"]}],
        "operators": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.operators", f"{_PACKAGE}.approval"]}
        ],
        "triggers": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.triggers"]}],
        "connection-types": [
            {
                "connection-type": "stagegate",
                "hook-class-name": f"{_PACKAGE}.hook.StagegateHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port", "password"],
                    "relabeling": {"host": "Command", "login": "Identity"},
                    "placeholders": {"host": "/opt/stagegate/bin/stagegate", "login": "airflow@example.org"},
                },
                "conn-fields": {
                    "cache": _field("Cache", "The node's cache folder."),
                    "catalog": _field("Catalog", "The shared catalog: a folder or an object store's URL."),
                    "image": _field("Image", "Run the command in a container of this image."),
                    "engine": _field("Engine", "What runs the container: podman or docker."),
                },
            }
        ],
        "extra-links": [f"{_PACKAGE}.links.VersionLink", f"{_PACKAGE}.links.ReportLink"],
        "task-decorators": [{"name": "require_ready", "class-name": f"{_PACKAGE}.decorators.require_ready_task"}],
        "asset-uris": [
            {
                "schemes": ["stagegate"],
                "handler": f"{_PACKAGE}.assets.sanitize_uri",
                "factory": f"{_PACKAGE}.assets.create_asset",
                "to_openlineage_converter": f"{_PACKAGE}.assets.convert_asset_to_openlineage",
            }
        ],
    }


def _documentation() -> dict[str, str]:
    """Where documentation and logo are, by the repository's `[project.urls]`; nothing while that is empty."""
    lines = metadata("airflow-provider-stagegate").get_all("Project-URL") or ()
    urls = {label: url for label, _, url in (line.partition(", ") for line in lines)}
    places = {"external-doc-url": urls.get("Documentation", "")}
    if source := urls.get("Source", "").rstrip("/"):
        places["logo"] = f"{source}/raw/HEAD/docs/pictures/logo.png"
    return {name: url for name, url in places.items() if url}


def _field(label: str, description: str) -> dict[str, Any]:
    """A field of the connection's form, which Airflow keeps in the connection's extra."""
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
