"""What a user named: a version by dataset and ref, or a spec, which means the `latest` of its dataset under it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.spec import KnownCheck, Spec, load_spec

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


def read_spec(spec: SpecLike) -> Spec:
    """Load a spec from wherever it is.

    A file's contract is looked into: one in the catalog must stay readable, and who judges by it looks then.

    Raises:
        SpecError: It can't be read, or something in it is wrong.
    """
    if isinstance(spec, Spec):
        return spec
    problems = None if isinstance(spec, Mapping) else _argument_problems
    return load_spec(spec, known_checks=_KnownChecks(), argument_problems=problems)


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


def resolve(where: Workspace, named: SpecLike | Address, spec: SpecLike | None = None, default: str = LATEST) -> Named:
    """Find the version that is meant, and the spec to speak about it under.

    Args:
        where: Cache and catalog.
        named: A version's address, or a spec.
        spec: A spec to use instead of the one that is stored beside the version.
        default: The ref that is meant when the user named none.

    Raises:
        UsageError: There is no such dataset, ref or version, or the spec is another dataset's.
    """
    what = parse(named)
    if isinstance(what, Spec):
        return Named(what.dataset, where.catalog.resolve(Address(what.dataset), default), what)
    digest = where.catalog.resolve(what, default)
    chosen = read_spec(spec) if spec is not None else stored_spec(where, what.dataset, digest)
    if chosen.dataset != what.dataset:
        raise UsageError(
            f"The spec describes {chosen.dataset}, not {what.dataset}",
            hint=f"Give the spec of {what.dataset}, or leave it out to use the one that is stored beside the version.",
        )
    return Named(what.dataset, digest, chosen, "" if what.digest else what.ref)


def stored_spec(where: Workspace, dataset: str, digest: str) -> Spec:
    """The spec that is stored beside a version.

    Raises:
        UsageError: There is none.
    """
    return spec_beside(where.catalog, dataset, digest)


def spec_beside(catalog: Catalog, dataset: str, digest: str) -> Spec:
    """The same for who has a catalog alone."""
    canonical = catalog.spec(dataset, digest)
    if canonical is None:
        raise UsageError(f"No spec is stored beside {dataset}@{digest}", hint="Give one with --spec.", dataset=dataset)
    return read_spec(canonical)


def _looks_like_a_file(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml", ".json"))
