"""What checks read: the context of one decision, facts that are computed when a check asks, and bindings of evidence.

A fact is a function of the context, declared beside the checks that use it:

    @Fact
    def quarantined(context: CheckContext) -> tuple[str, ...]:
        ...

    if quarantined(context): ...

It runs at most once a decision, however many checks ask; a `FreshFact` runs each time. It may raise any
`StagegateError`: each check that asked is then inconclusive, and the error's message is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import update_wrapper
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, cast

from prefect_stagegate.catalog.version_records import read_origins
from prefect_stagegate.environment import UNKNOWN, Environment
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Approval, ApprovalRequest, Entry, EvidenceRevocation, Identity, Origin, Waiver
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.spec import Gate, Spec
from prefect_stagegate.workspace import ResolvedVersion, Workspace

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """One version on its way to one target, in one environment, on one node."""

    version: ResolvedVersion
    """The version, and the spec that it is judged under."""
    manifest: Manifest
    gate: Gate
    now: datetime
    """Aware. All checks of one decision have the same."""
    workspace: Workspace
    """Cache, catalog, settings and requester, for the functions of facts. A check itself changes nothing."""
    environment: Environment
    after: int = 0
    """The number of the target's last move; 0 before the first."""
    request: ApprovalRequest | None = None
    """The recorded request to promote exactly this version under exactly this policy."""
    approvals: tuple[Approval, ...] = ()
    """The answers to it, the oldest first."""
    waivers: tuple[Waiver, ...] = ()
    """The waivers that people who may waive granted for this version at this target, also those that ended."""
    revocations: tuple[EvidenceRevocation, ...] = ()
    """Revocations of evidence about this version by people who may revoke, the oldest first."""
    cancel: Event | None = None
    """Set to stop a fact that takes long."""
    progress: Callable[[str], None] | None = None
    """Called with lines for people while a fact is computed."""
    facts: Mapping[Fact[Any, Any], Callable[..., Any]] = field(default_factory=dict)
    """Functions that replace those of facts. They take a fact's arguments without the context."""
    computed: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The facts that were asked, by fact and arguments; errors too."""

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.version.dataset

    @property
    def digest(self) -> str:
        """The version's digest."""
        return self.version.digest

    @property
    def spec(self) -> Spec:
        """The spec that the version is judged under."""
        return self.version.spec

    @property
    def files(self) -> int:
        """How many files the version has."""
        return self.manifest.files

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return self.manifest.bytes

    def entries(self) -> Iterator[Entry]:
        """The version's manifest."""
        return self.manifest.entries()

    @property
    def node(self) -> str:
        """This node's name among those that share the catalog."""
        return self.workspace.settings.node

    @property
    def asker(self) -> Identity:
        """Who asks for the promotion: the requester of the recorded request, else who runs the checks now."""
        return self.request.requester if self.request else self.workspace.identity

    @property
    def target(self) -> str:
        """The target that the version is to be promoted to."""
        return self.gate.target

    @property
    def address(self) -> str:
        """The version as commands take it: `nycflights@sha256:…`."""
        return f"{self.dataset}@{self.digest}"

    def addresses(self, role: str) -> tuple[str, ...]:
        """The addresses that `owners` gives for a role."""
        return addresses_of(self.spec.owners, role)


class Fact(Generic[P, T]):
    """A function of the context, and of further arguments, that is called at most once a decision; a decorator."""

    __name__: str
    is_kept: ClassVar = True

    def __init__(self, compute: Callable[Concatenate[CheckContext, P], T]) -> None:
        self._compute = compute
        update_wrapper(self, compute)

    def __call__(self, context: CheckContext, *args: P.args, **kwargs: P.kwargs) -> T:
        """The value in a context.

        Raises:
            StagegateError: It can't be told; the same error at each call.
        """
        key = (self, args, *kwargs.items())
        if key in context.computed:
            value = context.computed[key]
        else:
            value = self._value_or_error(context, *args, **kwargs)
            if self.is_kept:
                context.computed[key] = value
        if isinstance(value, StagegateError):
            raise value
        return cast(T, value)

    def _value_or_error(self, context: CheckContext, *args: P.args, **kwargs: P.kwargs) -> T | StagegateError:
        # Errors are kept, too: checks wait only once for a driver that hangs or a contract that fails.
        try:
            if replaced := context.facts.get(self):
                return cast(T, replaced(*args, **kwargs))
            return self._compute(context, *args, **kwargs)
        except StagegateError as error:
            return error


class FreshFact(Fact[P, T]):
    """A fact that is computed at each call: an iterator, or what a check that fetches the version changes."""

    is_kept = False


@FreshFact
def local_view(context: CheckContext) -> Path | None:
    """The version's folder on this node; None where it was not staged."""
    return context.workspace.cache.views.path(context.dataset, context.digest)


@FreshFact
def origins(context: CheckContext) -> Iterator[Origin]:
    """Where the version's entries came from."""
    return read_origins(context.workspace.catalog, context.dataset, context.digest)


@dataclass(frozen=True, slots=True)
class Binding:
    """What an answer depends on. When its value changes, exactly the evidence that is bound to it ends."""

    name: str
    """Its name in evidence."""
    read: Callable[[CheckContext], str | None]
    """Its value; None where the answer does not depend on it."""

    def value(self, context: CheckContext) -> str | None:
        """Its value in a context; `unknown` where it can't be read."""
        try:
            return self.read(context)
        except Exception:  # noqa: BLE001 - a record that can't be read, or a bug, must not stop the other checks
            return UNKNOWN


def addresses_of(owners: Mapping[Any, str], role: str) -> tuple[str, ...]:
    """The addresses that a spec's `owners` give for a role: one, or several with commas between them."""
    addresses = next((text for known, text in owners.items() if known == role), "")
    return tuple(address.strip() for address in addresses.split(",") if address.strip())
