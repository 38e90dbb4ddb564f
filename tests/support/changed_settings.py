"""Settings with some values changed, also to values that no variable could have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect_stagegate.doors import own_plugins
from prefect_stagegate.model.settings import PREFIX, declared_settings, settings_in
from prefect_stagegate.workspace import Workspace


def change_settings(workspace: Workspace, **values: Any) -> Workspace:
    """The workspace with some settings changed, by their variables' names in lower case: `site="dc1"`."""
    old, changed = workspace.settings, {}
    for declared in declared_settings(own_plugins()):
        names = {setting.field: setting.variable.removeprefix(PREFIX).lower() for setting in settings_in(declared)}
        given = {field: values.pop(name) for field, name in names.items() if name in values}
        changed[declared] = replace(old if isinstance(old, declared) else old.of(declared), **given)
    assert not values
    own, *others = changed.values()
    return replace(workspace, settings=replace(own, others=tuple(others)))
