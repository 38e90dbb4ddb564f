"""Dagster: nycflights as an asset, staged, checked and promoted by the `stagegate` command.

The command has an environment of its own, so none of its packages meets Dagster's. An asset that reads the data depends
on `nycflights`, and runs its program by `stagegate exec nycflights@pilot -- …`, which holds the version meanwhile.
"""

import json
import subprocess
import tempfile
from typing import Any

import dagster as dg

STAGEGATE = "/opt/stagegate/bin/stagegate"
SPEC = "/etc/stagegate/nycflights.yaml"
RETRY = 3
"""The exit code after which the same command may succeed later."""


def stagegate(context: dg.AssetExecutionContext, *words: str) -> dict[str, Any]:
    """Run a command, log its lines, and return the document that it printed.

    Raises:
        RetryRequested: The command failed, or the gate could not decide; the same command may succeed later.
        Failure: All else needs a person: whoever asks again gets the same answer.
    """
    command = [STAGEGATE, *words, "--compact"]
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr or ():
                    log_line(context, line)
            except BaseException:
                # Dagster interrupts a run that somebody terminates. The command ends within 2 s, and leaves no lease.
                process.terminate()
                raise
        output.seek(0)
        printed = output.read()
    document = json.loads(printed) if printed else {}
    if process.returncode:
        failure = dg.Failure(
            description=f"stagegate {words[0]} exits with {process.returncode}: {reason(document)}",
            metadata={"turn": dg.JsonMetadataValue(document.get("turn", []))},
            allow_retries=False,
        )
        if process.returncode == RETRY:
            # No retry policy of the asset: it would also start a run again that somebody terminated.
            raise dg.RetryRequested(max_retries=3, seconds_to_wait=60) from failure
        raise failure
    return document


def reason(document: dict[str, Any]) -> str:
    """Why a command failed, and what to do: from an error, or from the report of a gate that did not accept."""
    if error := document.get("error"):
        return f"{error['message']}. {error['hint']}"
    return " ".join([document.get("reason", ""), *document.get("steps", [])])


def log_line(context: dg.AssetExecutionContext, line: str) -> None:
    """Log a line of the command's standard error; progress as a sentence."""
    if not line.startswith('{"progress": '):
        context.log.info(line.rstrip())
        return
    progress = json.loads(line)["progress"]
    if "bytes" in progress:
        done = progress["bytes_moved"] + progress["bytes_reused"]
        context.log.info("%s: %d of %d B %s", progress["phase"], done, progress["bytes"], progress["wait"])
    else:
        context.log.info("%s: %s", progress["phase"], progress["step"])


@dg.asset(group_name="stagegate")
def nycflights(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The version that the gate of pilot accepted. Its data version is its digest: the same bytes are no news."""
    version = stagegate(context, "stage", SPEC, "--progress=json")
    name = f"{version['dataset']}@{version['digest']}"
    stagegate(context, "check", name, "--gate", "pilot", "--progress=json")
    stagegate(context, "promote", name, "--to", "pilot")
    return dg.MaterializeResult(
        metadata={
            "digest": version["digest"],
            "path": dg.MetadataValue.path(version["path"]),
            "files": version["files"],
            "bytes": version["bytes"],
            "bytes_fetched": version["bytes_fetched"],
            "bytes_reused": version["bytes_reused"],
        },
        data_version=dg.DataVersion(version["digest"]),
    )


hourly = dg.ScheduleDefinition(
    name="nycflights_hourly", target=dg.AssetSelection.assets(nycflights), cron_schedule="17 * * * *"
)
definitions = dg.Definitions(assets=[nycflights], schedules=[hourly])
