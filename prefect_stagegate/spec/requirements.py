"""What each gate requires: reads the items of `require`, and merges them with those of the gates that it extends.

The gate below comes first. A check that is named again keeps its place; its parameters are merged over the earlier ones
and its severity is replaced. Parameters are checked after the merge, since they may depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from prefect_stagegate.errors import did_you_mean, nearest
from prefect_stagegate.model import Severity
from prefect_stagegate.spec.complaints import check, complaint, keys_at, place_of
from prefect_stagegate.spec.fields import WRITTEN, InFile
from prefect_stagegate.spec.models import Requirement, RequirementSpec
from prefect_stagegate.spec.parsed_document import ParsedDocument, UnreadableDocument, read_text_beside
from prefect_stagegate.spec.yamltree import Loc

MOST_PASSES = 5
"""The most passes in a row that a gate may require; the catalog looks at as many of a check's last results."""


class KnownCheck(NamedTuple):
    """A check that a spec may name, as far as the spec has to know it."""

    parameters: type[BaseModel]
    severity: Severity = Severity.BLOCKING
    """The severity where neither the gate nor one below it names another."""


KnownChecks = Mapping[str, KnownCheck]
"""The checks that exist, each with the model of its parameters."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One item of `require`, and its place."""

    loc: Loc
    requirement: RequirementSpec


@dataclass(frozen=True, slots=True)
class _Gate:
    extends: str | None
    items: tuple[_Written, ...]
    empty: bool
    """Whether nothing at all is written under `require`, not even something wrong."""


def resolve_gates(
    document: ParsedDocument, values: dict[str, Any], known: KnownChecks
) -> tuple[dict[str, Any], dict[str, tuple[Requirement, ...]]]:
    """Read a spec's gates, merge what each target requires, and report what is wrong with them.

    Returns:
        The spec's values, with the items of each `require` read, and the requirements of each target.
    """
    gates = values.get("gates")
    if not isinstance(gates, dict):
        return values, {}
    # Gates that are no mappings are left to the spec's model, which reports them.
    read = {target: _gate(document, target, gate, known) for target, gate in gates.items() if isinstance(gate, dict)}
    _report_extends(document, read)
    resolved = {target: _resolve(document, target, read, known) for target in read}
    shaped = {target: _with_items(gate, read.get(target)) for target, gate in gates.items()}
    return {**values, "gates": shaped}, resolved


def read_rule(document: ParsedDocument, values: dict[str, Any], name: str, known: KnownChecks) -> dict[str, Any]:
    """The spec's values with the texts of files in `policy.NAME.approval`.

    Reports what is wrong with its parameters; the spec's models report the rest.
    """
    loc = ("policy", name, "approval")
    place: Any = values
    for key in loc:
        place = place.get(key) if isinstance(place, Mapping) else None
    if not isinstance(place, dict):
        return values
    model = known["approval"].parameters
    unknown = _unknown_parameters(place, model)
    for key in unknown:
        document.report((*loc, key), f"unknown parameter of approval; {did_you_mean(key, keys_at(model, ()))}")
    inlined = _with_files(document, loc, place, model)
    if inlined is None:
        return values
    check(document, {key: value for key, value in inlined.items() if key not in unknown}, model, loc)
    policy = values["policy"]
    return {**values, "policy": {**policy, name: {**policy[name], "approval": inlined}}}


def _with_files(
    document: ParsedDocument, loc: Loc, params: Mapping[str, Any], model: type[BaseModel]
) -> dict[str, Any] | None:
    """Parameters with the text of each file that they name; None, with the problem reported, where none can be read."""
    inlined = dict(params)
    for name, field in model.model_fields.items():
        key = field.alias or name
        value = inlined.get(key)
        # Text has a space or a line end; a file's name has none.
        is_name = isinstance(value, str) and value and len(value.split()) == 1 and value == value.strip()
        if not is_name or not any(isinstance(mark, InFile) for mark in field.metadata):
            continue
        # The digest of a policy in the catalog would not cover what lies in a file of the node that reads it.
        if document.is_dictionary:
            document.report((*loc, key), "must be the text itself; only the file of a spec may name another file")
            return None
        try:
            inlined[key] = read_text_beside(document, str(value))
        except UnreadableDocument as error:
            document.report((*loc, key), str(error))
            return None
    return inlined


def _gate(document: ParsedDocument, target: str, gate: dict[str, Any], known: KnownChecks) -> _Gate:
    extends, require = gate.get("extends"), gate.get("require")
    loc = ("gates", target, "require")
    items = enumerate(require) if isinstance(require, list) else ()
    written = (_item(document, (*loc, index), item, known) for index, item in items)
    return _Gate(extends if isinstance(extends, str) else None, tuple(item for item in written if item), not require)


def _with_items(gate: Any, read: _Gate | None) -> Any:
    """Put the items that were read into the gate, so that its model reports nothing a second time."""
    if read is None or not isinstance(gate.get("require"), list):
        return gate
    return {**gate, "require": [item.requirement for item in read.items]}


