"""The API of the Kubernetes cluster that this process runs in: reads and patches this node's Node object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import AccessDenied, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.redaction import remember
from prefect_stagegate.transport.http import Client, Request, Response, fetch

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token and the cluster's certificate authority."""
REQUEST_SECONDS = 10.0
MAX_NODE = 8 << 20
"""Bytes of a Node object; etcd stores 1.5 MiB of one at most, and JSON is longer."""
_SHOWN = 200
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404


@dataclass(frozen=True, slots=True)
class NodeApi:
    """Requests about one Node. Each takes `REQUEST_SECONDS` at most, and is sent once."""

    node: str
    url: str
    """The Node's URL."""
    client: Client = field(repr=False)
    folder: Path
    """The folder with the file `token`, which Kubernetes renews."""

    @classmethod
    def in_cluster(
        cls,
        environ: Mapping[str, str],
        node: str,
        *,
        allowed: tuple[str, ...] = (),
        folder: Path = SERVICE_ACCOUNT,
    ) -> NodeApi:
        """The API as a pod reaches it.

        Args:
            environ: The environment, in which Kubernetes names the API's address.
            node: The Node's name.
            allowed: Hosts that may be connected to whatever their address is.
            folder: Where the service account is mounted.

        Raises:
            UsageError: This process does not run in a pod, or the name is not one of a Node.
        """
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise UsageError(
                "This process does not run in a pod: KUBERNETES_SERVICE_HOST is not set",
                hint="Run the agent by deployments/kubernetes, or leave out --kubernetes.",
            )
        if not _NODE_NAME.fullmatch(node):
            raise UsageError(
                f"{node!r} is not the name of a Kubernetes Node",
                hint="Set STAGEGATE_NODE from the field spec.nodeName, as deployments/kubernetes does.",
            )
        authority = f"[{host}]" if ":" in host else host
        client = Client(allowed, str(folder / "ca.crt"), redirects=False)
        return cls(node, f"https://{authority}:{port}/api/v1/nodes/{node}", client, folder)

    def read(self) -> dict[str, Any]:
        """The Node object.

        Raises:
            AccessDenied: The service account may not, or its token can't be read.
            SourceError: The API does not answer, or not with an object.
            UsageError: There is no such Node.
        """
        response = self._send("GET", "", "", None)
        try:
            node = json.loads(bytes(response.body))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"Kubernetes' API sent no JSON for Node {self.node}") from error
        if not isinstance(node, dict):
            raise SourceError(f"Kubernetes' API sent no object for Node {self.node}")
        return node

    def patch_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the Node; None removes one. Raises as `read` does."""
        self._send("PATCH", "", "application/merge-patch+json", {"metadata": {"labels": labels}})

    def patch_conditions(self, conditions: list[dict[str, str]]) -> None:
        """Set conditions of the Node's status, merged by their type. Raises as `read` does."""
        kind = "application/strategic-merge-patch+json"
        self._send("PATCH", "/status", kind, {"status": {"conditions": conditions}})

    def _send(self, method: str, path: str, kind: str, body: Any) -> Response:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._token()}"}
        if kind:
            headers["Content-Type"] = kind
        request = Request(
            self.url + path,
            headers,
            self.client,
            method,
            None if body is None else json.dumps(body).encode(),
            limit=MAX_NODE,
            timeout=REQUEST_SECONDS,
        )
        try:
            response = fetch(request)
        except SourceError as error:
            raise SourceUnavailable(f"Kubernetes' API can't be used: {error.message}") from error
        if not response.is_success:
            raise self._refusal(method, path, response)
        return response

    def _token(self) -> str:
        """The service account's token, as it is now."""
        try:
            token = (self.folder / "token").read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise AccessDenied(
                f"The service account's token {self.folder / 'token'} can't be read",
                hint="Give the pod a serviceAccountName, and automountServiceAccountToken: true.",
            ) from error
        remember(token)
        return token

    def _refusal(self, method: str, path: str, response: Response) -> SourceError | UsageError:
        """The error for a response that is no success."""
        subject = f"{method} of Node {self.node}{path}"
        if response.status == _NOT_FOUND:
            return UsageError(
                f"Kubernetes has no Node {self.node}", hint="Set STAGEGATE_NODE from the field spec.nodeName."
            )
        if response.status in (_UNAUTHORIZED, _FORBIDDEN):
            return AccessDenied(
                f"Kubernetes refused {subject} ({response.status})",
                hint="The service account needs get and patch of nodes, and patch of nodes/status.",
            )
        return SourceUnavailable(f"Kubernetes answered {response.status} to {subject}{_reason(response)}")


def _reason(response: Response) -> str:
    """What the API says of a failure; empty where it says nothing that can be shown."""
    try:
        message = str(json.loads(bytes(response.body))["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f": {message[:_SHOWN]}" if message.isprintable() else ""
