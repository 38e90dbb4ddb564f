"""`stagegate init`, `lint`, `schema`, `checks`, `key` and `env`: specs, and the environment that gates judge in."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, load_block, type_passphrase
from prefect_stagegate.cli.printing import escaped, print_json, print_result, print_rows, say, write_output
from prefect_stagegate.environment import Environment, EnvironmentDifference, Weight, compare
from prefect_stagegate.errors import ExitCode, UsageError, nearest_hint
from prefect_stagegate.gate import CHECKS, Check, Renewal, known_checks
from prefect_stagegate.gate.check_descriptions import asks, groups, holds, parameters
from prefect_stagegate.gate.records.predicates import decision_schema
from prefect_stagegate.jobs.environment import accepted_in, capture_environment, from_file, to_file
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.spec import json_schema
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from prefect_stagegate.jobs.first_spec import FirstSpec

STDOUT = "-"


def init(
    *sources: Annotated[str, Parameter(name="FOLDER|URL")],
    endpoint_url: Annotated[str, Parameter(metavar="URL")] = "",
    dataset: Annotated[str, Parameter(metavar="NAME")] = "",
    output: Annotated[str, Parameter(name=["--output", "-o"], metavar="FILE", allow_leading_hyphen=True)] = "",
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a first spec for folders or URLs, with a gate that passes.

    Files with like names are one table, and so are CSV files of one folder with the same header, of which it reads at
    most 100. Columns come from Parquet's footers. Several sources go into a folder each. Comments say what to fill in.

    For example:

    - `stagegate init /mnt/nas/flights`
    - `stagegate init s3://lake/flights/ /mnt/nas/weather --endpoint-url http://minio:9000`
    - `stagegate init s3://lake/flights/ --dataset nycflights --output specs/nycflights.yaml`

    Parameters
    ----------
    sources
        Folders, or sources' URLs. A relative folder is written relative to the spec's file.
    endpoint_url
        The server of `s3://` sources, written into the spec; by default the environment's.
    dataset
        The dataset's name; by default the last part of the first URL.
    output
        The file to write; by default NAME.yaml, and `-` is standard output.
    force
        Replace a file that exists.
    """
    from prefect_stagegate.jobs.first_spec import write_first_spec

    if not sources:
        raise UsageError("Name a folder or a URL", hint="`stagegate init FOLDER`")
    folder = "" if output == STDOUT else os.path.realpath(Path(output).parent)
    urls = dict(_named(source, folder) for source in sources)
    settings = Settings.from_environment(os.environ)
    first = write_first_spec(urls, settings, load_block, dataset=dataset, endpoint=endpoint_url)
    path = None if output == STDOUT else Path(output or f"{first.dataset}.yaml")
    if path and path.exists() and not force:
        raise UsageError(f"{path} exists", hint="Name another by --output, or replace it by --force.")
    write_output(first.text, path, "The spec")
    if path:
        _print_first(first, path)


def _print_first(first: FirstSpec, path: Path) -> None:
    from prefect_stagegate.jobs.first_spec import LISTED

    objects = count_text(first.objects, "object") if first.whole else f"the first {LISTED:,} objects"
    say(f"{path}: {count_text(len(first.tables), 'table')} in {objects}")
    for name, glob in first.tables.items():
        say(f"  {name:<16} {glob}")
    say(f"Next: fill in the owners, then `stagegate lint {path}` and `stagegate stage {path}`.")


def _named(source: str, folder: str) -> tuple[str, str]:
    """A source's URL or absolute path, and how a spec in this folder names it; empty for a spec in no folder."""
    if "://" in source:
        return source, source
    path = os.path.normpath(Path(source).absolute())  # with links as they are: they may lead elsewhere tomorrow
    return path, os.path.relpath(path, folder) if folder and not Path(source).is_absolute() else path


