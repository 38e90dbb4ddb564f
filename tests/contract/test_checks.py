"""What every check must keep, run on each of the catalogue.

A new check is in it by being registered. What checks of a plugin look at is in `checked.py` beside its tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_stagegate.checks.storage import Integrity, Volume
from prefect_stagegate.clock import stamp
from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.check_context import Binding, Fact
from prefect_stagegate.gate.check_descriptions import asks, groups, parameters
from prefect_stagegate.gate.evidence_rules import run_check, why_stale
from prefect_stagegate.gate.registry import OWNERS, Renewal
from prefect_stagegate.jobs.staging.probe import SourceProbe
from prefect_stagegate.model import CredentialLife, Entry, Evidence, Outcome, Scope, Severity, Validation
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import (
    DIGEST,
    ENVIRONMENT,
    FACTS,
    NOW,
    OTHER_DIGEST,
    a_spec,
    an_origin,
    check_context,
)

PLUGINS: list[Any] = [
    import_module(f"tests.plugins.{path.parent.name}.{path.stem}")
    for path in sorted(Path(__file__).parents[1].glob("plugins/*/checked.py"))
]
"""What tests of a plugin say of its checks."""
NAMED: dict[str, dict[str, Any]] = {name: named for plugin in PLUGINS for name, named in plugin.NAMED.items()}
"""What a gate names, so that a check has something to look at."""
LOOKS: list[str] = [*(fact.__name__ for fact in FACTS), "probe_source", "entries"]
"""All that a check of the core can ask for and that may break."""
every_check = pytest.mark.parametrize("name", sorted(CHECKS))


@pytest.fixture(autouse=True, scope="module")
def _no_prefect() -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: None}):
        yield


def required(name: str) -> Requirement:
    return Requirement(name, Severity.BLOCKING, NAMED.get(name, {}))


def ask(name: str, context: CheckContext) -> Evidence:
    return run_check(CHECKS[name], required(name), context)


@dataclass
class Broken:
    """A question whose every look fails, and that counts the looks."""

    error: Exception
    looked: list[str] = field(default_factory=list)

    def context(self) -> CheckContext:
        plain: dict[str, Any] = {name: self._fails(name) for name in LOOKS}
        manifest = Manifest("nycflights", DIGEST, 2, 300, plain.pop("entries"))
        accepted = Accepted("pilot", OTHER_DIGEST, stamp(NOW), environment=lambda: ENVIRONMENT)
        facts = {fact: look for plugin in PLUGINS for fact, look in plugin.failing(self._fails).items()}
        return check_context(facts, **{**plain, "last_accepted": accepted}, manifest=manifest)

    def _fails(self, name: str) -> Callable[..., Any]:
        def look(*_: object) -> Any:
            self.looked.append(name)
            raise self.error

        return look


@every_check
@pytest.mark.parametrize(
    "error", [SourceUnavailable("nobody answers", hint="Start it."), ZeroDivisionError("oops")], ids=["told", "bug"]
)
def test_a_look_that_fails_is_inconclusive_with_the_reason(name: str, error: Exception) -> None:
    broken = Broken(error)
    result = ask(name, broken.context())
    if broken.looked:
        assert result.outcome is Outcome.INCONCLUSIVE
        assert str(getattr(error, "message", error)) in result.summary + "".join(
            finding.problem for finding in result.findings
        )


def test_unknown_binding_ends_earlier_evidence() -> None:
    def fails() -> tuple[str, ...]:
        raise SourceUnavailable("nobody answers")

    known = ask("cache_integrity", check_context())
    blind = check_context(rotten_blobs=fails)
    assert ask("cache_integrity", blind).binding["rotten"] == "unknown"
    assert why_stale(known, CHECKS["cache_integrity"], required("cache_integrity"), blind)


def test_each_look_is_some_check_s() -> None:
    broken = Broken(SourceUnavailable("nobody answers"))
    for name in CHECKS:
        ask(name, broken.context())
    assert {
        "validation_of",
        "cache_volume",
        "probe_source",
        "copy_integrity",
        "life_of_credentials",
    } <= {*broken.looked}


CLAIMS = {"a version without a file": (0, 0), "two files, of which nothing is read": (2, 300)}
"""What the manifest says of a version of which no look finds anything: files and bytes."""


def nothing(root: Path, files: int = 0, size: int = 0) -> CheckContext:
    """A version of which every look finds nothing, of a spec that says nothing, on a node that has nothing."""
    empty: dict[str, Any] = {
        "files": files,
        "bytes": size,
        "origins": lambda: iter(()),
        "validation_of": lambda: Validation("nycflights", DIGEST, passed=True, tables=(), evidence=()),
        "table_time": lambda _: None,
        "probe_source": lambda _: SourceProbe("s3://lake/flights/"),
        "life_of_credentials": lambda _: CredentialLife("unknown", "something"),
        "copy_integrity": Integrity(0, 0),
        "cache_volume": Volume(root, total=0, free=0, floor=0, held=0),
        "is_in_catalog": lambda _: False,
        "entries": [Entry("a.parquet", 300, DIGEST)] * bool(files),
    }
    spec = a_spec(owners=None, license=None, runbook=None, contract=None)
    facts: dict[Fact[Any, Any], Any] = {}
    for plugin in PLUGINS:
        facts |= plugin.nothing(root)
    accepted = Accepted("production", OTHER_DIGEST, stamp(NOW))
    return check_context(facts, spec=spec, last_accepted=accepted, **empty)


@every_check
@pytest.mark.parametrize("claim", CLAIMS)
def test_nothing_is_never_a_pass(name: str, claim: str, tmp_path: Any) -> None:
    named = NAMED.get(name, {})
    # With all that a gate can name, and with one of it alone: a check of two questions may look at one only.
    for params in (named, *({key: value} for key, value in named.items())):
        requirement = Requirement(name, Severity.BLOCKING, params)
        result = run_check(CHECKS[name], requirement, nothing(tmp_path, *CLAIMS[claim]))
        assert result.outcome is not Outcome.PASS, (params, result)
        assert result.summary


@every_check
def test_failures_and_warnings_name_a_fix(name: str, tmp_path: Any) -> None:
    for context in (nothing(tmp_path), Broken(SourceUnavailable("nobody answers", hint="Start it.")).context()):
        result = ask(name, context)
        if result.outcome in (Outcome.FAIL, Outcome.WARN):
            assert any(finding.fix for finding in result.findings)
            assert any(finding.outcome is result.outcome for finding in result.findings)
        assert result.summary
        canonical(result.measured)


AGE = re.compile(r"\b\d+ (?:s|min|h|d) (?:ago|old|left)\b|\bfor \d+ (?:s|min|h|d)\b(?!, until)")
"""What is true only at the moment of the check. A text is read later, so it holds times."""


@every_check
def test_recorded_texts_do_not_age(name: str) -> None:
    days = timedelta(days=40)
    stood = Accepted("pilot", DIGEST, stamp(NOW - days))
    spec = a_spec(
        gates={
            "pilot": {"require": ["schema"]},
            "production": {"extends": "pilot", "require": [{name: NAMED.get(name, {})}]},
        }
    )
    for hours in (1.5, 5, 900):
        life = CredentialLife("temporary", "the token", NOW.timestamp() + hours * 3600)
        context = check_context(
            spec=spec,
            accepted_below=stood,
            last_accepted=Accepted("production", OTHER_DIGEST, stamp(NOW - days)),
            life_of_credentials=lambda _, life=life: life,
            table_time=lambda _: NOW - days,
            origins=lambda: iter([an_origin(NOW - days)]),
        )
        result = ask(name, context)
        assert not AGE.search("\n".join([result.summary, *(finding.problem for finding in result.findings)])), result


@every_check
def test_evidence_binds_exactly_what_the_check_declares(name: str) -> None:
    present = {fact: value for plugin in PLUGINS for fact, value in plugin.PRESENT.items()}
    definition, context = CHECKS[name], check_context(present)
    known = replace(ask(name, context), outcome=Outcome.PASS)
    bound_to = {bound for bound, binding in definition.bindings.items() if binding.value(context) is not None}
    assert known.binding.keys() == {*bound_to, "check_version", "parameters"}
    assert not why_stale(known, definition, required(name), context)
    for bound in definition.bindings:
        changed = replace(definition, binds=(*definition.binds, Binding(bound, lambda _: "another")))
        assert why_stale(known, changed, required(name), context)
    raised = replace(definition, version=definition.version + 1)
    assert why_stale(known, raised, required(name), context)


@every_check
def test_evidence_ends_with_its_time_to_live(name: str) -> None:
    definition = CHECKS[name]
    known = replace(ask(name, check_context()), outcome=Outcome.PASS)
    if definition.ttl is not None:
        assert known.expires
        assert known.expires <= stamp(NOW + definition.ttl)
        late = check_context(now=NOW + definition.ttl)
        assert why_stale(known, definition, required(name), late)


@every_check
def test_check_has_an_owner_and_binds_what_its_scope_needs(name: str) -> None:
    definition = CHECKS[name]
    result = ask(name, check_context())
    assert (result.owner, result.scope) == (definition.owner, definition.scope)
    assert definition.owner in OWNERS
    assert "version" in definition.bindings
    expected = {Scope.VERSION: set(), Scope.ENVIRONMENT: {"environment"}, Scope.NODE: {"node"}}[definition.scope]
    assert expected <= {*definition.bindings}
    if definition.ttl is None:
        assert definition.scope is not Scope.NODE, "a node changes without notice"


@every_check
def test_a_check_explains_itself(name: str) -> None:
    definition = CHECKS[name]
    assert len(asks(definition)) > len("Whether it is")
    assert definition.doc.strip().endswith((".", ")"))
    for parameter in parameters(definition):
        assert parameter.meaning.endswith(".")
    for parameter_field in definition.parameters.model_fields.values():
        assert parameter_field.examples
    assert any(definition in checks for checks in groups(CHECKS.values()).values())


@every_check
def test_checks_at_a_run_s_start_query_no_data(name: str) -> None:
    if CHECKS[name].renewal is Renewal.CHEAP:
        broken = Broken(SourceUnavailable("nobody answers"))
        ask(name, broken.context())
        assert not [look for look in broken.looked if look.startswith(("validation_of", "copy_integrity", "measures."))]


def test_a_moment_of_the_question_is_the_one_of_all_answers() -> None:
    context: CheckContext = check_context(now=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=3))
    moments: Mapping[str, str] = {name: ask(name, context).at for name in CHECKS}
    assert {*moments.values()} == {stamp(context.now)}
