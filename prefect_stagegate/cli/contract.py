"""`stagegate contract check`: try a changed contract on old versions."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Display, Json, Places
from prefect_stagegate.cli.printing import print_json, say, say_line
from prefect_stagegate.cli.progress import shown_work
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.review.trials import (
    TrialComparison,
    VersionTrial,
    try_contract,
    worst_outcome,
)
from prefect_stagegate.model import Outcome
from prefect_stagegate.units import count_text, digest_text

SpecFile = Annotated[str, Parameter(name="SPEC")]
_EXIT_CODES = {Outcome.FAIL: ExitCode.GATE_FAILED, Outcome.INCONCLUSIVE: ExitCode.ERROR}


def check(
    spec: SpecFile,
    /,
    *,
    versions: Annotated[int, Parameter(metavar="N")] = 3,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Show what a changed contract would have done to the last versions.

    Each of them is validated under the contract that counts for it and under that of the spec. Nothing is recorded.
    Exits with 1 when a version would fail now, with 3 when one can't be told.

    For example:

    - `stagegate contract check nycflights.yaml`
    - `stagegate contract check nycflights.yaml --versions 10 --json`

    Parameters
    ----------
    spec
        The spec with the changed contract: a path or URL.
    versions
        How many versions, the newest first; 3 by default, 20 at most.
    """
    workspace, display = (places or Places()).workspace(), display or Display()
    with shown_work(f"contract check {spec}", display.progress_form(json=json)) as progress:
        trials = try_contract(workspace, spec, versions, progress)
    if json:
        print_json([asdict(trial) for trial in trials])
    elif not display.quiet:
        say("TRIAL under your own spec: it is not recorded and does not count.")
        for trial in trials:
            _print_trial(trial)
    if code := _EXIT_CODES.get(worst_outcome(trials)):
        sys.exit(code)


def _print_trial(trial: VersionTrial) -> None:
    say(f"{digest_text(trial.digest)}, staged {trial.at}")
    if trial.problem:
        say_line(f"  not tried: {trial.problem}")
        return
    for comparison in trial.checks:
        say_line(_line(comparison))
    passed = ("passed", "passed")
    notable = [comparison for comparison in trial.expectations if (comparison.then, comparison.now) != passed]
    for comparison in notable:
        say_line(_line(comparison))
    if rest := len(trial.expectations) - len(notable):
        say(f"  {count_text(rest, 'expectation')} passed then and now")


def _line(comparison: TrialComparison) -> str:
    return f"  {comparison.then:>12} → {comparison.now:<12} {comparison.subject}"
