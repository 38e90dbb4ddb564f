"""Describe one version in Croissant 1.1, with its vocabulary of responsible AI: what hubs and loaders read.

    FileSet           the files of each ending, and those of each table
      └ RecordSet     the declared columns of a table
    FileObject        each file, where its bytes are read for their SHA-256

Paths are relative to the description, which is to lie in the version's folder or a copy of it. It is meant to be
published, so nothing of sources, owners or credentials is in it.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.model import Address, Entry
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.spec import Spec, TableSpec
from prefect_stagegate.spec.documentation import CreatorSpec, PublicationSpec, RaiSpec
from prefect_stagegate.spec.urls import is_url
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import Workspace

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
MOST_FILES = 1000
"""Files that are listed one by one."""
MOST_ENDINGS = 100
"""Sets of files by their ending."""
FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".jsonl": "application/jsonlines",
}
"""Media types that Python's table lacks, or has differently on each machine."""
UNKNOWN_FORMAT = "application/octet-stream"
DATA_TYPES = {
    **dict.fromkeys(("int", "tinyint", "smallint", "bigint"), "sc:Integer"),
    **dict.fromkeys(("float", "number", "decimal", "real", "double"), "sc:Float"),
    **{f"{sign}int{width}".lower(): f"cr:{sign}Int{width}" for sign in ("", "U") for width in (8, 16, 32, 64)},
    **{f"float{width}": f"cr:Float{width}" for width in (16, 32, 64)},
    "bool": "sc:Boolean",
    "boolean": "sc:Boolean",
    "string": "sc:Text",
    "varchar": "sc:Text",
    "date": "sc:Date",
    "time": "sc:Time",
    "timestamp": "sc:DateTime",
}
"""Croissant's type of each type of a column; columns of other types are left out of the record set."""
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "conformsTo": "dct:conformsTo",
    **{
        word: f"cr:{word}"
        for word in (
            *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes"),
            *("extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray"),
            *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "readLines", "recordSet", "references"),
            *("regex", "repeated", "replace", "samplingRate", "sdVersion", "separator", "source", "subField"),
            *("transform", "unArchive", "value"),
        )
    },
}
"""The context of Croissant 1.1, with PROV's prefix."""


def croissant(workspace: Workspace, address: Address, *, hashed: bool = False) -> dict[str, Any]:
    """Describe one version; JSON-LD as JSON values.

    Args:
        workspace: Cache and catalog.
        address: The version.
        hashed: Whether to list each file with the SHA-256 of this node's copy, which is read for it. Croissant lists
            no file without one, and manifests hold BLAKE3 digests.

    Raises:
        UsageError: There is no such version, no spec is stored beside it, or `hashed` and it has too many files.
        UnknownRef: `hashed`, and this node lacks the version.
    """
    digest = workspace.catalog.resolve(address)
    spec = stored_spec(workspace, address.dataset, digest)
    manifest = read_manifest(workspace.catalog, address.dataset, digest)
    if not hashed:
        return _description(spec, manifest, None)
    if manifest.files > MOST_FILES:
        problem = (
            f"{count_text(manifest.files, 'file')} are too many to list each with its SHA-256: {MOST_FILES:,} at most"
        )
        raise UsageError(problem, hint="Leave out --sha256.", dataset=address.dataset)
    with keep_dataset(workspace.cache, Address(address.dataset, digest), "croissant") as held:
        return _description(spec, manifest, held.path)


def _description(spec: Spec, manifest: Manifest, folder: Path | None) -> dict[str, Any]:
    tables = spec.contract.tables
    records = [_record_set(name, table) for name, table in tables.items()]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": spec.dataset,
        "conformsTo": list(CONFORMS_TO),
        **({"license": _license(spec.license)} if spec.license else {}),
        **_publication(spec.publication, manifest.digest),
        **_responsible(spec.rai),
        "distribution": [
            *_sets(manifest),
            # With a prefix, because the table's record set has the bare name as its id.
            *(_file_set(f"table/{name}", table.files, table.files) for name, table in tables.items()),
            *([_file(entry, folder) for entry in manifest.entries()] if folder else []),
        ],
        "recordSet": [record for record in records if record["field"]],
    }


