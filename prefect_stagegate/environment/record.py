"""The record of an environment: how it is captured, its fingerprint, and the comparison of two of them.

The fingerprint covers the whole record but `volume.device`, the name of the mounted device. The record holds nothing
else that may differ between two processes in one environment: no host name, process number, time, load or free space,
and no GPU's serial number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from prefect_stagegate.environment import host as host_facts
from prefect_stagegate.environment import limits as limit_facts
from prefect_stagegate.environment import variables as variable_facts
from prefect_stagegate.environment.cuda import Cuda, capture_cuda, capture_gpus, compare_cudas, compare_gpus
from prefect_stagegate.environment.difference import EnvironmentDifference
from prefect_stagegate.environment.host import (
    CacheVolume,
    Host,
    capture_host,
    capture_image,
    capture_volume,
    compare_hosts,
    compare_images,
    compare_volumes,
)
from prefect_stagegate.environment.limits import Limit, capture_limits, compare_limits
from prefect_stagegate.environment.python import Python, capture_python, compare_pythons
from prefect_stagegate.environment.variables import capture_variables, compare_variables
from prefect_stagegate.model.canonical import digest_of


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment that a version is judged or used in."""

    image: str
    """The container image's `sha256:<hex>`, or unknown."""
    python: Python
    cuda: Cuda
    gpus: Mapping[str, int]
    """How many of each model."""
    host: Host
    limits: Mapping[str, Limit]
    variables: Mapping[str, str]
    volume: CacheVolume

    @property
    def fingerprint(self) -> str:
        """`sha256:<hex>` over the record without `volume.device`."""
        facts = self.to_json()
        return digest_of(facts | {"volume": {key: facts["volume"][key] for key in facts["volume"] if key != "device"}})

    def to_json(self) -> dict[str, dict[str, object]]:
        """The environment as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Environment:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: The value isn't an environment.
        """
        return _adapter().validate_python(value)


@cache
def _adapter() -> TypeAdapter[Environment]:
    return TypeAdapter(Environment)  # takes longer to build than to use


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


DECLARED = (*host_facts.DECLARED, *limit_facts.DECLARED)
"""Facts of host and limits whose difference blocks unless the caller declares others."""


def compare(
    there: Environment,
    here: Environment,
    *,
    declared: Collection[str] = DECLARED,
    variables: Collection[str] = variable_facts.DECLARED,
) -> Iterator[EnvironmentDifference]:
    """Yield how `here` differs from `there`, group by group in the order of the fields.

    Args:
        there: The environment that passed.
        here: The environment that should be like it.
        declared: Names of facts of host and limits that must be the same.
        variables: Names of variables that must be the same, with `*` for any rest.
    """
    yield from compare_images(there.image, here.image)
    yield from compare_pythons(there.python, here.python)
    yield from compare_cudas(there.cuda, here.cuda)
    yield from compare_gpus(there.gpus, here.gpus)
    yield from compare_hosts(there.host, here.host, declared)
    yield from compare_limits(there.limits, here.limits, declared)
    yield from compare_variables(there.variables, here.variables, variables)
    yield from compare_volumes(there.volume, here.volume)
