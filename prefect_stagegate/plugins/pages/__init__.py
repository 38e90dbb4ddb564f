"""Read-only pages of a catalog for browsers: made on the server, without any script from elsewhere.

server.py          listens, and says who may read
guard.py           Host, token, methods and headers of every request
pages_app.py       addresses
catalog_view.py    what pages read: through copies.py, with kept.py
views/             what one page shows: a module a page
rendering.py       their HTML, from templates/ and static/
html.py, junit.py  documents in these formats
"""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "serve",
            f"{__name__}.commands:pages",
            "Show the catalog as read-only pages for a browser.",
            "Run",
            usage="[OPTIONS]",
            is_main=True,
        ),
    ),
    renderers={"html": f"{__name__}.html:to_html", "junit": f"{__name__}.junit:to_junit"},
    settings=f"{__name__}.pages_settings:PagesSettings",
)
