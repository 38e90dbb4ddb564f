"""`stagegate sign`: sign a version's files for other tools."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Display, Json, Places, VersionName
from prefect_stagegate.cli.printing import print_json, say, say_line, write_output
from prefect_stagegate.cli.progress_display import shown_hashing
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.signatures.sign import SignedVersion
from prefect_stagegate.plugins.signatures.sign import sign as job
from prefect_stagegate.units import bytes_text, count_text, digest_text, listed

Algorithm = Annotated[
    Literal["sha256", "blake3"],
    Parameter(
        help="How files are named: sha256, which every verifier knows; or blake3, which the manifest has, so that "
        "no file is read."
    ),
]


def sign(
    address: VersionName,
    /,
    *,
    key: Annotated[Path, Parameter(metavar="FILE", help="The private key in PEM: P-256, P-384 or P-521.")],
    certificate: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="The key's certificate in PEM, and those of its authorities after it."),
    ] = None,
    algorithm: Algorithm = "sha256",
    output: Annotated[Path, Parameter(metavar="FILE", help="Where the signature is written.")] = Path("model.sig"),
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Sign a version's files in the format of OpenSSF Model Signing.

    The catalog keeps it for the check `signature`. Others verify the file with `model_signing verify key`. Git's own
    files are left out.

    For example:

    - `stagegate sign nycflights@production --key key.pem --output nycflights.sig`
    - `stagegate sign nycflights --key key.pem --algorithm blake3`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    """
    # Before the reading, which may take an hour, and before anything is recorded.
    if not output.parent.is_dir() or output.is_dir():
        raise UsageError(f"The signature can't be written to {output}", hint="Name a file in a folder that exists.")
    workspace, display = (places or Places()).workspace(), display or Display()
    with shown_hashing("sign", display.progress_form(json=json)) as watch:
        version = Address.parse(address)
        signed = job(workspace, version, key, algorithm=algorithm, certificates=certificate, watch=watch)
    write_output(dumps(signed.bundle) + "\n", output, "The signature")
    if json:
        print_json(
            {name: value for name, value in asdict(signed).items() if name != "bundle"} | {"output": str(output)}
        )
    elif not display.quiet:
        _print(signed, output)


def _print(signed: SignedVersion, output: Path) -> None:
    read = f", {bytes_text(signed.bytes_read)} read" if signed.bytes_read else ", nothing was read"
    say(f"{signed.dataset}@{digest_text(signed.digest)}: {count_text(signed.files, 'file')} signed{read}")
    say(f"  by the key {digest_text(f'sha256:{signed.key}')}, digests by {signed.algorithm}")
    if signed.left_out:
        say_line(f"  left out: {listed(signed.left_out)}")
    say_line(f"  in {output}, and in the catalog")
    if signed.algorithm != "sha256":
        say("  The command `model_signing verify` hashes by sha256 only; its Python interface verifies this one.")
