"""Environments to compare: this node's, one in a file, and the one in which a target accepted a version."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefect_stagegate.environment import ABSENT, UNKNOWN, Environment, capture
from prefect_stagegate.environment.cuda import capture_gpus
from prefect_stagegate.environment.nvml import Gpus, read_gpus
from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.gate.accepted import environment_of
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.workspace import Workspace

FORMAT = 1
"""The version of the file format that this release writes and reads."""


def capture_environment(settings: Settings, cache: Path | None = None) -> Environment:
    """Capture the environment of this process; the cache's folder is by default the settings'."""
    cache_root = cache or settings.cache
    environment = capture(cache_root, os.environ, image=settings.image_digest, variables=settings.variables)
    # NVML is a part of the driver, so without a driver there is nothing to ask.
    return environment if environment.cuda.driver == ABSENT else _with_nvml(environment)


def node_gpus() -> dict[str, int]:
    """How many GPUs of each model this node has, as `capture_environment` counts them, without the rest of it."""
    models = capture_gpus()
    devices = _read_nvml() if models else None
    return _models(devices) if devices else models


def _with_nvml(environment: Environment) -> Environment:
    """Add what only NVML knows, the driver's library: which GPUs are partitioned."""
    devices = _read_nvml()
    if devices is None:
        return environment
    driver = devices.driver if environment.cuda.driver == UNKNOWN else environment.cuda.driver
    return replace(environment, gpus=_models(devices), cuda=replace(environment.cuda, driver=driver))


def _read_nvml() -> Gpus | None:
    try:
        return read_gpus()
    except StagegateError:  # the extra `gpu` or the library is missing: keep what the files say
        return None


def _models(devices: Gpus) -> dict[str, int]:
    models = Counter(f"{gpu.name} (MIG)" if gpu.mig else gpu.name for gpu in devices.gpus)
    return dict(sorted(models.items()))


def to_file(environment: Environment) -> dict[str, Any]:
    """The JSON values that `stagegate env capture` writes."""
    facts = environment.to_json()
    return {"stagegate_environment": FORMAT, "fingerprint": environment.fingerprint, "environment": facts}


def from_file(path: Path) -> Environment:
    """Read a file of `stagegate env capture`.

    Raises:
        UsageError: The file can't be read, holds something else, or was changed.
    """
    hint = "Write it anew with `stagegate env capture FILE`."
    try:
        written = json.loads(path.read_bytes())
        environment = Environment.from_json(written["environment"])
        version, fingerprint = written["stagegate_environment"], written["fingerprint"]
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint=hint) from error
    # Before ValueError, which it is, too: its own text repeats the values of the file.
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path} holds no environment: {key}: {first['msg']}", hint=hint) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} holds no environment: {error}", hint=hint) from error
    if version != FORMAT:
        raise UsageError(f"{path} has format {version!r}, and this release reads {FORMAT}", hint=hint)
    if environment.fingerprint != fingerprint:
        raise UsageError(f"{path} was changed: its facts do not match its fingerprint", hint=hint)
    return environment


def accepted_in(workspace: Workspace, address: Address) -> Environment:
    """The environment in which the version that a target names was accepted.

    Raises:
        UsageError: The address names no target, or the target names nothing.
    """
    if not address.target:
        raise UsageError(
            f"{address} names no target, and only a target's acceptance records an environment",
            hint=f"Name one, as in {address.dataset}@pilot, or a file of `stagegate env capture FILE`.",
            dataset=address.dataset,
        )
    workspace.catalog.resolve(address)  # raises when the target names nothing, or its log was forged
    head = workspace.catalog.ref(address.dataset, address.ref)
    if head is None or not head.attestation:
        raise UsageError(f"{address} has no attestation", hint=f"Look with `stagegate history {address}`.")
    return environment_of(workspace.catalog, head)
