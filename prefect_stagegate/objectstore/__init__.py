"""Object stores: the one package that imports obstore. Sources and object-store catalogs stand on it."""

from __future__ import annotations

from prefect_stagegate.objectstore.explain import explain, explain_response, refused
from prefect_stagegate.objectstore.foreign import texts
from prefect_stagegate.objectstore.listed import Listed
from prefect_stagegate.objectstore.options import S3Settings, translate
from prefect_stagegate.objectstore.records import ObjectRecords
from prefect_stagegate.objectstore.s3 import open_s3, s3_place
from prefect_stagegate.objectstore.store import ObjectStore, Place, memory_store

__all__ = [
    "Listed",
    "ObjectRecords",
    "ObjectStore",
    "Place",
    "S3Settings",
    "explain",
    "explain_response",
    "memory_store",
    "open_s3",
    "refused",
    "s3_place",
    "texts",
    "translate",
]
