"""How two policies differ, gate by gate and check by check, and which changes loosen or tighten. Pure.

What is not known to be stricter counts as loosened, so nobody overlooks what lets more versions through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from prefect_stagegate.gate.base import Ceilings, Floors
from prefect_stagegate.gate.check_context import addresses_of
from prefect_stagegate.gate.registry import CHECKS
from prefect_stagegate.model import PROOFS, Direction, PolicyChange, Severity
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.spec import Gate, Requirement, Spec
from prefect_stagegate.spec.models import SPEC_KEYS

MORE_IS_STRICTER = {
    *{
        ("approval", "asked_proof"),
        ("approval", "count"),
        ("approval", "required"),
        ("approval", "signed"),
        ("balance", "fail"),
        ("balance", "warn"),
    },
    *{("concurrency", "limits"), ("credential_life", "run"), ("croissant", "also"), ("croissant", "groups")},
    *{("dcgm", "level"), ("license", "deny"), ("parity_env", "declared"), ("parity_host", "declared")},
    *{("pii", "patterns"), ("runbook", "resolve"), ("soak", "period")},
}
"""Parameters of which a higher value, or a larger set, lets fewer versions through; with the limits of `Floors`."""
LESS_IS_STRICTER = {
    *{("alert", "warn"), ("approval", "groups"), ("approval", "keys"), ("drift", "distance"), ("drift", "ignore")},
    *{("drift", "rows"), ("drift", "share"), ("gpu_idle", "processes"), ("gpu_idle", "used"), ("license", "allow")},
    *{("gpu_memory", "corrected"), ("gpu_memory", "retired"), ("gpu_memory", "uncorrected"), ("pii", "ignore")},
    *{("queue", "polled"), ("rollback", "warn"), ("signature", "certificates"), ("signature", "ignore")},
    *{("signature", "keys"), ("signature", "partial"), ("signature", "signers")},
}
"""Parameters of which a lower value, or a smaller set, lets fewer versions through; with the limits of `Ceilings`."""
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
            continue
        gate = new.gate(target)
        if target not in old.gates:
            yield PolicyChange(subject, "is new, so versions can be promoted to it", Direction.LOOSENED)
        yield from _gate(subject, old.gate(target) if target in old.gates else Gate(target, gate.extends, (), ""), gate)


def _gate(subject: str, old: Gate, new: Gate) -> Iterator[PolicyChange]:
    before, after = ({requirement.check: requirement for requirement in gate.requirements} for gate in (old, new))
    for check in dict.fromkeys((*before, *after)):
        if check not in after:
            yield PolicyChange(subject, f"{check} is no longer required", Direction.LOOSENED)
        elif check not in before:
            yield _added(subject, after[check])
        else:
            yield from _requirement(subject, before[check], after[check])
    if old.extends != new.extends:
        yield PolicyChange(subject, f"extends {old.extends or 'none'} → {new.extends or 'none'}", Direction.LOOSENED)
    if old.on_withdrawal != new.on_withdrawal:
        direction = _direction(is_tightened=new.on_withdrawal == "hold")
        yield PolicyChange(subject, f"on_withdrawal {old.on_withdrawal} → {new.on_withdrawal}", direction)
    for key in sorted({*old.added, *new.added}):
        if old.added.get(key) != new.added.get(key):
            text = f"{key} {_text(old.added.get(key))} → {_text(new.added.get(key))}"
            yield PolicyChange(subject, text, Direction.LOOSENED)


def _added(subject: str, new: Requirement) -> PolicyChange:
    """A check that the gate did not require, with all that is not as the check has it by itself."""
    model = CHECKS[new.check].parameters
    defaults = model.model_construct().model_dump(mode="json", by_alias=True)
    written = [f"{key} {_text(value)}" for key, value in new.params.items() if value != defaults.get(key)]
    written += [f"consecutive {new.consecutive}"] if new.consecutive > 1 else []
    is_blocking = new.severity is Severity.BLOCKING
    verb = "is required" if is_blocking else f"is reported as {new.severity}, and blocks nothing"
    text = f"{new.check} {verb}{': ' if written else ''}{', '.join(written)}"
    return PolicyChange(subject, text, Direction.TIGHTENED if is_blocking else Direction.CHANGED)


def _requirement(subject: str, old: Requirement, new: Requirement) -> Iterator[PolicyChange]:
    check = old.check
    if old.severity is not new.severity:
        is_tightened = SEVERITIES.index(new.severity) > SEVERITIES.index(old.severity)
        text = f"{check}: severity {old.severity} → {new.severity}"
        yield PolicyChange(subject, text, _direction(is_tightened=is_tightened))
    if old.consecutive != new.consecutive:
        text = f"{check}: consecutive {old.consecutive} → {new.consecutive}"
        yield PolicyChange(subject, text, _direction(is_tightened=new.consecutive > old.consecutive))
    yield from _parameters(subject, check, old.params, new.params)


def _parameters(subject: str, check: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PolicyChange]:
    # Defaults are filled in first: a parameter that is written out with its default is no change.
    model = CHECKS[check].parameters
    before, after = model.model_validate(old), model.model_validate(new)
    written = [parameters.model_dump(mode="json", by_alias=True) for parameters in (before, after)]
    for name, field in model.model_fields.items():
        if (check, name) == ("approval", "allowed_signers"):
            yield from _signers(subject, getattr(before, name), getattr(after, name))
        elif getattr(before, name) != getattr(after, name):
            key = field.alias or name
            text = f"{check}: {key} {_text(written[0].get(key))} → {_text(written[1].get(key))}"
            direction = _direction(is_tightened=_is_stricter(check, name, before, after))
            yield PolicyChange(subject, text, direction)


def _is_stricter(check: str, name: str, before: BaseModel, after: BaseModel) -> bool:
    """Whether a parameter lets only versions pass that passed before; False where it has no known order."""
    old, new = (_comparable(getattr(parameters, name)) for parameters in (before, after))
    if (check, name) == ("approval", "groups"):
        old, new = old or None, new or None  # without groups anybody may
    if (check, name) == ("approval", "asked_proof"):
        old, new = (PROOFS.index(proof) for proof in (old, new))
    more = (check, name) in MORE_IS_STRICTER or (name in LIMITS and isinstance(after, Floors))
    less = (check, name) in LESS_IS_STRICTER or (name in LIMITS and isinstance(after, Ceilings))
    if old is None or new is None:
        return (more or less) and old is None
    return bool((more and new > old) or (less and new < old))


def _comparable(value: Any) -> Any:
    """Sets are compared as sets: what is in neither the other is no order."""
    return frozenset(value.items() if isinstance(value, dict) else value) if isinstance(value, (dict, tuple)) else value


def _direction(*, is_tightened: bool) -> Direction:
    return Direction.TIGHTENED if is_tightened else Direction.LOOSENED


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


def _contract(old: Spec, new: Spec) -> Iterator[PolicyChange]:
    before, after = old.contract.tables, new.contract.tables
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield PolicyChange("contract", f"the table {name} was removed", Direction.LOOSENED)
            continue
        if name not in before:
            yield PolicyChange("contract", f"the table {name} was added", Direction.TIGHTENED)
        earlier = before[name].model_dump() if name in before else {"files": after[name].files}
        yield from _table(f"contract of {name}", earlier, after[name].model_dump())
    probes = (
        {
            f"the probe {probe} of {files.match}{files.drawn}": True
            for files in spec.contract.files
            for probe in files.probes
        }
        for spec in (old, new)
    )
    yield from _items("contract", *probes)
    for key in ("odcs", "partial"):
        yield from _unordered("contract", key, getattr(old.contract, key), getattr(new.contract, key))


def _table(subject: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PolicyChange]:
    yield from _items(
        subject, *(dict(map(_expectation, (table.get("suite") or {}).get("expectations", []))) for table in (old, new))
    )
    columns = [table.get("columns", {}) for table in (old, new)]
    yield from _items(
        subject, *({f"the column {name}: {kind}": True for name, kind in each.items()} for each in columns)
    )
    if columns[1] and "columns" in old and not columns[0]:
        text = "its columns are declared, so they are no longer compared with those of the accepted version"
        yield PolicyChange(subject, text, Direction.LOOSENED)
    for key in new.keys() - {"suite", "columns"}:
        if key in old:
            yield from _unordered(subject, key, old[key], new[key])


def _expectation(expectation: Mapping[str, Any]) -> tuple[str, bool]:
    """An expectation's text, and whether it blocks."""
    kwargs = ", ".join(f"{key}={_text(value)}" for key, value in sorted(expectation.get("kwargs", {}).items()))
    severity = expectation.get("severity")
    return f"{expectation['type']}({kwargs}){f' as {severity}' if severity else ''}", severity in (None, "critical")


