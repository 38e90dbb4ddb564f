"""Web servers."""

from prefect_stagegate import doors
from prefect_stagegate.sources.fsspec import IGNORED

WEB = doors.Source(
    "a web source",
    doors.options(
        value="username headers.* client_kwargs.headers.* manifest",
        file="verify",
        credential="password token",
        ignored=f"{IGNORED} encoded same_scheme simple_links size_policy",
    ),
    schemes=("http", "https"),
    opener="prefect_stagegate.sources.web.website:HttpSource",
    is_stateless=True,
)
SOURCES = (WEB,)
