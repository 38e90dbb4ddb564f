"""Resolving what a user typed: a version's address, or a spec, which means the `latest` version of its dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect_stagegate.catalog import Catalog, PolicyEntry
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import staged_spec
from prefect_stagegate.errors import CorruptRecord, SpecError, UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.spec import KnownCheck, Spec, load_spec
from prefect_stagegate.spec.load import Examine, Recorded
from prefect_stagegate.spec.models import SPEC_KEYS
from prefect_stagegate.units import digest_text
from prefect_stagegate.workspace import ResolvedVersion, Workspace

SpecLike = str | Path | Mapping[str, Any] | Spec
"""A spec as a path, a URL, a dictionary, or loaded."""


class _KnownChecks(Mapping[str, KnownCheck]):
    """The catalogue of checks, imported when a spec names one, for that takes as long as staging a thousand objects."""

    def _all(self) -> Mapping[str, KnownCheck]:
        from prefect_stagegate.gate import known_checks

        return known_checks()

    def __getitem__(self, name: str) -> KnownCheck:
        from prefect_stagegate.gate import known_check

        return known_check(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def read_spec(spec: SpecLike, examine: Examine | None = None) -> Spec:
    """Load a spec from a path, a URL or a dictionary. `examine` finds what else is wrong with it: see `load_spec`.

    Raises:
        SpecError: It can't be read, or something in it is wrong.
    """
    if isinstance(spec, Spec):
        return spec
    # A dictionary may come from the catalog, and has to stay readable: running its contract checks the arguments then.
    problems = None if isinstance(spec, Mapping) else _argument_problems
    allowed = Settings.from_environment(os.environ).allowed_hosts if isinstance(spec, str) and "://" in spec else ()
    return load_spec(spec, known_checks=_KnownChecks(), argument_problems=problems, allowed=allowed, examine=examine)


_LANGUAGES = {"unexpected_rows_query", "base_query", "comparison_query", "row_condition", "json_schema"}
"""Arguments of expectations that hold SQL, a condition or a JSON schema."""


def _argument_problems(arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Parse an expectation's arguments, and give what is wrong with them."""
    if _LANGUAGES.isdisjoint(arguments):
        return ()  # the parsers take long to import
    from prefect_stagegate.validations.worker.statements import argument_problems

    return argument_problems(arguments)


def parse(subject: SpecLike | Address) -> Address | Spec:
    """Tell a version from a spec: `name`, `name@ref` and `name@sha256:…` are versions, all else is a spec."""
    if isinstance(subject, Address):
        return subject
    if isinstance(subject, str) and "/" not in subject and not subject.endswith((".yaml", ".yml", ".json")):
        return Address.parse(subject)
    return read_spec(subject)


def resolve_for_node(workspace: Workspace, address: Address) -> str:
    """The digest that an address names, for what this node is about to hold.

    Raises:
        UnprovedEntry: The newest entry of the ref's log is not proved. The node's copy of the ref is suspended then.
        CatalogError: There is no such version, or the catalog can't be read.
    """
    with workspace.cache.refs.suspending(address):
        return workspace.catalog.resolve(address)


def resolve(workspace: Workspace, version_or_spec: SpecLike | Address, spec: SpecLike | None = None) -> ResolvedVersion:
    """Resolve a version, and find the spec that it is judged under.

    That is the spec that it was staged from, with the policy that the dataset adopted. With a spec of the user's it is
    a trial, unless the spec is given in place of the version and its policy is the adopted one.

    Args:
        workspace: Cache and catalog.
        version_or_spec: A version's address, or a spec, which means a version of its dataset.
        spec: A spec to try instead.

    Raises:
        UsageError: There is no such dataset, ref or version, or the spec is another dataset's.
    """
    parsed = parse(version_or_spec)
    dataset = parsed.dataset
    address = Address(dataset) if isinstance(parsed, Spec) else parsed
    digest = workspace.catalog.resolve(address)
    ref = "" if address.is_version else address.ref
    adoption = policy_log(workspace.catalog, dataset).head()
    tried = read_spec(spec) if spec is not None else parsed if isinstance(parsed, Spec) else None
    if tried is not None and tried.dataset != dataset:
        raise UsageError(
            f"The spec describes {tried.dataset}, not {dataset}",
            hint=f"Give the spec of {dataset}, or leave it out to judge by the adopted policy.",
        )
    # A spec given in place of a version is no trial as long as its policy is the adopted one.
    if tried is not None and (spec is not None or adoption is None or policy_of(tried) != adoption.policy):
        return ResolvedVersion(dataset, digest, tried, ref, is_trial=True)
    judged = judged_spec(workspace.catalog, dataset, digest, adoption)
    typed, staged = (tried.canonical(), judged.canonical()) if tried else ({}, {})
    unstaged = tuple(sorted(key for key in typed | staged if typed.get(key) != staged.get(key)))
    return ResolvedVersion(dataset, digest, judged, ref, adoption.digest if adoption else "", unstaged=unstaged)


