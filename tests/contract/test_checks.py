"""What every check must keep, run on each of the catalogue.

A new check is in it by being registered; one that looks at nothing until a gate names something has a line in `NAMED`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_stagegate.checks.storage import Integrity, Volume
from prefect_stagegate.clock import stamp
from prefect_stagegate.environment.nvml import Gpus
from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.catalogue import asks, groups, parameters
from prefect_stagegate.gate.context import Binding, Fact
from prefect_stagegate.gate.registry import OWNERS, Renewal
from prefect_stagegate.gate.run import run_check, why_stale
from prefect_stagegate.jobs.staging.probe import Probe
from prefect_stagegate.model import CredentialLife, Entry, Evidence, Outcome, Scope, Severity, Validation
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.model.measures import Balance, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.plugins.node.checks.gpu import machine, nvml_gpus
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.profile.measuring import measures
from prefect_stagegate.plugins.signatures.signature import digests_of_files, file_bytes, kept_signatures
from prefect_stagegate.plugins.signatures.signature_bundle import sign_statement
from prefect_stagegate.plugins.signatures.signed_files import write_statement
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
from tests.plugins.signatures.signers import pem
from tests.support.figures import USUAL, Figures

NAMED: dict[str, dict[str, Any]] = {
    "duplicates": {"keys": {"flights": ["id"]}, "splits": {"train": "a/*", "test": "b/*"}, "by": ["id"]},
    "balance": {"labels": {"flights": "carrier"}, "fail": 0.01},
    "worker": {"pool": "gpu"},
    "work_pool": {"pool": "gpu"},
    "queue": {"pool": "gpu"},
    "schedule": {"deployment": "refresh/nycflights"},
    "concurrency": {"limits": ["stagegate-node-gpu-1"]},
}
"""What a gate names, so that a check has something to look at."""
OF_PLUGINS: tuple[Fact[Any, Any], ...] = (digests_of_files, file_bytes, kept_signatures, nvml_gpus)
LOOKS: list[str] = [
    *(fact.__name__ for fact in (*FACTS, *OF_PLUGINS)),
    *("probe_source", "entries"),
    *(f"measures.{name}" for name in USUAL),
]
"""All that a check can ask for and that may break."""
every_check = pytest.mark.parametrize("name", sorted(CHECKS))


@pytest.fixture(autouse=True)
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
        plain: dict[str, Any] = {name: self._fails(name) for name in LOOKS if "." not in name}
        manifest = Manifest("nycflights", DIGEST, 2, 300, plain.pop("entries"))
        figures = Figures({name.partition(".")[2]: self._fails(name) for name in LOOKS if "." in name})
        accepted = Accepted("pilot", OTHER_DIGEST, stamp(NOW), environment=lambda: ENVIRONMENT)
        facts = {fact: plain.pop(fact.__name__) for fact in OF_PLUGINS}
        facts |= {measures: figures}
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
    assert {*broken.looked} <= {*LOOKS}
    assert {
        "validation_of",
        "cache_volume",
        "probe_source",
        "copy_integrity",
        "life_of_credentials",
    } <= {*broken.looked}


SIGNER = ec.generate_private_key(ec.SECP256R1())
NAMED["signature"] = {"keys": [pem(SIGNER)]}


def signed(*paths: str) -> bytes:
    """A valid signature of files."""
    statement = write_statement("nycflights", "sha256", ((path, "0a" * 32) for path in paths))
    return json.dumps(sign_statement(statement, SIGNER)).encode()


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
        "probe_source": lambda _: Probe("s3://lake/flights/"),
        "life_of_credentials": lambda _: CredentialLife("unknown", "something"),
        "copy_integrity": Integrity(0, 0),
        "cache_volume": Volume(root, total=0, free=0, floor=0, held=0),
        "is_in_catalog": lambda _: False,
        "entries": [Entry("a.parquet", 300, DIGEST)] * bool(files),
    }
    spec = a_spec(owners=None, license=None, runbook=None, contract=None)
    facts: dict[Fact[Any, Any], Any] = {
        machine: Machine(root),
        nvml_gpus: Gpus(),
        measures: Figures(
            {
                "duplicates": Duplicates(0, 0),
                "shared_files": Overlap({}, {}),
                "shared_records": Overlap({}, {}),
                "balance": Balance(0, 0, 0),
                "drift": {"flights": TableDrift(0, 0, ())},
                "scan": Scan(0, (), {}, {}),
            }
        ),
        kept_signatures: lambda: iter([signed("a.parquet")]),
        digests_of_files: lambda _: iter(()),
    }
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
    definition, context = CHECKS[name], check_context({kept_signatures: lambda: iter(())})
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
        costly = {"validation_of", "copy_integrity", *(look for look in LOOKS if look.startswith("measures."))}
        assert not costly & {*broken.looked}


def test_a_moment_of_the_question_is_the_one_of_all_answers() -> None:
    context: CheckContext = check_context(now=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=3))
    moments: Mapping[str, str] = {name: ask(name, context).at for name in CHECKS}
    assert {*moments.values()} == {stamp(context.now)}
