"""What the pages share: what an answer relies on, and what a form says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect_stagegate.catalog import Catalog, gate_records
from prefect_stagegate.doors import PageRequest, Visitor
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.approval_counting import AnswerTally, answer_proof
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.model import Approval, ApprovalRequest, Identity
from prefect_stagegate.workspace import Workspace


def answers_read(tally: AnswerTally) -> list[list[Any]]:
    """All answers as they were read, those that don't count too: what a further answer relies on."""
    known = (*tally.counted, *(reply for reply, _ in tally.ignored))
    return [[reply.approver.name, reply.approver.source, reply.approved, reply.reason, reply.at] for reply in known]


def proved_answers(catalog: Catalog, asked: ApprovalRequest, parameters: ApprovalParameters) -> list[Approval]:
    """The answers to a request, each name with how it is proved, whatever the record claims."""
    replies = gate_records.read_answers(catalog, asked)
    known = [Identity(reply.approver.name, answer_proof(reply, asked, parameters).known_by) for reply in replies]
    return [replace(reply, approver=who) for reply, who in zip(replies, known, strict=True)]


def answer_of(request: PageRequest) -> bool:
    """Whether a form approves; it must say so, or decline with a reason.

    Raises:
        UsageError: It says neither, or declines without a reason.
    """
    answers = {"approve": True, "decline": False}
    if (answer := request.form.get("answer", "")) not in answers:
        raise UsageError("The form neither approves nor declines", hint="Use one of the two buttons.")
    if answer == "decline" and not request.form.get("reason", "").strip():
        raise UsageError("A refusal needs a reason", hint="Write it above the buttons.")
    return answers[answer]


def acting(request: PageRequest) -> tuple[Workspace, Visitor, str]:
    """The workspace of who is logged in, they themselves, and the reason that their form gives."""
    assert request.visitor is not None  # noqa: S101 - no `act` runs otherwise
    return request.workspace, request.visitor, request.form.get("reason", "").strip()
