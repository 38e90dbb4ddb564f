"""`stagegate verify-attestation` and `key`: prove what a gate decided, and who signed it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, type_passphrase
from prefect_stagegate.cli.printing import print_json, say, say_line, write_output
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.gate.records.predicates import AttestationForm
from prefect_stagegate.jobs.review import attestations
from prefect_stagegate.jobs.review.attestations import AttestationVerdict
from prefect_stagegate.jobs.review.audit import Chain, verify_history
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Address
from prefect_stagegate.units import count_text

Keys = Annotated[
    tuple[str, ...],
    Parameter(
        name="--key",
        metavar="KEY",
        negative="",
        help="A public key, `ed25519:…` or a PEM file [STAGEGATE_VERIFICATION_KEYS].",
    ),
]


def verify_attestation(
    what: Annotated[str, Parameter(name="DATASET@TARGET|FILE")],
    /,
    *,
    gate: Annotated[
        str, Parameter(metavar="TARGET", help="The target, where the version is named by its digest.")
    ] = "",
    key: Keys = (),
    export: Annotated[
        Path | None, Parameter(metavar="FILE", help="Also write it: a DSSE envelope, or a Statement if unsigned.")
    ] = None,
    export_answers: Annotated[
        Path | None,
        Parameter(metavar="FOLDER", help="Also write its SSH-signed answers, for `ssh-keygen`, into a new folder."),
    ] = None,
    form: Annotated[
        AttestationForm,
        Parameter(
            name="--as",
            metavar="FORM",
            show_choices=False,
            help="Export it as `recorded`, `test-result` or `decision`; the latter two are signed with "
            "STAGEGATE_SIGNING_KEY, if set.",
        ),
    ] = AttestationForm.RECORDED,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Verify the attestation of a decision: its contents, subject, policy, log, people and signature.

    Exits with 3 when any of it fails. With keys, it has to be signed by one of them.

    For example:

    - `stagegate verify-attestation nycflights@production`
    - `stagegate verify-attestation attestation.json --key ci.pub.pem`
    - `stagegate verify-attestation nycflights@sha256:… --gate pilot --export attestation.json`
    - `stagegate verify-attestation nycflights@production --export-answers answers/`
    - `stagegate verify-attestation nycflights@production --export decision.json --as decision`

    Parameters
    ----------
    what
        DATASET@TARGET, DATASET@sha256:… with `--gate`, or a file with a Statement or a DSSE envelope.
    """
    if form is not AttestationForm.RECORDED and not export:
        raise UsageError("--as belongs to --export", hint="Add --export FILE, or leave --as out.")
    workspace = (places or Places()).workspace()
    parts = attestations.verify_attestation(workspace, what, gate=gate, keys=key)
    if export:
        envelope = attestations.envelope_of(workspace, Address.parse(what), gate, form=form, keys=key)
        write_output(f"{envelope.decode()}\n", export, "The attestation")
    lines = attestations.export_attested_answers(workspace, what, export_answers, gate) if export_answers else []
    if json:
        print_json([asdict(part) for part in parts])
    else:
        for line in lines:
            say_line(line)
        for part in parts:
            say_line(f"{part.verdict:<8} {part.what:<10} {part.why}")
    if any(part.verdict is AttestationVerdict.FAILS for part in parts):
        sys.exit(ExitCode.ERROR)


def key(file: Path, /, *, json: Json = False) -> None:
    """Print the public half of an Ed25519 key, as specs and settings write it.

    For example:

    - `openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem && stagegate key key.pem`

    Parameters
    ----------
    file
        A private or public key in PEM.
    """
    from prefect_stagegate.gate.records.signing import read_public_key, read_signing_key

    # PEM's first line tells, also for an encrypted key: BEGIN ENCRYPTED PRIVATE KEY.
    private = file.is_file() and b"PRIVATE KEY" in file.read_bytes()
    public = read_signing_key(file, type_passphrase).public if private else read_public_key(str(file))
    if json:
        print_json({"public": public})
    else:
        say(public)


def print_audit(workspace: Workspace, address: Address | None, keys: Sequence[str], *, json: bool) -> None:
    """Verify logs and print what that proved; exits with 3 when something is wrong."""
    chains = verify_history(workspace, address, keys)
    if json:
        print_json([asdict(chain) for chain in chains])
    else:
        _print(chains, keyed=bool(keys or workspace.settings.verification_keys))
    if any(chain.problems for chain in chains):
        sys.exit(ExitCode.ERROR)


def _print(chains: Sequence[Chain], *, keyed: bool) -> None:
    for chain in chains:
        signed = f", {chain.signed} signed by a key given" if keyed else ""
        state = "broken" if chain.problems else f"unbroken, last entry {chain.head}"
        entries = count_text(chain.entries, "entry", "entries")
        if chain.ref:
            say(f"{chain.dataset}@{chain.ref}: {entries}, {chain.attestations} attested{signed}; {state}")
        else:
            say(f"the policy of {chain.dataset}: {entries}; {state}")
        for problem in chain.problems:
            say_line(f"    {problem}")
    if chains and not any(chain.problems for chain in chains):
        say("Proved: no entry is missing before the last, and none was changed after the next one was written;")
        say("  each attestation is consistent, and accepts (or takes back) exactly the version that its entry names;")
        say("  no requester approved or waived their own request;")
        say("  each policy has the answers that the previous policy's rule requires.")
        say("Not proved: that no newer entry was cut off. Compare the last entry's hash with one noted elsewhere.")
