"""Every error that leaves this package, in one tree.

    StagegateError
    ├── UsageError                 exit 2: the request or the spec is wrong
    │   ├── SpecError              all problems of a spec file at once
    │   ├── UnknownDataset         no such dataset in the catalog or on this node
    │   ├── UnknownRef             no such ref or version
    │   └── MissingExtra           an optional dependency is absent
    ├── GateFailed                 exit 1: the gate refused the version
    ├── WaitingForApproval         exit 4: a request is recorded and unanswered
    ├── SourceError                exit 3: a source can't be used as asked
    │   ├── SourceUnavailable      nobody answered, or the server failed   (retryable)
    │   │   └── SourceBusy         the server asks to be left alone for a while
    │   ├── AccessDenied           the credentials were refused or are missing
    │   │   └── CredentialsExpired they were good until now
    │   ├── ObjectVanished         an object that was listed is gone
    │   ├── ObjectChanged          an object changed while it was read     (retryable)
    │   ├── ChecksumMismatch       bytes don't match a checksum or digest  (retryable)
    │   └── AdapterFailed          the code that reads the source is defective
    ├── TransferFailed             exit 3: more objects failed than may; each is named  (retryable if one of them is)
    ├── Cancelled                  exit 3: somebody stopped it; what was fetched stays for the next run
    ├── CacheError                 exit 3: the cache can't be used as asked
    │   ├── NoSpace                the volume or quota is full
    │   └── BlobVanished           a collection took what was about to be used  (retryable)
    ├── CatalogError               exit 3: the catalog can't be used as asked
    │   ├── RefConflict            somebody else moved the ref first
    │   └── CorruptRecord          a stored record fails its own digest
    └── ValidationError            exit 3: the contract could not be evaluated

An error says what happened (`message`), to what (`dataset`, `source`, `object`), and what to do about it (`hint`).
`retryable` is the engine's judgement; tasks and transfers follow it and nothing else. Its text holds no secret:
whatever it was made of is redacted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar

from prefect_stagegate.redaction import redact


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Point from a wrong word to the nearest right one, or to all of them when none is near. Case doesn't matter.

    >>> did_you_mean("freshnes", ["schema", "freshness"]), did_you_mean("x", ["pilot"]), did_you_mean("x", [])
    ("did you mean 'freshness'?", 'known: pilot', 'none is known')
    """
    known = {choice.lower(): choice for choice in sorted(choices)}
    near = get_close_matches(word.lower(), known, n=1)
    if near:
        return f"did you mean {known[near[0]]!r}?"
    return f"known: {', '.join(known.values())}" if known else "none is known"


class ExitCode(IntEnum):
    """What a `stagegate` command's exit status means."""

    PASS = 0
    GATE_FAILED = 1
    USAGE = 2
    ERROR = 3
    WAITING = 4


class StagegateError(Exception):
    """Something a user should read: one line on what happened, and one on what to do.

    Args:
        message: What happened, as one sentence without a full stop.
        hint: What to do about it; empty when there is nothing to do but to report it.
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

    def where(self) -> str:
        """The dataset, source and object concerned, joined for people."""
        # Objects are found by their names, which are redacted here only.
        named = (("dataset", self.dataset), ("source", redact(self.source)), ("object", redact(self.object)))
        return ", ".join(f"{word} {_shown(value)}" for word, value in named if value and value not in self.message)

    def __str__(self) -> str:
        where = self.where()
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        # Results and errors cross process borders under Dask, Ray and Prefect's process runners.
        return _rebuild, (type(self), self.args, self.__dict__)


def _shown(name: str) -> str:
    """A name from outside in one line, whatever it holds: what doesn't print is written as an escape."""
    return name if name.isprintable() else repr(name)


def _rebuild(kind: type[StagegateError], args: tuple[object, ...], state: dict[str, object]) -> StagegateError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(StagegateError):
    exit_code = ExitCode.USAGE


class SpecError(UsageError):
    """A spec that can't be used, with every problem that was found in it.

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


class GateFailed(StagegateError):
    exit_code = ExitCode.GATE_FAILED


class WaitingForApproval(StagegateError):
    exit_code = ExitCode.WAITING


class SourceError(StagegateError):
    pass


class SourceUnavailable(SourceError):
    retryable = True


class SourceBusy(SourceUnavailable):
    retry_after: float = 0.0
    """Seconds that the server asked for by Retry-After; 0.0 when it didn't, or can't be heard."""


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
    """The adapter of a source, or a library that it uses, raised what no adapter may raise.

    Not retryable: a defect meets the same bytes in the same way, and waiting mends nothing. A mirror may do, since it
    may be read by another adapter, or hold other headers, names or listings around the same bytes.
    """


LISTED_FAILURES = 20
"""The most failed objects that an error's text lists; its `failures` are all."""


class TransferFailed(StagegateError):
    """More objects failed than were allowed to; everything that succeeded stays in the cache.

    Args:
        failures: What each failed object met; its `object` is the path in the dataset.
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


class CorruptRecord(CatalogError):
    pass


class ValidationError(StagegateError):
    pass
