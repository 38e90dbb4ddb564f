"""How two policies differ, gate by gate and check by check, and which changes loosen or tighten. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefect_stagegate.canonical import canonical
from prefect_stagegate.model import Direction, PolicyChange, Severity
from prefect_stagegate.readiness.base import Ceilings, Floors
from prefect_stagegate.readiness.registry import CHECKS
from prefect_stagegate.spec import Gate, Requirement, Spec

MORE_IS_STRICTER = {
    ("approval", "count"),
    ("approval", "signed"),
    ("credential_life", "run"),
    ("runbook", "resolve"),
    ("soak", "period"),
}
"""Parameters whose higher value lets fewer versions through, beside the limits of `Floors`."""
LESS_IS_STRICTER = {
    ("alert", "warn"),
    ("drift", "distance"),
    ("drift", "share"),
    ("gpu_idle", "processes"),
    ("gpu_idle", "used"),
    ("gpu_memory", "corrected"),
    ("gpu_memory", "retired"),
    ("gpu_memory", "uncorrected"),
    ("rollback", "warn"),
    ("signature", "partial"),
}
"""Parameters whose lower value lets fewer versions through, beside the limits of `Ceilings`."""
FEWER_IS_STRICTER = {("signature", "certificates"), ("signature", "ignore"), ("signature", "keys")}
"""Parameters that are sets, of which a smaller one lets fewer versions through."""
LIMITS = ("warn", "fail")
SEVERITIES = [Severity.INFO, Severity.WARNING, Severity.BLOCKING]
"""From the loosest to the strictest."""


def policy_changes(old: Spec, new: Spec) -> tuple[PolicyChange, ...]:
    """The changes from the policy in one spec to that in another, in the order in which people read them."""
    return (*_gates(old, new), *_contract(old, new), *_others(old, new))


def _gates(old: Spec, new: Spec) -> Iterator[PolicyChange]:
    for target in dict.fromkeys((*old.gates, *new.gates)):
        subject = f"gate {target}"
        if target not in new.gates:
            yield PolicyChange(subject, "was removed, so no version can be promoted to it", Direction.TIGHTENED)
        elif target not in old.gates:
            names = ", ".join(requirement.check for requirement in new.gate(target).requirements)
            yield PolicyChange(subject, f"is new; it requires {names}", Direction.CHANGED)
        else:
            yield from _gate(subject, old.gate(target), new.gate(target))


def _gate(subject: str, old: Gate, new: Gate) -> Iterator[PolicyChange]:
    before, after = ({requirement.check: requirement for requirement in gate.requirements} for gate in (old, new))
    for check in dict.fromkeys((*before, *after)):
        if check not in after:
            yield PolicyChange(subject, f"{check} is no longer required", Direction.LOOSENED)
        elif check not in before:
            yield PolicyChange(subject, f"{check} is required", Direction.TIGHTENED)
        else:
            yield from _requirement(subject, before[check], after[check])
    if old.extends != new.extends:
        yield PolicyChange(subject, f"extends {old.extends or 'none'} → {new.extends or 'none'}", Direction.CHANGED)
    if old.on_withdrawal != new.on_withdrawal:
        yield PolicyChange(subject, f"on_withdrawal {old.on_withdrawal} → {new.on_withdrawal}", Direction.CHANGED)


def _requirement(subject: str, old: Requirement, new: Requirement) -> Iterator[PolicyChange]:
    check = old.check
    if old.severity is not new.severity:
        direction = _direction(SEVERITIES.index(old.severity), SEVERITIES.index(new.severity))
        yield PolicyChange(subject, f"{check}: severity {old.severity} → {new.severity}", direction)
    if old.consecutive != new.consecutive:
        direction = _direction(old.consecutive, new.consecutive)
        yield PolicyChange(subject, f"{check}: consecutive {old.consecutive} → {new.consecutive}", direction)
    if old.params != new.params:
        # Defaults are filled in first: a parameter that is written out with its default is no change.
        model = CHECKS[check].parameters
        before, after = model.model_validate(old.params), model.model_validate(new.params)
        for name, field in model.model_fields.items():
            if (check, name) == ("approval", "allowed_signers"):
                yield from _signers(subject, getattr(before, name), getattr(after, name))
            elif getattr(before, name) != getattr(after, name):
                key = field.alias or name
                text = f"{check}: {key} {_text(old.params.get(key))} → {_text(new.params.get(key))}"
                yield PolicyChange(subject, text, _parameter_direction(check, name, before, after))


def _signers(subject: str, before: str, after: str) -> Iterator[PolicyChange]:
    """The lines of `allowed_signers` that went and came, without comments."""
    old, new = (
        {line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")}
        for text in (before, after)
    )
    for line in sorted(old - new):
        yield PolicyChange(subject, f"approval: no longer allows the signer {line}", Direction.TIGHTENED)
    for line in sorted(new - old):
        yield PolicyChange(subject, f"approval: allows the signer {line}", Direction.LOOSENED)


def _parameter_direction(check: str, name: str, before: Any, after: Any) -> Direction:
    if (check, name) == ("approval", "required"):
        return _direction(frozenset(before.required), frozenset(after.required))
    if (check, name) in MORE_IS_STRICTER or (name in LIMITS and isinstance(after, Floors)):
        return _direction(getattr(before, name), getattr(after, name))
    if (check, name) in LESS_IS_STRICTER or (name in LIMITS and isinstance(after, Ceilings)):
        return _direction(getattr(after, name), getattr(before, name))
    if (check, name) in FEWER_IS_STRICTER:
        old, new = frozenset(getattr(before, name)), frozenset(getattr(after, name))
        if old < new or new < old:
            return _direction(len(new), len(old))
    return Direction.CHANGED


def _direction(before: Any, after: Any) -> Direction:
    return Direction.TIGHTENED if after > before else Direction.LOOSENED


def _contract(old: Spec, new: Spec) -> Iterator[PolicyChange]:
    before, after = old.contract.tables, new.contract.tables
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield PolicyChange("contract", f"the table {name} was removed", Direction.LOOSENED)
        elif name not in before:
            yield PolicyChange("contract", f"the table {name} was added", Direction.TIGHTENED)
        else:
            yield from _table(f"contract of {name}", before[name].model_dump(), after[name].model_dump())
    probes = (
        {f"the probe {probe} of {files.match}{files.drawn}" for files in spec.contract.files for probe in files.probes}
        for spec in (old, new)
    )
    yield from _items("contract", *probes)


def _table(subject: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PolicyChange]:
    suites = (table["suite"] or {} for table in (old, new))
    yield from _items(subject, *(set(map(_expectation, suite.get("expectations", []))) for suite in suites))
    yield from _items(
        subject, *({f"the column {n}: {kind}" for n, kind in table["columns"].items()} for table in (old, new))
    )
    for key in ("files", "engine", "time", "pii"):
        if old[key] != new[key]:
            yield PolicyChange(subject, f"{key} {_text(old[key])} → {_text(new[key])}", Direction.CHANGED)


def _expectation(expectation: Mapping[str, Any]) -> str:
    kwargs = ", ".join(f"{key}={_text(value)}" for key, value in sorted(expectation.get("kwargs", {}).items()))
    severity = expectation.get("severity")
    return f"{expectation['type']}({kwargs}){f' as {severity}' if severity else ''}"


def _items(subject: str, old: set[str], new: set[str]) -> Iterator[PolicyChange]:
    for item in sorted(old - new):
        yield PolicyChange(subject, f"{item} is no longer required", Direction.LOOSENED)
    for item in sorted(new - old):
        yield PolicyChange(subject, f"{item} is required", Direction.TIGHTENED)


def _others(old: Spec, new: Spec) -> Iterator[PolicyChange]:
    before, after = (spec.model_dump(mode="json") for spec in (old, new))
    for role in dict.fromkeys((*before["owners"], *after["owners"])):
        if before["owners"].get(role) != after["owners"].get(role):
            text = f"{role} {before['owners'].get(role, 'nobody')} → {after['owners'].get(role, 'nobody')}"
            yield PolicyChange("owners", text, Direction.CHANGED)
    if before["job"] != after["job"]:
        yield PolicyChange("job", f"{_text(before['job'])} → {_text(after['job'])}", Direction.CHANGED)
    rules = [each["policy"]["change"] for each in (before, after)]
    if rules[0] != rules[1]:
        direction = (
            Direction.LOOSENED if rules[1] is None else Direction.TIGHTENED if rules[0] is None else Direction.CHANGED
        )
        yield PolicyChange("policy", f"change {_text(rules[0])} → {_text(rules[1])}", direction)


def _text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else canonical(value).decode()
