"""The tokens of this node's servers, which lie in files."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from prefect_stagegate.errors import UsageError
from prefect_stagegate.redaction import remember

SHORTEST_TOKEN = 16
"""Characters of a token: a shorter one can be guessed."""


def read_token(path: Path | None, setting: str) -> str:
    """The token in a file that a setting names, which logs and errors hide from now on; empty where none is named.

    Raises:
        UsageError: The file can't be read, others may read it, or it holds no token.
    """
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(4096)
            mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise UsageError(f"The token file {path} can't be read: {error.strerror}", hint=f"Check {setting}.") from error
    if mode & stat.S_IROTH:
        raise UsageError(f"Everybody may read the token file {path}", hint=f"Run `chmod o-r {path}`.")
    token = data.strip()
    if not re.fullmatch(rb"[!-~]{%d,1024}" % SHORTEST_TOKEN, token):
        raise UsageError(
            f"The token file {path} holds no token: one line of {SHORTEST_TOKEN} to 1024 letters, digits and signs",
            hint=f"Make one: `openssl rand -hex 32 > {path}`.",
        )
    remember(token.decode())
    return token.decode()
