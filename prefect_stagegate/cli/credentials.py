"""Credentials that a spec names as a Prefect block. Prefect is loaded only when a spec names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def load_block(name: str) -> Mapping[str, Any]:
    """The storage options behind a block, for example `aws-credentials/onprem`."""
    from prefect_stagegate.blocks import storage_options

    return storage_options(name)
