"""The bindings that checks name by a word: the version, its scope, and what the spec and the gates below say."""

from __future__ import annotations

from prefect_stagegate.gate.accepted import Accepted, accepted_below, last_accepted
from prefect_stagegate.gate.context import Binding, CheckContext, Fact
from prefect_stagegate.model.canonical import digest_of


def _of_key(key: str) -> Binding:
    return Binding(key, lambda context: digest_of(context.spec.canonical().get(key)))


def _of_accepted(name: str, accepted: Fact[[], Accepted | None]) -> Binding:
    def value(context: CheckContext) -> str:
        version = accepted(context)
        return f"{version.digest} since {version.at}" if version else "none"

    return Binding(name, value)


BINDINGS = {
    binding.name: binding
    for binding in (
        Binding("version", lambda context: context.digest),
        Binding("environment", lambda context: context.environment.fingerprint),
        Binding("target", lambda context: context.target),
        Binding("node", lambda context: context.node),
        Binding("policy", lambda context: context.gate.policy),
        Binding("spec", lambda context: context.spec.digest),
        Binding("owners", lambda context: digest_of(dict(context.spec.owners))),
        _of_key("contract"),
        _of_key("sources"),
        _of_key("job"),
        _of_accepted("below", accepted_below),
        _of_accepted("accepted", last_accepted),
    )
}
"""The core's bindings by name. A check declares others as objects."""
