"""All that is known of an environment, its fingerprint, and how two of them differ.

In the fingerprint is everything in the record but `volume.device`, the name of what is mounted, which is only recorded.
Nothing else that may differ between two processes in one environment is in the record: no host name, process number,
time, load or free space, and no GPU's serial number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.environment import host as hosts
from prefect_stagegate.environment import limits as bounds
from prefect_stagegate.environment import variables as settings
from prefect_stagegate.environment.cuda import Cuda, compare_cudas, compare_gpus
from prefect_stagegate.environment.difference import Difference
from prefect_stagegate.environment.host import Host, compare_hosts
from prefect_stagegate.environment.image import compare_images
from prefect_stagegate.environment.limits import Limit, compare_limits
from prefect_stagegate.environment.python import Python, compare_pythons
from prefect_stagegate.environment.variables import compare_variables
from prefect_stagegate.environment.volume import CacheVolume, compare_volumes


@dataclass(frozen=True, slots=True)
class Environment:
    """What a version is judged and used in."""

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
        """`sha256:<hex>`: two environments that share it are alike in everything that the module's page names."""
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
        return TypeAdapter(cls).validate_python(value)


DECLARED = (*hosts.DECLARED, *bounds.DECLARED)
"""Facts of host and limits whose difference blocks where nobody said which ones."""


def compare(
    there: Environment,
    here: Environment,
    *,
    declared: Collection[str] = DECLARED,
    variables: Collection[str] = settings.DECLARED,
) -> Iterator[Difference]:
    """How `here` differs from `there`, group by group, in the order of the fields.

    Args:
        there: The environment that passed.
        here: The one that is to be like it.
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
