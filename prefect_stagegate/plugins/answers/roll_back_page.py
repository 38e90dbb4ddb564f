"""The page on which somebody returns a target to an earlier version, and withdraws the one that it serves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import read_seal
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.jobs.gating.rollback import earlier_versions, rollback
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.answers.people import acting
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import Section, VersionBeside, recall_of, sections_of
from prefect_stagegate.units import digest_text
from prefect_stagegate.workspace import ResolvedVersion, Workspace

VERSIONS = 20
"""Versions to return to that are shown."""


def roll_back_page(request: PageRequest) -> SimpleNamespace:
    """Read the page.

    Raises:
        UnknownRef: The target never named a version.
        CatalogError: A record can't be read.
    """
    dataset, target = names_in(request.names, "dataset", "target")
    workspace, catalog = request.workspace, request.workspace.catalog
    entries = catalog.history(dataset, target)
    if not entries:
        raise UnknownRef(f"{dataset}@{target} names no version")
    leaving = entries[-1].digest
    earlier: dict[str, RefEntry] = {}
    for entry in earlier_versions(entries, leaving):
        earlier.setdefault(entry.digest, entry)  # the newest move to it, by which it would return
    adoption = policy_log(catalog, dataset).head()
    authority = authority_of(adopted_spec(workspace, dataset), target, lambda: catalog.id)
    moves = (entries[-1], *list(earlier.values())[:VERSIONS])
    head, *shown = (replace(entry, who=authority.proved_name(entry)) for entry in moves)
    versions = [(entry, read_seal(catalog, dataset, entry.digest)) for entry in shown]
    if versions:
        policy = adoption.digest if adoption else ""
        request.rely({f"what {target} serves": [leaving, entries[-1].seq], "the policy": policy})
    return SimpleNamespace(
        dataset=dataset,
        target=target,
        head=head,
        seal=read_seal(catalog, dataset, leaving),
        versions=versions,
        sections=_sections(workspace, dataset, versions[0][0].digest, leaving) if versions else (),
        users=recall_of(workspace, Address(dataset, leaving))[0],
        may=authority.who_may or "Anybody may.",
    )


def _sections(workspace: Workspace, dataset: str, digest: str, leaving: str) -> tuple[Section, ...]:
    try:
        version = ResolvedVersion(dataset, digest, stored_spec(workspace, dataset, digest))
    except UsageError:  # no spec is stored beside it
        return ()
    subject = VersionBeside(version, leaving, (digest_text(digest), digest_text(leaving)))
    return sections_of("comparison", workspace, subject)


def act(request: PageRequest) -> str:
    """Roll the target back from the version that the page showed.

    Raises:
        StagegateError: The policy does not let this person, there is no reason, or somebody else moved the target.
    """
    from prefect_stagegate.cli.reporting import emit_events
    from prefect_stagegate.tasks._support.version_events import rollback_events

    workspace, visitor, reason = acting(request)
    dataset, target = names_in(request.names, "dataset", "target")
    to, leaving = request.form.get("to", ""), request.form.get("leaving", "")
    if not (to and leaving):
        raise UsageError("The form does not say from which version to which", hint="Choose one of the list.")
    moved = rollback(workspace, Address(dataset, target), to=to, leaving=leaving, reason=reason, key=visitor.key)
    emit_events(lambda: rollback_events(workspace, moved))
    return f"/datasets/{dataset}/targets/{target}/roll-back"
