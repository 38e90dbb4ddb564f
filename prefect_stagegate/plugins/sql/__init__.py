"""SQL databases: a table or query of PostgreSQL as Parquet files, of one snapshot, in bounded memory."""

from prefect_stagegate.doors import PermittedOptions, Plugin, Source, options

SQL = Source(
    "a SQL source",
    options(
        value="query order_by partition_by partitions numeric numeric.* statement_timeout user username",
        credential="password",
    ),
    schemes=("postgresql", "postgres"),
    opener=f"{__name__}.sql_source:SqlSource",
    extra="sql",
)
SQL_PARAMETERS = PermittedOptions(
    "the URL of a SQL source",
    options(
        value="application_name channel_binding connect_timeout gssencmode host krbsrvname service sslmode "
        "target_session_attrs",
        file="sslcert sslcrl sslkey sslrootcert",
    ),
)
"""libpq's parameters that a URL may have. The others are set by us, hold credentials or name other servers."""
PLUGIN = Plugin(sources=(SQL,))
