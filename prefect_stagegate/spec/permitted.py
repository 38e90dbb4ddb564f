"""The options that data may give to each library that reads a source: one table of names, by the source's scheme.

A spec, a stored spec, a block and a catalog's answer are checked against it, and a name that isn't here is refused. So
no data can name code to import, a program to run or a file to write: libraries take such names only from the user's own
configuration and environment, which aren't checked here.

Pure: reads no file and asks no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.spec.confidential import INSTEAD_OF_CREDENTIALS


class Kind(Enum):
    """What an option holds, and who may give it."""

    VALUE = auto()
    """A text, a number or a switch that stays in the library."""
    ADDRESS = auto()
    """A host or URL that the library connects to; `http.policy` refuses some of them."""
    FILE = auto()
    """A plain file of this machine that is read: a certificate authority, a key."""
    CREDENTIAL = auto()
    """A credential: a block may give it, a spec never."""
    BLOCK = auto()
    """Anything else that an operator's block may give, and a spec may not."""
    IGNORED = auto()
    """Changes nothing about an object's bytes: accepted, and passed to no library."""


VALUE, ADDRESS, FILE, CREDENTIAL, BLOCK, IGNORED = Kind


@dataclass(frozen=True, slots=True)
class Library:
    """A library that reads a family of sources, and the options that it may be given."""

    family: str
    """What messages call a source of this family."""
    options: Mapping[str, Kind]
    """By name: with dots for nesting, and `.*` for any names in a mapping."""

    def kind(self, name: str) -> Kind | None:
        """The kind of an option; None for one that nobody may give."""
        # `a.b` may be allowed as itself, or by `a.*`.
        wholes = (f"{name[:end]}.*" for end in range(len(name), 0, -1) if name[end : end + 1] in ("", "."))
        return next((self.options[key] for key in (name, *wholes) if key in self.options), None)

    def names(self, *kinds: Kind) -> frozenset[str]:
        """The names of the options of these kinds."""
        return frozenset(name for name, kind in self.options.items() if kind in kinds)

    def unknown(self, name: str) -> tuple[str, str]:
        """Say that no option has a name, and which option may be meant: the problem and its hint."""
        known = [known_name.removesuffix(".*") for known_name, kind in self.options.items() if kind is not IGNORED]
        return f"{name!r} is no option of {self.family}", did_you_mean(name, known)


def _options(**kinds: str) -> dict[str, Kind]:
    """The kind of each name, from texts of names by kind."""
    return {name: Kind[kind.upper()] for kind, names in kinds.items() for name in names.split()}


_OF_FSSPEC = (
    "asynchronous batch_size block_size blocksize cache_type default_block_size default_cache_type default_fill_cache "
    "fill_cache listings_expiry_time loop max_concurrency max_paths skip_instance_cache use_listings_cache"
)
"""Options of fsspec's file systems that change nothing about which bytes an object has."""