# ── what people wrote ───────────────────────────────────────────────────────────────────────────────────────────


def _license(name: str) -> str:
    return f"https://spdx.org/licenses/{name}.html" if _SPDX.fullmatch(name) else name


def _publication(publication: PublicationSpec, digest: str) -> dict[str, Any]:
    # Croissant asks for semantic versions, whose build part is ours to fill.
    version = f"{publication.version or '0.0.0'}+{digest.replace(':', '.')}"
    values = {
        "description": publication.description,
        "url": publication.url,
        "creator": [_creator(creator) for creator in publication.creators],
        "datePublished": publication.published.isoformat() if publication.published else None,
        "citeAs": publication.citation,
        "keywords": list(publication.keywords),
    }
    return {"version": version, **{key: value for key, value in values.items() if value}}


def _creator(creator: CreatorSpec) -> dict[str, str]:
    kind = "sc:Person" if creator.kind == "person" else "sc:Organization"
    return {"@type": kind, "name": creator.name, **({"url": creator.url} if creator.url else {})}


def _responsible(rai: RaiSpec) -> dict[str, Any]:
    written = rai.model_dump(mode="json", exclude_defaults=True)
    derived, generated = written.pop("was_derived_from", []), written.pop("was_generated_by", [])
    activities = [{"@type": "prov:Activity", "prov:label": step} for step in generated]
    return {
        **{f"rai:{_camel(key)}": value for key, value in written.items()},
        **({"prov:wasDerivedFrom": list(map(_entity, derived))} if derived else {}),
        **({"prov:wasGeneratedBy": activities} if activities else {}),
    }


def _camel(key: str) -> str:
    """A key in the vocabulary's case.

    >>> _camel("data_social_impact")
    'dataSocialImpact'
    """
    first, *rest = key.split("_")
    return first + "".join(map(str.capitalize, rest))


def _entity(name: str) -> dict[str, str]:
    return {"@id": name} if is_url(name) else {"@type": "prov:Entity", "prov:label": name}


# ── files and tables ────────────────────────────────────────────────────────────────────────────────────────────


def _sets(manifest: Manifest) -> Iterator[dict[str, Any]]:
    endings: set[str] = set()
    for entry in manifest.entries():
        if len(endings) < MOST_ENDINGS:
            endings.add(PurePosixPath(entry.path).suffix)
    for ending in sorted(endings):
        yield _file_set(f"files/*{ending}", f"**/*{ending}", f"x{ending}")


def _file(entry: Entry, folder: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": _id(f"file/{entry.path}"),
        "name": PurePosixPath(entry.path).name,
        "contentUrl": entry.path,
        "contentSize": f"{entry.size} B",
        "encodingFormat": _format(entry.path),
        "sha256": _sha256(folder / entry.path),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(path: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    # By a made-up name, because `guess_type` takes a path with a colon for a URL.
    return FORMATS.get(ending) or mimetypes.guess_type(f"x{ending}", strict=False)[0] or UNKNOWN_FORMAT


def _file_set(name: str, glob: str, example: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": _id(name),
        "name": name,
        "encodingFormat": _format(example),
        "includes": glob,
    }


def _id(name: str) -> str:
    """A name as an id, in which loaders take no space, not even as `%20`.

    >>> _id("penguins/Culmen Length (mm)")
    'penguins/Culmen~20Length~20~28mm~29'
    """
    return re.sub(r"[^\w*/.-]", lambda match: f"~{ord(match[0]):x}", name)


def _record_set(name: str, table: TableSpec) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": _id(f"{name}/{column}"),
            "name": column,
            "dataType": DATA_TYPES[kind],
            "source": {"fileSet": {"@id": _id(f"table/{name}")}, "extract": {"column": column}},
        }
        for column, kind in table.columns.items()
        if kind in DATA_TYPES
    ]
    return {"@type": "cr:RecordSet", "@id": _id(name), "name": name, "field": fields}
