"""The keys by which people sign what they decide: `approve`, `waive`, `revoke`, `rollback` and `policy approve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.errors import UsageError
from prefect_stagegate.readiness.records.answers import PersonKey
from prefect_stagegate.readiness.records.signing import read_signing_key
from prefect_stagegate.readiness.records.ssh_signatures import SshKey

AnswerKey = Annotated[Path | None, Parameter(metavar="FILE", help="An Ed25519 key in PEM that signs it.")]
AnswerSshKey = Annotated[
    Path | None,
    Parameter(metavar="FILE", help="Your SSH key, which signs it; its public half, where an agent has it."),
]


def answer_key(key: Path | None, ssh_key: Path | None, ask_passphrase: Callable[[Path], str]) -> PersonKey | None:
    """The key that the flags name; None without one.

    Raises:
        UsageError: Both flags are given, or the Ed25519 key can't be read.
    """
    if key and ssh_key:
        raise UsageError("One signature is enough", hint="Give --key or --ssh-key.")
    if ssh_key:
        return SshKey(ssh_key)
    return read_signing_key(key, ask_passphrase) if key else None
