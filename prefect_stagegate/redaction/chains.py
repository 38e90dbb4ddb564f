"""Removes secrets from errors with their causes, and from log records."""

from __future__ import annotations

import logging

from prefect_stagegate.redaction import redact


class RedactedError(Exception):
    """Replaces an exception whose text holds a secret, and keeps its traceback."""


def redact_chain(error: BaseException | None) -> BaseException | None:
    """The error; where it or a cause holds a secret, a `RedactedError` in its place, with redacted causes."""
    if error is None or _is_clean(error):
        return error
    return _clean(error, frozenset())


def _clean(error: BaseException | None, above: frozenset[int]) -> BaseException | None:
    """The `RedactedError` for an error; None where a loop of causes leads back to one that is `above` it."""
    if error is None or id(error) in above:
        return None
    above |= {id(error)}
    clean = RedactedError(redact(f"{type(error).__name__}: {error}")).with_traceback(error.__traceback__)
    for note in getattr(error, "__notes__", ()):
        clean.add_note(redact(note))
    clean.__context__, clean.__cause__ = _clean(error.__context__, above), _clean(error.__cause__, above)
    # After the cause, whose assignment sets it: an error must show the same contexts as before.
    clean.__suppress_context__ = error.__suppress_context__
    return clean


def _is_clean(error: BaseException) -> bool:
    """Whether neither the error nor any of its causes holds a secret."""
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
    """Removes secrets from log records, tracebacks included. Add it to the handlers that write them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record, and let it pass."""
        message = record.getMessage()
        if (clean := redact(message)) != message:
            # The text is formatted already. With arguments, a percent sign in it would be taken for a placeholder.
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            # A handler writes `exc_text` where it is set, and does not format the exception again.
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True
