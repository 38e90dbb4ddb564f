"""`stagegate waive` and `revoke`: people answer for a failed check, or end a check's evidence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, Signature, VersionName
from prefect_stagegate.cli.printing import print_json, say, say_line
from prefect_stagegate.clock import now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating import waive as waiving
from prefect_stagegate.jobs.gating.revoke import revoke as end_evidence
from prefect_stagegate.model import Address
from prefect_stagegate.units import parse_until


def waive(  # noqa: PLR0913 - one parameter a flag
    what: VersionName,
    /,
    *,
    gate: Annotated[str, Parameter(metavar="TARGET", help="A target that the spec's `gates` name.")],
    check: Annotated[str, Parameter(metavar="CHECK", help="The check that failed.")],
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept with the waiver.")],
    until: Annotated[
        str, Parameter(metavar="TIME", help="When it ends: 7d, 2026-03-31 or a time; 30 days away at most.")
    ] = "",
    revoke: Annotated[bool, Parameter(negative="", help="End what was waived before its time.")] = False,
    signature: Signature | None = None,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Answer for one failed check of one version at one gate, for a while. The requester can't.

    Those may whose answers the gate's `approval` counts, with the same signature; anybody at a gate without one.

    What is inconclusive can't be waived, nor `digest`, `approval` and `cache_integrity`. It counts as long as the
    check has the same parameters. Reports, attestations and `stagegate show` say who waived what, why and until when.

    For example:

    - `stagegate waive nycflights --gate pilot --check freshness --until 7d --reason "no flights on a holiday"`
    - `stagegate waive nycflights --gate pilot --check freshness --revoke --reason "delivered"`

    Parameters
    ----------
    what
        DATASET[@REF] or DATASET@sha256:…. Without a ref: the version that the gate below accepted, else `latest`.
    """
    workspace, address = (places or Places()).workspace(), Address.parse(what)
    key = (signature or Signature()).person_key(workspace)
    if revoke:
        waivers = waiving.revoke_waiver(workspace, address, gate, check, reason=reason, key=key)
    elif until:
        end = parse_until(until, now())
        waivers = (waiving.waive(workspace, address, gate, check, reason=reason, until=end, key=key),)
    else:
        raise UsageError("A waiver needs an end", hint="Give one with --until, as in --until 7d.")
    if json:
        print_json([asdict(waiver) for waiver in waivers])
        return
    for waiver in waivers:
        ended = f"; revoked by {waiver.revoked.who}: {waiver.revoked.reason}" if waiver.revoked else ""
        say_line(f"{waiver.check} of {waiver.dataset}@{waiver.digest} at {waiver.target}: {waiver}{ended}")
    say(f"Next: stagegate check {waivers[0].dataset}@{waivers[0].digest} --gate {gate}")


def revoke(
    what: VersionName,
    /,
    *,
    check: Annotated[str, Parameter(metavar="CHECK", help="The check whose evidence counts no more.")],
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept with the revocation.")],
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only what was found out on the way to this target.")] = "",
    signature: Signature | None = None,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """End a check's evidence about a version; the check runs again.

    Whoever may waive at a gate may. An acceptance that rests on it can't be promoted any more, and runs that require
    the version have no answer until `stagegate check` asks again. `stagegate show` and `history` say who revoked what,
    when and why.

    For example:

    - `stagegate revoke nycflights@pilot --check schema --reason "the probe ran against the wrong mount"`

    Parameters
    ----------
    what
        DATASET[@REF] or DATASET@sha256:…; without a ref, `latest`.
    """
    workspace = (places or Places()).workspace()
    key = (signature or Signature()).person_key(workspace)
    revocation = end_evidence(workspace, Address.parse(what), check, reason=reason, gate=gate, key=key)
    if json:
        print_json(asdict(revocation))
        return
    say_line(f"evidence of {revocation.about}: {revocation}")
    spec = stored_spec(workspace, revocation.dataset, revocation.digest)
    for target in [gate] if gate else spec.gates:
        if any(requirement.check == check for requirement in spec.gate(target).requirements):
            say(f"Next: stagegate check {revocation.dataset}@{revocation.digest} --gate {target}")
