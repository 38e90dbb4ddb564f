"""Load a `Spec` from a file, a URL or a dictionary, or report every problem of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prefect_stagegate.doors import offered
from prefect_stagegate.errors import SpecError
from prefect_stagegate.spec.complaints import report_errors
from prefect_stagegate.spec.fields import Context
from prefect_stagegate.spec.models import Requirement, Spec
from prefect_stagegate.spec.parsed_document import ParsedDocument, UnreadableDocument, mapping_document, read_document
from prefect_stagegate.spec.requirements import KnownChecks, read_rule, resolve_gates
from prefect_stagegate.spec.suites import ArgumentProblems, inline_suites
from prefect_stagegate.spec.urls import is_url, local_path, place, without_secrets
from prefect_stagegate.spec.vocabulary import type_problem
from prefect_stagegate.spec.yamltree import Loc

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Allowed

Examine = Callable[[Spec, ParsedDocument], Iterable[tuple[Loc, str]]]
"""Finds what is wrong with a loaded spec, each problem with its place in the document."""
DICTIONARY = "spec"
"""What problems call a spec that came as a dictionary."""


class Recorded(dict[str, Any]):
    """A spec from a record: no file lies beside it, since its writer must not have this node read one."""


def load_spec(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    known_checks: KnownChecks,
    argument_problems: ArgumentProblems | None = None,
    allowed: Allowed = (),
    examine: Examine | None = None,
) -> Spec:
    """Load a spec with its suites.

    Args:
        source: A path; a URL (https, http or one of `DOCUMENT_SCHEMES`); or the spec itself as a dictionary. Paths in
            the spec are relative to its file, and those in a dictionary to the current folder.
        known_checks: The checks that gates may name, each with the model of its parameters and its severity.
        argument_problems: Finds what is wrong with the arguments of expectations; with it, column types are checked,
            too. None for a spec that is stored already: it must stay readable.
        allowed: Hosts that it may be read from, whatever their address is.
        examine: Finds what else is wrong with a spec that has no problem, each by its place.

    Raises:
        SpecError: The spec can't be read or is wrong; the error has all problems.
    """
    if isinstance(source, Mapping):
        document = mapping_document(source, DICTIONARY, "record://" if isinstance(source, Recorded) else "")
    else:
        label = os.fspath(source)
        location = place(label, str(Path.cwd()))
        # The label stands in every message, and a URL may hold a password or a signature.
        label = without_secrets(label) if is_url(label) and local_path(label) is None else label
        try:
            document = read_document(location, label, allowed)
        except UnreadableDocument as error:
            raise SpecError(label, [f"{label}: {error}"]) from error
        if not isinstance(document.values, dict) and not document.problems:
            document.report((), "is not a spec: a spec is a mapping with `stagegate`, `dataset` and `sources`")
    spec = _checked(document, known_checks, argument_problems) if isinstance(document.values, dict) else None
    if spec is not None and not document.problems:
        for loc, message in examine(spec, document) if examine else ():
            document.report(loc, message)
    # The model can be built although a suite or a gate has problems: those are only in the document.
    if spec is None or document.problems:
        raise SpecError(document.label, document.ordered_problems())
    return spec


def _checked(
    document: ParsedDocument, known_checks: KnownChecks, argument_problems: ArgumentProblems | None
) -> Spec | None:
    """Build the spec; None, with the problems in the document, when it is wrong."""
    values, left_out = document.values, tuple[str, ...]()
    requirements: dict[str, tuple[Requirement, ...]] = {}
    # Suites first, since they are part of the contract; gates before the model, which takes their settled requirements.
    if isinstance(values.get("contract"), dict):
        if argument_problems:
            _report_column_types(document)
        values = inline_suites(document, argument_problems)
        if not values["contract"].keys().isdisjoint(("odcs", "partial")):
            expand = offered("expanders", "odcs", "`odcs` in a contract")
            values, left_out = expand(document, values, argument_problems)
    if not values.keys().isdisjoint(("gates", "policy")):
        values, requirements = resolve_gates(document, values, known_checks)
        policy = values.get("policy")
        for rule in policy if isinstance(policy, dict) else ():
            values = read_rule(document, values, rule, known_checks)
    try:
        return Spec.model_validate(values, context=Context(document.base, requirements, left_out))
    except ValidationError as error:
        report_errors(document, error.errors(), Spec)
        return None


def _report_column_types(document: ParsedDocument) -> None:
    """Report column types that do not exist."""
    tables = document.values["contract"].get("tables")
    for table, promises in (tables if isinstance(tables, dict) else {}).items():
        columns = promises.get("columns") if isinstance(promises, dict) else None
        for column, kind in (columns if isinstance(columns, dict) else {}).items():
            if isinstance(kind, str) and (problem := type_problem(kind)):
                document.report(("contract", "tables", table, "columns", column), problem)
