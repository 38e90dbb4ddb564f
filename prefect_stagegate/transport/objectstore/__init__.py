"""Object stores: the one package that imports obstore. Sources and object-store catalogs stand on it."""

from __future__ import annotations

from prefect_stagegate.transport.objectstore.explain import explain, refused
from prefect_stagegate.transport.objectstore.listed import ListedObject
from prefect_stagegate.transport.objectstore.s3_buckets import object_store_options, open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore.s3_options import S3Settings, translate
from prefect_stagegate.transport.objectstore.store import ObjectStore
from prefect_stagegate.transport.objectstore.stored_records import ObjectRecords

__all__ = [
    "ListedObject",
    "ObjectRecords",
    "ObjectStore",
    "S3Settings",
    "explain",
    "object_store_options",
    "open_s3",
    "parse_bucket_url",
    "refused",
    "translate",
]
