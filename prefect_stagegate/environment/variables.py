"""Environment variables that change how programs compute, by an allow-list. Of a secret, only that it is set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from prefect_stagegate.environment.difference import ABSENT, EnvironmentDifference, Weight
from prefect_stagegate.redaction.shapes import is_secret_name
from prefect_stagegate.spec.urls import secret_in_url

ALLOWED = (
    *("CUBLAS_*", "CUDA_*", "CUDNN_*", "NCCL_*", "NVIDIA_*", "NVTE_*", "UCX_*", "FI_*"),
    *("HF_*", "JAX_*", "PYTORCH_*", "TF_*", "TORCH_*", "XLA_*"),
    *("BLIS_*", "KMP_*", "MALLOC_*", "MKL_*", "NUMEXPR_*", "OMP_*", "OPENBLAS_*", "POLARS_*"),
    *("LANG", "LC_*", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONPATH", "TZ"),
)
"""Names of the variables that are recorded, with `*` for any rest."""
OF_ONE_JOB = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""Set for each job by its scheduler, so not a property of the environment and not recorded."""
DECLARED = (
    *("CUBLAS_WORKSPACE_CONFIG", "LD_PRELOAD", "NVIDIA_TF32_OVERRIDE", "PYTHONHASHSEED"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "XLA_FLAGS"),
)
"""Variables whose difference blocks unless the caller declares others: they change what is computed."""
SECRET = "(set)"  # noqa: S105 - what stands in a secret's place
"""In place of a secret's value."""


def capture_variables(environ: Mapping[str, str], more: Collection[str] = ()) -> dict[str, str]:
    """The allowed variables that are set and not empty, by name, with secrets' values replaced.

    Names in `more` are allowed besides `ALLOWED`, with `*` for any rest.
    """
    allowed = (*ALLOWED, *more)
    return {
        name: SECRET if _is_secret(name, value) else value
        for name, value in sorted(environ.items())
        # An empty variable counts as unset, so that it does not differ from one that is left out.
        if value and name not in OF_ONE_JOB and matches(name, allowed)
    }


def matches(name: str, patterns: Collection[str]) -> bool:
    """Whether one of the patterns is the name, with `*` for any part of it."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_secret(name: str, value: str) -> bool:
    if is_secret_name(name):
        return True
    # What can't be parsed as a URL may still hold one's password.
    try:
        return "://" in value and bool(secret_in_url(value))
    except ValueError:
        return True


def compare_variables(
    there: Mapping[str, str], here: Mapping[str, str], declared: Collection[str] = DECLARED
) -> Iterator[EnvironmentDifference]:
    """Yield a block for each declared variable that differs, else a warning. Secrets are equal when both are set."""
    for name in sorted(there.keys() | here.keys()):
        was, now = there.get(name, ABSENT), here.get(name, ABSENT)
        if was == now:
            continue
        blocks = matches(name, declared)
        weight = Weight.BLOCKING if blocks else Weight.WARNING
        why = "declared to be the same" if blocks else "not declared to be the same"
        yield EnvironmentDifference("variables", name, was, now, weight, why, _fix(name, was))


def _fix(name: str, was: str) -> str:
    if was == SECRET:
        return f"Set {name} here too."
    return f"unset {name}" if was == ABSENT else f"export {name}={was!r}"
