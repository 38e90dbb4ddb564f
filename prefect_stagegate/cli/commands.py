"""The core's commands of `stagegate`."""

from __future__ import annotations

from prefect_stagegate.doors import Command

_TABLE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Begin": (
        (
            "init",
            "spec_commands",
            "Write a first spec for folders or URLs, with a gate that passes.",
            "[OPTIONS] FOLDER|URL...",
        ),
        ("lint", "spec_commands", "Check a spec with its suites, columns and gates, without data."),
        ("doctor", "stage_commands", "Try each source of a spec, and say how to fix those that fail."),
        ("schema", "spec_commands", "Print the JSON Schema of spec files, for editors and CI."),
    ),
    "Stage": (
        ("stage", "stage_commands", "Make a version from a spec's sources, or fetch an existing one."),
        (
            "progress",
            "progress_display",
            "Show what jobs of any process fetch into this node's cache, and how far they are.",
            "[OPTIONS] [DATASET]",
        ),
        (
            "limits",
            "cache_commands",
            "Set how many transfers a node or a source takes at a time.",
            "[OPTIONS] [SPEC...]",
        ),
    ),
    "Judge": (
        ("validate", "gate_commands", "Run a version's contract."),
        ("check", "gate_commands", "Gather the evidence that a gate requires, and decide."),
        ("checks", "spec_commands", "List the checks that a gate may require, or explain one.", "[OPTIONS] [CHECK]"),
        ("contract", "", "Suggest a contract, try a changed one on old versions, or write it in a standard's form."),
        ("contract check", "policy_commands", "Show what a changed contract would have done to the last versions."),
        ("env", "", "Capture this environment, or show how two of them differ."),
        ("env capture", "spec_commands", "Write this environment as JSON.", "[OPTIONS] [FILE]"),
        (
            "env diff",
            "spec_commands",
            "Show how an environment differs from the one that a version was accepted in, and whether that matters.",
            "[OPTIONS] THERE [OTHER]",
        ),
    ),
    "Decide": (
        ("promote", "gate_commands", "Move a target's ref to a version that its gate accepted."),
        ("approve", "gate_commands", "Answer the recorded request to promote a version."),
        ("rollback", "gate_commands", "Return a target to a version that it accepted before."),
        ("waive", "gate_commands", "Answer for one failed check of one version at one gate, for a while."),
        ("revoke", "gate_commands", "End a check's evidence about a version; the check runs again."),
        ("policy", "", "Show, compare, adopt and agree to the policy that counts for a dataset."),
        ("policy show", "policy_commands", "Print the policy that counts for a dataset."),
        ("policy diff", "policy_commands", "Show how a spec's policy differs from the adopted one, check by check."),
        (
            "policy adopt",
            "policy_commands",
            "Adopt a spec's policy for its dataset, or ask those who must agree to it.",
        ),
        ("policy approve", "policy_commands", "Agree to a proposed policy, or decline it."),
        ("policy history", "policy_commands", "Show who adopted which policy, when and why, and what it changed."),
        (
            "policy replay",
            "policy_commands",
            "Decide recorded decisions again under another policy, and show which change and by which checks.",
        ),
        ("key", "spec_commands", "Print the public half of an Ed25519 key."),
    ),
    "Read": (
        ("path", "path_commands", "Print the folder of a version that lies in this node's cache."),
        ("exec", "path_commands", "Run a command while its version is held.", "[OPTIONS] DATASET@REF -- COMMAND..."),
        ("pin", "cache_commands", "Keep a version on this node, whatever its refs do."),
    ),
    "Run": (
        (
            "verify",
            "cache_commands",
            "Hash this node's files again and compare them with their manifests.",
            "[OPTIONS] [DATASET@REF]",
        ),
        ("gc", "cache_commands", "Remove versions that no ref, lease or pin needs from this node."),
    ),
    "Look": (
        ("status", "status_commands", "Show where each target stands, and the next command.", "[OPTIONS] [DATASET]"),
        (
            "ls",
            "look_commands",
            "List datasets, their versions and refs, and what this node holds.",
            "[OPTIONS] [DATASET]",
        ),
        ("show", "look_commands", "Show one version: its digest, its size and its entries."),
        ("report", "record_commands", "Draw the report of a recorded decision again."),
        ("diff", "look_commands", "Show how the entries of two versions differ, or the rows of their tables."),
        ("history", "record_commands", "Show who moved which ref to which version, when and why."),
        ("decisions", "record_commands", "List the gates' decisions about a dataset's versions, the oldest first."),
        ("verify-attestation", "record_commands", "Verify the attestation of a decision."),
    ),
}
"""By title: what is typed, the module of this package, what it does, and the arguments as in `Command`."""
_MAIN = frozenset(
    {"init", "lint", "doctor", "stage", "validate", "check", "promote", "approve", "rollback"}
    | {"path", "exec", "verify", "gc", "status", "ls", "show", "report"}
)
"""Commands whose line the overview shows."""
_WAS: dict[str, dict[str, str]] = {"pin": {"unpin": "pin --remove"}, "policy replay": {"gate replay": "policy replay"}}
"""As `Command.was`, by command."""


def _function(words: str) -> str:
    """The function of a command: `policy_show` for `policy show`."""
    return words.replace(" ", "_").replace("-", "_")


TITLES = tuple(_TABLE)
"""The groups of the overview, in order."""
CORE = tuple(
    Command(
        words,
        module and f"{__package__}.{module}:{_function(words)}",
        line,
        "" if " " in words else title,
        usage="".join(usage),
        is_main=words in _MAIN,
        was=_WAS.get(words, {}),
    )
    for title, rows in _TABLE.items()
    for words, module, line, *usage in rows
)
