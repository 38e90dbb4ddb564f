"""The page of tasks and flows."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any, get_args, get_type_hints

from prefect import Flow, Task

from pages.markdown import code, link, names, page, prose
from prefect_stagegate import errors, flows, tasks
from prefect_stagegate.jobs import address
from prefect_stagegate.tasks._support import running

TWIN = "a"
"""What the name of an async twin begins with."""


def tasks_page() -> str:
    """Every public task and flow: signature, docstring and errors."""
    known = [*tasks.__all__, *tasks.OFFERED]
    twins = {name for name in known if name.removeprefix(TWIN) in known and name.startswith(TWIN)}
    overview = inspect.getdoc(tasks) or ""
    ordered = sorted(sorted(known), key=lambda name: (name not in overview, overview.find(name)))
    whole = [name for name in ordered if f"{TWIN}{name}" in twins]
    for_nodes = [name for name in ordered if name not in twins and name not in whole]
    of_flows = sorted([*flows.__all__, *flows.OFFERED])
    listed = {"whole jobs": whole, "tasks for nodes": for_nodes, "flows": of_flows}
    told: dict[tuple[str, str], str] = {}
    return page(
        "Tasks and flows",
        "prefect_stagegate/tasks and prefect_stagegate/flows",
        "The tasks to build your own flow of, and the flows to deploy as they are:",
        code("python", FLOW),
        code("text", inspect.cleandoc(re.findall(r"(?:^ {4}.*\n)+", overview, re.MULTILINE)[0])),
        "\n".join(f"- {kind}: {', '.join(link(name, f'`{name}`') for name in each)}" for kind, each in listed.items()),
        "Tasks return small values that can be pickled. Prefect caches none of them. A task is tried once more when "
        "its error is `retryable`.",
        "## Types of parameters",
        "\n".join(_alias(module, name) for module, name in ALIASES),
        "Every task and flow also takes `cache: CacheLike = None`, the node's cache, and `catalog: CatalogLike = "
        "None`, the shared catalog. Sections name them only where they mean something else.",
        "## Whole jobs",
        "In an async flow, await the twin of a task, whose name begins with `a`. It takes the same parameters, never "
        "blocks the event loop, and stops when it is cancelled.",
        *(block for name in whole for block in _callable(name, getattr(tasks, name), told, f"{TWIN}{name}")),
        "## Tasks for nodes",
        *(block for name in for_nodes for block in _callable(name, getattr(tasks, name), told)),
        "## Flows",
        "A deployment names a flow by its module: `prefect_stagegate.flows.stage:stage`.",
        *(block for name in of_flows for block in _callable(name, getattr(flows, name), told)),
        "## What they return",
        *(block for kind in _returned(whole) for block in _class(kind)),
        "## Errors",
        "All of them come from `prefect_stagegate.errors`.",
        code("text", inspect.cleandoc((errors.__doc__ or "").split("\n\n")[1])),
    )


FLOW = """
from prefect import flow
from prefect_stagegate.tasks import check_readiness, promote_dataset, require_ready, stage_dataset


@flow
def release() -> None:
    version = stage_dataset("nycflights.yaml")
    if check_readiness(version.address, "pilot").accepted:
        promote_dataset(version.address, "pilot")


@flow
def train() -> None:
    version = require_ready("nycflights@pilot")
    print(version.path)
