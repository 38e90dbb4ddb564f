"""Whatever `dcgmi` writes, only tests that ran and passed are a pass."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Outcome
from prefect_stagegate.plugins.node.checks.dcgm import evaluate
from prefect_stagegate.plugins.node.dcgmi import parse_diagnosis

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
STATUSES = st.sampled_from(["Pass", "PASS", "Warn", "Fail", "Skip", "Not Run", "", None, 7])
WARNINGS = st.one_of(JSON, st.lists(st.fixed_dictionaries({"warning": JSON, "error_severity": JSON | st.just(5)})))
RESULTS = st.one_of(JSON, st.fixed_dictionaries({"status": STATUSES | JSON}, optional={"warnings": WARNINGS}))
TESTS = st.one_of(JSON, st.fixed_dictionaries({"name": JSON, "results": st.lists(RESULTS, max_size=3) | JSON}))
CATEGORIES = st.one_of(JSON, st.fixed_dictionaries({"tests": st.lists(TESTS, max_size=3) | JSON}))
TOPS = st.one_of(JSON, st.fixed_dictionaries({"test_categories": st.lists(CATEGORIES, max_size=2) | JSON}))
OUTPUTS = st.dictionaries(st.sampled_from(["DCGM Diagnostic", "DCGM GPU Diagnostic", "metadata"]), TOPS)


def statuses(value: Any) -> list[Any]:
    """Every status that stands anywhere in an output."""
    if isinstance(value, dict):
        own = [value["status"]] if "status" in value else []
        return own + [status for inner in value.values() for status in statuses(inner)]
    return [status for inner in value for status in statuses(inner)] if isinstance(value, list) else []


@given(OUTPUTS | JSON, st.sampled_from([0, 0, 0, 1, 226]), st.text(max_size=20))
def test_run_passes_only_with_passed_tests_and_no_error(output: Any, code: int, before: str) -> None:
    written = f"{before.replace('{', '')}\n{json.dumps(output)}"
    try:
        answer = evaluate(parse_diagnosis(code, written, ""), 1)
    except StagegateError:
        return
    json.dumps(dict(answer.measured))
    if answer.outcome is Outcome.PASS:
        assert code == 0
        assert {str(status).upper() for status in statuses(output)} >= {"PASS"}
        assert not answer.findings
    else:
        assert answer.findings
