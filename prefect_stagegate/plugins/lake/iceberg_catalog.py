"""Iceberg catalogs, opened so that neither a catalog nor a table can name code, a file or a forbidden address.

pyiceberg imports the classes that properties name, and reads and writes the files that they name. It trusts properties
from a catalog's responses and from a table's metadata as much as the user's. Here a response passes `ICEBERG_ANSWERS`,
a table's own properties have no effect, `ConfinedIO` reads all files, and each request's address is checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from pyiceberg.catalog import PY_CATALOG_IMPL, TYPE, URI, Catalog, CatalogType, infer_catalog_type, load_catalog
from pyiceberg.catalog.rest import RestCatalog, TableResponse
from pyiceberg.io import PY_IO_IMPL, FileIO, InputFile, OutputFile, load_file_io
from pyiceberg.table import Table
from requests import Session

from prefect_stagegate.doors import Kind
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.lake import ICEBERG_ANSWERS
from prefect_stagegate.plugins.lake.locations import Locations
from prefect_stagegate.transport.http import Allowed, require_allowed

CONFINED = "stagegate.locations"
"""The property that gives `ConfinedIO` its `Locations`. The value is an object, so that no text can set it."""
USERS_IO = "stagegate.file-io"
"""The property that holds the user's own `py-io-impl`."""

log = logging.getLogger(__name__)


class ConfinedIO(FileIO):
    """Reads files in permitted places, by the FileIO of their scheme or by the user's own. Writes none."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        super().__init__(dict(properties))
        self._locations: Locations = properties[CONFINED]
        self._inner_properties = {
            name: value for name, value in properties.items() if name not in (PY_IO_IMPL, CONFINED)
        }
        if users := properties.get(USERS_IO):
            self._inner_properties[PY_IO_IMPL] = users
        self._opened: dict[str, FileIO] = {}

    def new_input(self, location: str) -> InputFile:
        """Open a file for reading.

        Raises:
            SourceError: It lies outside of the permitted places.
        """
        self._locations.require(location)
        scheme = location.partition("://")[0] if "://" in location else "file"
        if scheme not in self._opened:
            self._opened[scheme] = load_file_io(self._inner_properties, location)
        return self._opened[scheme].new_input(location)

    def new_output(self, location: str) -> OutputFile:
        """Refuse to write."""
        raise PermissionError(f"a source is read-only: {location}")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Refuse to delete."""
        raise PermissionError(f"a source is read-only: {location}")


class ConfinedRestCatalog(RestCatalog):
    """A REST catalog that keeps only permitted properties of responses, and connects to no forbidden host."""

    def __init__(self, name: str, allowed: Allowed, properties: Mapping[str, Any]) -> None:
        self._allowed = allowed
        super().__init__(name, **properties)

    def _config_headers(self, session: Session) -> None:
        """Check each address of a session, redirects included. pyiceberg calls this first for each session."""
        session.get_adapter = partial(_checked_adapter, session.get_adapter, self._allowed)  # type: ignore[method-assign]
        super()._config_headers(session)

    def _fetch_config(self) -> None:
        users = dict(self.properties)
        super()._fetch_config()
        # pyiceberg has merged the response into the properties: what differs came from the catalog.
        # `self` stands for a missing value, because it equals none.
        sent = {name: value for name, value in self.properties.items() if users.get(name, self) != value}
        self.properties = {**users, **permitted_properties(sent, self._allowed)}
        # pyiceberg keeps the address a second time.
        self.uri = self.properties[URI]

    def _response_to_table(self, identifier_tuple: tuple[str, ...], table_response: TableResponse) -> Table:
        location = table_response.metadata_location or ""
        # The catalog may hand out credentials for the table's store.
        vended = self._resolve_storage_credentials(table_response.storage_credentials, location)
        config = permitted_properties({**table_response.config, **vended}, self._allowed)
        return Table(
            identifier=identifier_tuple,
            metadata_location=location,
            metadata=table_response.metadata,
            io=ConfinedIO({**self.properties, **config}),
            catalog=self,
            config=config,
        )


def open_catalog(name: str, properties: Mapping[str, Any], locations: Locations, allowed: Allowed) -> Catalog:
    """Open a catalog.

    `properties` are those of the user's configuration and of the spec, whose options were checked.

    Raises:
        ValueError: The properties can't be used.
        UsageError: A REST catalog names an address that may not be asked.
    """
    # pyiceberg loads `ConfinedIO` for every file. `ConfinedIO` then loads the user's own FileIO.
    users_io = {USERS_IO: properties[PY_IO_IMPL]} if properties.get(PY_IO_IMPL) else {}
    confined = {**properties, **users_io, PY_IO_IMPL: f"{__name__}.ConfinedIO", CONFINED: locations}
    # A source changes nothing: a SQL catalog gets no tables.
    confined |= {"init_catalog_tables": "false", **_read_only(properties)}
    if not properties.get(PY_CATALOG_IMPL) and _type(name, properties) is CatalogType.REST:
        return ConfinedRestCatalog(name, allowed, confined)
    catalog = load_catalog(name, **confined)
    # The replaced method would let a table's own properties override the catalog's.
    catalog._load_file_io = lambda *_, **__: ConfinedIO(catalog.properties)  # type: ignore[method-assign]  # noqa: SLF001
    return catalog


def permitted_properties(response: Mapping[str, Any], allowed: Allowed) -> dict[str, Any]:
    """The permitted properties of a catalog's response. Others are logged and have no effect.

    Raises:
        UsageError: One is an address that may not be asked.
    """
    kinds = {name: ICEBERG_ANSWERS.kind(name) for name, value in response.items() if isinstance(value, str)}
    for name, kind in kinds.items():
        if kind is Kind.ADDRESS:
            require_allowed(response[name], allowed)
    kept = {name: response[name] for name, kind in kinds.items() if kind}
    if refused := sorted(set(response) - set(kept)):
        log.info("Ignored properties of the catalog's response that no catalog may set: %s", ", ".join(refused))
    return kept


def _read_only(properties: Mapping[str, Any]) -> dict[str, str]:
    """The `uri` of a SQLite database, changed so that SQLite opens it read-only and never creates it."""
    uri = str(properties.get(URI, ""))
    path = uri.removeprefix("sqlite:///")
    if path in (uri, "", ":memory:") or "?" in path:
        return {}
    return {URI: f"sqlite:///file:{quote(path)}?mode=ro&uri=true"}


def _type(name: str, properties: Mapping[str, Any]) -> CatalogType | None:
    given = properties.get(TYPE)
    return CatalogType(str(given).lower()) if given else infer_catalog_type(name, dict(properties))


def _checked_adapter(adapter_of: Callable[[str], Any], allowed: Allowed, url: str) -> Any:
    try:
        require_allowed(url, allowed)
    except UsageError as error:
        error.message = f"The catalog names a blocked address: {error.message}"
        raise
    return adapter_of(url)
