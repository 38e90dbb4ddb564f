"""Expectations of installed packages. Only an entry point leads to code; a suite names a type, never a module."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
    register_expectation,
)

from prefect_stagegate.spec.vocabulary import custom_expectations


class UnloadablePlugin(Exception):
    """A package whose expectation can't be used; the arguments are the reason and what to do."""


def load_custom_expectation(kind: str) -> None:
    """Import the class that an installed package has for a type. Great Expectations' own types need none.

    Raises:
        UnloadablePlugin: The import failed, or did something else than to register that type.
    """
    known = {name: get_expectation_impl(name) for name in list_registered_expectation_implementations()}
    point = custom_expectations().get(kind)
    if kind in known or point is None:
        return
    try:
        expectation = point.load()
    # Importing a package runs its code, which may raise anything, and may even try to end the process.
    except (Exception, SystemExit) as error:
        raise _unloadable(point, f"can't be loaded: {type(error).__name__}: {error}") from error
    replaced = [name for name, before in known.items() if get_expectation_impl(name) is not before]
    for name in replaced:
        register_expectation(known[name])
    if replaced:
        raise _unloadable(point, f"replaces {', '.join(replaced)} of Great Expectations or another package")
    if getattr(expectation, "expectation_type", "") != kind:
        raise _unloadable(point, f"leads to no expectation of that type: {point.value}")


def _unloadable(point: EntryPoint, reason: str) -> UnloadablePlugin:
    package = point.dist.name if point.dist else point.value
    fix = f"Repair or remove the package: pip show {package}; pip uninstall {package}"
    return UnloadablePlugin(f"the plugin {package} {reason}", fix)
