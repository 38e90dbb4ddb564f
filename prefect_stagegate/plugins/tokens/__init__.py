"""Tokens by which programs read the pages of `stagegate serve`, and start jobs there.

token_records.py  what the catalog keeps of a token, and what a token's text grants
commands.py       `stagegate token create`, `list` and `revoke`
"""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command("token", "", "Let programs read pages and start jobs at `stagegate serve`.", "Run"),
        Command("token create", f"{__name__}.commands:create", "Make a token for a program, and show it this once."),
        Command("token list", f"{__name__}.commands:list_tokens", "List tokens: for whom, what they may do, last use."),
        Command("token revoke", f"{__name__}.commands:revoke", "End a token."),
    ),
    bearers={"sgt_": f"{__name__}.token_records:grant_of"},
)
