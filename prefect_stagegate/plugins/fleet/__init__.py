"""Jobs about many nodes: what each node holds, where a version lies, and what this node should hold."""

from prefect_stagegate.doors import Command, Page, Plugin, Replicas

PLUGIN = Plugin(
    commands=(
        Command(
            "nodes",
            f"{__name__}.node_commands:nodes",
            "List the nodes and the age of their records, or what each has of a version.",
            "Run",
            usage="[OPTIONS] [DATASET@REF]",
            was={"where": "nodes"},
        ),
        Command(
            "ready",
            f"{__name__}.commands:ready",
            "Exit with 0 only when this node holds the version that the catalog names, complete.",
            "Read",
        ),
        Command(
            "agent",
            f"{__name__}.commands:agent",
            "Keep this node's versions and its record in the catalog current.",
            "Run",
            usage="[OPTIONS] [DATASET@REF...]",
            is_main=True,
        ),
        Command(
            "serve blobs",
            f"{__name__}.commands:blobs",
            "Send this node's blobs to other nodes of its site, by their digest.",
        ),
    ),
    pages=(
        Page("/nodes", f"{__name__}.node_pages:nodes_page", "Nodes", "nodes.html"),
        Page("/nodes/{node}", f"{__name__}.node_pages:node_page", "Nodes", "node.html"),
    ),
    flows={name: f"{__name__}.flows.{name}:{name}" for name in ("stage_fleet", "stage_node")},
    tasks={name: f"{__name__}.flows.{name}:{name}" for name in ("place", "stage_on_node")},
    replicas=Replicas(find=f"{__name__}.peers.peer_search:find_peers", holders=f"{__name__}.nodes:find_holders"),
    keeps={"needed by a node": f"{__name__}.nodes:why_needed"},
    version_records=("stagegate.fleets",),
    nodes=f"{__name__}.nodes:node_names",
    observers={f"{__name__}.own_record:NodeRecorder": lambda job: job.name in ("fetch", "point", "collect", "pin")},
    settings=f"{__name__}.fleet_settings:FleetSettings",
)
