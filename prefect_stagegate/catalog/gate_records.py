"""Records of gates: evidence, decisions, waivers, policies that are proposed, and requests for approval with answers.

Every function may raise `CatalogError`, and `CorruptRecord` for a record that is damaged, or about something else.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from prefect_stagegate.catalog.catalog import Catalog
from prefect_stagegate.catalog.environments import put_environment, whole_statement
from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import (
    Approval,
    ApprovalRequest,
    Evidence,
    EvidenceRevocation,
    Identity,
    Wait,
    Waiver,
    person_key,
)
from prefect_stagegate.model.canonical import digest_of

SAME_QUESTION = 5
"""Newest evidence that is kept of one check with one binding: some policies require several passes in a row."""
OF_ONE_CHECK = 100
"""Newest evidence that is kept of one check, over all bindings: each node and environment has its own."""
_EVIDENCE = Record("stagegate.evidence", list[Evidence])
REVOCATIONS = Record("stagegate.revocations", EvidenceRevocation)
"""Revocations of a version's evidence, which itself stays on record."""
DECISIONS = Record("stagegate.decisions", dict[str, Any])
"""Attestations by version and target, accepting or not, each with its environment's digest instead of it."""
SIGNATURES = Record("stagegate.signatures", dict[str, Any])
"""DSSE envelopes around an attestation, by its own digest and the signing key's id in hex."""
WAIVERS = Record("stagegate.waivers", Waiver)
"""Waivers by version and target. A later record of a waiver says that it was revoked."""
PROPOSALS = Record("stagegate.proposals", dict[str, Any])
"""Policies that are proposed for adoption, by their digests, by which requests name them."""
_REQUESTS = Record("stagegate.approvals", ApprovalRequest)
_ANSWERS = Record("stagegate.approvals", Approval)
_WAITS = Record("stagegate.approvals", Wait)
REQUEST_TIME = "%Y%m%dT%H%M%S.%fZ"
"""How the id of a request begins: with its time."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as a listing shows it, before it is read."""

    id: str
    answers: int
    waits: int
    """How many flow runs wait for it, or did."""


def put_evidence(catalog: Catalog, dataset: str, digest: str, evidence: Iterable[Evidence]) -> None:
    """Add evidence about a version, in one new record that holds the earlier evidence too."""
    fresh = list(evidence)
    while fresh:
        # Read again at each try: a record that another node created first must be kept, too.
        number = max(catalog.numbers(_EVIDENCE, dataset, digest), default=0)
        try:
            known = catalog.require(_EVIDENCE, dataset, digest, number) if number else []
        except CorruptRecord:
            known = []  # `promote` refuses acceptances that rest on what it held
        if catalog.create(_EVIDENCE, kept_evidence([*known, *fresh]), dataset, digest, number + 1):
            return


def read_evidence(catalog: Catalog, dataset: str, digest: str) -> list[Evidence]:
    """The evidence about a version that is still of use, the oldest first. Reads one record."""
    return newest_record(catalog, _EVIDENCE, dataset, digest) or []


