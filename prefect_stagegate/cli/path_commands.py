"""`stagegate path` and `exec`, which run before each job of a user: this module imports no more than they need."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from shutil import which
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, VersionName
from prefect_stagegate.cli.printing import print_json
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.read import hold_dataset, locate, read_catalog, used
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import EXEC_VARIABLES


def path(address: VersionName, /, *, json: Json = False, places: Places = Places()) -> None:
    """Print the folder of a version that lies in this node's cache.

    For example:

    - `ls $(stagegate path nycflights@production)`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    """
    version = locate(places.open_cache(), Address.parse(address).counted(read_catalog(places.catalog)))
    if json:
        print_json({"dataset": version.dataset, "digest": version.digest, "path": str(version.path)})
    else:
        print(version.path)  # unescaped, for programs


def exec(  # noqa: A001 - it is found by its command's name
    address: VersionName,
    /,
    *command: Annotated[str, Parameter(name="COMMAND", allow_leading_hyphen=True)],
    places: Places = Places(),
) -> None:
    """Run a command while its version is held, so that no collection takes it away.

    The command finds the folder in STAGEGATE_DATASET_PATH and the digest in STAGEGATE_DATASET_DIGEST;
    `{}` in an argument is replaced by the folder. Its exit code becomes this command's.

    For example:

    - `stagegate exec nycflights@production -- python train.py --data {}`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    command
        The command and its arguments, after `--`.
    """
    if not command:
        raise UsageError("There is no command to run", hint="Put it after `--`, as in the help's example.")
    if "@" not in address and which(address) and not places.open_cache().refs.names(address):
        hint = f"Name it before `--`: stagegate exec DATASET@REF -- {' '.join([address, *command])}"
        raise UsageError("There is no version to run the command on", hint=hint)
    resolved = Address.parse(address).counted(read_catalog(places.catalog))
    holding = hold_dataset(places.open_cache(), resolved, holder=command[0], inherited=True)
    with holding as held, used(replace(held, catalog=places.catalog or "")):
        # Not by `format`, which would fail on other braces, such as those of JSON in an argument.
        words = [word.replace("{}", str(held.path)) for word in command]
        variables = dict(zip(EXEC_VARIABLES, (str(held.path), held.digest), strict=True))
        # Python ignores these signals, and the command would inherit that.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            # This process becomes the command: signals reach it, and the lease ends with it, however it ends.
            os.execvpe(words[0], words, os.environ | variables)  # noqa: S606
        except OSError as error:
            hint = "Write program and arguments apart; a shell runs a pipe: -- sh -c 'cat {}/*.csv | head'."
            raise UsageError(f"{command[0]!r} can't be run: {error.strerror}", hint=hint) from error
