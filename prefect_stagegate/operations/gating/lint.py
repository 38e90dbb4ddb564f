"""Checking a spec with its contract and gates, without data, sources or catalog."""

from __future__ import annotations

import os
from collections.abc import Iterator

from prefect_stagegate.errors import SpecError
from prefect_stagegate.operations.address import SpecLike, read_spec
from prefect_stagegate.operations.gating.contract import limits_of
from prefect_stagegate.readiness import CHECKS
from prefect_stagegate.readiness.approval_parameters import ApprovalParameters
from prefect_stagegate.readiness.checks.approval import APPROVAL
from prefect_stagegate.readiness.context import addresses_of
from prefect_stagegate.readiness.wording import listed
from prefect_stagegate.settings import Settings
from prefect_stagegate.spec import Requirement, Spec
from prefect_stagegate.validations import lint as lint_contract

OPEN_POLICY = (
    "policy.change: nobody has to agree to another policy, so anybody replaces the gates and promotes; "
    "`policy: {change: {approval: {count: 1}}}` asks for somebody else's approval"
)


def lint(spec: SpecLike) -> Spec:
    """Load a spec and find what can be wrong with it before any data come.

    Keys, types, suites and their arguments are checked, and whether a gate requires a check that the contract gives
    nothing to.

    Raises:
        SpecError: It can't be used; the error has all problems.
        ValidationError: The suites could not be built.
    """
    loaded = read_spec(spec)
    if problems := list(_idle_requirements(loaded)):
        raise SpecError(spec if isinstance(spec, str) else f"the spec of {loaded.dataset}", problems)
    # After the checks that need no worker: those problems come at once.
    limits = limits_of(Settings.from_environment(os.environ))
    lint_contract(loaded.contract, dataset=loaded.dataset, limits=limits)
    return loaded


def lint_warnings(spec: Spec) -> tuple[str, ...]:
    """What a spec works without and should have."""
    return (*((OPEN_POLICY,) if spec.gates and not spec.policy.change else ()), *_missing_owners(spec))


def _missing_owners(spec: Spec) -> tuple[str, ...]:
    """A line for each group that a gate needs and that `owners` gives no address of."""
    needed: dict[str, list[str]] = {}
    for target in spec.gates:
        for requirement in spec.gate(target).requirements:
            for group in _groups(requirement):
                needed.setdefault(group, []).append(requirement.check)
    return tuple(
        f"owners.{group}: no address is set, so a report names nobody to turn to for {listed(checks)}"
        for group, checks in ((group, list(dict.fromkeys(checks))) for group, checks in needed.items())
        if not addresses_of(spec.owners, group)
    )


def _groups(requirement: Requirement) -> tuple[str, ...]:
    """Who repairs what a check finds; for an approval, who may give it."""
    if requirement.check == APPROVAL:
        return ApprovalParameters.model_validate(requirement.params).groups
    return (CHECKS[requirement.check].owner,)


def _idle_requirements(spec: Spec) -> Iterator[str]:
    """The checks that are required and can't pass, since the contract names nothing for them."""
    tables = spec.contract.tables
    lacks = {
        "schema": "" if tables else "the contract has no table",
        "expectations": "" if any(table.suite for table in tables.values()) else "no table of the contract has a suite",
        "coverage": "" if tables or spec.contract.files else "the contract names no file",
    }
    for target in spec.gates:
        for requirement in spec.gate(target).requirements:
            if reason := lacks.get(requirement.check):
                yield f"gates.{target}.require: {requirement.check} can never pass: {reason}"
