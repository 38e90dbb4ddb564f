"""Requests that no browser sends, to every route of `stagegate serve`; `make probe` sends more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.plugins.probed_pages import BODIES, METHODS, QUERY, parts, probed_site


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_open", [True, False])
def test_odd_requests_break_nothing_and_change_nothing(tmp_path: Path, is_open: bool) -> None:
    queries = st.dictionaries(st.sampled_from(QUERY[:-1]) | parts, parts, max_size=3)
    query = queries.map(lambda pairs: "&".join(map("=".join, pairs.items())))
    with probed_site(tmp_path, is_open=is_open) as site, site.unchanged():
        for route, taken in site.methods.items():
            methods = st.sampled_from([*METHODS, *sorted(taken) * 4])
            cases = st.tuples(methods, st.just(""), query, st.just(""), st.sampled_from(BODIES))
            for sender in site.senders:
                site.play(sender, route, cases, 4, 1)