FILES = Library("a local folder", _options(value="recalls recall_timeout"))
S3 = Library(
    "an S3 source",
    _options(
        value="profile anon region client_kwargs.region_name addressing_style config_kwargs.s3.addressing_style "
        "use_ssl client_kwargs.use_ssl requester_pays etag_is_md5 "
        "config_kwargs.max_pool_connections config_kwargs.connect_timeout config_kwargs.read_timeout "
        "config_kwargs.retries.max_attempts config_kwargs.retries.mode config_kwargs.region_name "
        "config_kwargs.signature_version config_kwargs.tcp_keepalive config_kwargs.s3.use_accelerate_endpoint "
        "config_kwargs.s3.payload_signing_enabled config_kwargs.request_checksum_calculation "
        "config_kwargs.response_checksum_validation s3_additional_kwargs.RequestPayer "
        "s3_additional_kwargs.ExpectedBucketOwner s3_additional_kwargs.SSECustomerAlgorithm",
        address="endpoint_url client_kwargs.endpoint_url",
        file="verify client_kwargs.verify",
        credential="key secret token username password client_kwargs.aws_access_key_id "
        "client_kwargs.aws_secret_access_key client_kwargs.aws_session_token s3_additional_kwargs.SSECustomerKey",
        block="config_kwargs.*",
        ignored=f"{_OF_FSSPEC} cache_regions fixed_upload_size version_aware",
    ),
)
GCS = Library(
    "a Google Cloud Storage source",
    _options(
        value="anon project requester_pays",
        address="endpoint_url",
        file="verify",
        credential="token token.*",
        ignored=f"{_OF_FSSPEC} access cache_timeout check_connection consistency default_location secure_serialize "
        "session_kwargs session_kwargs.* timeout version_aware",
    ),
)
AZURE = Library(
    "an Azure source",
    _options(
        value="account_name client_id tenant_id anon",
        address="account_host endpoint_url",
        file="verify",
        credential="account_key sas_token connection_string client_secret",
        ignored=f"{_OF_FSSPEC} assume_container_exists connection_timeout location_mode read_timeout socket_timeout "
        "timeout version_aware",
    ),
)
WEB = Library(
    "a web source",
    _options(
        value="username headers.* client_kwargs.headers.* manifest",
        file="verify",
        credential="password token",
        ignored=f"{_OF_FSSPEC} encoded same_scheme simple_links size_policy",
    ),
)
HUB = Library("the hub", _options(address="endpoint", credential="token"))
OCI = Library(
    "an OCI registry",
    _options(value="plain_http username token_server", file="verify", credential="password token"),
)
SFTP = Library(
    "an SFTP source",
    _options(value="port username", address="host", file="key_filename known_hosts", credential="password passphrase"),
)
SQL = Library(
    "a SQL source",
    _options(
        value="query order_by partition_by partitions numeric numeric.* statement_timeout user username",
        credential="password",
    ),
)
SQL_PARAMETERS = Library(
    "the URL of a SQL source",
    _options(
        value="application_name channel_binding connect_timeout gssencmode host krbsrvname service sslmode "
        "target_session_attrs",
        file="sslcert sslcrl sslkey sslrootcert",
    ),
)
"""libpq's parameters that a URL may have. The others are set by us, hold credentials or name other servers."""
HDFS = Library(
    "an HDFS source",
    _options(
        value="dfs.client.use.datanode.hostname dfs.client.socket-timeout dfs.client.failover.random.order "
        "dfs.client.failover.max.attempts dfs.client.failover.resolve-needed dfs.client.failover.resolver.useFQDN "
        "dfs.client.failover.sleep.base.millis dfs.client.failover.sleep.max.millis dfs.data.transfer.protection "
        "dfs.nameservices dfs.ha.namenodes.* hadoop.security.authentication",
        address="dfs.namenode.rpc-address.*",
    ),
)
ICEBERG = Library(
    "an Iceberg source",
    _options(
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
)
ICEBERG_ANSWERS = Library(
    "a catalog's answer",
    _options(
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
FTP = Library(
    "an FTP source",
    _options(
        value="port username acct timeout tls encoding", address="host", credential="password", ignored=_OF_FSSPEC
    ),
)
MEMORY = Library("a source in memory", _options(ignored=_OF_FSSPEC))
DELTA_FILES = Library("a Delta table in a folder", {})
FSSPEC = Library(
    "a source that fsspec reads",
    _options(
        value="port user username account project region anon timeout use_https use_ssl tls encoding",
        address="host endpoint endpoint_url base_url",
        credential="key secret token password auth",
        ignored=_OF_FSSPEC,
    ),
)
"""For file systems of fsspec that only ask a server, and for those that an installed package brings."""

LIBRARIES: Mapping[str, Library] = {
    **dict.fromkeys(("", "file", "local"), FILES),
    **dict.fromkeys(("s3", "s3a", "delta+s3", "delta+s3a"), S3),
    **dict.fromkeys(("gs", "gcs"), GCS),
    **dict.fromkeys(("az", "abfs", "abfss"), AZURE),
    **dict.fromkeys(("http", "https", "webdav+http", "webdav+https"), WEB),
    **dict.fromkeys(("sftp", "ssh"), SFTP),
    **dict.fromkeys(("postgresql", "postgres"), SQL),
    "delta+file": DELTA_FILES,
    "ftp": FTP,
    "hdfs": HDFS,
    "hf": HUB,
    "iceberg": ICEBERG,
    "memory": MEMORY,
    "oci": OCI,
}
"""The library of each scheme. Other schemes are read by an installed package's adapter, by fsspec, or not at all."""
BY_FSSPEC = (
    "box",
    "dbfs",
    "dropbox",
    "ftp",
    "gdrive",
    "lakefs",
    "memory",
    "oss",
    "s3",
    "s3a",
    "smb",
    "tos",
    "webdav",
    "webhdfs",
)
"""The schemes that fsspec may read: their file systems ask a server, write no file and wrap no other file system."""

DOCUMENT_SCHEMES = ("abfs", "abfss", "az", "ftp", "gcs", "gs", "hdfs", "memory", "s3", "s3a", "sftp", "ssh")
"""The schemes of fsspec's by which a spec or suite may be read, beside http and https."""


def scheme_of(url: str) -> str:
    """The text before `://`, in lower case; empty for a path.

    >>> scheme_of("S3://lake/"), scheme_of("/mnt/nas/")
    ('s3', '')
    """
    return url.partition("://")[0].lower() if "://" in url else ""


def flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each option that is not None, with dots for nesting.

    >>> list(flat({"ssl": {"cabundle": "/etc/ca.pem"}, "port": None}))
    [('ssl.cabundle', '/etc/ca.pem')]
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def chain_problem(url: str) -> str:
    """Say why a URL of fsspec's chained file systems is refused; empty for any other URL."""
    scheme = scheme_of(url)
    # The chain stands before the scheme in `simplecache::s3://…`, and behind it in `zip://a::s3://…`.
    if "::" in scheme or ("::" in url and scheme not in LIBRARIES):
        return "chains file systems, which may write files; use the URL of the data itself, or unpack the archive first"
    return ""


def spec_problems(url: str, options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the options that a spec may not give to a source: the place of each, and the reason.

    All options pass for a scheme that another package reads.
    """
    library = LIBRARIES.get(scheme_of(url))
    if library is None:
        return
    for path, name, value in _places(options):
        kind = library.kind(name)
        if kind is None:
            problem, hint = library.unknown(name)
            yield path, f"{problem.partition(' ')[2]}; {hint}"
        elif kind is BLOCK:
            yield path, "is allowed in a Prefect block only; name one under `credentials:`"
        # A switch or a null under a credential's name, such as `token: false`, holds no secret.
        elif kind is CREDENTIAL and value is not None and not isinstance(value, bool):
            yield path, f"looks like a credential; {INSTEAD_OF_CREDENTIALS}"


def _places(
    options: Mapping[str, Any], path: tuple[str, ...] = (), prefix: str = ""
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _places(value, (*path, name), f"{prefix}{name}.")
        else:
            yield (*path, name), f"{prefix}{name}", value
