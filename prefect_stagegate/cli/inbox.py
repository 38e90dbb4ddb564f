"""The inbox as text for people: lines of at most 80 columns, but commands stay whole so that they can be copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from textwrap import wrap

from prefect_stagegate.cli.printing import ANYBODY
from prefect_stagegate.clock import moment
from prefect_stagegate.jobs.gating.status import DatasetStatus
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.model import PolicyChange
from prefect_stagegate.units import age_text, digest_text

WIDTH = 80
NAME_WIDTH = 20
INDENT = " " * 14
"""Below a line's name, behind the longest standing."""
CHANGE_INDENT = 11
EMPTY = "The catalog is empty. Stage a spec with `stagegate stage SPEC`, or try `stagegate demo`."
LONGEST_REASON = 300
"""Characters of a reason: `stagegate report` has all of it."""


def dataset_texts(status: DatasetStatus, now: datetime) -> Iterator[str]:
    """The dataset's policy, and what `latest` names."""
    adopted = f"policy {status.policy}, adopted {_ago(status.adopted_at, now)} by {status.adopted_by}"
    yield from _wrapped(f"{status.dataset}: {adopted if status.policy else 'no policy adopted yet'}", "")
    latest = status.refs[0]
    if latest.digest:
        yield from _wrapped(f"latest is {digest_text(latest.digest)}, {_ago(latest.at, now)} by {latest.by}", "")
    yield ""


def inbox_texts(lines: Sequence[InboxLine], now: datetime) -> Iterator[str]:
    """A table of the lines. Below a line that waits for somebody stand the person and the command."""
    if lines:
        yield _row("", "dataset@target", "names", "ends", "held", "since")
    for line in lines:
        yield from _line_texts(line, now)


def _line_texts(line: InboxLine, now: datetime) -> Iterator[str]:
    name = f"{line.dataset}@{line.target}" if line.target else f"{line.dataset}, policy"
    facts = _facts(line, now)
    if len(name) > NAME_WIDTH and any(facts):
        yield _row(line.standing, name)
        yield _row("", "", *facts)
    else:
        yield _row(line.standing, name, *facts)
    if line.proposed and line.actions:
        by = line.proposed.by.rpartition(" (")[0]
        yield from _wrapped(
            f"proposed {digest_text(line.proposed.digest)}, {_ago(line.proposed.since, now)} by {by}", INDENT
        )
    for action in line.actions:
        since = f", {_ago(action.since, now)}" if action.since else ""
        reason = action.reason if len(action.reason) <= LONGEST_REASON else f"{action.reason[: LONGEST_REASON - 1]}…"
        yield from _wrapped(f"{action.whom}{since}: {reason}", INDENT)
        yield f"{INDENT}{action.command}"


def _facts(line: InboxLine, now: datetime) -> tuple[str, str, str, str]:
    """What the target names, when evidence ends, how many nodes hold it, and since when the target names it."""
    accepted = line.accepted
    if accepted is None:
        return ("no version yet" if line.target and not line.problem else "", "", "", "")
    left = moment(accepted.ends) - now if accepted.ends else None
    ends = "-" if left is None else age_text(left) if left.total_seconds() > 0 else "ended"
    nodes = len(accepted.held_by)
    return digest_text(accepted.digest), ends, str(nodes or "-"), _ago(accepted.at, now)


def _row(standing: str, name: str, version: str = "", ends: str = "", nodes: str = "", since: str = "") -> str:
    return f"{standing:<12}  {name:<{NAME_WIDTH}}  {version:<19}  {ends:<5}  {nodes:>4}  {since}".rstrip()


def policy_texts(status: DatasetStatus, *, whole: bool) -> Iterator[str]:
    """How the policy in the spec of `latest` differs from the adopted one, and whether anybody may change that."""
    if status.changed_since:
        why = f"latest was staged under an older spec than that of policy {status.policy}, which changed:"
        yield from ("", *_wrapped(f"{status.dataset}: {why}", ""))
        yield from _change_texts(status.changed_since)
        yield "Next: stagegate stage SPEC, with the newer spec"
    elif status.proposed:
        yield from ("", *_wrapped(f"{status.dataset}: the spec of latest proposes another policy:", ""))
        yield from _change_texts(status.proposed)
        yield "Next: stagegate policy adopt SPEC --reason TEXT"
    if whole and status.anybody_may_change:
        yield from ("", *_wrapped(ANYBODY, ""))


def _change_texts(changes: Iterable[PolicyChange]) -> Iterator[str]:
    for change in changes:
        text = " ".join(f"{change.subject}: {change.difference}".split())
        first, *rest = wrap(text, WIDTH - CHANGE_INDENT, break_long_words=False) or [""]
        yield f"{change.direction:<10} {first}"
        yield from (f"{'':{CHANGE_INDENT}}{line}" for line in rest)


def _ago(at: str, now: datetime) -> str:
    return f"{age_text(now - moment(at))} ago"


def _wrapped(text: str, indent: str) -> list[str]:
    """A text in lines, broken between words; a longer word stays whole."""
    return wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