POLICY_KEYS = ("contract", "gates", "job", "owners", "policy", *sorted(SPEC_KEYS))
"""The keys of a spec that make up its policy: what the gates require, of whom, and who must agree to a change."""


def policy_of(spec: Spec) -> dict[str, Any]:
    """The part of a spec that a dataset adopts as its policy; JSON values."""
    return policy_within(spec.canonical())


def policy_within(canonical: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a canonical spec that a dataset adopts as its policy."""
    return {key: canonical[key] for key in POLICY_KEYS if key in canonical}


def stored_spec(workspace: Workspace, dataset: str, digest: str) -> Spec:
    """The spec that a version is judged under now; see `judged_spec`.

    Raises:
        UsageError: No spec is stored beside the version.
    """
    return judged_spec(workspace.catalog, dataset, digest, policy_log(workspace.catalog, dataset).head())


def judged_spec(catalog: Catalog, dataset: str, digest: str, adoption: PolicyEntry | None) -> Spec:
    """The spec that a version was staged from, with the adopted policy in place of its own.

    Without an adopted policy the spec has no gates: a version never brings its own.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: This release can't read it, or the policy.
    """
    canonical = _canonical_beside(catalog, dataset, digest)
    # Before any policy was adopted, the version's own contract still serves validations.
    replaced = POLICY_KEYS if adoption else ("gates", "policy")
    facts = {key: value for key, value in canonical.items() if key not in replaced}
    name = f"The spec of {dataset}@{digest}"
    if adoption is None:
        return read_recorded(facts, name, dataset)
    return read_recorded(facts | dict(adoption.policy), f"{name} with {policy_name(adoption.policy, dataset)}", dataset)


def spec_beside(catalog: Catalog, dataset: str, digest: str) -> Spec:
    """The spec that a version was staged from, with its own policy.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: This release can't read it.
    """
    return read_recorded(_canonical_beside(catalog, dataset, digest), f"The spec of {dataset}@{digest}", dataset)


def staged_spec_of(workspace: Workspace, subject: Spec | Address) -> Spec:
    """The spec itself, or the one that the version of an address was staged from.

    Raises:
        UsageError: There is no such version, or no spec is stored beside it.
        CorruptRecord: This release can't read the spec.
    """
    if isinstance(subject, Spec):
        return subject
    return spec_beside(workspace.catalog, subject.dataset, workspace.catalog.resolve(subject))


def policy_name(policy: Mapping[str, Any], dataset: str) -> str:
    """The name of a policy in error messages."""
    return f"the policy {digest_text(digest_of(policy))} of {dataset}"


def read_recorded(canonical: Mapping[str, Any], name: str, dataset: str) -> Spec:
    """Read a spec that the catalog holds; errors call it by `name`.

    Raises:
        CorruptRecord: A newer release wrote it, or a plugin that it needs is missing.
    """
    try:
        return read_spec(Recorded(canonical))
    except SpecError as error:
        raise CorruptRecord(
            f"{name} can't be read by this release: {'; '.join(error.problems)}",
            hint="Use the release, with the plugins, that it was written for.",
            dataset=dataset,
        ) from error


def _canonical_beside(catalog: Catalog, dataset: str, digest: str) -> Mapping[str, Any]:
    canonical = staged_spec(catalog, dataset, digest)
    if canonical is None:
        raise UsageError(f"No spec is stored beside {dataset}@{digest}", hint="Stage it again.", dataset=dataset)
    return canonical
