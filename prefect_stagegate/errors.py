"""Every error that leaves this package, in one tree.

    StagegateError
    ├── UsageError                 exit 2: the request or the spec is wrong
    │   ├── SpecError              all problems of a spec file at once
    │   ├── UnknownDataset         no such dataset in the catalog or on this node
    │   ├── UnknownRef             no such ref or version
    │   └── MissingExtra           an optional dependency is absent
    ├── GateFailed                 exit 1: the version has no acceptance of its gate that holds
    ├── NotReady                   exit 1: a node doesn't hold the version that is named
    ├── GateUndecided              exit 3: the gate could not decide about the version
    ├── WaitingForApproval         exit 4: a request is recorded and unanswered
    ├── SourceError                exit 3: a source can't be used as asked
    │   ├── SourceUnavailable      no answer, or the server failed         (retryable)
    │   │   └── SourceBusy         the server asks to retry later
    │   ├── AccessDenied           the credentials were refused or are missing
    │   │   └── CredentialsExpired the credentials have expired
    │   ├── ObjectVanished         an object that was listed is gone
    │   ├── ObjectChanged          an object changed while it was read     (retryable)
    │   ├── ChecksumMismatch       bytes don't match a checksum or digest  (retryable)
    │   └── AdapterFailed          the code that reads the source is defective
    ├── TransferFailed             exit 3: more objects failed than allowed  (retryable if one of them is)
    ├── Cancelled                  exit 3: a user stopped it; what was fetched stays for the next run
    ├── CacheError                 exit 3: the cache can't be used as asked
    │   ├── NoSpace                the volume or quota is full
    │   └── BlobVanished           a collection removed a blob that was about to be used  (retryable)
    ├── CatalogError               exit 3: the catalog can't be used as asked
    │   ├── RefConflict            somebody else moved the ref first
    │   ├── UnprovedEntry          a log's entry lacks the signatures that it needs
    │   └── CorruptRecord          a stored record doesn't match its own digest
    └── ValidationError            exit 3: the contract could not be evaluated
        └── WorkerCrashed          the process that evaluates it crashed, which says nothing about the data

An error says what happened (`message`), to what (`dataset`, `source`, `object`), and what to do about it (`hint`).
Tasks and transfers retry an error if, and only if, it is `retryable`. Its text is redacted, so it holds no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar

from prefect_stagegate.redaction import redact

SHORTEST_BEGINNING = 3
"""The fewest letters of a word's beginning that are taken for the word."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice that a wrong word resembles most, or the only one that begins with it; empty when there is none.

    Case doesn't matter.

    >>> nearest("freshnes", ["schema", "freshness"]), nearest("prod", ["pilot", "production"]), nearest("x", ["pilot"])
    ('freshness', 'production', '')
    """
    known = {choice.lower(): choice for choice in sorted(choices)}
    near = get_close_matches(word.lower(), known, n=1)
    if not near and len(word) >= SHORTEST_BEGINNING:
        # A short beginning, as `prod`, resembles the whole word too little.
        longer = [choice for choice in known if choice.startswith(word.lower())]
        near = longer if len(longer) == 1 else []
    return known[near[0]] if near else ""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Point from a wrong word to the nearest right one, or to all of them when none is near.

    >>> did_you_mean("freshnes", ["schema", "freshness"]), did_you_mean("x", ["pilot"]), did_you_mean("x", [])
    ("did you mean 'freshness'?", 'known: pilot', 'none is known')
    """
    known = sorted(choices)
    if near := nearest(word, known):
        return f"did you mean {near!r}?"
    return f"known: {', '.join(known)}" if known else "none is known"


def nearest_hint(word: str, choices: Iterable[str]) -> str:
    """The same as a sentence, for the hint of an error."""
    hint = did_you_mean(word, choices)
    return hint[0].upper() + hint[1:] + ("" if hint.endswith("?") else ".")


def suggest(word: str, choices: Iterable[str], owner: str) -> str:
    """Say as sentences which of an owner's names was meant, where one is near, and which it has.

    >>> suggest("prod", ["latest", "production"], "This node")
    'Did you mean `production`? This node has: latest, production.'
    """
    known = sorted(choices)
    near = nearest(word, known)
    return (f"Did you mean `{near}`? " if near else "") + f"{owner} has: {', '.join(known) or 'none'}."


class ExitCode(IntEnum):
    """What a `stagegate` command's exit status means."""

    PASS = 0
    GATE_FAILED = 1
    USAGE = 2
    ERROR = 3
    WAITING = 4


