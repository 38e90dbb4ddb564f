"""`stagegate demo`: real data on their way from sources to production, in one go.

run        makes the folder, starts the servers, runs the steps
steps      the steps of the demo; each checks its result
passage    runs the flow and collects the results of its tasks
consumer   reads the data that production names
data       the flights from New York in 2013, in three deliveries
services   a Prefect server, and the demo's environment variables
folder     the demo's folder
story      prints what happens
"""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "demo",
            f"{__name__}.commands:demo",
            "Run the main job on real data, with nothing to set up.",
            "Begin",
            tip="Try it on real data, with nothing to set up: `stagegate demo`.",
        ),
    )
)
