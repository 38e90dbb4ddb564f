"""What an ODCS contract says of people and service: its team as owners, and its latency as a `freshness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_stagegate.plugins.exchange.odcs.odcs_columns import NoCounterpart
from prefect_stagegate.spec.yamltree import Loc
from prefect_stagegate.units import format_duration

if TYPE_CHECKING:
    from open_data_contract_standard.model import OpenDataContractStandard, ServiceLevelAgreementProperty

ROLES = {
    **{role: role for role in ("data", "ai", "infra", "governance")},
    **dict.fromkeys(("owner", "data owner", "data steward", "data engineer", "data product owner"), "data"),
    **dict.fromkeys(("data scientist", "ml engineer", "machine learning engineer"), "ai"),
    **dict.fromkeys(("platform engineer", "site reliability engineer", "infrastructure"), "infra"),
    **dict.fromkeys(("dpo", "data protection officer", "compliance", "legal"), "governance"),
}
"""Our owner of each role in a team, which the standard leaves open; members with other roles own nothing here."""
FRESHNESS = ("latency", "ly", "freshness")
"""Service levels that the check `freshness` answers."""
SECONDS = {
    **dict.fromkeys(("s", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 604_800),
    **dict.fromkeys(("y", "yr", "year", "years"), 31_536_000),
}
"""Seconds of each unit. `m` is none: it may be a minute or a month."""
LONGEST = timedelta(days=36_500)


class FreshnessPromise(NamedTuple):
    """How old the newest data may be."""

    loc: Loc
    limit: timedelta
    elements: tuple[str, ...]
    """The columns that say when a record arose, as `table.column` or `column`; empty where the contract names none."""


def owners_of(contract: OpenDataContractStandard) -> dict[str, str]:
    """The addresses of each owner: those in the team who did not leave it."""
    team = contract.team
    members = (team if isinstance(team, list) else team.members if team else None) or []
    addresses: dict[str, list[str]] = {}
    for member in members:
        owner = ROLES.get((member.role or "").strip().lower())
        if owner and member.username and not member.dateOut:
            addresses.setdefault(owner, []).append(member.username)
    return {owner: ", ".join(dict.fromkeys(usernames)) for owner, usernames in addresses.items()}


def service_levels(contract: OpenDataContractStandard) -> Iterator[FreshnessPromise | NoCounterpart]:
    """Each service level of the contract."""
    for index, level in enumerate(contract.slaProperties or []):
        loc = ("slaProperties", index)
        if (level.property or "").lower() not in FRESHNESS:
            yield NoCounterpart(loc, f"no check measures {level.property!r}")
        elif (limit := _limit(level)) is None:
            yield NoCounterpart(loc, "needs a number and a unit such as h or d: at least 1 second, at most 100 years")
        else:
            elements = level.element or contract.slaDefaultElement or ""
            yield FreshnessPromise(loc, limit, tuple(name.strip() for name in elements.split(",") if name.strip()))


def _limit(level: ServiceLevelAgreementProperty) -> timedelta | None:
    seconds = SECONDS.get((level.unit or "").strip().lower())
    try:
        # `float` takes a bool for 0 or 1.
        number = float(level.value) if level.value is not None and not isinstance(level.value, bool) else 0.0
        limit = timedelta(seconds=round(number * (seconds or 0)))
    except (ValueError, OverflowError):
        return None
    return limit if timedelta(0) < limit <= LONGEST else None


def with_freshness(gates: Any, levels: list[FreshnessPromise]) -> Any:
    """The gates with the contract's freshness in each that extends none and does not state its own.

    What a gate writes wins, in the gate itself and in those that extend it.
    """
    if not levels or not isinstance(gates, dict):
        return gates
    age = format_duration(min(level.limit for level in levels))
    item = {"freshness": {"warn": age, "fail": age}}
    return {target: _with_item(gate, item) for target, gate in gates.items()}


def _with_item(gate: Any, item: Mapping[str, Any]) -> Any:
    required = gate.get("require", []) if isinstance(gate, dict) else None
    if not isinstance(required, list) or gate.get("extends") is not None:
        return gate
    # An empty mapping is no check; `resolve_gates` reports it at its line.
    stated = [next(iter(written), None) if isinstance(written, dict) else written for written in required]
    return gate if "freshness" in stated else {**gate, "require": [*required, item]}
