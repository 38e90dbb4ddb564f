"""The main job on real data, in one go: `stagegate demo`.

run        from the folder and the servers to the last word
steps      what happens in between; each step proves what it tells
passage    the flow, and what its tasks return
consumer   what reads production
data       the flights of New York in 2013, and three deliveries of them
services   a Prefect server, and an environment of the demo's own
folder     the one folder in which everything lies
story      how it is told
"""

from prefect_stagegate.demo.run import run

__all__ = ["run"]
