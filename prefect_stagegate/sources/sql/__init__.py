"""SQL databases: a table or query of PostgreSQL as Parquet files, of one snapshot, in bounded memory."""

from __future__ import annotations

from prefect_stagegate.http import require_allowed
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.sql.source import SqlSource
from prefect_stagegate.sources.terms import Options, Terms

__all__ = ["SqlSource", "open_sql"]


def open_sql(url: str, options: Options, terms: Terms) -> Source:
    """Open a table or query. libpq's URLs may name several hosts: each is checked."""
    source = SqlSource(url, options, idle=terms.idle, scratch=terms.scratch)
    for host in url.partition("://")[2].partition("/")[0].rpartition("@")[2].split(","):
        require_allowed(host, terms.allowed)
    return source
