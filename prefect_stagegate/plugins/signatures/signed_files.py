"""OpenSSF Model Signing's statement about files: an in-toto Statement that lists their names and digests.

    subject              one name, and SHA-256 over the digests of all files, in their order
    predicate.resources  name, algorithm and digest of each file
    predicate.serialization    how they were hashed, and which paths were left out

https://github.com/ossf/model-signing-spec is the specification; this is its version 1.0, for whole files. What a
statement says comes from whoever signed it, so names and digests are checked before anything is done with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.model.manifest import path_problem

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
DIGITS = {"sha256": 64, "blake2b": 128, "blake3": 64}
"""The algorithms that the format has for files, with the hex digits of each digest."""
LEFT_OUT = (".git", ".gitattributes", ".github", ".gitignore")
"""What the reference command neither signs nor verifies, unless it is told to: paths, or the folders they lie in."""


M = TypeVar("M", bound=BaseModel)


class SignatureRefused(Exception):
    """A signature that proves nothing, with the reason as its text."""


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """The files that a statement is about."""

    algorithm: str
    """A key of `DIGITS`."""
    digests: Mapping[str, str]
    """The digest of each file in hex, by its path."""


class _Resource(BaseModel):
    name: str
    algorithm: str
    digest: str


class _Serialization(BaseModel):
    method: str
    hash_type: str


class _Predicate(BaseModel):
    serialization: _Serialization
    resources: list[_Resource] = Field(min_length=1)


class _Digests(BaseModel):
    sha256: str


class _Subject(BaseModel):
    digest: _Digests


class _Head(BaseModel):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: str = Field(alias="predicateType")


class _Statement(BaseModel):
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicate: _Predicate


def is_left_out(path: str, left_out: Iterable[str]) -> bool:
    """Whether a path is one of `left_out`, or lies in one of them.

    >>> [is_left_out(path, (".git",)) for path in (".git", ".git/config", ".gitignore", "a/.git")]
    [True, True, False, False]
    """
    return any(path == name or path.startswith(name + "/") for name in left_out)


def write_statement(name: str, algorithm: str, digests: Iterable[tuple[str, str]]) -> bytes:
    """Write the statement about files.

    Args:
        name: What the files are together; verifiers only show it.
        algorithm: A key of `DIGITS`.
        digests: The path and the digest in hex of each file, sorted by path; none of them is left out.
    """
    resources = [{"name": path, "algorithm": algorithm, "digest": digest} for path, digest in digests]
    root = _root(resource["digest"] for resource in resources)
    serialization = {
        "method": "files",
        "hash_type": algorithm,
        "allow_symlinks": False,
        "ignore_paths": list(LEFT_OUT),
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": serialization, "resources": resources},
    }
    return canonical(statement)


def read_statement(payload: bytes) -> SignedFiles:
    """Read a statement about files.

    Raises:
        SignatureRefused: It is no such statement, or one whose names or digests can't be those of a dataset's files.
    """
    predicate_type = _parsed(_Head, payload).predicate_type
    if predicate_type != PREDICATE_TYPE:
        raise SignatureRefused(f"it signs {predicate_type[:200]!r}, and not files ({PREDICATE_TYPE})")
    statement = _parsed(_Statement, payload)
    resources, how = statement.predicate.resources, statement.predicate.serialization
    if how.method != "files":
        raise SignatureRefused(f"it is over {how.method[:200]!r} instead of whole files, which is not supported")
    if how.hash_type not in DIGITS:
        raise SignatureRefused(f"it is by {how.hash_type[:200]!r}; known: {', '.join(DIGITS)}")
    digests: dict[str, str] = {}
    for resource in resources:
        if problem := _problem(resource, how.hash_type, digests):
            raise SignatureRefused(f"it lists {resource.name[:200]!r}: {problem}")
        digests[resource.name] = resource.digest
    if _root(digests.values()) != statement.subject[0].digest.sha256:
        raise SignatureRefused("its subject is not the digest of the files that it lists")
    return SignedFiles(how.hash_type, digests)


def _problem(resource: _Resource, algorithm: str, digests: Mapping[str, str]) -> str:
    """Why a statement can't list this file; empty when it can."""
    if problem := path_problem(resource.name):
        return problem
    if resource.name in digests:
        return "it is there twice"
    if resource.algorithm != algorithm:
        return f"its digest is by {resource.algorithm[:200]!r}, and the others are by {algorithm}"
    if len(resource.digest) != DIGITS[algorithm] or set(resource.digest) - set("0123456789abcdef"):
        return f"its digest is no {algorithm}"
    return ""


def _root(digests: Iterable[str]) -> str:
    root = hashlib.sha256()
    for digest in digests:
        root.update(bytes.fromhex(digest))
    return root.hexdigest()


def _parsed(model: type[M], payload: bytes) -> M:
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise SignatureRefused(f"its statement can't be read: {place}: {first['msg'][:200]}") from error
