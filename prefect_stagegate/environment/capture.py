"""Captures the environment of this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from prefect_stagegate.environment.cuda import capture_cuda, capture_gpus
from prefect_stagegate.environment.host import capture_host
from prefect_stagegate.environment.image import capture_image
from prefect_stagegate.environment.limits import capture_limits
from prefect_stagegate.environment.python import capture_python
from prefect_stagegate.environment.record import Environment
from prefect_stagegate.environment.variables import capture_variables
from prefect_stagegate.environment.volume import capture_volume


def capture(
    cache: Path,
    environ: Mapping[str, str],
    *,
    image: str = "",
    variables: Collection[str] = (),
    root: Path = Path("/"),
) -> Environment:
    """Capture the environment of this process.

    Args:
        cache: The cache's folder, which need not be there yet.
        environ: The variables of this process.
        image: The digest of the container's image, where the deployment names it.
        variables: Names of variables to record besides those that always are.
        root: Where `proc`, `sys`, `dev` and `etc` lie.
    """
    python = capture_python()
    return Environment(
        image=capture_image(image, root),
        python=python,
        cuda=capture_cuda(python.distributions, environ, root),
        gpus=capture_gpus(root),
        host=capture_host(root),
        limits=capture_limits(root),
        variables=capture_variables(environ, variables),
        volume=capture_volume(cache, root),
    )
