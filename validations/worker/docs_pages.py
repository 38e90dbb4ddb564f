"""Great Expectations' own pages (Data Docs) of judged tables. Only the worker imports this.

The pages hold verdicts, counts and figures, no examples: Great Expectations puts observed values, column names and
descriptions into its pages as they are, so text with markup would act there. `_harmless` replaces what makes markup.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.core import ExpectationSuite, ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, TableJob, TableReport

SITE = "stagegate"
RUN = "stagegate"
_LOOK_ALIKES = str.maketrans({"<": "\u2039", ">": "\u203a", '"': "\u201d", "'": "\u2019", "&": "+", "$": "\uff04"})
"""Angle quotation marks for `<` and `>`, curved quotation marks, and a wide dollar, for its templates."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


def build_site(judged: Sequence[tuple[TableJob, TableReport]], folder: Path) -> None:
    """Write the pages of all tables into `folder`, which is made."""
    # Great Expectations guesses the types of its pictures; the system's list of types is not open to this process.
    mimetypes.knownfiles.clear()
    context = gx.get_context(mode="ephemeral")
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.add_data_docs_site(
        site_name=SITE,
        site_config={"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": backend},
    )
    run = RunIdentifier(run_name=RUN)
    for number, (table, report) in enumerate(judged, start=1):
        name = f"{number}-{_NOT_IN_NAMES.sub('-', report.name)}"
        expectations, results = [], []
        for configuration, judgement in zip(
            _configurations(table.suite, report.judgements), report.judgements, strict=True
        ):
            # Great Expectations has no page for the expectation of a package that can't be loaded.
            with suppress(ExpectationNotFoundError):
                expectations.append(configuration.to_domain_obj())
                results.append(_result(configuration, judgement))
        context.suites.add(ExpectationSuite(name=name, expectations=expectations))
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run, batch_identifier=name)
        context.validation_results_store.set(key, _suite_result(name, run, results))
    context.build_data_docs(site_names=[SITE])


def _configurations(suite: Mapping[str, Any], judgements: Sequence[Judgement]) -> Iterator[ExpectationConfiguration]:
    """The suite's expectations, as far as they were judged, without markup."""
    items = suite["expectations"] if judgements else ()
    for item in items:
        kwargs, description = _harmless(item.get("kwargs") or {}), _harmless(item.get("description"))
        yield ExpectationConfiguration(
            type=item["type"], kwargs=kwargs, description=description, severity=item.get("severity", "critical")
        )


def _result(configuration: ExpectationConfiguration, judgement: Judgement) -> ExpectationValidationResult:
    is_error = judgement.verdict is ExpectationVerdict.ERRORED
    return ExpectationValidationResult(
        success=judgement.verdict is ExpectationVerdict.PASSED,
        expectation_config=configuration,
        result={} if is_error else _figures(judgement),
        exception_info={
            "raised_exception": is_error,
            "exception_message": _harmless(judgement.problem) if is_error else None,
            "exception_traceback": "" if is_error else None,
        },
    )


def _figures(judgement: Judgement) -> dict[str, Any]:
    if judgement.rows is None:
        observed = judgement.refused if judgement.refused is not None else _harmless(judgement.recorded.observed)
        return {"observed_value": observed}
    refused = judgement.refused or 0
    percent = 100 * refused / judgement.rows if judgement.rows else 0.0
    return {"element_count": judgement.rows, "unexpected_count": refused, "unexpected_percent": percent}


def _suite_result(
    name: str, run: RunIdentifier, results: list[ExpectationValidationResult]
) -> ExpectationSuiteValidationResult:
    passed = sum(bool(result.success) for result in results)
    return ExpectationSuiteValidationResult(
        results=results,
        success=passed == len(results),
        suite_name=name,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(results) - passed,
            "success_percent": 100 * passed / len(results) if results else 100.0,
        },
        meta={
            "run_id": run,
            "great_expectations_version": gx.__version__,
            "batch_spec": {},
            "batch_markers": {},
            "active_batch_definition": {},
            "validation_time": stamp(now()),
        },
    )


def _harmless(value: Any) -> Any:
    """The same JSON value with look-alikes for the characters that make markup."""
    if isinstance(value, str):
        return value.translate(_LOOK_ALIKES)
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    return [_harmless(item) for item in value] if isinstance(value, list) else value
