"""File systems of fsspec."""

from prefect_stagegate.doors import Source, options

IGNORED = (
    "asynchronous batch_size block_size blocksize cache_type default_block_size default_cache_type default_fill_cache "
    "fill_cache listings_expiry_time loop max_concurrency max_paths skip_instance_cache use_listings_cache"
)
"""Options of fsspec's file systems that change nothing about which bytes an object has."""
_OPENER = "prefect_stagegate.sources.fsspec.fsspec_source:FsspecSource"

FTP = Source(
    "an FTP source",
    options(value="port username acct timeout tls encoding", address="host", credential="password", ignored=IGNORED),
    schemes=("ftp",),
    opener=_OPENER,
)
MEMORY = Source("a source in memory", options(ignored=IGNORED), schemes=("memory",), opener=_OPENER)
FSSPEC = Source(
    "a source that fsspec reads",
    options(
        value="port user username account project region anon timeout use_https use_ssl tls encoding",
        address="host endpoint endpoint_url base_url",
        credential="key secret token password auth",
        ignored=IGNORED,
    ),
    schemes=("box", "dbfs", "dropbox", "gdrive", "lakefs", "oss", "smb", "tos", "webdav", "webhdfs"),
    opener=_OPENER,
)
"""These file systems only ask a server: they write no file and wrap no other file system. An installed package's
adapter goes before them, and its own file systems for fsspec take these options."""
SOURCES = (FTP, MEMORY)
