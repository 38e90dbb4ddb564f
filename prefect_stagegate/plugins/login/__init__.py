"""People log in to `stagegate serve`: by OpenID Connect, or by a proxy that did it and says who they are.

provider.py        the OpenID provider, by the library Authlib: its documents, its keys, what it says of a person
oidc_login.py      /login, /login/callback and /logout, and whose requests the others are
trusted_header.py  who people are by a header of a proxy
logged_in.py       what both know of a person, and the record of who logged in
expiring.py        values under random names that end: sessions, and logins under way
"""

from prefect_stagegate.doors import Plugin

PLUGIN = Plugin(
    logins={"oidc": f"{__name__}.oidc_login:OidcLogin", "trusted-header": f"{__name__}.trusted_header:HeaderLogin"},
    settings=f"{__name__}.login_settings:LoginSettings",
)
