"""The checks of parity: what the gate below judged in, against what asks now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from prefect_stagegate.clock import stamp
from prefect_stagegate.environment import ABSENT, UNKNOWN, Environment
from prefect_stagegate.environment.python import Installed
from prefect_stagegate.gate import CheckResult
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.base import NoParameters
from prefect_stagegate.model import Outcome
from prefect_stagegate.plugins.node.checks.parity import (
    ParityCuda,
    ParityEnv,
    ParityHost,
    parity_cuda,
    parity_env,
    parity_host,
    parity_image,
    parity_python,
)
from prefect_stagegate.testing.contexts import DIGEST, ENVIRONMENT, NOW, check_context

Parity = tuple[Callable[..., CheckResult], Any]
PARITIES: dict[str, Parity] = {
    "parity_image": (parity_image, NoParameters()),
    "parity_python": (parity_python, NoParameters()),
    "parity_cuda": (parity_cuda, ParityCuda()),
    "parity_env": (parity_env, ParityEnv()),
    "parity_host": (parity_host, ParityHost()),
}
OTHER_IMAGE = "sha256:" + "0" * 64
CHANGES: dict[str, tuple[str, Environment]] = {
    "other image": ("parity_image", replace(ENVIRONMENT, image=OTHER_IMAGE)),
    "other numpy": ("parity_python", replace(ENVIRONMENT, python=replace(ENVIRONMENT.python, distributions={}))),
    "older driver": ("parity_cuda", replace(ENVIRONMENT, cuda=replace(ENVIRONMENT.cuda, driver="470.57.02"))),
    "hash seed": ("parity_env", replace(ENVIRONMENT, variables={"PYTHONHASHSEED": "1"})),
    "other OS": ("parity_host", replace(ENVIRONMENT, host=replace(ENVIRONMENT.host, os="ubuntu 24.04"))),
    "less shm": ("parity_host", replace(ENVIRONMENT, limits={**ENVIRONMENT.limits, "shm": 64})),
}
"""What refuses, and which of the checks it concerns."""


def ask(name: str, here: Environment, there: Environment = ENVIRONMENT, parameters: Any = None) -> CheckResult:
    check, default = PARITIES[name]
    below = Accepted("pilot", DIGEST, stamp(NOW), environment=lambda: there)
    return check(check_context(environment=here, accepted_below=below), parameters or default)


@pytest.mark.parametrize("name", PARITIES)
def test_same_environment_passes_and_says_what_it_compared_with(name: str) -> None:
    answer = ask(name, ENVIRONMENT)
    assert answer.outcome is Outcome.PASS
    assert answer.measured["environment"] == answer.measured["pilot"] == ENVIRONMENT.fingerprint


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PARITIES)
def test_only_the_check_that_it_concerns_refuses_a_change(name: str, change: str) -> None:
    concerned, here = CHANGES[change]
    answer = ask(name, here)
    assert answer.outcome is (Outcome.FAIL if name == concerned else Outcome.PASS)
    assert all(finding.fix for finding in answer.findings)


@pytest.mark.parametrize("name", PARITIES)
def test_parity_needs_something_to_compare_with(name: str) -> None:
    check, parameters = PARITIES[name]
    assert check(check_context(), parameters).outcome is Outcome.NOT_APPLICABLE
    below = Accepted("pilot", DIGEST, stamp(NOW))
    assert check(check_context(accepted_below=below), parameters).outcome is Outcome.INCONCLUSIVE


def test_unknown_image_is_never_equal() -> None:
    unknown = replace(ENVIRONMENT, image=UNKNOWN)
    for here, there in ((unknown, unknown), (ENVIRONMENT, unknown), (unknown, ENVIRONMENT)):
        assert ask("parity_image", here, there).outcome is Outcome.INCONCLUSIVE


def test_harmless_difference_passes_and_is_told() -> None:
    answer = ask("parity_host", replace(ENVIRONMENT, limits={**ENVIRONMENT.limits, "nofile": 2_000_000}))
    assert answer.outcome is Outcome.PASS
    assert "1 harmless difference" in answer.summary
    assert "nofile" in answer.measured["differences"]


def test_what_must_be_the_same_is_the_policy_s_to_say() -> None:
    newer = replace(ENVIRONMENT, host=replace(ENVIRONMENT.host, kernel="Linux 6.12.0"))
    assert ask("parity_host", newer).outcome is Outcome.WARN
    assert ask("parity_host", newer, parameters=ParityHost(declared=("kernel",))).outcome is Outcome.FAIL
    fewer = replace(ENVIRONMENT, variables={"NCCL_DEBUG": "WARN"})
    assert ask("parity_env", fewer).outcome is Outcome.WARN
    assert ask("parity_env", fewer, parameters=ParityEnv(declared=("OMP_*",))).outcome is Outcome.FAIL


def test_no_gpu_on_either_side_is_never_a_pass() -> None:
    without = replace(ENVIRONMENT, cuda=replace(ENVIRONMENT.cuda, driver=ABSENT))
    assert ask("parity_cuda", without, without).outcome is Outcome.INCONCLUSIVE
    parameters = ParityCuda(absent="not_applicable")
    assert ask("parity_cuda", without, without, parameters).outcome is Outcome.NOT_APPLICABLE
    assert ask("parity_cuda", without, ENVIRONMENT, parameters).outcome is Outcome.FAIL


# ── parity_python ───────────────────────────────────────────────────────────────────────────────────────────────


def parity(here: dict[str, str], there: dict[str, str], **changes: str) -> CheckResult:
    ours, theirs = (
        {name: Installed(version, "sha256:" + "1" * 64) for name, version in side.items()} for side in (here, there)
    )
    python = ENVIRONMENT.python
    return ask(
        "parity_python",
        replace(ENVIRONMENT, python=replace(python, distributions=ours, **changes)),
        replace(ENVIRONMENT, python=replace(python, distributions=theirs)),
    )


@pytest.mark.parametrize("here", ["2.1.1", "2.1.0.post1", "2.1"])
def test_other_patch_release_warns(here: str) -> None:
    assert parity({"numpy": here}, {"numpy": "2.1.0"}).outcome is Outcome.WARN


@pytest.mark.parametrize("here", [{"numpy": "2.2.0"}, {"numpy": "3.1.0"}, {}, {"numpy": "2.1.0", "torch": "2.9.0"}])
def test_other_missing_or_added_release_fails_with_its_fix(here: dict[str, str]) -> None:
    answer = parity(here, {"numpy": "2.1.0"})
    assert answer.outcome is Outcome.FAIL
    assert answer.findings[0].fix in ("pip install numpy==2.1.0", "pip uninstall torch")


def test_other_python_is_a_difference() -> None:
    assert parity({}, {}, version="3.12.5").outcome is Outcome.WARN
    assert parity({}, {}, version="3.13.0").outcome is Outcome.FAIL
    assert parity({}, {}, implementation="PyPy").outcome is Outcome.FAIL


def test_other_build_of_a_version_fails_and_an_unrecorded_warns() -> None:
    def with_files(files: str) -> Environment:
        return replace(
            ENVIRONMENT, python=replace(ENVIRONMENT.python, distributions={"numpy": Installed("2.1.0", files)})
        )

    first, other, unknown = map(with_files, ("sha256:" + "1" * 64, "sha256:" + "2" * 64, UNKNOWN))
    assert ask("parity_python", first, other).outcome is Outcome.FAIL
    for here, there in ((first, unknown), (unknown, first), (unknown, unknown)):
        answer = ask("parity_python", here, there)
        assert answer.outcome is Outcome.WARN
        assert "numpy" in answer.findings[0].problem
