"""The spec can name what validations has, and nothing else."""

from typing import get_args

from prefect_stagegate.spec.models import Engine, Probe
from prefect_stagegate.validations.engines import ENGINES
from prefect_stagegate.validations.probes import PROBES


def test_the_spec_names_every_engine_and_probe() -> None:
    assert set(get_args(Engine)) == set(ENGINES)
    assert set(get_args(Probe)) == set(PROBES)
