"""The forms in which others read an attestation, each with another predicate about the same subject.

    recorded      test-result with our extension: what the catalog holds, and what the gate's key signed
    test-result   https://in-toto.io/attestation/test-result/v0.1 alone, for readers that refuse unknown fields
    decision      urn:prefect-stagegate:decision:v3: the extension as a predicate of its own, with a JSON Schema

All follow in-toto's parsing rules: readers ignore fields that they do not know. The version in our type is the
extension's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from prefect_stagegate.gate.records.attest import FORMAT, AttestedDecision, attest, read_extension, read_statement
from prefect_stagegate.spec.schema import DIALECT, PlainJsonSchema

DECISION_PREDICATE = f"urn:prefect-stagegate:decision:v{FORMAT}"
"""Our predicate type. The project has no public address, so it is a name and not a link."""


class AttestationForm(StrEnum):
    """A form in which an attestation can be written."""

    RECORDED = "recorded"
    TEST_RESULT = "test-result"
    DECISION = "decision"


def written_as(statement: Mapping[str, Any], form: AttestationForm) -> dict[str, Any]:
    """Write a recorded Statement in one of the forms.

    Raises:
        CorruptRecord: It isn't one of ours, or its parts contradict each other.
    """
    read_statement(statement)
    predicate = statement["predicate"]
    if form is AttestationForm.DECISION:
        return {**statement, "predicateType": DECISION_PREDICATE, "predicate": predicate["stagegate"]}
    if form is AttestationForm.TEST_RESULT:
        return {**statement, "predicate": {name: value for name, value in predicate.items() if name != "stagegate"}}
    return dict(statement)


def as_recorded(statement: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recorded Statement that a Statement in the form `decision` was written from; any other as it is.

    Raises:
        CorruptRecord: Its predicate is no decision of ours.
    """
    if not isinstance(statement, dict) or statement.get("predicateType") != DECISION_PREDICATE:
        return statement
    attested = read_extension(statement.get("predicate"))
    rewritten = attest(attested.decision, attested.environment, attested.request, attested.approvals)
    predicate = {**rewritten["predicate"], "stagegate": statement["predicate"]}
    return {**statement, "predicateType": rewritten["predicateType"], "predicate": predicate}


def decision_schema() -> dict[str, Any]:
    """The JSON Schema of our predicate, in the 2020-12 dialect."""
    # The list only carries the settings: pydantic takes none beside a dataclass.
    documented = TypeAdapter(list[AttestedDecision], config=ConfigDict(use_attribute_docstrings=True))
    definitions = documented.json_schema(schema_generator=PlainJsonSchema)["$defs"]
    predicate = definitions.pop(AttestedDecision.__name__)
    predicate["properties"]["format"] = {"const": FORMAT, "description": "The version in the predicate type."}
    title = "The predicate of a decision by stagegate"
    return {"$schema": DIALECT, "$id": DECISION_PREDICATE, **predicate, "title": title, "$defs": definitions}
