"""Flags and arguments that commands share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from prefect_stagegate.cli.printing import escaped
from prefect_stagegate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cyclopts import Token

    from prefect_stagegate.cache import Cache
    from prefect_stagegate.gate.records.answers import PersonKey
    from prefect_stagegate.workspace import Workspace

COMMON = Group("Common options", sort_key=10)
"""Options of nearly all commands; those of the command itself stand above them."""
Json = Annotated[
    bool,
    Parameter(
        name=("--json", "--compact"),
        negative="",
        group=COMMON,
        allow_repeating=True,
        help="Print JSON; with --compact in one line.",
    ),
]
ProgressForm = Literal["auto", "json", "none"]
Debug = Annotated[bool, Parameter(negative="", group=COMMON, help="Log more, and show errors with their traceback.")]


def converter(parse: Callable[[str], Any]) -> Callable[[type, tuple[Token, ...]], Any]:
    """What reads an option's text by a function that raises `ValueError` for bad ones."""
    return lambda _, tokens: parse(tokens[0].value)


# What help calls the positional arguments.
VersionName = Annotated[str, Parameter(name="DATASET@REF")]
VersionOrSpec = Annotated[str, Parameter(name="SPEC|DATASET@REF")]

All = Annotated[bool, Parameter(name="--all", negative="", help="List every object, not only the first 20.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Places:
    """Where the job works."""

    cache: Annotated[
        Path | None, Parameter(metavar="DIR", group=COMMON, help="The node's cache folder [STAGEGATE_CACHE].")
    ] = None
    catalog: Annotated[
        str | None, Parameter(metavar="DIR|URL", group=COMMON, help="The shared catalog [STAGEGATE_CATALOG].")
    ] = None
    identity: Annotated[
        str | None,
        Parameter(
            metavar="NAME", group=COMMON, help="Who you are, where the system's user isn't it [STAGEGATE_IDENTITY]."
        ),
    ] = None
    debug: Debug = False

    def workspace(self, *, create: bool = False, catalog_options: Mapping[str, Any] | None = None) -> Workspace:
        """Open the cache and the catalog that the flags or the settings name; with `create`, make an absent catalog."""
        # Imported here, since short commands load this module and open no workspace.
        from prefect_stagegate.jobs.open_workspace import open_workspace
        from prefect_stagegate.model import Identity

        if self.identity is not None and not self.identity.strip():
            raise UsageError("--identity is empty", hint="Name somebody, or leave it out to act as the system's user.")
        identity = Identity(self.identity, "declared") if self.identity else None
        workspace = open_workspace(
            self.cache,
            self.catalog,
            catalog_options=catalog_options,
            create_catalog=create,
            identity=identity,
            resolve_credentials=load_block,
        )
        return replace(workspace, ask_passphrase=type_passphrase)

    def open_cache(self) -> Cache:
        """Open the cache alone; the cache must exist. Asks no catalog, and imports little."""
        from prefect_stagegate.jobs.read import open_cache

        return open_cache(self.cache)


@Parameter(name="*")
@dataclass(frozen=True)
class Display:
    """What a command that takes long shows of its work and of its result."""

    quiet: Annotated[
        bool,
        Parameter(
            negative="",
            group=COMMON,
            help="Print only errors, and JSON where it is asked for.",
        ),
    ] = False
    progress: Annotated[
        ProgressForm,
        Parameter(
            name="--progress",
            metavar="auto|json|none",
            show_choices=False,
            group=COMMON,
            help="How work is shown on standard error: for people, as a line of JSON a second, or not.",
        ),
    ] = "auto"
    no_progress: Annotated[
        bool, Parameter(name="--no-progress", negative="", group=COMMON, help="Show no progress.")
    ] = False

    def progress_form(self, *, json: bool) -> ProgressForm:
        """How the work is shown while it goes on. What is for people is hidden beside JSON."""
        if self.no_progress:
            return "none"
        return "none" if self.progress == "auto" and (self.quiet or json) else self.progress


@Parameter(name="*")
@dataclass(frozen=True)
class Signature:
    """How a person signs."""

    key: Annotated[Path | None, Parameter(metavar="FILE", help="An Ed25519 key in PEM that signs it.")] = None
    ssh_key: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Your SSH key that signs it, or its public half in ssh-agent."),
    ] = None

    def person_key(self, workspace: Workspace) -> PersonKey | None:
        """The key that the flags name; None without one.

        Raises:
            UsageError: Both flags are given, or the Ed25519 key can't be read.
        """
        # Imported here, since commands without a signature load this module, too.
        from prefect_stagegate.gate.records.signing import read_signing_key
        from prefect_stagegate.gate.records.ssh_signatures import SshKey

        if self.key and self.ssh_key:
            raise UsageError("One signature is enough", hint="Give --key or --ssh-key.")
        if self.ssh_key:
            return SshKey(self.ssh_key)
        return read_signing_key(self.key, workspace.ask_passphrase) if self.key else None


@Parameter(name="*")
@dataclass(frozen=True)
class ReportFiles:
    """The files that a decision's report is written to."""

    html: Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as one HTML page.")] = None
    markdown: Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as Markdown.")] = None
    junit: Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as JUnit XML, for CI.")] = None
    render: Annotated[
        tuple[str, ...],
        Parameter(metavar="FORMAT=FILE", negative="", help="Also write it in the format of a plugin. Repeatable."),
    ] = ()

    def by_format(self) -> list[tuple[str, Path]]:
        """The format and the path of each file.

        Raises:
            UsageError: A format has no renderer.
        """
        from prefect_stagegate.show.document import renderer

        named = [("html", self.html), ("markdown", self.markdown), ("junit", self.junit)]
        files = [(name, path) for name, path in named if path]
        for pair in self.render:
            name, _, path = pair.partition("=")
            if not path:
                raise UsageError(f"--render {pair} names no file", hint="Write it as FORMAT=FILE.")
            files.append((name, Path(path)))
        for name, _ in files:
            renderer(name)
        return files


def load_block(name: str) -> Mapping[str, Any]:
    """The storage options behind a Prefect block that a spec names, for example `aws-credentials/onprem`.

    Raises:
        UsageError: No Prefect API is configured, or it has no such block.
        SourceUnavailable: The API did not answer.
    """
    # Imported here: Prefect takes seconds to load, and few specs name a block.
    from prefect_stagegate.blocks import storage_options
    from prefect_stagegate.gate.prefect_state import require_api

    require_api(f"the block {name!r} is stored there")
    return storage_options(name)


def type_passphrase(path: Path) -> str:
    """Ask for a key's passphrase at the terminal, where no other process can read it."""
    from getpass import getpass

    from prefect_stagegate.workspace import no_passphrase

    return getpass(f"Passphrase of {escaped(str(path))}: ") if sys.stdin.isatty() else no_passphrase(path)
