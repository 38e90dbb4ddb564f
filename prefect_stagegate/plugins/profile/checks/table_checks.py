"""Rows of tables.

Checks on the rows of tables: records that stand twice, and classes that hardly occur.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field, model_validator

from prefect_stagegate.gate.base import CheckResult, Parameters, from_findings, one_finding, worst_of
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.model.measures import Overlap
from prefect_stagegate.plugins.profile.measuring import measures
from prefect_stagegate.spec import Glob
from prefect_stagegate.units import count_text, listed

FILES = "files"


class DuplicatesParameters(Parameters):
    """Which columns make a record is for the user to say; without them nothing can be a duplicate."""

    keys: dict[str, tuple[str, ...]] = Field(
        default={},
        description="The columns that tell the rows of a table apart, by the table's name.",
        examples=[{"flights": ["id"]}],
    )
    splits: dict[str, Glob] | tuple[str, ...] = Field(
        default=(),
        description="Parts that must share no file's contents and no record: globs of the dataset's paths by name, or "
        "tables' names.",
        examples=[{"train": "train/*.parquet", "test": "test/*.parquet"}, ["train", "test"]],
    )
    by: tuple[str, ...] = Field(
        default=(),
        description="The columns that tell the records of splits apart; for tables, those under `keys` by default. "
        "Without any, only whole files are compared.",
        examples=[["id"]],
    )


@Check("duplicates", owner="data", binds=("contract",), fetches=True)
def duplicates(context: CheckContext, parameters: DuplicatesParameters) -> CheckResult:
    """Whether any record stands twice: in a table, by the columns under `keys`, or in two of the `splits`.

    One or more fail. A split without files or beside no other, a table without rows and a gate that names neither keys
    nor splits are inconclusive.
    """
    if not parameters.keys and not parameters.splits:
        fix = f"Name each table's key columns under `keys` of duplicates in the gate {context.target}."
        return one_finding(Outcome.INCONCLUSIVE, "duplicates", "the gate names neither keys nor splits", fix)
    measured: dict[str, object] = {}
    findings = [*_in_tables(context, parameters, measured), *_in_splits(context, parameters, measured)]
    return from_findings(f"no record stands twice in {listed([*measured])}", findings, measured)


def _in_tables(
    context: CheckContext, parameters: DuplicatesParameters, measured: dict[str, object]
) -> Iterator[Finding]:
    for table, keys in parameters.keys.items():
        repeats = measures(context).duplicates(table, keys)
        subject = f"table {table}"
        measured[subject] = {"rows": repeats.rows, "duplicates": repeats.duplicates}
        if repeats.rows < 1:
            yield Finding(subject, "it has no rows", "Check the table's `files:`.", Outcome.INCONCLUSIVE)
        elif repeats.duplicates:
            problem = (
                f"{count_text(repeats.duplicates, 'row')} of {repeats.rows:,} repeat the {', '.join(keys)} of another"
            )
            fix = f"Remove them at the source, then run `stagegate stage`. See {' and '.join(repeats.files)}."
            yield Finding(subject, problem, fix)


def _in_splits(
    context: CheckContext, parameters: DuplicatesParameters, measured: dict[str, object]
) -> Iterator[Finding]:
    splits = _globs(context, parameters.splits)
    if not splits:
        return
    keys = {parameters.keys.get(name, ()) for name in parameters.splits}
    # By default the keys of the splits' own tables, if all have the same ones.
    by = parameters.by or (keys.pop() if len(keys) == 1 else ())
    if len(splits) == 1:
        fix = f"Name the other parts under `splits` of duplicates in the gate {context.target}."
        yield Finding(f"split {next(iter(splits))}", "there is no other to compare it with", fix, Outcome.INCONCLUSIVE)
    compared = {FILES: measures(context).shared_files(splits)}
    if by:
        compared["records"] = measures(context).shared_records(splits, by)
    for kind, overlap in compared.items():
        measured[f"{kind} of {', '.join(splits)}"] = {
            "counts": dict(overlap.counts),
            "shared": {" and ".join(names): n for names, n in overlap.shared.items()},
        }
        yield from _overlaps(kind, overlap, splits)


def _globs(context: CheckContext, splits: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    if isinstance(splits, Mapping):
        return dict(splits)
    tables = context.spec.contract.tables
    # A name that is no table's matches no file, which is told of then.
    return {name: tables[name].files if name in tables else name for name in splits}


def _overlaps(kind: str, overlap: Overlap, splits: Iterable[str]) -> Iterator[Finding]:
    for name in splits:
        if not overlap.counts.get(name):
            problem = f"it has no {kind}, so nothing was compared"
            yield Finding(f"split {name}", problem, "Check its glob, or its table's name.", Outcome.INCONCLUSIVE)
    for names, count in overlap.shared.items():
        fewest = min(overlap.counts[name] for name in names)
        noun = "file" if kind == FILES else "record"
        problem = f"they share {count_text(count, noun)}; the smallest split has {fewest:,}"
        fix = "Keep them in only one split at the source, then run `stagegate stage`."
        yield Finding(f"splits {' and '.join(names)}", problem, fix)


class BalanceParameters(Parameters):
    """How rare a class may be depends on what is trained: nothing is assumed."""

    labels: dict[str, str] = Field(
        default={},
        description="The column that holds the class, by the table's name.",
        examples=[{"flights": "carrier"}],
    )
    warn: float | None = Field(
        default=None, gt=0, le=0.5, description="The smallest class's share below which it warns.", examples=[0.05]
    )
    fail: float | None = Field(
        default=None, gt=0, le=0.5, description="The smallest class's share below which it fails.", examples=[0.01]
    )

    @model_validator(mode="after")
    def _ordered(self) -> BalanceParameters:
        if self.warn is not None and self.fail is not None and self.warn < self.fail:
            raise ValueError("`warn` must not be below `fail`")
        return self


@Check("balance", owner="ai", binds=("contract",), fetches=True)
def balance(context: CheckContext, parameters: BalanceParameters) -> CheckResult:
    """The share of the smallest class among the rows that have a label.

    At least `warn` passes, at least `fail` warns, less fails; set both, or one of them. Without labels or limits it is
    inconclusive. A class that no row has can't be seen: expect_column_distinct_values_to_contain_set finds it. The
    smallest class is named in the evidence, so a label must be no secret.
    """
    limits = [limit for limit in (parameters.warn, parameters.fail) if limit is not None]
    if not parameters.labels or not limits:
        fix = f"Set `labels`, and `warn` or `fail`, for balance in the gate {context.target}."
        return one_finding(Outcome.INCONCLUSIVE, "balance", "the gate sets no labels, or no limit", fix)
    measured: dict[str, object] = {}
    findings: list[Finding] = []
    shares: list[float] = []
    for table, column in parameters.labels.items():
        classes = measures(context).balance(table, column)
        share = classes.smallest_rows / classes.labelled if classes.labelled else 0.0
        measured[f"{table}.{column}"] = {
            "rows": classes.labelled,
            "unlabelled": classes.unlabelled,
            "classes": classes.classes,
            "share": round(share, 6),
        }
        shares.append(share)
        findings += _evaluate_share(f"{table}.{column}", classes.labelled, classes.smallest, share, parameters)
    worst = worst_of(findings)
    summary = f"the smallest class has {min(shares):.2%} of {listed([*measured])}"
    return CheckResult(worst.outcome if worst else Outcome.PASS, summary, tuple(findings), measured)


def _evaluate_share(
    subject: str, labelled: int, smallest: str, share: float, limits: BalanceParameters
) -> Iterator[Finding]:
    if not labelled:
        yield Finding(subject, "no row has a label", "Check the table and the column.", Outcome.INCONCLUSIVE)
        return
    fix = "Collect more of it, weigh it in training, or set another limit in the gate."
    for limit, outcome in ((limits.fail, Outcome.FAIL), (limits.warn, Outcome.WARN)):
        if limit is not None and share < limit:
            problem = f"the class {smallest!r} has {share:.2%} of the rows; the limit is {limit:.2%}"
            yield Finding(subject, problem, fix, outcome)
            return