"""
ALIASES: tuple[tuple[ModuleType, str], ...] = (
    (address, "SpecLike"),
    (running, "SpecParameter"),
    (running, "CacheLike"),
    (running, "CatalogLike"),
)
"""The types of parameters that pages name without their module."""
USUAL = ("The node's cache; by default the settings'.", "The shared catalog; by default the settings'.")
"""What nearly all tasks and flows say of `cache` and `catalog`, which the page says once."""


def _callable(
    heading: str, task: Task[..., Any] | Flow[..., Any], told: dict[tuple[str, str], str], twin: str = ""
) -> Iterator[str]:
    """The section of one task or flow: signature, docstring, parameters and errors.

    `told` has the section that each parameter's text stands in, and gets those of this one.
    """
    text, parameters, raised = _docstring(inspect.getdoc(task.fn) or "")
    yield f"### {heading}"
    usual = {name for name, meaning in parameters if meaning in USUAL}
    yield code("python", _signature(task.fn, usual))
    if twin:
        yield f"Async: `await {twin}(…)`."
    if isinstance(task, Flow):
        yield f"In Prefect: `{task.name}`."
    yield prose(text)
    own = [parameter for parameter in parameters if parameter[1] not in USUAL]
    items = [f"- `{name}`: {prose(meaning)}" for name, meaning in own if (name, meaning) not in told]
    for other in dict.fromkeys(told[parameter] for parameter in own if parameter in told):
        same = [parameter[0] for parameter in own if told.get(parameter) == other]
        items.append(f"- {names(same, 'and')}: as of {link(other, f'`{other}`')}.")
    told.update({parameter: heading for parameter in own if parameter not in told})
    items += [f"- Raises {names(kinds.split(', '))}: {prose(when)}" for kinds, when in raised]
    yield "\n".join(items)


def _signature(function: Callable[..., Any], usual: Collection[str]) -> str:
    """A function's signature, a parameter a line, without the usual ones."""
    signature = inspect.signature(function)
    lines = []
    for name, parameter in signature.parameters.items():
        if name in usual:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        kind = re.sub(r"^Annotated\[(.*), Field\(.*\)\]$", r"\1", parameter.annotation)
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {kind}{default}")
    body = "".join(f"    {line},\n" for line in lines)
    return f"{function.__name__}(\n{body}) -> {signature.return_annotation}"


def _docstring(text: str) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]]:
    """What a docstring says before its sections, the items of `Args:` and those of `Raises:`."""
    before, _, rest = text.partition("\n\nArgs:\n")
    arguments, _, raised = rest.partition("\n\nRaises:\n")
    return before, _items(arguments), _items(raised)


def _items(text: str) -> list[tuple[str, str]]:
    """The items of a docstring's section: `name: meaning`, whose further lines are indented below it."""
    items = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return [(name, " ".join(meaning.split())) for name, meaning in items]


def _alias(module: ModuleType, name: str) -> str:
    """A type's name, what it stands for, and the docstring below it."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return f"- `{name}` (`{ast.unparse(node.value)}`): {_text_of(after)}"
    raise LookupError(f"{module.__name__} has no {name}")


def _text_of(node: ast.stmt | None) -> str:
    """The text of a docstring below an assignment; empty for any other statement."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _returned(listed: Iterable[str]) -> list[type]:
    """The dataclasses that tasks return, each once."""
    hints = [get_type_hints(getattr(tasks, name).fn)["return"] for name in listed]
    kinds = [kind for hint in hints for kind in (get_args(hint) or (hint,))]
    return list(dict.fromkeys(kind for kind in kinds if hasattr(kind, "__dataclass_fields__")))


def _class(kind: type) -> Iterator[str]:
    """The section of one dataclass: its docstring, its fields and its properties."""
    yield f"### {kind.__name__}"
    yield prose(inspect.getdoc(kind) or "")
    (definition,) = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    body = definition.body
    rows = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            rows.append((f"`{ast.unparse(node.target)}`", f"`{ast.unparse(node.annotation)}`", _text_of(after)))
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(each) == "property" for each in node.decorator_list):
            returned = ast.unparse(node.returns) if node.returns else ""
            rows.append((f"`{node.name}`", f"`{returned}`", ast.get_docstring(node) or ""))
    yield "\n".join(f"- {name} ({kind}): {prose(' '.join(meaning.split()))}" for name, kind, meaning in rows if meaning)
    if plain := [f"{name} ({kind})" for name, kind, meaning in rows if not meaning]:
        yield f"It also has {', '.join(plain)}."