def _item(document: ParsedDocument, loc: Loc, item: object, known: KnownChecks) -> _Written | None:
    mapping = {item: None} if isinstance(item, str) else item
    if not isinstance(mapping, dict) or len(mapping) != 1:
        document.report(loc, _item_problem(item))
        return None
    ((check, settings),) = mapping.items()
    here = loc if isinstance(item, str) else (*loc, check)
    if check not in known:
        meant = did_you_mean(check, known) if nearest(check, known) else "is its plugin missing? See `stagegate checks`"
        document.report(here, f"unknown check {check!r}; {meant}")
        return None
    if not isinstance(settings, (dict, type(None))):
        document.report(here, f"a check's parameters must be a mapping; `stagegate checks {check}` lists them")
        return None
    # A copy, since keys are taken out of it below, and the document's values must stay as they were written.
    params = dict(settings or {})
    severity = _severity(document, here, params.pop("severity", None))
    consecutive = _consecutive(document, here, params.pop("consecutive", None))
    model = known[check].parameters
    for key in _unknown_parameters(params, model):
        choices = [*keys_at(model, ()), "severity", "consecutive"]
        document.report((*here, key), f"unknown parameter of {check}; {did_you_mean(key, choices)}")
        # Removed, or each gate that inherits the check would report it again.
        del params[key]
    inlined = _with_files(document, here, params, model)
    if inlined is None:
        return None
    return _Written(here, RequirementSpec(check=check, severity=severity, consecutive=consecutive, params=inlined))


def _unknown_parameters(params: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """The keys that the model doesn't name. A model that ignores them would drop them silently."""
    if model.model_config.get("extra") == "allow":
        return []
    return sorted(params.keys() - keys_at(model, ()))


def _item_problem(item: object) -> str:
    if isinstance(item, dict) and len(item) > 1:
        first = next(iter(item))
        return f"an item names one check, and this one has {', '.join(item)}; indent its parameters below '{first}:'"
    return "must be a check's name, or a name with its parameters, such as {freshness: {fail: 24h}}"


def _severity(document: ParsedDocument, loc: Loc, given: object) -> Severity | None:
    if given is None:
        return None
    names = [severity.value for severity in Severity]
    if isinstance(given, str) and given in names:
        return Severity(given)
    document.report((*loc, "severity"), f"{given!r} is no severity; {did_you_mean(str(given), names)}")
    return None


def _consecutive(document: ParsedDocument, loc: Loc, given: object) -> int | None:
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_PASSES:
        return given
    document.report((*loc, "consecutive"), f"must be a whole number from 1 to {MOST_PASSES}, not {given!r}")
    return None


def _report_extends(document: ParsedDocument, gates: Mapping[str, _Gate]) -> None:
    # Each gate of a circle leads back to itself, but the circle is reported once.
    reported: set[str] = set()
    for target, gate in gates.items():
        loc = ("gates", target, "extends")
        if gate.extends is not None and gate.extends not in gates:
            # No gate can extend itself, so its own name is no suggestion.
            others = [name for name in gates if name != target]
            document.report(loc, f"there is no gate {gate.extends!r}; {did_you_mean(gate.extends, others)}")
        line = [*_lineage(target, gates)]
        closing = gates[line[-1]].extends
        if closing in line and target == closing and not reported.intersection(line):
            reported.update(line)
            document.report(loc, f"the gates extend each other in a circle: {' → '.join([*line, target])}")


def _lineage(target: str, gates: Mapping[str, _Gate]) -> Iterator[str]:
    """The target, the gate that it extends, and so on; ends where a gate is missing or comes again."""
    seen: set[str] = set()
    name: str | None = target
    while name is not None and name in gates and name not in seen:
        seen.add(name)
        yield name
        name = gates[name].extends


def _resolve(
    document: ParsedDocument, target: str, gates: Mapping[str, _Gate], known: KnownChecks
) -> tuple[Requirement, ...]:
    line = [*_lineage(target, gates)]
    # A missing gate below is reported already, and might have required something.
    if all(gates[name].empty for name in line) and gates[line[-1]].extends is None:
        document.report(("gates", target), "requires no check, so it would accept anything")
    merged: dict[str, Requirement] = {}
    for name in reversed(line):
        for item in gates[name].items:
            check = item.requirement.check
            merged[check] = _merge(merged.get(check), item.requirement, known[check].severity)
    return tuple(
        _with_defaults(document, requirement, known[check].parameters, gates[target].items)
        for check, requirement in merged.items()
    )


def _merge(below: Requirement | None, above: RequirementSpec, severity: Severity) -> Requirement:
    if below is None:
        return Requirement(above.check, above.severity or severity, above.params, above.consecutive or 1)
    return Requirement(
        above.check,
        above.severity or below.severity,
        {**below.params, **above.params},
        above.consecutive or below.consecutive,
    )


def _with_defaults(
    document: ParsedDocument, requirement: Requirement, model: type[BaseModel], items: Sequence[_Written]
) -> Requirement:
    """Fill in the defaults; report what is wrong with the parameters that the gate itself wrote, in `items`."""
    try:
        params = model.model_validate(requirement.params, context=None if document.is_dictionary else WRITTEN)
    except ValidationError as error:
        written = [item for item in items if item.requirement.check == requirement.check]
        for detail in error.errors():
            place = place_of(detail)
            if item := _culprit(written, place, detail["type"]):
                document.report((*item.loc, *place), complaint(detail, model))
        return requirement
    # Defaults belong to the policy's digest: a release with other defaults must not use evidence of the earlier ones.
    return replace(requirement, params=params.model_dump(mode="json", by_alias=True))


def _culprit(items: Sequence[_Written], place: Loc, kind: str) -> _Written | None:
    """The item that wrote the wrong parameter; None when a gate below did, which reports it itself."""
    # The last item that sets a parameter wins, and a missing one is in no item.
    for item in reversed(items):
        if not place or kind == "missing" or place[0] in item.requirement.params:
            return item
    return None
