"""The part of the catalog that keeps requests for approval, their answers, and the flow runs that wait for them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from prefect_stagegate.catalog.codec import encode
from prefect_stagegate.catalog.records import Records, corrupt
from prefect_stagegate.catalog.typed_records import TypedRecords
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.model import Approval, ApprovalRequest, Identity, Wait, person_key

ID_KEY = "id"
REQUEST_TIME = "%Y%m%dT%H%M%S.%fZ"
"""How the id of a request begins: with its time."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as a listing shows it, before it is read."""

    dataset: str
    target: str
    id: str
    answers: int
    """How many answers it has."""
    waits: int
    """How many flow runs wait for it, or did."""


def create_id(records: Records) -> None:
    """Give a catalog its id, unless it has one."""
    records.create(ID_KEY, f"{uuid.uuid4().hex}\n".encode())


class ApprovalRecords(TypedRecords):
    """The records of approvals. Every method may raise `CatalogError`."""

    @cached_property
    def id(self) -> str:
        """Tells this catalog from others: 32 hex digits, made with it, or later for one of an earlier release."""
        stored = self._records.read(ID_KEY)
        if stored is None:
            create_id(self._records)
            stored = self._records.read(ID_KEY) or b""
        return stored[:32].decode(errors="replace")

    def made(self, request: ApprovalRequest) -> bool:
        """Whether a request was made in this catalog; those of earlier releases don't say."""
        return not request.catalog or request.catalog == self.id

    def put_request(
        self,
        dataset: str,
        digest: str,
        target: str,
        policy: str,
        requester: Identity,
        *,
        after: int | None = None,
        shown: Mapping[str, str] | None = None,
    ) -> ApprovalRequest:
        """Record a request to promote a version; answers are stored under its id, and bound to what was `shown`."""
        # Ids sort by time: `20260301T030000.000000Z-1f3a…`.
        request_id = f"{now():{REQUEST_TIME}}-" + uuid.uuid4().hex[:12]
        request = ApprovalRequest(
            request_id, dataset, digest, target, policy, requester, stamp(now()), after, self.id, shown or {}
        )
        self._records.create(self._request_folder(dataset, target, request.id) + "request.json", encode(request))
        return request

    def requests(self, dataset: str, target: str) -> list[ApprovalRequest]:
        """All requests for a target, the oldest first."""
        folder = f"datasets/{dataset}/approvals/{target}/"
        return [self._load_request(folder, name) for name in self._records.folders(folder)]

    def recorded_requests(self, dataset: str, target: str, since: datetime | None = None) -> list[RecordedRequest]:
        """The requests for a target, the newest first, with one listing that reads none of them.

        With `since`, only those that were made from then on, by the clocks of their makers.
        """
        folder = f"datasets/{dataset}/approvals/{target}/"
        names: dict[str, list[str]] = {}
        for key in self._records.keys(folder, after=f"{folder}{since:{REQUEST_TIME}}" if since else ""):
            request, _, name = key.removeprefix(folder).partition("/")
            names.setdefault(request, []).append(name)
        return [
            RecordedRequest(
                dataset,
                target,
                request,
                answers=sum(name[0].isdigit() for name in below),
                waits=sum(name.startswith("waits/") for name in below),
            )
            for request, below in reversed(names.items())
        ]

    def load_request(self, recorded: RecordedRequest) -> ApprovalRequest:
        """The request that a listing showed.

        Raises:
            CorruptRecord: The record is damaged, or another request's.
        """
        return self._load_request(f"datasets/{recorded.dataset}/approvals/{recorded.target}/", recorded.id)

    def put_answer(self, request: ApprovalRequest, approval: Approval) -> Approval:
        """Add an answer; the same one of the same person again adds nothing, unless it is signed."""
        folder = self._request_folder(request.dataset, request.target, request.id)
        while True:
            # Before the answers are read: an answer that is added meanwhile takes this number, and `create` fails.
            number = self._last(folder) + 1
            answers = self.approvals(request)
            person = person_key(approval.approver.name)
            last = next((answer for answer in reversed(answers) if person_key(answer.approver.name) == person), None)
            # A signed one is always added: the one before may be forged, and nothing here proves signatures.
            if last and last.approved == approval.approved and not approval.envelope:
                return last
            if self._records.create(self._numbered(folder, number), encode(approval)):
                return approval

    def approvals(self, request: ApprovalRequest) -> list[Approval]:
        """The answers to a request, the oldest first."""
        folder = self._request_folder(request.dataset, request.target, request.id)
        names = (key.removeprefix(folder) for key in self._records.keys(folder))
        return [self._load(Approval, folder + name) for name in names if name[0].isdigit()]

    def put_wait(self, request: ApprovalRequest, flow_run: str, until: datetime) -> Wait:
        """Record until when a flow run waits for answers to a request, over an earlier record."""
        wait = Wait(request.id, flow_run, stamp(until), stamp(now()))
        folder = self._request_folder(request.dataset, request.target, request.id)
        # Replaced, unlike other records: it decides nothing.
        self._records.replace(f"{folder}waits/{flow_run}.json", encode(wait))
        return wait

    def waits(self, request: ApprovalRequest) -> list[Wait]:
        """The flow runs that wait for answers to a request, or did."""
        return self._load_all(Wait, self._request_folder(request.dataset, request.target, request.id) + "waits/")

    def awaited(self, dataset: str, target: str, flow_run: str) -> ApprovalRequest | None:
        """The newest request for a target that a flow run waits for, or did."""
        folder = f"datasets/{dataset}/approvals/{target}/"
        for name in reversed(self._records.folders(folder)):
            if self._records.read(f"{folder}{name}/waits/{flow_run}.json") is not None:
                return self._load_request(folder, name)
        return None

    def _load_request(self, folder: str, name: str) -> ApprovalRequest:
        """The request in a folder, whose fields must lead to this folder."""
        # Answers are written to the folder of the fields: a copied request would have them go elsewhere.
        request = self._load(ApprovalRequest, f"{folder}{name}/request.json")
        if self._request_folder(request.dataset, request.target, request.id) != f"{folder}{name}/":
            raise corrupt(f"{folder}{name}/request.json", f"holds the request {request.id!r}")
        if not self.made(request):
            raise corrupt(f"{folder}{name}/request.json", "holds a request of another catalog")
        return request

    def _request_folder(self, dataset: str, target: str, request: str) -> str:
        return f"datasets/{dataset}/approvals/{target}/{request}/"
