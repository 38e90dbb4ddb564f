"""The keys by which people sign what they decide: `approve`, `waive`, `revoke`, `rollback` and `policy approve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.records.answers import PersonKey
from prefect_stagegate.gate.records.signing import read_signing_key
from prefect_stagegate.gate.records.ssh_signatures import SshKey
from prefect_stagegate.jobs.workspace import Workspace


@Parameter(name="*")
@dataclass(frozen=True)
class Signature:
    """How a person signs."""

    key: Annotated[Path | None, Parameter(metavar="FILE", help="An Ed25519 key in PEM that signs it.")] = None
    ssh_key: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Your SSH key, which signs it; its public half, where an agent has it."),
    ] = None

    def person_key(self, workspace: Workspace) -> PersonKey | None:
        """The key that the flags name; None without one.

        Raises:
            UsageError: Both flags are given, or the Ed25519 key can't be read.
        """
        if self.key and self.ssh_key:
            raise UsageError("One signature is enough", hint="Give --key or --ssh-key.")
        if self.ssh_key:
            return SshKey(self.ssh_key)
        return read_signing_key(self.key, workspace.ask_passphrase) if self.key else None
