"""Sources of objects: object stores, web servers, SFTP, directories, tables, and what fsspec reads."""

from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url
from prefect_stagegate.sources.registry import SCHEMES, open_source, register
from prefect_stagegate.sources.terms import Opener, Options, Recall, Terms
from prefect_stagegate.sources.wrappers.renewing import renewing

__all__ = [
    "SCHEMES",
    "BaseSource",
    "Opener",
    "Options",
    "Recall",
    "Source",
    "Terms",
    "Wanted",
    "everything",
    "open_source",
    "public_url",
    "register",
    "renewing",
]
