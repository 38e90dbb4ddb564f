"""The STAGEGATE_* settings: one visible table, read once from the environment.

Only the standard library is imported here: short commands load this module.
"""
# ruff: noqa: RUF009 - `_setting` makes fields, not defaults

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.model import DIGEST
from prefect_stagegate.units import parse_rate, parse_size

T = TypeVar("T")
PEER_URL = r"https?://[^/@?#\s]+"
"""What the URL of a node's blob server looks like; records of other nodes are compared with it, too."""
PREFIX = "STAGEGATE_"
EXEC_VARIABLES = ("STAGEGATE_DATASET_PATH", "STAGEGATE_DATASET_DIGEST")
"""Not settings: `stagegate exec` sets them for its command, which may be a `stagegate` again and must accept them."""
ONE_CACHE = (
    "a node has one cache: join its disks by RAID or LVM, or make each a node by STAGEGATE_NODE and STAGEGATE_CACHE"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: a field of `Settings`, with what its documentation says."""

    field: str
    """The field's name; the variable is its upper case behind `STAGEGATE_`."""
    default: str
    """What an unset or empty variable means, as a user would write it."""
    values: str
    """Unit and bounds, for people."""
    meaning: str
    read: Callable[[str], Any]
    """Turns the variable's text into the field's value; raises ValueError with the reason."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.field.upper()


# The readers of settings. An empty text reaches only those of settings whose default is empty.


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        # `isdigit` alone accepts digits of other scripts, and `int` very long texts.
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(low: int, high: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            # NaN is within no bounds, so that the test below reports text, too.
            seconds = float("nan")
        if not low <= seconds <= high:
            raise ValueError(f"{text!r} is not a number of seconds from {low} to {high}")
        return seconds

    return read


def _size(low: str, high: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        size = parse_size(text)
        if not parse_size(low) <= size <= parse_size(high):
            raise ValueError(f"{text!r} is not between {low} and {high}")
        return size

    return read


def _share(high: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            percent = float(text.removesuffix("%"))
        except ValueError:
            percent = float("nan")
        if not 0 <= percent <= high:
            raise ValueError(f"{text!r} is not a percentage from 0% to {high}%")
        return percent / 100

    return read


def _optional(read: Callable[[str], T]) -> Callable[[str], T | None]:
    return lambda text: read(text) if text else None


def _durability(text: str) -> Durability:
    try:
        return Durability(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(Durability)}") from None


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _folder_or_url(text: str) -> str:
    return text if "://" in text else str(_folder(text))


def _node(text: str) -> str:
    if text and not NODE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a node: letters, digits, `.`, `_` and `-`, at most 253")
    return text or platform.node()


def _image_digest(text: str) -> str:
    digest = text.rpartition("@")[2]
    if digest and not DIGEST.fullmatch(digest):
        raise ValueError(
            f"{text!r} is no digest: write sha256: and 64 hexadecimal digits. A tag is not enough, since it may move"
        )
    return digest


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if wildcards := [name for name in names if name.startswith("*")]:
        raise ValueError(f"{wildcards[0]!r} begins with *, which would match too many names")
    return names


def _web_address(text: str) -> str:
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("holds credentials, which every link to a report would show")
    return text


def _peer_url(text: str) -> str:
    if text and not re.fullmatch(PEER_URL, text):
        raise ValueError("is no address of a server: write http://HOST:PORT, without a user and a path")
    return text


def _spark(text: str) -> str:
    if text and not _SPARK.fullmatch(text):
        raise ValueError(
            "is none of local, local[N], spark://HOST:PORT[,HOST:PORT], sc://HOST:PORT. "
            "A token for Spark Connect belongs into SPARK_CONNECT_AUTHENTICATE_TOKEN"
        )
    return text


NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
"""A node's name."""
_SERVER = r"[A-Za-z0-9.\-\[\]:]+"
_SPARK = re.compile(
    rf"local(\[([0-9]{{1,4}}|\*)\])?|spark://{_SERVER}(,{_SERVER}){{0,9}}|sc://{_SERVER}(/;use_ssl=(true|false))?"
)


def _setting(default: str, values: str, meaning: str, read: Callable[[str], Any]) -> Any:
    """A required field of `Settings`; `SETTINGS` makes a `Setting` of its metadata."""
    return field(metadata={"default": default, "values": values, "meaning": meaning, "read": read})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the STAGEGATE_* variables say: each field with its default, values, meaning and reader."""

    cache: Path = _setting(
        "$XDG_CACHE_HOME/stagegate", "a folder", "This node's cache, on a volume near its GPUs.", _folder
    )
    catalog: str = _setting(
        "$XDG_DATA_HOME/stagegate/catalog",
        "a folder or an object store's URL",
        "The catalog that all environments share.",
        _folder_or_url,
    )
    identity: str = _setting("", "text", "A name to act under in place of the system's user; it proves nothing.", str)
    """Empty when none is declared."""
    node: str = _setting(
        "",
        "text",
        "This node's name in records and limits, where the host's name isn't it, as in a container.",
        _node,
    )
    node_timeout: float = _setting(
        "300",
        "10 to 86400 seconds",
        "Seconds after which a node's record counts as unknown; the node's agent writes it three times as often.",
        _seconds(10, 86_400),
    )
    site: str = _setting(
        "", "text", "Nodes of one site read blobs from one another; without it, this node asks no other.", str
    )
    peer_url: str = _setting(
        "",
        "`http://HOST:PORT` or `https://HOST:PORT`",
        "Where this node's blob server answers other nodes of the site.",
        _peer_url,
    )
    """Empty where no blob server runs."""
    peer_token_file: Path | None = _setting(
        "",
        "a file that others can't read",
        "Holds the token that the nodes of a site show one another's blob servers; the same on all of them.",
        _optional(_folder),
    )
    peer_hosts: tuple[str, ...] = _setting(
        "",
        "names (with those below them), addresses or networks, with commas; `http://` before those without TLS",
        "Hosts of the site's blob servers: the token goes to no other, and without TLS only behind `http://`.",
        _names,
    )
    peer_certificate: Path | None = _setting(
        "",
        "a PEM file with certificate and key",
        "What this node shows other nodes of the site, as their server and as their client.",
        _optional(_folder),
    )
    peer_ca: Path | None = _setting(
        "",
        "a PEM file",
        "The authority of the site's certificates; with it, the blob server asks each client for one.",
        _optional(_folder),
    )
    peer_bandwidth: int | None = _setting(
        "",
        "64KiB/s to 1TiB/s",
        "Bytes a second that the blob server sends to all nodes together; without it, as many as they take.",
        _optional(lambda text: parse_rate(text, "64KiB", "1TiB")),
    )
    """None for no limit."""
    image_digest: str = _setting(
        "",
        "sha256:…, or a reference by digest",
        "The digest of the container image that this runs in, which a container can't find out by itself.",
        _image_digest,
    )
    """`sha256:<hex>`; empty when none is set."""
    variables: tuple[str, ...] = _setting(
        "",
        "names with commas between, `*` for any rest",
        "Environment variables to compare between environments, beside those that always are.",
        _names,
    )
    spark: str = _setting(
        "",
        "`local[N]`, `spark://HOST:PORT` or `sc://HOST:PORT`",
        "Where tables with `engine: spark` are judged; without it, in a Java process of this node's own.",
        _spark,
    )
    """Empty for this node; a cluster must see the cache under the same path."""
    objects_in_flight: int = _setting(
        "64", "1 to 1024", "Objects of one source that are fetched at the same time, at most.", _whole(1, 1024)
    )
    part_size: int = _setting(
        "8MiB",
        "64KiB to 1GiB",
        "Bytes of one ranged read; larger objects are fetched in parts of this size.",
        _size("64KiB", "1GiB"),
    )
    memory: int = _setting(
        "64MiB",
        "1MiB to 1TiB, at least one part",
        "Bytes that all parts in flight may hold together.",
        _size("1MiB", "1TiB"),
    )
    durability: Durability = _setting(
        "batch",
        "full, batch or none",
        "When what is staged survives a power cut: each blob, each version, or never.",
        _durability,
    )
    max_size: int | None = _setting(
        "",
        "64MiB to 1000TiB",
        "Bytes that the cache may hold; without it, as many as the volume has.",
        _optional(_size("64MiB", "1000TiB")),
    )
    """None for no limit but the volume's."""
    free_floor: float = _setting(
        "5%",
        "0% to 50%",
        "Share of the cache's volume that staging leaves free; 16 MiB, or a twentieth of a small volume, at least.",
        _share(50),
    )
    """From 0.0 to 0.5."""
    free_warning: float = _setting(
        "15%",
        "0% to 100%",
        "Free share of the cache's volume, the floor at least, below which tasks emit `stagegate.cache.nearly_full`.",
        _share(100),
    )
    """From 0.0 to 1.0."""
    expiry_warning: float = _setting(
        "20%",
        "0% to 100%",
        "Share of the life of an acceptance's evidence that is left when `stagegate status` says that it ends soon.",
        _share(100),
    )
    """From 0.0 to 1.0."""
    verify_rate: int | None = _setting(
        "",
        "1MB/s to 1TB/s",
        "Bytes a second that verifying reads; without it, as fast as the volume gives them.",
        _optional(parse_rate),
    )
    """None for no limit."""
    retries: int = _setting(
        "400",
        "0 to 100000",
        "Retries that one source is granted in a run, over all of its objects.",
        _whole(0, 100_000),
    )
    bandwidth: int | None = _setting(
        "",
        "64KiB/s to 1TiB/s",
        "Bytes a second that one process reads from one server; without it, as many as come.",
        _optional(lambda text: parse_rate(text, "64KiB", "1TiB")),
    )
    """None for no limit."""
    connections: int | None = _setting(
        "",
        "1 to 1024",
        "Reads at a time that one process makes at one server; without it, as many as objects are in flight.",
        _optional(_whole(1, 1024)),
    )
    idle_timeout: float = _setting(
        "30",
        "1 to 3600 seconds",
        "Seconds without a byte after which a read is given up and retried, and another stager waited for no longer.",
        _seconds(1, 3600),
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "",
        "names or addresses, with commas",
        "Hosts that sources may have though their addresses are link-local or a cloud's metadata service.",
        _names,
    )
    max_entries: int = _setting(
        "10000000",
        "1 to 1000000000",
        "Files and folders that one listing of a tree of folders looks at, at most: what has no end stops there.",
        _whole(1, 1_000_000_000),
    )
    slot_wait: float = _setting(
        "3600",
        "1 to 604800 seconds",
        "Seconds that a transfer waits for a free slot of its concurrency limits before it gives up.",
        _seconds(1, 604_800),
    )
    validation_memory: int = _setting(
        "8GiB",
        "1GiB to 1TiB",
        "Bytes of memory that the process which judges tables may take, at most those of this process' control group; "
        "DuckDB spills to disk beyond an eighth of it.",
        _size("1GiB", "1TiB"),
    )
    validation_timeout: float = _setting(
        "3600",
        "1 to 604800 seconds",
        "Seconds that judging the tables of one version may take.",
        _seconds(1, 604_800),
    )
    validation_scratch: Path | None = _setting(
        "",
        "a folder",
        "Where judging tables spills what exceeds its memory; without it, the system's folder of temporary files.",
        _optional(_folder),
    )
    validation_spill: int = _setting(
        "64GiB",
        "64MiB to 1000TiB",
        "Bytes that judging the tables of one version may spill there.",
        _size("64MiB", "1000TiB"),
    )
    signing_key: Path | None = _setting(
        "", "a PEM file", "An Ed25519 key that signs each decision; nothing is signed without it.", _optional(_folder)
    )
    verification_keys: tuple[str, ...] = _setting(
        "",
        "`ed25519:…` or PEM files, with commas between",
        "Public keys whose signatures prove an attestation.",
        _names,
    )
    reports: Path | None = _setting(
        "", "a folder", "Where `check_readiness` keeps its HTML reports; none are kept without it.", _optional(_folder)
    )
    reports_url: str = _setting(
        "", "a URL", "Where a web server shows that folder; without it, links are the files' own.", _web_address
    )
    pages_url: str = _setting(
        "", "a URL", "Where `stagegate serve` shows the catalog's pages; what runs show links to them.", _web_address
    )
    pages_bind: str = _setting("127.0.0.1:8445", "HOST:PORT", "Where `stagegate serve` listens.", str)
    pages_base_path: str = _setting(
        "",
        "a path",
        "The path below which `stagegate serve` shows the pages; without it, that of STAGEGATE_PAGES_URL.",
        str,
    )
    pages_token_file: Path | None = _setting(
        "",
        "a file that others can't read",
        "Holds the token that readers of the pages give as their password; without it, none is asked for.",
        _optional(_folder),
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; variables that are unset or empty take their defaults.

        Raises:
            UsageError: A variable has a bad value, or no setting has its name. The error names them all.
        """
        problems = list(_unknown(environ))
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = environ.get(setting.variable) or _default(setting, environ)
            try:
                values[setting.field] = setting.read(text)
            except (ValueError, RuntimeError) as error:  # RuntimeError: `~` of a user without a home
                problems.append(f"{setting.variable}: {error}")
        # Only together do these mean something, so they are compared once all are read.
        if not problems and values["memory"] < values["part_size"]:
            problems.append("STAGEGATE_MEMORY: is less than STAGEGATE_PART_SIZE, so no part would fit")
        if problems:
            raise UsageError("The settings in the environment are wrong: " + "; ".join(problems))
        return cls(**values)


SETTINGS = tuple(Setting(entry.name, **entry.metadata) for entry in fields(Settings))
"""All settings, in the order of the fields."""


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = [setting.variable for setting in SETTINGS]
    return [
        f"{name}: "
        + (ONE_CACHE if name == "STAGEGATE_VOLUMES" else f"no setting has this name; {did_you_mean(name, known)}")
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in (*known, *EXEC_VARIABLES)
    ]


def _default(setting: Setting, environ: Mapping[str, str]) -> str:
    """Put the user's folders into the default; the XDG rules ignore relative ones."""
    folders = {"$XDG_CACHE_HOME": "~/.cache", "$XDG_DATA_HOME": "~/.local/share"}
    text = setting.default
    for variable, fallback in folders.items():
        given = environ.get(variable[1:], "")
        text = text.replace(variable, given if Path(given).is_absolute() else fallback)
    return text
