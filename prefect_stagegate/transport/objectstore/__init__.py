"""Object stores, over the one HTTP client. Sources and object-store catalogs stand on it."""

from __future__ import annotations

from prefect_stagegate.transport.objectstore.object_requests import ListedObject
from prefect_stagegate.transport.objectstore.s3_buckets import open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore.s3_options import S3Settings, translate
from prefect_stagegate.transport.objectstore.store import ObjectStore
from prefect_stagegate.transport.objectstore.stored_records import ObjectRecords

__all__ = [
    "ListedObject",
    "ObjectRecords",
    "ObjectStore",
    "S3Settings",
    "open_s3",
    "parse_bucket_url",
    "translate",
]
