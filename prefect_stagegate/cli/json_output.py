"""How this process prints JSON: indented or in one line, and an error as a document of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.redaction import redact

INDENT = 2


@dataclass
class JsonOutput:
    """What the typed words say of JSON, and whether some was printed."""

    is_wanted: bool = False
    is_compact: bool = False
    is_begun: bool = False
    """Whether standard output holds a document, or the beginning of one."""

    def read(self, words: Sequence[str]) -> None:
        """Start again for these words. They count also when the parser refuses them: its errors are JSON, too."""
        options = words[: words.index("--")] if "--" in words else words
        self.is_compact = "--compact" in options
        self.is_wanted = self.is_compact or "--json" in options
        self.is_begun = False

    def begin(self) -> None:
        """Note that a document begins, so that no error is printed as a second one."""
        self.is_begun = True

    def text(self, value: Any) -> str:
        """A document as text. ASCII only: UTF-8 can't hold the surrogates that stand for names which aren't UTF-8."""
        form: dict[str, Any] = {"separators": (",", ":")} if self.is_compact else {"indent": INDENT}
        return json.dumps(value, default=_plain, **form)

    def print_error(self, values: dict[str, Any]) -> None:
        """Print an error as the document, where JSON is wanted and none was begun."""
        if self.is_wanted and not self.is_begun:
            self.begin()
            print(self.text({"error": values}))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


OUTPUT = JsonOutput()
"""Of the command that this process runs."""


def error_values(error: StagegateError) -> dict[str, Any]:
    """An error for programs: what happened, to what, what to do, and whether the same command may work later."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "dataset": error.dataset,
        "source": redact(error.source),
        "object": redact(error.object),
        "retryable": error.retryable,
    }
