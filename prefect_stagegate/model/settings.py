"""The STAGEGATE_* settings, which are read once from the environment: the core's, and how others declare theirs.

Only the standard library is imported here and where settings are declared: short commands load them.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from prefect_stagegate.doors import Plugin, load, own_plugins, plugins
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.model.naming import DIGEST
from prefect_stagegate.units import parse_rate, parse_size

T = TypeVar("T")
PREFIX = "STAGEGATE_"
EXEC_VARIABLES = ("STAGEGATE_DATASET_PATH", "STAGEGATE_DATASET_DIGEST")
"""Not settings: `stagegate exec` sets them for its command, which may be a `stagegate` again and must accept them."""
ONE_CACHE = (
    "a node has one cache: join its disks by RAID or LVM, or make each a node by STAGEGATE_NODE and STAGEGATE_CACHE"
)
CORE = (
    "prefect_stagegate.transport.transfer_limits:Limits",
    "prefect_stagegate.validations.worker.process_limits:ValidationLimits",
)
"""Settings that rooms of the core declare."""

NODE_NAME = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,253}")
"""A node's name, by which files are named."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, with what its documentation says."""

    field: str
    """The field's name in its class."""
    variable: str
    """The environment variable that sets it."""
    default: str
    """What an unset or empty variable means, as a user would write it."""
    values: str
    """Unit and bounds, for people."""
    meaning: str
    read: Callable[[str], Any]
    """Turns the variable's text into the field's value; raises ValueError with the reason."""


def setting(default: str, values: str, meaning: str, read: Callable[[str], Any], *, name: str = "") -> Any:
    """A field of a frozen dataclass of settings; its variable is STAGEGATE_<NAME>, by default the field's name."""
    metadata = {"name": name, "default": default, "values": values, "meaning": meaning, "read": read}
    # What stands for a folder of the user's is read with the environment alone.
    return field(metadata=metadata) if "$" in default else field(default=read(default), metadata=metadata)


def settings_in(declared: type) -> list[Setting]:
    """The settings that a dataclass declares, in the order of its fields."""
    return [
        Setting(entry.name, PREFIX + (facts.pop("name") or entry.name).upper(), **facts)
        for entry in fields(declared)
        if (facts := dict(entry.metadata))
    ]


def declared_settings(by: Iterable[Plugin]) -> list[type]:
    """The dataclasses of settings of the core and of plugins."""
    found: list[type] = [Settings]
    for place in (*CORE, *(plugin.settings for plugin in by if plugin.settings)):
        try:
            found.append(load(place))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
            log.warning("the settings %s can't be loaded: %s: %s", place, type(error).__name__, error)
    return found


# Readers of settings. An empty text reaches only those of settings whose default is empty.


def whole(low: int, high: int) -> Callable[[str], int]:
    """Read a whole number within bounds."""

    def read(text: str) -> int:
        # `isdigit` alone accepts digits of other scripts, and `int` very long texts.
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def seconds(low: int, high: int) -> Callable[[str], float]:
    """Read a number of seconds within bounds."""

    def read(text: str) -> float:
        if not low <= (number := _number(text)) <= high:
            raise ValueError(f"{text!r} is not a number of seconds from {low} to {high}")
        return number

    return read


def share(high: int) -> Callable[[str], float]:
    """Read a percentage up to a bound, as a share of 1."""

    def read(text: str) -> float:
        if not 0 <= (percent := _number(text.removesuffix("%"))) <= high:
            raise ValueError(f"{text!r} is not a percentage from 0% to {high}%")
        return percent / 100

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # is within no bounds


def size(low: str, high: str) -> Callable[[str], int]:
    """Read a size within bounds: `8MiB`."""

    def read(text: str) -> int:
        if not parse_size(low) <= (count := parse_size(text)) <= parse_size(high):
            raise ValueError(f"{text!r} is not between {low} and {high}")
        return count

    return read


def rate(low: str, high: str) -> Callable[[str], int]:
    """Read bytes a second within bounds: `200MB/s`."""
    return lambda text: parse_rate(text, low, high)


def optional(read: Callable[[str], T]) -> Callable[[str], T | None]:
    """Read an empty text as None."""
    return lambda text: read(text) if text else None


def folder(text: str) -> Path:
    """Read a path; a relative one is below the working folder, `~` is the user's home."""
    return Path(text).expanduser().absolute()


