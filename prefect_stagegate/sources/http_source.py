"""Reading objects over HTTP: the part that all such sources share."""

from __future__ import annotations

from abc import abstractmethod

from prefect_stagegate.errors import SourceError, StagegateError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.adapter import BaseSource, as_typed
from prefect_stagegate.transport.http import RangeIgnored, Request, Response, fetch


class HttpReads(BaseSource):
    """A source whose objects are requested over HTTP."""

    def __init__(self) -> None:
        self._ranges = True

    @property
    def ranges(self) -> bool:
        """Whether the server has honoured ranges so far."""
        return self._ranges

    @abstractmethod
    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """The request for the bytes from `start` to `end` (exclusive)."""

    @abstractmethod
    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above."""

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        """The error for a failed read. After a server ignored a range, only whole objects are requested."""
        if isinstance(outcome, Response):
            return self.refusal(outcome, listed.key)
        if isinstance(outcome, RangeIgnored):
            self._ranges = False
        return as_typed(outcome)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Request a range and wait for it. From a server that ignores ranges, read the whole object each time."""
        end = start + len(buffer)
        # A server that ignored one range ignores all: don't ask again.
        if not self._ranges and len(buffer) != listed.size:
            self._read_window(listed, start, buffer)
            return
        request = self.request(listed, start, end)
        assert request is not None  # noqa: S101 - a source without requests overrides this
        try:
            response = fetch(request, buffer)
        except RangeIgnored as error:
            self.explain(listed, error)
            self._read_window(listed, start, buffer)
            return
        self._require_good(response, listed)

    def _read_window(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read the whole object, and keep the part that belongs into the buffer."""
        position, end = 0, start + len(buffer)

        def keep(chunk: memoryview) -> None:
            """Copy the part of a chunk that overlaps the range."""
            nonlocal position
            first, last = max(position, start), min(position + len(chunk), end)
            if first < last:
                buffer[first - start : last - start] = chunk[first - position : last - position]
            position += len(chunk)

        request = self.request(listed, 0, listed.size)
        assert request is not None  # noqa: S101
        self._require_good(fetch(request, sink=keep), listed)

    def _require_good(self, response: Response, listed: SourceObject) -> None:
        if not response.is_success:
            raise self.explain(listed, response)