def lint(spec: Annotated[str, Parameter(name="SPEC")], /, *, json: Json = False) -> None:
    """Check a spec with its suites, columns and gates, without data.

    It opens no source and no catalog, so it runs in CI. Exits with 2 and lists all problems with file, line and key:
    also what can never work, such as a check with nothing to look at, a licence that its gate denies, an approval that
    too few people may give, or files that no source fills. Warnings name columns that a table does not declare,
    libraries that this node lacks, gates that anybody may replace, and owners without an address that a gate needs.

    For example:

    - `stagegate lint nycflights.yaml`

    Parameters
    ----------
    spec
        A spec's path or URL.
    """
    # Imported here, like `init`'s job: it takes longer than the other commands of this module.
    from prefect_stagegate.jobs.lint import lint as lint_spec
    from prefect_stagegate.jobs.lint import lint_warnings

    doubts: list[str] = []
    loaded = lint_spec(spec, doubts.append)
    suites = [table.suite for table in loaded.contract.tables.values() if table.suite]
    counts = {
        "source": len(loaded.sources),
        "table": len(loaded.contract.tables),
        "expectation": sum(len(suite["expectations"]) for suite in suites),
        "gate": len(loaded.gates),
    }
    warnings = (*doubts, *lint_warnings(loaded))
    if json:
        totals = {f"{noun}s": count for noun, count in counts.items()}
        left_out = {"left_out": loaded.left_out} if loaded.left_out else {}
        print_json({"dataset": loaded.dataset, **totals, **left_out, "warnings": warnings})
    else:
        for promise in loaded.left_out:
            say(f"left out: {promise}")
        say(f"{loaded.dataset}: no problem in {', '.join(count_text(count, noun) for noun, count in counts.items())}")
        for warning in warnings:
            print(escaped(f"warning: {warning}"), file=sys.stderr)


RENEWALS = {
    Renewal.CHEAP: "asked again when its evidence ended",
    Renewal.COSTLY: "never asked, and inconclusive when its evidence ended",
    Renewal.SETTLED: "the answer that let the version in stands",
}
"""What becomes of a check's evidence at the start of a run, for people."""


def schema(
    *,
    attestation: Annotated[
        bool, Parameter(negative="", help="Print instead the schema of the predicate of attested decisions.")
    ] = False,
) -> None:
    """Print the JSON Schema of spec files, for editors and CI.

    For example:

    - `stagegate schema > stagegate.schema.json`
    - `stagegate schema --attestation > stagegate-decision.schema.json`
    """
    print_json(decision_schema() if attestation else json_schema(known_checks()))


def checks(name: Annotated[str | None, Parameter(name="CHECK")] = None, /, *, json: Json = False) -> None:
    """List the checks that a gate may require, or explain one.

    For example:

    - `stagegate checks`
    - `stagegate checks freshness`

    Parameters
    ----------
    name
        Explain this check.
    """
    if name is not None and name not in CHECKS:
        raise UsageError(f"There is no check {name!r}", hint=nearest_hint(name, CHECKS))
    chosen = [CHECKS[name]] if name else sorted(CHECKS.values(), key=lambda check: check.name)
    if json:
        print_json([_facts(check) for check in chosen])
    elif name:
        _print_check(chosen[0])
    else:
        _print_list(chosen)


def _print_list(chosen: list[Check]) -> None:
    say(
        "Each with owner, severity where a gate names none, scope, how long it holds, and what ends it. "
        "`stagegate checks NAME` explains one."
    )
    for title, checks in groups(chosen).items():
        say(f"\n{title}")
        for check in checks:
            ends = ", ".join(check.bindings)
            facts = f"{check.name:<16} {check.owner:<11} {check.severity:<9} {check.scope:<12}"
            say(f"  {facts} {holds(check):<15} {ends}")
            say(f"      {asks(check)}")


