"""What a job works on: this node's cache, the shared catalog, who runs it, and the version that it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Identity
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.spec import Spec

ResolveCredentials = Callable[[str], Mapping[str, Any]]
"""Turns the name that a spec gives under `credentials:` into storage options."""
Admit = Callable[[Spec, Event | None], AbstractContextManager[None]]
"""Admits a transfer from a spec's sources for the time of a block. May wait; gives up when the event is set."""


def no_passphrase(path: Path) -> str:
    """Refuse keys that need a passphrase: nobody can type it into a task."""
    raise UsageError(
        f"The key {path} needs a passphrase, and a task has no terminal to ask for it",
        hint="Use the `stagegate` command at a terminal, or a key without one that only this user can read.",
    )


def no_credentials(name: str) -> Mapping[str, Any]:
    """Refuse names of credentials: only Prefect's tasks, flows and the command load blocks."""
    raise UsageError(
        f"The credentials {name!r} are a Prefect block, and this program loads no blocks",
        hint="Use the tasks, the flows or the `stagegate` command, or take credentials from the environment.",
    )


@dataclass(frozen=True)
class Workspace:
    """Everything that a job needs besides its own arguments. Make one with `open_workspace`."""

    cache: Cache
    catalog: Catalog
    identity: Identity
    settings: Settings
    catalog_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The catalog's storage options, which may hold secrets."""
    resolve_credentials: ResolveCredentials = field(default=no_credentials)
    admit: Admit | None = None
    """Only Prefect's limits know what else runs; None admits every transfer at once."""
    ask_passphrase: Callable[[Path], str] = field(default=no_passphrase)
    """Asks for the passphrase of a key file."""
    flow_run: str = ""
    """The id of Prefect's flow run that the job belongs to; empty outside of one."""


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """One version, resolved once, with the spec that it is judged under."""

    dataset: str
    digest: str
    spec: Spec
    ref: str = ""
    """The ref that the user typed; empty when they typed a digest, or no ref."""
    adopted: str = ""
    """`sha256:<hex>` of the adopted policy that the spec holds; empty where none was adopted, and for a trial."""
    is_trial: bool = False
    """Whether the user brought the spec: then nothing is recorded, and the outcome doesn't count."""
    unstaged: tuple[str, ...] = ()
    """Keys of the spec that the user typed whose values the version was not staged with, so that they don't count."""
