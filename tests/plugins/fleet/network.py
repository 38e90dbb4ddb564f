"""A small network on this machine: hosts in namespaces of their own, behind links whose rate can be set. Takes root."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

SUBNET = "10.213.7"
"""Addresses of the hosts; the network reaches nothing else."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its namespace, and its address on the network."""

    namespace: str
    address: str
    switch: str
    """The switch's namespace."""
    port: str
    """Its device at the switch."""

    def command(self, *words: str) -> list[str]:
        """A command line that runs `words` on this host."""
        return [shutil.which("ip") or "ip", "netns", "exec", self.namespace, *words]

    @property
    def sent(self) -> int:
        """Bytes that it has sent so far, headers included."""
        (link,) = json.loads(_run("ip", "-json", "-stats", "-n", self.namespace, "link", "show", "dev", "eth0"))
        return int(link["stats64"]["tx"]["bytes"])


@contextmanager
def network(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Connect hosts by a switch for the time of the block, by their names; their processes must end before it does."""
    tag = uuid.uuid4().hex[:6]
    switch = f"sg{tag}"
    hosts = {
        name: Host(f"sg{tag}{number}", f"{SUBNET}.{number}", switch, f"port{number}")
        for number, name in enumerate(names, start=1)
    }
    namespaces = [switch, *(host.namespace for host in hosts.values())]
    try:
        for namespace in namespaces:
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for host in hosts.values():
            peer = ("peer", "name", "eth0", "netns", host.namespace)
            _run("ip", "-n", switch, "link", "add", host.port, "type", "veth", *peer)
            _run("ip", "-n", switch, "link", "set", host.port, "master", "br0", "up")
            _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _run("ip", "-n", host.namespace, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def shape(host: Host, rate: str) -> None:
    """Limit what a host's link carries in either direction; the rate as tc(8) writes it, `200mbit`."""
    for namespace, device in ((host.namespace, "eth0"), (host.switch, host.port)):
        bucket = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
        _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *bucket)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
