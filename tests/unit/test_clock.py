"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from prefect_stagegate.clock import moment


def test_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert moment("2026-03-01T03:00:00") == datetime(2026, 3, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "yesterday", ""])
def test_time_that_utc_lacks_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"out of range|Invalid isoformat"):
        moment(text)
