"""A small network on this machine: hosts in namespaces of their own, each behind a link of a given rate. Takes root."""

from __future__ import annotations

import json
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

    def command(self, *words: str) -> list[str]:
        """A command line that runs `words` on this host."""
        return ["ip", "netns", "exec", self.namespace, *words]

    @property
    def sent(self) -> int:
        """Bytes that it has sent so far, headers included."""
        (link,) = json.loads(_run("ip", "-json", "-stats", "-n", self.namespace, "link", "show", "dev", "eth0"))
        return int(link["stats64"]["tx"]["bytes"])


@contextmanager
def network(names: Sequence[str], rate: str = "") -> Iterator[dict[str, Host]]:
    """Connect hosts by a switch for the time of the block; their processes must end before it does.

    Args:
        names: The hosts' names.
        rate: What each link carries in either direction, as tc(8) writes it, `200mbit`; empty for no limit.
    """
    tag = uuid.uuid4().hex[:6]
    switch = f"sg{tag}"
    hosts = {name: Host(f"sg{tag}{number}", f"{SUBNET}.{number}") for number, name in enumerate(names, start=1)}
    namespaces = [switch, *(host.namespace for host in hosts.values())]
    try:
        for namespace in namespaces:
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for number, host in enumerate(hosts.values(), start=1):
            port = f"port{number}"
            peer = ("peer", "name", "eth0", "netns", host.namespace)
            _run("ip", "-n", switch, "link", "add", port, "type", "veth", *peer)
            _run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
            _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _run("ip", "-n", host.namespace, "link", "set", "eth0", "up")
            if rate:
                shape(host, rate)
                _shape(switch, port, rate)
        yield hosts
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def shape(host: Host, rate: str) -> None:
    """Limit what a host sends."""
    _shape(host.namespace, "eth0", rate)


def _shape(namespace: str, device: str, rate: str) -> None:
    bucket = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
    _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *bucket)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
