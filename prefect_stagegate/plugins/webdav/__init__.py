"""WebDAV."""

from dataclasses import replace

from prefect_stagegate.doors import Plugin
from prefect_stagegate.sources.web import WEB

PLUGIN = Plugin(
    sources=(replace(WEB, schemes=("webdav+http", "webdav+https"), opener=f"{__name__}.webdav:WebDavSource"),)
)
