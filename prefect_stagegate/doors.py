"""The doors of the core: what a plugin declares or keeps, and how it is found.

A declaration imports none of the code that it names: `module:attribute` is imported when it is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from prefect_stagegate import plugins as own
from prefect_stagegate.errors import CatalogError, UsageError, did_you_mean

if TYPE_CHECKING:
    from prefect_stagegate.cache.leases import Lease
    from prefect_stagegate.catalog import Catalog
    from prefect_stagegate.transport.transfer.progress import Meter
    from prefect_stagegate.workspace import Workspace

T = TypeVar("T")
GROUP = "prefect_stagegate.plugins"
"""The entry point group of plugins in other packages: each names a `Plugin`."""
SOURCES_GROUP = "prefect_stagegate.sources"
"""The entry point group of single sources in other packages: each is named after a scheme, and names a `Source`."""
CORE_SOURCES = ("local", "buckets", "web", "fsspec")
"""The packages of `sources/` that have definitions, as `SOURCES` in their `__init__`."""
_RECORD_NAME = re.compile(r"[a-z0-9-]{1,64}\.(?!json\b)[a-z0-9-]{1,64}")

unloaded: dict[str, str] = {}
"""Why each plugin of another package that can't be loaded can't, by its `module:attribute`; `plugins()` fills it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `stagegate`."""

    words: str
    """What is typed: `serve`, or `serve blobs`."""
    function: str
    """`module:attribute`; empty for a word that only has subcommands."""
    line: str
    """What it does, for the overview: the first line of the function's docstring. The function may return an
    `ExitCode`."""
    title: str = ""
    """The group of the overview: `Begin`, `Stage`, `Judge`, `Decide`, `Read`, `Run`, `Look`, or one of its own; empty
    for a subcommand."""
    usage: str = ""
    """The arguments, where cyclopts would call them all ARGS."""
    tip: str = ""
    """What the overview ends with."""
    is_main: bool = False
    """Whether the overview shows its line, of 67 characters at most. It only names the others."""
    was: Mapping[str, str] = field(default_factory=dict)
    """Earlier names, each with the words that replace it. They work until the next minor version, with a note."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that evaluates the suites of tables, in a confined worker."""

    engine: str
    """`module:attribute` of a `prefect_stagegate.validations.engines.engine.SuiteEngine`."""
    library: str = ""
    """The module that it needs and this package's own libraries lack."""
    install: str = ""
    """How to install that, as a hint."""
    rights: str = ""
    """`module:attribute` of what its process may do that those of others may not, a
    `prefect_stagegate.validations.worker.confinement.Rights`; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of `stagegate serve`."""

    path: str
    """Its address, with names for parts: `/nodes/{node}`."""
    function: str
    """`module:attribute` of a function of a `PageRequest`. It returns what the template calls `page`; without a
    template, the text as bytes and its media type."""
    section: str = ""
    """What the navigation calls it, or the page above it; empty for one that is not in the navigation."""
    template: str = ""
    """A Jinja template in the folder `templates` of the function's package."""
    act: str = ""
    """`module:attribute` of a function of a `PageRequest` that does what a sent form says. It returns the path to go to
    then, below the server's base, and raises a `StagegateError` for what it refuses. It runs only for a visitor whose
    form shows that it comes from this page as it still is. Empty for a page without a form."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in, as a plugin for logins proved it."""

    name: str
    key: Any
    """Signs for the person: what jobs take as `key=`."""
    secret: str = field(repr=False)
    """A random text of the session, from which the tokens of forms are made."""
    hint: str = ""
    """What they can do where the pages refuse what they do; empty where nothing of the login is in the way."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a program may do at `stagegate serve`, as a plugin for tokens knows it."""

    name: str
    """Who the program is, for logs."""
    scopes: frozenset[str]
    """`read`, `stage` and `check`. There is none to promote, approve, waive or roll back: people do that."""
    datasets: frozenset[str] = frozenset()
    """The only datasets that it is about; empty for all."""

    def covers(self, dataset: str) -> bool:
        """Whether it is about a dataset."""
        return not self.datasets or dataset in self.datasets


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What the function of a page gets."""

    workspace: Workspace
    names: Mapping[str, str]
    """The named parts of the address."""
    accept: str
    """The media types that the client accepts."""
    slice: Callable[[int, int], Any]
    """The part of a list that the address asks for, from the most items of a page and those of the list; it has a
    `range` of positions."""
    recent: Callable[..., Any]
    """What a function made of the workspace at most `fresh` seconds ago. It is made again in the background."""
    visitor: Visitor | None = None
    """Who is logged in, from `stagegate.visitor` of the ASGI scope. The workspace's identity is theirs on pages with an
    `act`, whose workspace is the catalog itself and no copy."""
    login: str = ""
    """The path at which one logs in, from `stagegate.login` of the scope; empty without a plugin for logins."""
    form: Mapping[str, str] = field(default_factory=dict)
    """The fields of the form that was sent; empty for a page that is only read."""
    rely: Callable[[Mapping[str, object]], object] = dict
    """Says what an answer to this page relies on: by words for people, values of JSON. A page without it gets no form.
    A form that was sent when one of them is another by now is refused, and the page shown again with these words."""


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """What a way to log in gets from `stagegate serve`."""

    workspace: Workspace
    base: str
    """The path below which the pages lie, without a slash at its end; empty for the root."""
    is_required: bool
    """Whether only those who are logged in may read."""
    values: tuple[str, ...]
    """Of the option."""
    is_local: bool = True
    """Whether the server listens at a loopback address, so that only this machine can connect."""


@dataclass(eq=False, slots=True)
class Job:
    """A job, or one step of it, as its observers see it."""

    workspace: Workspace
    name: str
    """`stage`, `list`, `check`, …"""
    dataset: str
    target: str = ""
    subject: object = None
    """What a whole job works on: a spec, an address or a resolved version. None for a step, and for a trial."""
    writer: Lease | None = None
    """The lease of a job that writes into the cache."""
    meter: Meter | None = None
    """The progress of a job that transfers."""
    cancel: Event | None = None
    """Stops the job in time, once it is set."""
    is_current: bool = True
    """Whether what begins in its block is a step of it. Not in a generator, whose block is left at each value."""
    is_step: bool = True
    """Whether it is counted and traced. Not a job whose one step has its name."""
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)
    """What it did: `digest`, `bytes`, `outcome`. They leave this process, so they hold no secret."""
    result: object = None
    """What it made, once that is there: a version, evidence, the figures of a transfer."""
    outcome: str = "ok"
    """`ok`, `error`, or `stopped` by whoever ran it."""
    error: BaseException | None = None
    seconds: float = 0.0

    def note(self, **facts: str | int | float | bool) -> None:
        """Add facts."""
        self.facts |= facts


class Observer:
    """Looks on at one job or step, and changes nothing of it. What it raises is logged once, and ends no job."""

    def begun(self, job: Job) -> None:
        """The job begins."""

    def ended(self, job: Job) -> None:
        """The job ended, however it ended. The observer that began first ends last."""


class Kind(Enum):
    """What an option holds, and who may give it."""

    VALUE = auto()
    """A text, a number or a switch that stays in the library."""
    ADDRESS = auto()
    """A host or URL that the library connects to; `http.request_policy` refuses some of them."""
    FILE = auto()
    """A plain file of this machine that is read: a certificate authority, a key."""
    CREDENTIAL = auto()
    """A credential: a block may give it, a spec never."""
    BLOCK = auto()
    """Anything else that an operator's block may give, and a spec may not."""
    IGNORED = auto()
    """Changes nothing about an object's bytes: accepted, and passed to no library of the core's own sources."""


