"""Show objects that could not be staged in the run's log and in its artifact `<dataset>-failed`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.model import FailedObject
from prefect_stagegate.tasks._support.notify import attach, run_log
from prefect_stagegate.units import count_text


@contextmanager
def showing_failed(dataset: str) -> Iterator[None]:
    """Show the objects that failed when the block raises `TransferFailed`."""
    try:
        yield
    except TransferFailed as error:
        show_failed(dataset, list(map(FailedObject.of, error.failures)))
        raise


def show_failed(dataset: str, failed: Sequence[FailedObject], *, digest: str = "") -> None:
    """Show objects that failed, if there are any; the digest is that of the version made without them."""
    if not failed:
        return
    from prefect_stagegate.show.failed import failed_lines, failed_page  # late: most stagings lack nothing

    lines = "\n".join(failed_lines(failed))
    count = count_text(len(failed), "object")
    run_log().warning("%s of %s could not be staged:\n%s", count, dataset, lines)
    page = failed_page(dataset, failed, digest=digest)
    attach(MarkdownArtifact(key=f"{dataset}-failed", markdown=page, description=f"{count} failed"))
