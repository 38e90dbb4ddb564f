"""Pages of a catalog for browsers, made on the server, with one script of its own. They change nothing but by forms.

server.py          listens, and says who may read
guard.py           Host, token, methods and headers of every request
forms.py           whether a sent form may act, for plugins whose pages have an `act`
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
            "Show the catalog as pages for a browser.",
            "Run",
            usage="[OPTIONS]",
            is_main=True,
        ),
    ),
    renderers={"html": f"{__name__}.html:to_html", "junit": f"{__name__}.junit:to_junit"},
    settings=f"{__name__}.pages_settings:PagesSettings",
)
