"""Sources of other packages: the entry points of `prefect_stagegate.sources`, each named after its scheme.

    [project.entry-points."prefect_stagegate.sources"]
    sqlar = "my_package.archives:open_archive"

The entry point leads to an `Opener`. It is loaded when a URL of its scheme is opened, so one that can't be loaded costs
no other its place.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from prefect_stagegate.errors import UsageError
from prefect_stagegate.sources.terms import Opener

GROUP = "prefect_stagegate.sources"


def installed(scheme: str) -> Opener | None:
    """What another package reads the scheme with; None when none does.

    Raises:
        UsageError: The plugin can't be loaded.
    """
    for point in sorted(entry_points(group=GROUP, name=scheme), key=lambda point: point.value):
        package = point.dist.name if point.dist else point.value
        try:
            opener: Opener = point.load()
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"The plugin {package}, which reads {scheme}://, can't be loaded: {type(error).__name__}: {error}",
                hint=f"Mend or remove it: pip show {package}; pip uninstall {package}",
            ) from error
        return opener
    return None
