"""Which hub the user's token goes to."""

from __future__ import annotations

import pytest

from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed
from tests.plugins.hub.small_hub import small_hub


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_user_s_token_goes_to_no_hub_that_a_spec_names(monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool) -> None:
    with small_hub() as hub:
        hub.put("datasets/me/things", "a.bin", b"a")
        monkeypatch.setenv("HF_TOKEN", "hunter2")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1" if elsewhere else hub.endpoint)
        assert listed(open_source("hf://datasets/me/things/", {"endpoint": hub.endpoint}))
        assert ("hunter2" in str(hub.seen)) is not elsewhere
