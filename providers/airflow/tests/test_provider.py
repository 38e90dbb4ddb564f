"""What Airflow registers of this package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.message import Message
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import pytest
import yaml  # type: ignore[import-untyped]

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # its place until Airflow 3.2
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
from airflow.providers_manager import ProvidersManager
from jsonschema import validate

import airflow_provider_stagegate
from airflow_provider_stagegate import get_provider_info

PROVIDER = Path(__file__).parents[1]
INFO = get_provider_info()


def names(value: Any) -> Iterator[str]:
    """The modules and the classes or functions that a value names."""
    if isinstance(value, dict):
        for part in value.values():
            yield from names(part)
    elif isinstance(value, list):
        for part in value:
            yield from names(part)
    elif isinstance(value, str) and value.startswith("airflow_provider_stagegate."):
        yield value


def test_entry_point_leads_to_valid_information() -> None:
    (entry,) = entry_points(group="apache_airflow_provider", module="airflow_provider_stagegate")
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    validate(entry.load()(), schema)


def test_addresses_of_the_project_are_airflows(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Message()
    filled["Project-URL"] = "Documentation, https://docs.example/stagegate"
    filled["Project-URL"] = "Source, https://forge.example/stagegate"
    monkeypatch.setattr(airflow_provider_stagegate, "metadata", lambda _: filled)
    (integration,) = get_provider_info()["integrations"]
    assert integration["external-doc-url"] == "https://docs.example/stagegate"
    assert integration["logo"] == "https://forge.example/stagegate/raw/HEAD/docs/pictures/logo.png"


def test_registry_file_names_what_airflow_registers() -> None:
    listed = yaml.safe_load((PROVIDER.parents[1] / ".airflow-registry.yaml").read_text())
    assert (listed["package-name"], listed["description"]) == (INFO["package-name"], INFO["description"])
    modules = {entry["module"] for entry in (*listed["operators"], *listed["other"])}
    for name in modules:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute)
    registered = {name for entry in INFO["operators"] for name in entry["python-modules"]}
    assert registered <= {name.rpartition(".")[0] for name in modules}


@pytest.mark.parametrize("name", sorted(set(names(INFO))))
def test_everything_registered_exists(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute)


def test_form_of_the_connection_has_its_fields() -> None:
    manager = ProvidersManager()
    hook = manager.hooks["stagegate"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Stagegate", "stagegate_conn_id")


@pytest.mark.parametrize("page", ["README.md", "../../docs/how-to/airflow.md"])
def test_dags_of_a_page_can_be_read(page: str, tmp_path: Path) -> None:
    file = tmp_path / "dags.py"
    (example,) = re.findall(r"```python\n(.*?)```", (PROVIDER / page).read_text(), flags=re.DOTALL)
    file.write_text(example)
    bag = DagBag(file)
    assert bag.import_errors == {}
    assert bag.dags["nycflights"].task_ids == ["stage", "pilot", "approval", "production"]
    assert bag.dags["training"].task_ids == ["train"]


def test_the_package_never_imports_prefect_stagegate() -> None:
    folder = Path(airflow_provider_stagegate.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text()
        assert "import prefect_stagegate" not in text
        assert "from prefect_stagegate" not in text
