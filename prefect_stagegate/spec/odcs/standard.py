"""The standard's own schema and models: the one import of its library, which the extra `odcs` installs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.spec.document import Document

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from open_data_contract_standard.model import OpenDataContractStandard

WRITTEN = "v3.1.0"
"""The release of the standard that is written: the newest that other tools read."""
LONGEST_MESSAGE = 160
"""Characters of a schema's complaint that are shown; longer ones repeat a whole part of the contract."""


def read_contract(document: Document) -> OpenDataContractStandard | None:
    """Check a document by the standard's schema and read it; None, with the problems reported, when it breaks that.

    Raises:
        MissingExtra: The library is not installed.
    """
    library = _library()
    if errors := schema_errors(document.values):
        for error in errors:
            document.report(error.absolute_path, _message(error))
        return None
    contract: OpenDataContractStandard = library.model_validate(document.values)
    return contract


def schema_errors(values: Any) -> list[ValidationError]:
    """The places where a contract breaks the standard's JSON Schema.

    Raises:
        MissingExtra: The library is not installed.
    """
    library = _library()
    from jsonschema import Draft201909Validator

    return list(Draft201909Validator(json.loads(library.json_schema())).iter_errors(values))


def _library() -> type[OpenDataContractStandard]:
    try:
        from open_data_contract_standard.model import OpenDataContractStandard
    except ImportError as error:
        raise MissingExtra(
            "The library of the Open Data Contract Standard is not installed",
            hint='Install it: pip install "prefect-stagegate[odcs]"',
        ) from error
    return OpenDataContractStandard


def _message(error: ValidationError) -> str:
    if len(error.message) <= LONGEST_MESSAGE:
        return f"breaks the standard's schema: {error.message}"
    return f"breaks the standard's schema: the rule `{error.validator}` at {'/'.join(map(str, error.schema_path))}"
