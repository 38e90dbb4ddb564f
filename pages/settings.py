"""The page of settings."""

from __future__ import annotations

from pages.markdown import code, page
from prefect_stagegate.doors import own_plugins
from prefect_stagegate.model.settings import Setting, declared_settings, settings_in

SETTINGS = [setting for declared in declared_settings(own_plugins()) for setting in settings_in(declared)]
UNSET = {"identity": "the system's user", "node": "the host's name"}
"""What takes the place of a setting that has no default."""


def settings_page() -> str:
    """Every setting."""
    return page(
        "Settings",
        "prefect_stagegate/model/settings.py",
        "Environment variables that configure each command, task and flow of a process:",
        code(
            "console",
            "export STAGEGATE_CACHE=/data/stagegate\nexport STAGEGATE_CATALOG=s3://lake/catalog\n"
            "stagegate stage nycflights.yaml",
        ),
        "They are read once, when a command or task starts. An unknown `STAGEGATE_` variable is refused. A command's "
        "[`--cache`, `--catalog` and `--identity`](cli.md#common-options) win over their variables. An unset "
        "`XDG_CACHE_HOME` is `~/.cache`, and an unset `XDG_DATA_HOME` is `~/.local/share`.",
        "\n".join(map(_setting, SETTINGS)),
    )


def _setting(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else UNSET.get(setting.field, "")
    return f"- `{setting.variable}` ({setting.values}{default and f'; default {default}'}): {setting.meaning}"