def options(**kinds: str) -> dict[str, Kind]:
    """The kind of each option, from its names by kind, with dots for nesting and `.*` for any names in a mapping.

    >>> options(value="port ssl.*", credential="password")["password"]
    <Kind.CREDENTIAL: 4>
    """
    known = [kind.name.lower() for kind in Kind]
    if unknown := [kind for kind in kinds if kind not in known]:
        raise TypeError(f"{unknown[0]!r} is no kind of option: {', '.join(known)}")
    return {name: Kind[kind.upper()] for kind, names in kinds.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class PermittedOptions:
    """The options that data (a spec, a stored spec, a block, a catalog's response) may give to a library.

    Others are refused. So no data can name code to import, a program to run or a file to write: libraries take such
    names only from the user's own configuration and environment, which aren't checked.
    """

    family: str
    """What messages call what takes the options: `an SFTP source`."""
    options: Mapping[str, Kind]
    """By name; empty where none is taken. See `options()`."""

    def __post_init__(self) -> None:
        if unknown := [name for name, kind in self.options.items() if type(kind) is not Kind]:
            raise TypeError(f"the options {unknown} of {self.family} are of no `doors.Kind`")

    def kind(self, name: str) -> Kind | None:
        """The kind of an option; None for one that nobody may give."""
        # `a.b` may be allowed as itself, or by `a.*`.
        wholes = (f"{name[:end]}.*" for end in range(len(name), 0, -1) if name[end : end + 1] in ("", "."))
        return next((self.options[key] for key in (name, *wholes) if key in self.options), None)

    def unknown(self, name: str) -> tuple[str, str]:
        """Say that no option has a name, and which option may be meant: the problem and its hint."""
        known = [known_name.removesuffix(".*") for known_name, kind in self.options.items() if kind is not Kind.IGNORED]
        return f"{name!r} is no option of {self.family}", did_you_mean(name, known)


def unknown_option(permitted: PermittedOptions, name: str, *, source: str = "") -> UsageError:
    """The error for an option that is not permitted."""
    problem, hint = permitted.unknown(name)
    return UsageError(problem, hint=hint[:1].upper() + hint[1:] + ("" if hint.endswith("?") else "."), source=source)


@dataclass(frozen=True, slots=True)
class Source(PermittedOptions):
    """A family of sources: its schemes, its options, and the adapter that reads it."""

    schemes: tuple[str, ...]
    """What stands before `://`, in lower case."""
    opener: str | Callable[..., Any]
    """A `prefect_stagegate.sources.Opener`, such as the adapter's class, or its `module:attribute`."""
    extra: str = ""
    """The extra of this package that installs the client library."""
    is_stateless: bool = False
    """Whether an object can be read by its listed entry and the URL alone, as other processes that open the source do:
    nothing else is kept between listing and reading."""
    is_local: bool = False
    """Whether the adapter reads files of this machine alone, without credentials, and raises typed errors alone."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks of a gate that one module registers when it is imported, as `prefect_stagegate.gate` says."""

    module: str
    names: str
    """With spaces between."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a contract's files, which decodes them in a confined worker."""

    function: str
    """`module:attribute` of a function of a path and the probe's settings; see `validations.files.probes`."""
    release: str = ""
    """`module:attribute` of a function that gives the release of the library that decodes for the probe of a name."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Places other than a version's sources that hold its blobs."""

    find: str
    """`module:attribute` of a function that gives a `prefect_stagegate.sources.replica.ReplicaSet`, or None where there
    is none: of a workspace, a dataset, a digest, the names of nodes that fetch the version now, an event to stop, and
    `waits`: whether a blob that one of these fetches is waited for.
    """
    holders: str
    """`module:attribute` of a function that gives the names of the places that hold a version complete: of a workspace
    and `UnreadableRecords`, a function of a dataset and a digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What a plugin adds. Each folder of `prefect_stagegate.plugins` has one, as `PLUGIN` in its `__init__`."""

    checks: tuple[Checks, ...] = ()
    commands: tuple[Command, ...] = ()
    flows: Mapping[str, str] = field(default_factory=dict)
    """`module:attribute` of each flow that `prefect_stagegate.flows` has from it, by the flow's name."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """The same of `prefect_stagegate.tasks`."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """By name."""
    replicas: Replicas | None = None
    sources: tuple[Source, ...] = ()
    observers: Mapping[str, Callable[[Job], bool]] = field(default_factory=dict)
    """The class of each observer of jobs as `module:attribute`, and whether it looks on at a job."""
    renderers: Mapping[str, str] = field(default_factory=dict)
    """By format, `module:attribute` of a function that writes a `prefect_stagegate.show.document.Document`."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """By page, `module:attribute` of a function that adds to it: of a workspace and the page's subject. It returns a
    list of `prefect_stagegate.show.document.Section`. Subjects are `VersionBeside` for `report`, `version` and
    `comparison`; an `Address` of a dataset for `dataset` and for `status`, which prints paragraphs alone; and one with
    a digest for `recall`, what is told beside a withdrawal and a revocation: the paragraphs by commands, the values by
    events."""
    comparisons: Mapping[str, str] = field(default_factory=dict)
    """By what they compare, functions that compare two versions: of a workspace, the addresses of the old and the new
    version, the columns of a key, and a function that is called with lines for people. They return a
    `prefect_stagegate.show.document.Section`. `rows` is asked for by `stagegate diff --rows`."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Functions of a workspace and an address that describe a version in a format of others, by the format."""
    expanders: Mapping[str, str] = field(default_factory=dict)
    """Functions that replace keys of a spec's contract by what they name, by the key; see `spec.load`."""
    spec_keys: Mapping[str, str] = field(default_factory=dict)
    """Keys that it adds to a spec, `retain` at the top, `gates.watch` in a gate or `policy.erasure` in its `policy`,
    each with `module:attribute` of a pair, its type and its `pydantic.Field`. The module is imported with every spec.
    What they hold is part of the policy."""
    engines: Mapping[str, Engine] = field(default_factory=dict)
    """By the name that a contract uses."""
    pages: tuple[Page, ...] = ()
    logins: Mapping[str, str] = field(default_factory=dict)
    """How people log in to `stagegate serve`, by its option: functions of its ASGI application and a `LoginOptions`.
    They return an application that answers `/login…` and `/logout`, and puts into the scope of other requests:
    `stagegate.visitor`, a `Visitor`, where somebody is logged in; `stagegate.login`, the path at which one logs in; and
    `stagegate.logout`, what a form that is sent to `/logout` must have as `token`."""
    bearers: Mapping[str, str] = field(default_factory=dict)
    """By what their texts begin with, the kinds of bearer tokens that `stagegate serve` takes: functions of a workspace
    and a token's text. They return its `Grant`; None for a token that is unknown, ended or revoked."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """The path of the page on which somebody answers, by what they do: `approve` (a request to promote), `agree` (to a
    policy), `waive`, `roll back` and `hold` (also to release). `answer_path` fills its names in."""
    column_types: str = ""
    """`module:attribute` of a function that gives what a validation found a table's columns to be: of a catalog, a
    dataset, a digest and a table, the types by name; empty where none did."""
    guards: Mapping[str, str] = field(default_factory=dict)
    """By what it may refuse, `module:attribute` of a function of a workspace, a dataset, a version's digest and a ref.
    It raises a `StagegateError` that says why not. `promote` and `roll_back` move the target `ref` to the version, and
    `fetch` brings it, or a repair of it, to this node, where `ref` may be empty. `stage` makes it the one that `ref`
    names, and gives a function of its entries, too: no record has them yet."""
    readers: tuple[str, ...] = ()
    """Functions that read a version's files after its contract ran; see `jobs.gating.validate.run_contract`."""
    hidden: str = ""
    """`module:attribute` of a function of a catalog: the names, `DATASET` or `DATASET@TARGET`, that listings leave out,
    each with the word by which others mark it. Addresses name them as before."""
    gone: str = ""
    """`module:attribute` of a function of a catalog, a dataset and a digest, or the beginning of one, that the catalog
    does not have: why, as `expired on …, by …`; empty where it does not know."""
    pending: str = ""
    """`module:attribute` of a function of a workspace and a dataset's `PolicyEntry` in force: what waits for people
    because of the policy, as `prefect_stagegate.jobs.review.inbox.PendingAction`."""
    keeps: Mapping[str, str] = field(default_factory=dict)
    """By a word for it, functions of a workspace and a dataset. Each gives a function of a digest: why the version may
    not be removed from the catalog; empty where nothing speaks against it. A policy may do without those called `used`.
    """
    version_records: tuple[str, ...] = ()
    """Names of its kinds of records that are removed with a version: those whose keys begin with dataset and digest."""
    nodes: str = ""
    """`module:attribute` of a function of a catalog that gives the names of the nodes that it knows."""
    upkeep: str = ""
    """`module:attribute` of a function of a workspace: what a node has to do again and again, several times a minute
    where its agent runs. It gives a line for each thing that it did."""
    start_up: str = ""
    """`module:attribute` of a function that is called when the tasks are imported, before the first run of Prefect."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """What lets runs know their data: `begin`, `log` and `tags`, functions of a `jobs.read.VersionInUse`. `begin` is
    called when a version is opened where a run may be active, and the others by the methods of their names. `begin` and
    `log` put what ends the use into the version's `ends`."""
    settings: str = ""
    """`module:attribute` of a frozen dataclass whose fields are a `setting` of `prefect_stagegate.model.settings`."""


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """A kind of record in the catalog, which the verbs of `Catalog` read and write.

    Keys begin with the dataset: after `SCORES = Record("acme.scores", Scores)`, the record
    `catalog.put(SCORES, scores, "flights", digest)` lies at `datasets/flights/acme.scores/<hex>.json`.
    """

    name: str
    """`<package>.<folder>`. Folders of this package, `stagegate`, have no package's name before theirs."""
    content: type[T]
    """A dataclass, or a list or a mapping."""
    is_shared: bool = False
    """Whether the records belong to no dataset. Only this package has such kinds."""

    def __post_init__(self) -> None:
        if not _RECORD_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a kind of record: it must be like 'acme.scores'")

    def folder(self, *key: str | int) -> str:
        """The folder in the catalog with all records whose keys begin so; ends with a slash."""
        names = [] if self.is_shared else ["datasets"]
        for part in key:
            name = f"{part:08d}" if isinstance(part, int) else part.removeprefix("sha256:")
            if not name.strip(".") or "/" in name:
                raise CatalogError(f"No record can have {name!r} in its key", hint="Each part must be a file's name.")
            names.append(name)
        names.insert(0 if self.is_shared else 2, self.name.removeprefix("stagegate."))
        return "/".join(names) + "/"

    def path(self, *key: str | int) -> str:
        """Where in the catalog a record lies."""
        return f"{self.folder(*key)[:-1]}.json"


@cache
def own_plugins() -> tuple[Plugin, ...]:
    """This package's plugins by name."""
    found = [import_module(f"{own.__name__}.{module.name}") for module in iter_modules(own.__path__)]
    return tuple(module.PLUGIN for module in found if hasattr(module, "PLUGIN"))


@cache
def plugins() -> tuple[Plugin, ...]:
    """This package's plugins by name, then those of others. One that can't be loaded is logged and left out."""
    from importlib.metadata import entry_points  # takes 50 ms at first

    found = [*own_plugins()]
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            plugin = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
            unloaded[point.value] = f"{type(error).__name__}: {error}"
            log.warning("the plugin %s can't be loaded: %s", point.value, unloaded[point.value])
            continue
        if isinstance(plugin, Plugin):
            found.append(plugin)
        else:
            log.warning("the plugin %s is left out: it is no Plugin of prefect_stagegate.doors", point.value)
    return tuple(found)


def declared(what: str) -> dict[str, Any]:
    """What plugins declare by name in the field `what` of `Plugin`. The first to have a name keeps it."""
    return {name: value for plugin in reversed(plugins()) for name, value in getattr(plugin, what).items()}


def offered(what: str, name: str, need: str) -> Any:
    """The attribute that a plugin declares under a name in the field `what` of `Plugin`.

    Raises:
        UsageError: No plugin has it. The message begins with `need`, what it is needed for.
    """
    if place := declared(what).get(name):
        return load(place)
    raise UsageError(f"{need} needs a plugin that is not installed", hint="Install prefect-stagegate with its plugins.")


def answer_path(action: str, **names: str) -> str:
    """The path of the page on which somebody does something, below the pages' address; empty where no plugin has one.

    `names` are those of its path in `Plugin.answers`.
    """
    path: str = declared("answers").get(action, "")
    return path.format(**{name: quote(value.removeprefix("sha256:"), safe="") for name, value in names.items()})


def require_allowed(what: str, workspace: Workspace, dataset: str, digest: str, ref: str, *more: Any) -> None:
    """Ask the guards of plugins whether something may be done with a version; `more` is as in `Plugin.guards`.

    Raises:
        StagegateError: One of them refuses it.
    """
    for plugin in plugins():
        if place := plugin.guards.get(what):
            load(place)(workspace, dataset, digest, ref, *more)


def why_gone(catalog: Catalog, dataset: str, digest: str) -> str:
    """Why a catalog no longer has a version, as plugins know it; empty where none does.

    Raises:
        CatalogError: The catalog can't be read.
    """
    places = [plugin.gone for plugin in plugins() if plugin.gone]
    return next(filter(None, (load(place)(catalog, dataset, digest) for place in places)), "")


def hidden_names(catalog: Catalog) -> dict[str, str]:
    """The names, `DATASET` or `DATASET@TARGET`, that listings leave out, each with the word that marks it.

    Raises:
        CatalogError: The catalog can't be read.
    """
    places = [plugin.hidden for plugin in plugins() if plugin.hidden]
    return {name: word for place in reversed(places) for name, word in load(place)(catalog).items()}


@cache
def core_sources() -> dict[str, Source]:
    """The sources of the core and of `register`, by scheme."""
    found: dict[str, Source] = {}
    for name in CORE_SOURCES:
        for source in import_module(f"prefect_stagegate.sources.{name}").SOURCES:
            found |= dict.fromkeys(source.schemes, source)
    return found


def sources() -> dict[str, Source]:
    """All sources by scheme, those of plugins too. The first to have a scheme keeps it."""
    found = [source for plugin in plugins() for source in plugin.sources]
    return {scheme: source for source in reversed(found) for scheme in source.schemes} | core_sources()


def register(source: Source) -> None:
    """Let this process read further schemes. An installed package does this by an entry point instead.

    Raises:
        ValueError: A scheme is taken.
    """
    for scheme in source.schemes:
        if sources().get(scheme, source) is not source:
            raise ValueError(f"the scheme {scheme!r} is taken")
    core_sources().update(dict.fromkeys(source.schemes, source))


def source_of(url: str) -> Source | None:
    """The source that reads a URL or path: ours, else an installed package's. None if fsspec alone may know the scheme.

    Raises:
        UsageError: The package's entry point can't be loaded, or declares no options.
    """
    scheme = scheme_of(url)
    return core_sources().get(scheme) or sources().get(scheme) or _installed(scheme)


def _installed(scheme: str) -> Source | None:
    from importlib.metadata import entry_points

    # Sorted, so that with two packages for one scheme the same one is taken each time.
    for point in sorted(entry_points(group=SOURCES_GROUP, name=scheme), key=lambda point: point.value):
        package = point.dist.name if point.dist else point.value
        try:
            source = point.load()
        # Importing a package runs its code, which may raise anything, and may even try to end the process.
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"The plugin {package}, which reads {scheme}://, can't be loaded: {type(error).__name__}: {error}",
                hint=f"Repair or remove it: pip show {package}; pip uninstall {package}",
            ) from error
        if not isinstance(source, Source):
            raise UsageError(
                f"The plugin {package}, which reads {scheme}://, declares no options",
                hint=f"{point.value} must be a prefect_stagegate.doors.Source. Update or remove the plugin: "
                f"pip install --upgrade {package}; pip uninstall {package}",
            )
        return source
    return None


def load(place: str) -> Any:
    """The attribute that `module:attribute` names."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def scheme_of(url: str) -> str:
    """The text before `://`, in lower case; empty for a path.

    >>> scheme_of("S3://lake/"), scheme_of("/mnt/nas/")
    ('s3', '')
    """
    return url.partition("://")[0].lower() if "://" in url else ""


def flat(options: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each option and its keys: several where it is nested.

    >>> list(flat({"ssl": {"cabundle": "/etc/ca.pem"}, "port": None}))
    [(('ssl', 'cabundle'), '/etc/ca.pem'), (('port',), None)]
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*path, name))
        else:
            yield (*path, name), value
