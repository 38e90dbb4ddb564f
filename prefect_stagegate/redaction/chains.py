"""Errors with their causes, and records of logs, without secrets."""

from __future__ import annotations

import logging

from prefect_stagegate.redaction import redact


class RedactedError(Exception):
    """Stands for an exception of which the text holds a secret; its traceback is the other's."""


def redact_chain(error: BaseException | None) -> BaseException | None:
    """The error with its causes, each that tells a secret replaced by one that doesn't."""
    if error is None or _is_clean(error):
        return error
    return _clean(error, frozenset())


def _clean(error: BaseException | None, above: frozenset[int]) -> BaseException | None:
    """What stands for an error; None for one that is among those it led to."""
    if error is None or id(error) in above:
        return None
    above |= {id(error)}
    clean = RedactedError(redact(f"{type(error).__name__}: {error}")).with_traceback(error.__traceback__)
    for note in getattr(error, "__notes__", ()):
        clean.add_note(redact(note))
    clean.__context__, clean.__cause__ = _clean(error.__context__, above), _clean(error.__cause__, above)
    clean.__suppress_context__ = error.__suppress_context__
    return clean


def _is_clean(error: BaseException) -> bool:
    """Whether neither the error nor any of its causes tells a secret."""
    left, seen = [error], set[int]()
    while left:
        error = left.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        text = "\n".join((str(error), *getattr(error, "__notes__", ())))
        if redact(text) != text:
            return False
        left += [cause for cause in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())) if cause]
    return True


class RedactingFilter(logging.Filter):
    """Takes secrets out of a log's records, tracebacks included. Put it on the handlers that write them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record; every record is written."""
        message = record.getMessage()
        if (clean := redact(message)) != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True
