"""The name of an artifact in a registry: `oci://registry/repository:tag`, or with `@sha256:…` in place of the tag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from prefect_stagegate.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_URL = re.compile(
    rf"oci://(?P<registry>[A-Za-z0-9.:\[\]-]+)/(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?(?:/(?P<path>.*))?",
    re.DOTALL,
)
"""The grammar of the OCI distribution specification, version 1.1."""
LONGEST = 4096
"""Characters of a URL."""


@dataclass(frozen=True, slots=True)
class OciReference:
    """One artifact, and the folder or file of it that a URL names."""

    registry: str
    """Host, and port where one is written."""
    repository: str
    tag: str
    digest: str
    """`sha256:<hex>` of the manifest; it wins over the tag."""
    path: str
    """A folder or a file; empty for the whole artifact."""

    @classmethod
    def parse(cls, url: str) -> OciReference:
        """Read the URL of an artifact, or of a folder or file in it.

        >>> OciReference.parse("oci://registry.example.org:5000/data/flights:v1/2013/")
        OciReference(registry='registry.example.org:5000', repository='data/flights', tag='v1', digest='', path='2013/')

        Raises:
            UsageError: It names no artifact.
        """
        match = _URL.fullmatch(url) if len(url) <= LONGEST else None
        if not match or not (match["tag"] or match["digest"]):
            hint = "It looks like oci://registry.example.org/repository:tag in lower case, or ends with @sha256:<hex>."
            raise UsageError(f"{url[:LONGEST]} names no artifact of a registry", hint=hint)
        parts = {name: text or "" for name, text in match.groupdict().items()}
        return cls(**parts)

    @property
    def name(self) -> str:
        """Tag or digest: what the registry is asked for."""
        return self.digest or self.tag

    @property
    def address(self) -> str:
        """The artifact as other clients of registries write it, without `oci://`."""
        return f"{self.registry}/{self.repository}{'@' if self.digest else ':'}{self.name}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine: like other clients, it is then asked without TLS."""
        host = re.sub(r":\d+$", "", self.registry).strip("[]")
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"
