"""The standard's own schema and models: the one import of its library, which the extra `odcs` installs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import MissingExtra, install_hint
from prefect_stagegate.spec.parsed_document import ParsedDocument

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from open_data_contract_standard.model import OpenDataContractStandard

WRITTEN = "v3.1.0"
"""The release of the standard that is written: the newest that other tools read."""
LONGEST_MESSAGE = 160
"""Characters of a schema's complaint that are shown; longer ones repeat a whole part of the contract."""


def read_contract(document: ParsedDocument) -> OpenDataContractStandard | None:
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
    # Imported first: without it, reading its schema below would fail by an error that does not say what to install.
    _library()
    # It comes with Great Expectations and Prefect; imported here, for few specs have such a contract.
    from jsonschema import Draft201909Validator

    schema = files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    errors = Draft201909Validator(json.loads(schema)).iter_errors(values)
    return [error for error in errors if not _asks_for_a_map(error)]


def _asks_for_a_map(error: ValidationError) -> bool:
    """Whether an error asks for `map` in a property without a logical type.

    The schema of 3.2 does, by a condition that is also true where the key is absent; the standard's text does not.
    """
    return error.validator_value == ["map"] and "logicalType" not in error.instance


def _library() -> type[OpenDataContractStandard]:
    try:
        from open_data_contract_standard.model import OpenDataContractStandard
    except ImportError as error:
        raise MissingExtra(
            "The library of the Open Data Contract Standard is not installed", hint=install_hint("odcs")
        ) from error
    return OpenDataContractStandard


def _message(error: ValidationError) -> str:
    if len(error.message) <= LONGEST_MESSAGE:
        return f"breaks the standard's schema: {error.message}"
    return f"breaks the standard's schema: the rule `{error.validator}` at {'/'.join(map(str, error.schema_path))}"
