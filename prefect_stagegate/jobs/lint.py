"""Checking a spec with its contract and gates, without data, sources or catalog."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prefect_stagegate.errors import MissingExtra, SpecError, did_you_mean
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.approval_counting import why_unanswerable
from prefect_stagegate.gate.approval_parameters import APPROVAL, ApprovalParameters
from prefect_stagegate.gate.check_context import addresses_of
from prefect_stagegate.jobs.address import SpecLike, read_spec
from prefect_stagegate.jobs.gating.validate import limits_of
from prefect_stagegate.model import Outcome, Severity, is_proof_enough
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.patterns import can_be_below
from prefect_stagegate.spec import FilesSpec, Requirement, Spec, doubtful_columns
from prefect_stagegate.spec.fields import RuleSpec
from prefect_stagegate.spec.parsed_document import ParsedDocument
from prefect_stagegate.spec.suites import expectation_name
from prefect_stagegate.spec.yamltree import Loc
from prefect_stagegate.units import listed
from prefect_stagegate.validations import lint as lint_contract
from prefect_stagegate.validations.files.calls import ProbeCall, release

OPEN_POLICY = "policy.change: without it, anybody replaces the gates and promotes; add {change: {approval: {count: 1}}}"
DECLARED = "takes names that anybody may declare, by --identity; add `proof: os-user`, `login` or `signature`"


def lint(spec: SpecLike, warn: Callable[[str], None] = lambda _: None) -> Spec:
    """Load a spec and find what can be wrong with it before any data come.

    Keys, types, suites and their arguments are checked, and what can never work: checks that the contract gives nothing
    to, licences that a gate denies, approvals that too few people may give, and files that no source can fill.

    `warn` is called with lines about what may be wrong: columns that are not declared, libraries that this node lacks.

    Raises:
        SpecError: It can't be used; the error has all problems.
        ValidationError: The suites could not be built.
    """
    places: dict[str, str] = {}

    def examine(loaded: Spec, document: ParsedDocument) -> Iterator[tuple[Loc, str]]:
        for name, table in loaded.contract.tables.items():
            for position in range(len((table.suite or {}).get("expectations", ()))):
                loc: Loc = ("contract", "tables", name, "suite", "expectations", position)
                places[expectation_name(name, position)] = document.place(loc)
        for where, doubt in (*doubtful_columns(loaded.contract.tables), *_absent_libraries(loaded.contract.files)):
            warn(f"{document.place(where)}: {doubt}")
        yield from _impossible(loaded)

    loaded = read_spec(spec.canonical() if isinstance(spec, Spec) else spec, examine)
    # After the checks that need no worker: those problems come at once.
    limits = limits_of(Settings.from_environment(os.environ))
    try:
        lint_contract(loaded.contract, dataset=loaded.dataset, limits=limits)
    except MissingExtra as error:
        warn(f"contract: the suites were not tried. {error.message}. {error.hint}")
    except SpecError as error:
        # Each problem begins with the name of its expectation.
        named = [(problem, problem[: problem.find("]") + 1]) for problem in error.problems]
        raise SpecError(error.file, [line.replace(name, places.get(name, name), 1) for line, name in named]) from error
    return loaded


def lint_warnings(spec: Spec) -> tuple[str, ...]:
    """What a spec works without and should have: who agrees to another policy, known names, addresses of groups."""
    warnings = [OPEN_POLICY] if spec.gates and not spec.policy.change else []
    needed: dict[str, list[str]] = {}
    for target in spec.gates:
        for requirement in spec.gate(target).requirements:
            is_last = target in ("production", list(spec.gates)[-1])
            if is_last and requirement.check == APPROVAL and not _is_known(requirement):
                warnings.append(f"gates.{target}: approval {DECLARED}")
            for group in _groups(requirement):
                needed.setdefault(group, []).append(requirement.check)
    warnings += [
        f"owners.{group}: no address is set, so a report names nobody to turn to for {listed(checks)}"
        for group, checks in ((group, list(dict.fromkeys(checks))) for group, checks in needed.items())
        if not addresses_of(spec.owners, group)
    ]
    return tuple(warnings)


def _groups(requirement: Requirement) -> tuple[str, ...]:
    """Who repairs what a check finds; for an approval, who may give it."""
    if requirement.check == APPROVAL:
        return ApprovalParameters.model_validate(requirement.params).groups
    return (CHECKS[requirement.check].owner,)


def _is_known(requirement: Requirement) -> bool:
    """Whether an approval takes no name that somebody only declares."""
    return is_proof_enough(ApprovalParameters.model_validate(requirement.params).proof, "os-user")


def _impossible(spec: Spec) -> Iterator[tuple[Loc, str]]:
    """What can never work, whatever data come, each by its place."""
    tables = spec.contract.tables
    lacks = {
        "schema": "" if tables else "the contract has no table",
        "expectations": "" if any(table.suite for table in tables.values()) else "no table of the contract has a suite",
        "coverage": "" if tables or spec.contract.files else "the contract names no file",
    }
    for target in spec.gates:
        for requirement in spec.gate(target).requirements:
            if requirement.check == APPROVAL:
                lacks[APPROVAL] = _unanswerable(spec, requirement.params)
            if requirement.check == "license" and requirement.severity is Severity.BLOCKING:
                parameters: Any = CHECKS["license"].parameters.model_validate(requirement.params)
                is_denied = parameters.outcome(spec.license or "") is Outcome.FAIL
                lacks["license"] = f"{spec.license} is denied" if is_denied else ""
            if reason := lacks.get(requirement.check):
                yield ("gates", target, "require"), f"{requirement.check} can never pass: {reason}"
    for name, rule in spec.policy:
        if reason := _unanswerable(spec, rule.approval) if isinstance(rule, RuleSpec) else "":
            yield ("policy", name, "approval"), f"nobody can ever give it: {reason}"
    globs: dict[Loc, str] = {("contract", "tables", name, "files"): table.files for name, table in tables.items()}
    globs |= {("contract", "files", index, "match"): item.match for index, item in enumerate(spec.contract.files)}
    folders = [source.into for source in spec.sources]
    for loc, glob in globs.items():
        if not any(can_be_below(glob, folder) for folder in folders):
            near = did_you_mean(glob.rpartition("/")[0] + "/", folders)
            yield loc, f"no source has an `into:` that fills {glob}: {near}"


def _unanswerable(spec: Spec, rule: Mapping[str, Any]) -> str:
    """Why an approval can't come together; empty where it can."""
    reason = why_unanswerable(ApprovalParameters.model_validate(rule), spec.owners)
    return f"{reason}; add people under `owners`" if reason else ""


def _absent_libraries(files: Sequence[FilesSpec]) -> Iterator[tuple[Loc, str]]:
    """The probes that this node can't run."""
    for index, item in enumerate(files):
        for probe in item.probes:
            try:
                release(ProbeCall.from_spec(probe).name)
            except MissingExtra as error:
                yield ("contract", "files", index, "probes"), f"{error.message} here. {error.hint}"
