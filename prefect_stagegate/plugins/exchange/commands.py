"""`stagegate push`: a version as an artifact of an OCI registry; `contract export`: a contract in a standard's form."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Debug, Display, Json, Places, VersionName
from prefect_stagegate.cli.printing import print_json, say, write_output
from prefect_stagegate.cli.progress_display import shown_progress
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.exchange.odcs import odcs_document
from prefect_stagegate.spec.yamltree import yaml_text
from prefect_stagegate.units import bytes_text, count_text

if TYPE_CHECKING:
    from prefect_stagegate.plugins.exchange.publishing.push import Pushed


def push(  # noqa: PLR0913 - its options
    address: VersionName,
    target: Annotated[str, Parameter(name="TARGET")],
    /,
    *,
    by: Annotated[
        Literal["file", "shard"] | None,
        Parameter(
            metavar="file|shard",
            show_choices=False,
            help="A layer for each file, or tar layers of the files below 64 MiB; by default, file up to 1,000 files.",
        ),
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what the registry lacks; send nothing.")] = False,
    no_decisions: Annotated[
        bool, Parameter(name="--no-decisions", negative="", help="Leave out the gates' decisions and attestations.")
    ] = False,
    credentials: Annotated[
        str | None,
        Parameter(
            metavar="TYPE/NAME", help="A Prefect block with username and password; else the stored login counts."
        ),
    ] = None,
    plain_http: Annotated[
        bool | None, Parameter(help="Ask the registry without TLS; by default, only on this machine.")
    ] = None,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Push a version to an OCI registry, with the gates' decisions about it.

    It becomes an artifact in ModelPack's form, which `oras` pulls, and the tag moves to it. Attestations name people
    and describe environments: leave them out of registries that strangers read.

    For example:

    - `stagegate push nycflights@production oci://registry.example.org/data/nycflights:production`
    - `stagegate push nycflights oci://localhost:5000/nycflights:try --dry-run`

    Parameters
    ----------
    address
        DATASET@REF, or DATASET@sha256:…; it is fetched where this node lacks it.
    target
        oci://REGISTRY/REPOSITORY:TAG. Log in by `docker login`, `podman login` or `oras login`.
    """
    # Imported here: without oras, `contract export` and the help of both work all the same.
    from prefect_stagegate.plugins.exchange.publishing import push as job

    version = Address.parse(address)
    workspace, display = (places or Places()).workspace(), display or Display()
    options = dict(workspace.resolve_credentials(credentials)) if credentials else {}
    if plain_http is not None:
        options["plain_http"] = plain_http
    with shown_progress(f"push {version.dataset}", display.progress_form(json=json)) as progress:
        result = job.push(
            workspace,
            version,
            target,
            by=by,
            options=options,
            decisions=not no_decisions,
            dry_run=dry_run,
            progress=progress,
        )
    if json:
        print_json(asdict(result))
    elif not display.quiet:
        _print(result)


def _print(result: Pushed) -> None:
    say(f"{result.dataset}@{result.digest}")
    total, sent = count_text(result.layers, "layer"), bytes_text(result.bytes_pushed)
    verb = "would be sent" if result.is_dry_run else "sent"
    say(
        f"{count_text(result.files, 'file')}, {bytes_text(result.bytes)} in {total}: {result.layers_pushed:,} {verb} "
        f"({sent}), {result.layers - result.layers_pushed:,} were there"
    )
    say(f"{result.reference}{' would name' if result.is_dry_run else ' names'} {result.manifest}")
    for referrer in result.referrers:
        state = "sent" if referrer.is_new else "was there"
        say(f"{referrer.kind} of {referrer.target}: {referrer.digest}, {state}")


def export(
    spec: Annotated[str, Parameter(name="SPEC")],
    /,
    *,
    odcs: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], metavar="FILE")] = None,
    debug: Debug = False,  # noqa: ARG001 - read from the words by `main`
) -> None:
    """Write a spec's contract as a data contract of an open standard.

    Tables, columns, expectations, owners and freshness are written. `contract: {odcs: FILE}` in a spec reads them back.

    For example:

    - `stagegate contract export --odcs nycflights.yaml`
    - `stagegate contract export --odcs nycflights.yaml --output contract.yaml`

    Parameters
    ----------
    spec
        A spec's path or URL.
    odcs
        Write the Open Data Contract Standard.
    output
        The file to write; by default standard output.
    """
    if not odcs:
        raise UsageError("No form is named", hint="Write --odcs for the Open Data Contract Standard.")
    write_output(yaml_text(odcs_document(read_spec(spec))) + "\n", output, "The contract")