def names(text: str) -> tuple[str, ...]:
    """Read words with commas between."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if wildcards := [word for word in words if word.startswith("*")]:
        raise ValueError(f"{wildcards[0]!r} begins with *, which would match too many names")
    return words


def _durability(text: str) -> Durability:
    try:
        return Durability(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(Durability)}") from None


def _node(text: str) -> str:
    if text and not NODE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a node: letters, digits, `_`, `-` and `.` between, at most 253")
    return text or platform.node()


def _image_digest(text: str) -> str:
    digest = text.rpartition("@")[2]
    if digest and not DIGEST.fullmatch(digest):
        raise ValueError(
            f"{text!r} is no digest: write sha256: and 64 hexadecimal digits. A tag is not enough, since it may move"
        )
    return digest


def _web_address(text: str) -> str:
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("holds credentials, which every link to a report would show")
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the core. Its transfers and validations, and plugins, declare theirs beside what they bound."""

    cache: Path = setting(
        "$XDG_CACHE_HOME/stagegate", "a folder", "This node's cache, on a volume near its GPUs.", folder
    )
    catalog: str = setting(
        "$XDG_DATA_HOME/stagegate/catalog",
        "a folder or an object store's URL",
        "The catalog that all environments share.",
        lambda text: text if "://" in text else str(folder(text)),
    )
    identity: str = setting("", "text", "A name to act under in place of the system's user; it proves nothing.", str)
    node: str = setting(
        "", "text", "This node's name in records and limits, where the host's name isn't it, as in a container.", _node
    )
    image_digest: str = setting(
        "",
        "sha256:…, or a reference by digest",
        "The digest of the container image that this runs in, which a container can't find out by itself.",
        _image_digest,
    )
    """`sha256:<hex>`; empty when none is set."""
    variables: tuple[str, ...] = setting(
        "",
        "names with commas between, `*` for any rest",
        "Environment variables to compare between environments, beside those that always are.",
        names,
    )
    durability: Durability = setting(
        "batch",
        "full, batch or none",
        "When what is staged survives a power cut: each blob, each version, or never.",
        _durability,
    )
    max_size: int | None = setting(
        "",
        "64MiB to 1000TiB",
        "Bytes that the cache may hold; without it, as many as the volume has.",
        optional(size("64MiB", "1000TiB")),
    )
    free_floor: float = setting(
        "5%",
        "0% to 50%",
        "Share of the cache's volume that staging leaves free; 16 MiB, or a twentieth of a small volume, at least.",
        share(50),
    )
    free_warning: float = setting(
        "15%",
        "0% to 100%",
        "Free share of the cache's volume, the floor at least, below which tasks emit `stagegate.cache.nearly_full`.",
        share(100),
    )
    expiry_warning: float = setting(
        "20%",
        "0% to 100%",
        "Share of the life of an acceptance's evidence that is left when `stagegate status` says that it ends soon.",
        share(100),
    )
    verify_rate: int | None = setting(
        "",
        "1MB/s to 1TB/s",
        "Bytes a second that verifying reads; without it, as fast as the volume gives them.",
        optional(parse_rate),
    )
    allowed_hosts: tuple[str, ...] = setting(
        "",
        "names or addresses, with commas",
        "Hosts that sources may have though their addresses are link-local or a cloud's metadata service.",
        names,
    )
    max_entries: int = setting(
        "10000000",
        "1 to 1000000000",
        "Files and folders that one listing of a tree of folders looks at, at most: what has no end stops there.",
        whole(1, 1_000_000_000),
    )
    slot_wait: float = setting(
        "3600",
        "1 to 604800 seconds",
        "Seconds that a transfer waits for a free slot of its concurrency limits before it gives up.",
        seconds(1, 604_800),
    )
    arrival_timeout: float = setting(
        "600",
        "1 to 86400 seconds",
        "Seconds that a reader waits for one file of a version that is still fetched.",
        seconds(1, 86_400),
    )
    signing_key: Path | None = setting(
        "", "a PEM file", "An Ed25519 key that signs each decision; nothing is signed without it.", optional(folder)
    )
    verification_keys: tuple[str, ...] = setting(
        "", "`ed25519:…` or PEM files, with commas between", "Public keys whose signatures prove an attestation.", names
    )
    reports: Path | None = setting(
        "", "a folder", "Where `check_readiness` keeps its HTML reports; none are kept without it.", optional(folder)
    )
    reports_url: str = setting(
        "", "a URL", "Where a web server shows that folder; without it, links are the files' own.", _web_address
    )
    pages_url: str = setting(
        "", "a URL", "Where `stagegate serve` shows the catalog's pages; what runs show links to them.", _web_address
    )
    others: tuple[object, ...] = ()
    """What other dataclasses declare, where the environment has a variable of any."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; variables that are unset or empty take their defaults.

        Raises:
            UsageError: A variable has a bad value, or no setting has its name. The error names them all.
        """
        declared: list[type] = [cls]
        problems = _unknown(environ, declared)
        # Other packages' plugins last: looking for them takes 50 ms.
        for find in (own_plugins, plugins):
            if problems:
                declared = declared_settings(find())
                problems = _unknown(environ, declared)
        own: Settings = _read(cls, environ, problems)
        others = tuple(_read(kind, environ, problems) for kind in declared[1:])
        if problems:
            raise UsageError("The settings in the environment are wrong: " + "; ".join(problems))
        return replace(own, others=others)

    def of(self, declared: type[T]) -> T:
        """The settings that another room or a plugin declares."""
        return next((other for other in self.others if isinstance(other, declared)), None) or declared()


def _read(declared: type, environ: Mapping[str, str], problems: list[str]) -> Any:
    """A dataclass of settings; adds what is wrong with a value to the problems, and is then None."""
    values, wrong = {}, []
    # Only what is not the default.
    for setting in settings_in(declared):
        text = environ.get(setting.variable) or _filled(setting.default, environ)
        try:
            if text != setting.default:
                values[setting.field] = setting.read(text)
        except (ValueError, RuntimeError) as error:  # RuntimeError: `~` of a user without a home
            wrong.append(f"{setting.variable}: {error}")
    problems += wrong
    try:
        return None if wrong else declared(**values)
    except ValueError as error:  # of values that only together mean something
        problems.append(str(error))
        return None


def _unknown(environ: Mapping[str, str], declared: Iterable[type]) -> list[str]:
    known = [setting.variable for kind in declared for setting in settings_in(kind)]
    return [
        f"{name}: "
        + (ONE_CACHE if name == "STAGEGATE_VOLUMES" else f"no setting has this name; {did_you_mean(name, known)}")
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in (*known, *EXEC_VARIABLES)
    ]


def _filled(default: str, environ: Mapping[str, str]) -> str:
    """Put the user's folders into the default; the XDG rules ignore relative ones."""
    folders = {"$XDG_CACHE_HOME": "~/.cache", "$XDG_DATA_HOME": "~/.local/share"}
    for variable, fallback in folders.items():
        given = environ.get(variable[1:], "")
        default = default.replace(variable, given if Path(given).is_absolute() else fallback)
    return default
