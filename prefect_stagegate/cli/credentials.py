"""Credentials that a spec names as a Prefect block. Prefect is loaded only when a spec names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def load_block(name: str) -> Mapping[str, Any]:
    """The storage options behind a block, for example `aws-credentials/onprem`.

    Raises:
        UsageError: No Prefect API is configured, or it has no such block.
        SourceUnavailable: The API did not answer.
    """
    from prefect_stagegate.blocks import storage_options
    from prefect_stagegate.blocks.api import require_api

    require_api(f"the block {name!r} is stored there")
    return storage_options(name)