def _items(subject: str, old: Mapping[str, bool], new: Mapping[str, bool]) -> Iterator[PolicyChange]:
    """What went and what came, each with whether it blocks."""
    for item in sorted(old.keys() - new.keys()):
        yield PolicyChange(subject, f"{item} is no longer required", Direction.LOOSENED)
    for item in sorted(new.keys() - old.keys()):
        if new[item]:
            yield PolicyChange(subject, f"{item} is required", Direction.TIGHTENED)
        else:
            yield PolicyChange(subject, f"{item} is reported, and blocks nothing", Direction.CHANGED)


def _unordered(subject: str, key: str, old: Any, new: Any) -> Iterator[PolicyChange]:
    if old != new:
        yield PolicyChange(subject, f"{key} {_text(old)} → {_text(new)}", Direction.LOOSENED)


def _others(old: Spec, new: Spec) -> Iterator[PolicyChange]:
    before, after = (spec.model_dump(mode="json") for spec in (old, new))
    for role in dict.fromkeys((*before["owners"], *after["owners"])):
        addresses = [addresses_of(each["owners"], role) for each in (before, after)]
        if before["owners"].get(role) != after["owners"].get(role):
            text = f"{role} {before['owners'].get(role, 'nobody')} → {after['owners'].get(role, 'nobody')}"
            yield PolicyChange("owners", text, _direction(is_tightened=set(addresses[1]) < set(addresses[0])))
    if before["job"] != after["job"]:
        yield PolicyChange("job", f"{_text(before['job'])} → {_text(after['job'])}", Direction.LOOSENED)
    for key in sorted(SPEC_KEYS):
        if before[key] != after[key]:
            yield PolicyChange(key, f"{_text(before[key])} → {_text(after[key])}", Direction.LOOSENED)
    for key in before["policy"].keys() | after["policy"].keys():
        yield from _rule(key, before["policy"][key], after["policy"][key])


def _rule(key: str, old: Any, new: Any) -> Iterator[PolicyChange]:
    """How a key of `policy` differs; a rule about people by the parameters of `approval`."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys() == {"approval"}:
        yield from _parameters(f"policy {key}", "approval", old["approval"], new["approval"])
    elif old != new:
        # Without `overrides` the gates' own approvals say who may, which can be stricter.
        is_tightened = (not old and key != "overrides") or (key == "node_keys" and bool(new) and set(new) < set(old))
        yield PolicyChange("policy", f"{key} {_text(old)} → {_text(new)}", _direction(is_tightened=is_tightened))


def _text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else canonical(value).decode()
