"""The page on which somebody takes responsibility for one failed check of one version at one gate."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from prefect_stagegate.catalog import gate_records
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating.waive import waive
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.answers.people import acting
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.units import parse_until

ENDS = {"1d": "1 day", "7d": "7 days", "14d": "14 days", "30d": "30 days"}
"""For how long a check can be waived."""


def waiver_page(request: PageRequest) -> SimpleNamespace:
    """Read the page.

    Raises:
        UnknownRef: The gate did not decide about the check in its newest decision about the version.
        CatalogError: A record can't be read.
    """
    dataset, target, digest = names_in(request.names, "dataset", "target", "version")
    catalog, check = request.workspace.catalog, request.names["check"]
    statement = gate_records.newest_attestation(catalog, dataset, digest, target)
    decision = decision_of(statement) if statement else None
    checks = decision.checks if decision is not None else ()
    evidence = next((item for item in checks if item.check == check), None)
    if decision is None or evidence is None:
        raise UnknownRef(f"The gate {target} has no outcome of {check[:80]!r} for {dataset}@{digest}")
    spec = stored_spec(request.workspace, dataset, digest)
    authority = authority_of(spec, target, lambda: catalog.id)
    granted = authority.waivers(gate_records.read_waivers(catalog, dataset, digest, target), decision.requester)
    at = stamp(now())
    granted = tuple(each for each in granted if each.check == check and not each.revoked and each.until > at)
    known = [authority.proved_name(each, requester=decision.requester) for each in granted]
    waivers = tuple(replace(each, approver=who) for each, who in zip(granted, known, strict=True))
    if evidence.outcome in (Outcome.FAIL, Outcome.WAIVED):
        request.rely(
            {
                "what the check found": [evidence.outcome.value, evidence.summary, evidence.at],
                "the policy": decision.adopted,
                "its waivers": [each.id for each in waivers],
            }
        )
    return SimpleNamespace(
        dataset=dataset,
        digest=digest,
        target=target,
        evidence=evidence,
        requester=decision.requester,
        waivers=waivers,
        may=authority.who_may or "It counts from anybody else.",
        ends=ENDS,
    )


def act(request: PageRequest) -> str:
    """Waive the check.

    Raises:
        StagegateError: The waiver would not count.
    """
    workspace, visitor, reason = acting(request)
    dataset, target, digest = names_in(request.names, "dataset", "target", "version")
    if (until := request.form.get("until", "")) not in ENDS:
        raise UsageError("A waiver needs an end", hint="Choose one of the list.")
    check, version = request.names["check"], Address(dataset, digest)
    waive(workspace, version, target, check, reason=reason, until=parse_until(until, now()), key=visitor.key)
    return f"/datasets/{dataset}/versions/{digest[7:]}/waive/{target}/{check}"