class StagegateError(Exception):
    """An error for users: what happened, to what, and what to do about it.

    Args:
        message: What happened, as one sentence without a full stop.
        hint: What to do about it; empty when a user can only report it.
        dataset: The dataset concerned.
        source: The source's URL, free of credentials.
        object: The object's key below the source, or its path in the dataset.
    """

    retryable: bool = False
    exit_code: ClassVar[ExitCode] = ExitCode.ERROR

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        dataset: str = "",
        source: str = "",
        object: str = "",  # noqa: A002 - the field's word for it
    ) -> None:
        self.message = redact(message)
        super().__init__(self.message)
        self.hint = redact(hint)
        self.dataset = dataset
        self.source = source
        self.object = object

    @property
    def description(self) -> str:
        """What happened and to what, without the hint."""
        # Programs look sources and objects up by these fields, so they are redacted only in the text.
        fields = (("dataset", self.dataset), ("source", redact(self.source)), ("object", redact(self.object)))
        subject = ", ".join(f"{word} {_shown(value)}" for word, value in fields if value and value not in self.message)
        return f"{self.message} ({subject})" if subject else self.message

    def __str__(self) -> str:
        return f"{self.description}. {self.hint}" if self.hint else self.description

    def __reduce__(self) -> tuple[object, ...]:
        # Results and errors cross process borders under Dask, Ray and Prefect's process runners.
        return _rebuild, (type(self), self.args, self.__dict__)


def _shown(name: str) -> str:
    """A name from outside on one line, with characters that don't print as escapes."""
    return name if name.isprintable() else repr(name)


def _rebuild(kind: type[StagegateError], args: tuple[object, ...], state: dict[str, object]) -> StagegateError:
    # Without `__init__`, whose arguments differ from class to class and are not kept.
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(StagegateError):
    exit_code = ExitCode.USAGE


class SpecError(UsageError):
    """A spec that can't be used, with every problem in it.

    Args:
        file: The spec's path or address, as the user gave it.
        problems: One line a problem: `file:line: key: what is wrong`.
    """

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{file} has {count}:\n" + "\n".join(f"  {line}" for line in problems))
        self.file = file
        self.problems = tuple(map(redact, problems))


class UnknownDataset(UsageError):
    pass


class UnknownRef(UsageError):
    pass


class MissingExtra(UsageError):
    pass


def install_hint(extra: str) -> str:
    """What to do about a missing extra: the hint of a `MissingExtra`."""
    return f'Install it: pip install "prefect-stagegate[{extra}]"'


class GateFailed(StagegateError):
    exit_code = ExitCode.GATE_FAILED


class NotReady(StagegateError):
    """A node does not hold the version that is named, complete and current."""

    retryable = True
    exit_code = ExitCode.GATE_FAILED


class GateUndecided(StagegateError):
    pass


class WaitingForApproval(StagegateError):
    exit_code = ExitCode.WAITING


class SourceError(StagegateError):
    ask_again: float = 0.0
    """Seconds after which the same request is free, whatever failed before; 0.0 where it counts as a retry."""


class SourceUnavailable(SourceError):
    retryable = True


class SourceBusy(SourceUnavailable):
    retry_after: float = 0.0
    """Seconds in the server's Retry-After; 0.0 when there is none, or it can't be read."""


class AccessDenied(SourceError):
    pass


class CredentialsExpired(AccessDenied):
    pass


class ObjectVanished(SourceError):
    pass


class ObjectChanged(SourceError):
    retryable = True


class ChecksumMismatch(SourceError):
    retryable = True


class AdapterFailed(SourceError):
    """The adapter of a source, or a library that it uses, raised an exception that no adapter may raise.

    Not retryable: the defect would fail again on the same bytes. A mirror may still work, since another adapter may
    read it, or its headers, names or listings may differ.
    """


LISTED_FAILURES = 20
"""The most failed objects that an error's text lists; its `failures` are all."""


class TransferFailed(StagegateError):
    """More objects failed than allowed; the others stay in the cache.

    Args:
        failures: The error of each failed object, whose path in the dataset is its `object`.
    """

    def __init__(self, failures: Sequence[StagegateError]) -> None:
        count = f"{len(failures)} object{'s' if len(failures) != 1 else ''}"
        lines = [f"  {failure}" for failure in failures[:LISTED_FAILURES]]
        if len(failures) > LISTED_FAILURES:
            lines.append(f"  and {len(failures) - LISTED_FAILURES} more")
        super().__init__(f"{count} could not be staged:\n" + "\n".join(lines))
        self.failures = tuple(failures)
        self.retryable = any(failure.retryable for failure in failures)


class Cancelled(StagegateError):
    pass


class CacheError(StagegateError):
    pass


class NoSpace(CacheError):
    pass


class BlobVanished(CacheError):
    retryable = True


class CatalogError(StagegateError):
    pass


class RefConflict(CatalogError):
    pass


class UnprovedEntry(CatalogError):
    pass


class CorruptRecord(CatalogError):
    pass


class ValidationError(StagegateError):
    pass


class WorkerCrashed(ValidationError):
    pass


def kind_of(error: BaseException | None) -> str:
    """The nearest type of this tree, so that no message or class of others leaves the process; else `Unexpected`."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__), "Unexpected")
