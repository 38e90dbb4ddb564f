"""Reports as HTML and JUnit of a run whose data have personal columns."""

from __future__ import annotations

from typing import Any

from tests.integration.test_expectation_results import SECRETS, report, scenario, site, validation
from tests.plugins.pages.renderers import to_html, to_junit

__all__ = ["report", "scenario", "site", "validation"]


def test_pages_show_expectations_and_no_personal_value(report: Any) -> None:
    page, junit = to_html(report), to_junit(report)
    for written in (page, junit):
        for part in ("expect_column_max_to_be_between", "4983", "pattern AAA", "(masked)"):
            assert part in written
        assert not [secret for secret in SECRETS if secret in written]
    # A page shows profiles, too, with the names of categories.
    assert "LGA" not in junit