def _print_check(check: Check) -> None:
    say(f"{check.name}: owner {check.owner}, severity {check.severity}, scope {check.scope}")
    say(inspect.cleandoc(check.doc))
    limit = f"after {holds(check)}, or " if check.ttl else ""
    say(f"Its evidence ends {limit}with another {', '.join(check.bindings)}.")
    say(f"At the start of a run: {RENEWALS[check.renewal]}.")
    if described := parameters(check):
        say("Parameters in a gate:")
    for item in described:
        say(f"  {item.name}: {item.meaning} Default: {item.default}.")


def _facts(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "owner": check.owner,
        "severity": check.severity,
        "scope": check.scope,
        "holds": str(check.ttl) if check.ttl else "until what it depends on changes",
        "binds": list(check.bindings),
        "renewal": check.renewal,
        "waivable": check.waivable,
        "broken": check.broken,
        "parameters": {item.name: f"{item.meaning} (default {item.default})" for item in parameters(check)},
        "doc": inspect.cleandoc(check.doc),
    }


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
    print_result({"public": public}, lambda _: say(public), json=json)


HERE = "here"
_COLOURS = {Weight.BLOCKING: "bold red", Weight.UNKNOWN: "magenta", Weight.WARNING: "yellow", Weight.HARMLESS: "green"}
"""The colour of each weight, the worst first."""


def env_capture(file: Path | None = None, /, *, places: Places = Places()) -> None:
    """Write this environment as JSON: what a version is judged and used in.

    That is the image's digest, Python and its distributions, the CUDA stack, GPUs, host, limits, variables that change
    computations, and the cache's volume; of secrets only the names.

    For example:

    - `stagegate env capture`
    - `stagegate env capture pilot.json`

    Parameters
    ----------
    file
        Where to write it; by default to standard output.
    """
    # ASCII only, so that no value in it acts on a terminal.
    text = dumps(to_file(_here(places)), indent=2, sort_keys=True, ensure_ascii=True)
    write_output(text + "\n", file, "The environment")


def env_diff(there: str, other: str = HERE, /, *, json: Json = False, places: Places = Places()) -> ExitCode:
    """Show how an environment differs from the one that a version was accepted in, and whether that matters.

    Each difference is harmless, a warning, blocking or unknown, and it says why. Exits with 1 when one blocks.

    For example:

    - `stagegate env diff nycflights@pilot`
    - `stagegate env diff pilot.json production.json`

    Parameters
    ----------
    there
        The environment to be like: a file of `stagegate env capture`, DATASET@TARGET for the one in which that target
        accepted its version, or `here`.
    other
        The same, for the environment that is looked at.
    """
    differences = list(compare(_environment(there, places), _environment(other, places)))
    differences.sort(key=lambda difference: list(_COLOURS).index(difference.weight))
    print_result(differences, _print_differences, json=json)
    is_blocked = any(difference.weight is Weight.BLOCKING for difference in differences)
    return ExitCode.GATE_FAILED if is_blocked else ExitCode.PASS


def _environment(reference: str, places: Places) -> Environment:
    if reference == HERE:
        return _here(places)
    # A path counts as one even where no file is, so that the error names the missing file and no dataset.
    if "/" in reference or reference.endswith(".json") or Path(reference).exists():
        return from_file(Path(reference))
    return accepted_in(places.workspace(), Address.parse(reference))


def _here(places: Places) -> Environment:
    return capture_environment(Settings.from_environment(os.environ), places.cache)


def _print_differences(differences: Sequence[EnvironmentDifference]) -> None:
    from rich.table import Column
    from rich.text import Text

    if not differences:
        say("The two are alike.")
        return
    rows = []
    for difference in differences:
        texts = (f"{difference.group} {difference.name}", difference.there, difference.here, difference.why)
        rows.append((Text(difference.weight, _COLOURS[difference.weight]), *texts))
    print_rows(("weight", Column("what", no_wrap=True), "there", "here", "why"), rows)
    for fix in dict.fromkeys(difference.fix for difference in differences if difference.fix):
        say(f"→ {fix}")
    counts = Counter(difference.weight for difference in differences)
    say(", ".join(f"{counts[weight]} {weight}" for weight in _COLOURS if counts[weight]))
