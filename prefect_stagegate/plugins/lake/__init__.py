"""Lakehouse tables: Delta Lake and Apache Iceberg."""

from dataclasses import replace

from prefect_stagegate.doors import PermittedOptions, Plugin, Source, options
from prefect_stagegate.sources.buckets import S3

_DELTA = f"{__name__}.delta:DeltaSource"

# Not by several processes: each would rewrite the files that have deleted rows.
DELTA = replace(S3, schemes=("delta+s3", "delta+s3a"), opener=_DELTA, extra="delta", is_stateless=False)
DELTA_FILES = Source("a Delta table in a folder", {}, schemes=("delta+file",), opener=_DELTA, extra="delta")
ICEBERG = Source(
    "an Iceberg source",
    options(
        value="type warehouse prefix scope audience resource namespace-separator snapshot-loading-mode locations "
        "rest.sigv4-enabled rest.signing-region rest.signing-name rest.sigv4.max-retries header.* "
        "client.region client.profile-name s3.region s3.profile-name s3.anonymous s3.resolve-region "
        "s3.force-virtual-addressing s3.connect-timeout s3.request-timeout adls.account-name adls.tenant-id "
        "adls.client-id adls.anon gcs.project-id gcs.oauth2.token-expires-at gcs.default-bucket-location hdfs.port "
        "hdfs.user glue.id glue.region glue.profile-name dynamodb.region dynamodb.profile-name "
        "hive.hive2-compatible hive.kerberos-authentication hive.kerberos-service-name",
        address="uri oauth2-server-uri s3.endpoint adls.account-host gcs.service.host hdfs.host glue.endpoint "
        "dynamodb.endpoint",
        file="ssl.cabundle",
        credential="token credential s3.access-key-id s3.secret-access-key s3.session-token client.access-key-id "
        "client.secret-access-key client.session-token adls.account-key adls.sas-token adls.sas-token.* "
        "adls.connection-string adls.client-secret adls.token gcs.oauth2.token glue.access-key-id "
        "glue.secret-access-key glue.session-token dynamodb.access-key-id dynamodb.secret-access-key "
        "dynamodb.session-token",
        ignored="init_catalog_tables schema_version",
    ),
    schemes=("iceberg",),
    opener=f"{__name__}.iceberg:IcebergSource",
    extra="iceberg",
)
ICEBERG_ANSWERS = PermittedOptions(
    "a catalog's answer",
    options(
        value="prefix namespace-separator client.region s3.region s3.force-virtual-addressing s3.resolve-region "
        "adls.account-name gcs.project-id gcs.oauth2.token-expires-at",
        address="uri s3.endpoint",
        credential="token s3.access-key-id s3.secret-access-key s3.session-token adls.sas-token adls.sas-token.* "
        "adls.token gcs.oauth2.token",
    ),
)
"""What a REST catalog may answer about itself and a table's store: no address that the user's own tokens would go to.

A table's own properties reach no library.
"""
ICEBERG_CATALOGS = ("http", "https", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "sqlite", "thrift")
"""How the `uri` of a catalog may begin; SQLAlchemy imports what others name."""
PLUGIN = Plugin(sources=(DELTA, DELTA_FILES, ICEBERG))
