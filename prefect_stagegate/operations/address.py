"""What a user named: a version by dataset and ref, or a spec, which means the `latest` of its dataset under it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.catalog import Catalog, PolicyEntry
from prefect_stagegate.errors import CorruptRecord, SpecError, UsageError
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.settings import Settings
from prefect_stagegate.spec import KnownCheck, Spec, load_spec
from prefect_stagegate.units import digest_text

SpecLike = str | Path | Mapping[str, Any] | Spec
"""A spec as a path, a URL, a dictionary, or loaded."""


class _KnownChecks(Mapping[str, KnownCheck]):
    """The catalogue of checks, imported when a spec names one: that takes as long as staging a thousand objects."""

    def _all(self) -> Mapping[str, KnownCheck]:
        from prefect_stagegate.readiness import known_checks

        return known_checks()

    def __getitem__(self, name: str) -> KnownCheck:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(frozen=True, slots=True)
class Named:
    """One version, resolved once, with the spec it is spoken about under."""

    dataset: str
    digest: str
    spec: Spec
    ref: str = ""
    """The ref that the user named; empty when the version was named by digest or not at all."""
    adopted: str = ""
    """`sha256:<hex>` of the adopted policy that the spec holds; empty where none was adopted, and for a trial."""
    is_trial: bool = False
    """Whether the spec is the asker's own: then nothing is recorded, and nothing of it counts."""


def read_spec(spec: SpecLike) -> Spec:
    """Load a spec from wherever it is.

    A file's contract is looked into: one in the catalog must stay readable, and who judges by it looks then.

    Raises:
        SpecError: It can't be read, or something in it is wrong.
    """
    if isinstance(spec, Spec):
        return spec
    problems = None if isinstance(spec, Mapping) else _argument_problems
    allowed = Settings.from_environment(os.environ).allowed_hosts if isinstance(spec, str) and "://" in spec else ()
    return load_spec(spec, known_checks=_KnownChecks(), argument_problems=problems, allowed=allowed)


_LANGUAGES = {"unexpected_rows_query", "base_query", "comparison_query", "row_condition", "json_schema"}
"""Arguments of expectations that hold a language."""


def _argument_problems(arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Look into an expectation's arguments. What parses them is imported when there is one to parse."""
    if _LANGUAGES.isdisjoint(arguments):
        return ()
    from prefect_stagegate.validations.statements import argument_problems

    return argument_problems(arguments)


def parse(named: SpecLike | Address) -> Address | Spec:
    """Tell a version from a spec: `name`, `name@ref` and `name@sha256:…` are versions, all else is a spec."""
    if isinstance(named, Address):
        return named
    if isinstance(named, str) and not _looks_like_a_file(named):
        return Address.parse(named)
    return read_spec(named)


def resolve(
    workspace: Workspace, named: SpecLike | Address, spec: SpecLike | None = None, default: str = LATEST
) -> Named:
    """Find the version that is meant, and the spec that it is judged under.

    That is the spec that it was staged from, with the policy that the dataset adopted. A spec of the asker's own makes
    it a trial, unless it is named in place of the version and holds just the adopted policy.

    Args:
        workspace: Cache and catalog.
        named: A version's address, or a spec.
        spec: A spec to try instead.
        default: The ref that is meant when the user named none.

    Raises:
        UsageError: There is no such dataset, ref or version, or the spec is another dataset's.
    """
    what = parse(named)
    address = Address(what.dataset) if isinstance(what, Spec) else what
    digest = workspace.catalog.resolve(address, default)
    ref = "" if address.is_version else address.ref
    adoption = workspace.catalog.policy(what.dataset)
    tried = read_spec(spec) if spec is not None else what if isinstance(what, Spec) else None
    if tried is not None and tried.dataset != what.dataset:
        raise UsageError(
            f"The spec describes {tried.dataset}, not {what.dataset}",
            hint=f"Give the spec of {what.dataset}, or leave it out to judge by the adopted policy.",
        )
    if tried is not None and (spec is not None or adoption is None or policy_of(tried) != adoption.policy):
        return Named(what.dataset, digest, tried, ref, is_trial=True)
    judged = judged_spec(workspace.catalog, what.dataset, digest, adoption)
    return Named(what.dataset, digest, judged, ref, adoption.digest if adoption else "")


POLICY_KEYS = ("contract", "gates", "job", "owners", "policy")
"""The keys of a spec that are policy: what the gates ask, of whom, and who must agree to a change of that."""


def policy_of(spec: Spec) -> dict[str, Any]:
    """The part of a spec that a dataset adopts as its policy; JSON values."""
    canonical = spec.canonical()
    return {key: canonical[key] for key in POLICY_KEYS if key in canonical}


def stored_spec(workspace: Workspace, dataset: str, digest: str) -> Spec:
    """The spec that a version is judged under now: see `judged_spec`.

    Raises:
        UsageError: No spec is stored beside the version.
    """
    return judged_spec(workspace.catalog, dataset, digest, workspace.catalog.policy(dataset))


def judged_spec(catalog: Catalog, dataset: str, digest: str, adoption: PolicyEntry | None) -> Spec:
    """The spec that a version was staged from, with an adopted policy in place of its own.

    Before any policy was adopted, it has no gates: nobody may bring their own.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: This release can't read it, or the policy.
    """
    canonical = _canonical_beside(catalog, dataset, digest)
    replaced = POLICY_KEYS if adoption else ("gates", "policy")
    facts = {key: value for key, value in canonical.items() if key not in replaced}
    name = f"The spec of {dataset}@{digest}"
    if adoption is None:
        return read_recorded(facts, name, dataset)
    return read_recorded(facts | dict(adoption.policy), f"{name} with {policy_name(adoption.policy, dataset)}", dataset)


def spec_beside(catalog: Catalog, dataset: str, digest: str) -> Spec:
    """The spec that a version was staged from, as it was written.

    Raises:
        UsageError: There is none.
        CorruptRecord: This release can't read it.
    """
    return read_recorded(_canonical_beside(catalog, dataset, digest), f"The spec of {dataset}@{digest}", dataset)


def policy_name(policy: Mapping[str, Any], dataset: str) -> str:
    """What errors call a policy."""
    return f"the policy {digest_text(digest_of(policy))} of {dataset}"


def read_recorded(canonical: Mapping[str, Any], name: str, dataset: str) -> Spec:
    """Read a spec that the catalog holds: one of a newer release can't be read, nor one whose check a plugin had.

    Args:
        canonical: The spec.
        name: What an error calls it.
        dataset: The dataset that it is of.

    Raises:
        CorruptRecord: This release can't read it.
    """
    try:
        return read_spec(canonical)
    except SpecError as error:
        raise CorruptRecord(
            f"{name} can't be read by this release: {'; '.join(error.problems)}",
            hint="Use the release, with the plugins, that it was written for.",
            dataset=dataset,
        ) from error


def _canonical_beside(catalog: Catalog, dataset: str, digest: str) -> Mapping[str, Any]:
    canonical = catalog.spec(dataset, digest)
    if canonical is None:
        raise UsageError(f"No spec is stored beside {dataset}@{digest}", hint="Stage it again.", dataset=dataset)
    return canonical


def _looks_like_a_file(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml", ".json"))
