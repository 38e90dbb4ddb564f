"""What listings leave out, which versions go by the policy's `retain`, and which entries' bytes go from all nodes."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "retire",
            f"{__name__}.commands:retire",
            "Take a dataset or target out of listings; nothing is lost.",
            "Run",
            usage="[OPTIONS] [DATASET@TARGET]",
        ),
        Command(
            "expire",
            f"{__name__}.commands:expire",
            "Remove the versions that the policy's `retain` does not keep.",
            "Run",
            usage="[OPTIONS] [DATASET...]",
        ),
        Command(
            "erase",
            f"{__name__}.commands:erase",
            "Remove the bytes of entries from every node, and see which proved it.",
            "Run",
            usage="[OPTIONS] [DATASET@REF]",
        ),
    ),
    guards={
        "promote": f"{__name__}.erasure:require_lasting",
        "roll_back": f"{__name__}.erasure:require_lasting",
        "fetch": f"{__name__}.erasure:require_whole",
        "stage": f"{__name__}.erasure:require_none_erased",
    },
    hidden=f"{__name__}.retirement:hidden_names",
    gone=f"{__name__}.tombstones:why_expired",
    spec_keys={
        "policy.erasure": f"{__name__}.retention_keys:ERASURE",
        "retain": f"{__name__}.retention_keys:RETAIN",
    },
    pending=f"{__name__}.erasure_requests:pending_erasures",
    upkeep=f"{__name__}.erase_on_node:erase_all_on_node",
)