def kept_evidence(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence to keep, the oldest first as in `evidence`: reading costs the same after a thousand checks."""
    questions: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    checks: Counter[str] = Counter()
    newest: list[Evidence] = []
    for answer in reversed(evidence):
        question = (answer.check, frozenset(answer.binding.items()))
        if questions[question] < SAME_QUESTION and checks[answer.check] < OF_ONE_CHECK:
            newest.append(answer)
        questions[question] += 1
        checks[answer.check] += 1
    return newest[::-1]


def put_attestation(catalog: Catalog, dataset: str, digest: str, target: str, statement: Mapping[str, Any]) -> None:
    """Add a gate's decision about a version, accepting or not."""
    catalog.add(DECISIONS, put_environment(catalog, statement), dataset, digest, target)


def newest_attestation(catalog: Catalog, dataset: str, digest: str, target: str) -> Mapping[str, Any] | None:
    """The newest decision of a target's gate about a version; None without one."""
    return next(iter(read_attestations(catalog, dataset, digest, target, newest=1)), None)


def read_attestations(
    catalog: Catalog, dataset: str, digest: str, target: str, *, newest: int = 0
) -> list[Mapping[str, Any]]:
    """The decisions of a target's gate about a version, the oldest first: all, or so many of the newest."""
    stored = catalog.all(DECISIONS, dataset, digest, target, newest=newest)
    return [whole_statement(catalog, statement) for statement in stored]


def read_attestation(catalog: Catalog, dataset: str, digest: str, target: str, number: int) -> Mapping[str, Any]:
    """One decision of a target's gate about a version, by its number."""
    stored = catalog.require(DECISIONS, dataset, digest, target, number)
    return whole_statement(catalog, stored)


def decision_numbers(catalog: Catalog, dataset: str, digest: str) -> dict[str, int]:
    """How many decisions each target's gate made about a version. Lists those of all targets at once."""
    # Sorted, so the last one of a target has the highest number.
    places = (name.split("/") for name in catalog.names(DECISIONS, dataset, digest))
    return {target: int(number) for target, number in places}


def decided_versions(catalog: Catalog, dataset: str) -> list[tuple[str, str]]:
    """The digest and target of each version that a gate decided on, sorted."""
    digests = catalog.folders(DECISIONS, dataset)
    return [(f"sha256:{hexes}", target) for hexes in digests for target in catalog.folders(DECISIONS, dataset, hexes)]


def read_waivers(catalog: Catalog, dataset: str, digest: str, target: str) -> list[Waiver]:
    """The records of waivers for a version at a target, the oldest first; one that was revoked has two."""
    return catalog.all(WAIVERS, dataset, digest, target)


def read_proposal(catalog: Catalog, dataset: str, digest: str) -> dict[str, Any]:
    """A proposed policy by its digest."""
    policy = catalog.require(PROPOSALS, dataset, digest)
    if digest_of(policy) != digest:
        problem = f"The catalog's record {PROPOSALS.path(dataset, digest)} holds another policy"
        raise CorruptRecord(problem, hint="Propose it again.", dataset=dataset)
    return policy


def put_request(  # noqa: PLR0913 - one parameter a field
    catalog: Catalog,
    dataset: str,
    digest: str,
    target: str,
    policy: str,
    requester: Identity,
    *,
    after: int | None = None,
    shown: Mapping[str, str] | None = None,
    sign: Callable[[ApprovalRequest], Mapping[str, Any]] | None = None,
) -> ApprovalRequest:
    """Record a request to promote a version; answers are stored under its id, and bound to what was `shown`.

    `sign` gives its envelope.
    """
    # Ids sort by time: `20260301T030000.000000Z-1f3a…`.
    request_id = f"{now():{REQUEST_TIME}}-" + uuid.uuid4().hex[:12]
    request = ApprovalRequest(
        request_id, dataset, digest, target, policy, requester, stamp(now()), after, catalog.id, shown or {}
    )
    if sign:
        request = replace(request, envelope=sign(request))
    catalog.create(_REQUESTS, request, *_key(request), "request")
    return request


def read_requests(catalog: Catalog, dataset: str, target: str) -> list[ApprovalRequest]:
    """All requests for a target, the oldest first."""
    return [read_request(catalog, dataset, target, name) for name in catalog.folders(_REQUESTS, dataset, target)]


def recorded_requests(
    catalog: Catalog, dataset: str, target: str, since: datetime | None = None
) -> list[RecordedRequest]:
    """The requests for a target, the newest first, with one listing that reads none of them.

    With `since`, only those that were made from then on, by the clocks of their makers.
    """
    names: dict[str, list[str]] = {}
    after = f"{since:{REQUEST_TIME}}" if since else ""
    for place in catalog.names(_REQUESTS, dataset, target, after=after):
        request, _, name = place.partition("/")
        names.setdefault(request, []).append(name)
    return [
        RecordedRequest(request, sum(map(str.isdigit, below)), sum(name.startswith("waits/") for name in below))
        for request, below in reversed(names.items())
    ]


def read_request(catalog: Catalog, dataset: str, target: str, request_id: str) -> ApprovalRequest:
    """A request by its id."""
    # Answers are written to the folder of the fields: a copied request would have them go elsewhere.
    request = catalog.require(_REQUESTS, dataset, target, request_id, "request")
    path = _REQUESTS.path(dataset, target, request_id, "request")
    if _key(request) != (dataset, target, request_id):
        raise corrupt(path, f"holds the request {request.id!r}")
    if not request.is_of(catalog.id):
        raise corrupt(path, "holds a request of another catalog")
    return request


def put_answer(catalog: Catalog, request: ApprovalRequest, approval: Approval) -> Approval:
    """Add an answer; the same one of the same person, known alike, adds nothing unless it is signed."""
    while True:
        # Before the answers are read: an answer that is added meanwhile takes this number, and `create` fails.
        number = max(catalog.numbers(_ANSWERS, *_key(request)), default=0) + 1
        answers = read_answers(catalog, request)
        person = person_key(approval.approver.name)
        last = next((answer for answer in reversed(answers) if person_key(answer.approver.name) == person), None)
        # A signed one is always added: the one before may be forged, and nothing here proves signatures.
        is_same = last and (last.approved, last.approver.source) == (approval.approved, approval.approver.source)
        if last and is_same and not approval.envelope:
            return last
        if catalog.create(_ANSWERS, approval, *_key(request), number):
            return approval


def read_answers(catalog: Catalog, request: ApprovalRequest) -> list[Approval]:
    """The answers to a request, the oldest first."""
    numbers = catalog.numbers(_ANSWERS, *_key(request))
    return [catalog.require(_ANSWERS, *_key(request), number) for number in numbers]


def put_wait(catalog: Catalog, request: ApprovalRequest, flow_run: str, until: datetime) -> Wait:
    """Record until when a flow run waits for answers to a request, over an earlier record."""
    wait = Wait(request.id, flow_run, stamp(until), stamp(now()))
    # Replaced, unlike other records: it decides nothing.
    catalog.put(_WAITS, wait, *_key(request), "waits", flow_run)
    return wait


def read_waits(catalog: Catalog, request: ApprovalRequest) -> list[Wait]:
    """The flow runs that wait for answers to a request, or did."""
    return catalog.all(_WAITS, *_key(request), "waits")


def awaited_request(catalog: Catalog, dataset: str, target: str, flow_run: str) -> ApprovalRequest | None:
    """The newest request for a target that a flow run waits for, or did."""
    end = f"/waits/{flow_run}"
    awaited = [name.removesuffix(end) for name in catalog.names(_WAITS, dataset, target) if name.endswith(end)]
    return read_request(catalog, dataset, target, awaited[-1]) if awaited else None


def _key(request: ApprovalRequest) -> tuple[str, str, str]:
    return request.dataset, request.target, request.id
