"""Images, audio, tensors and tar shards."""

from prefect_stagegate.doors import Plugin, Probe

PLUGIN = Plugin(
    probes={
        "image": Probe(f"{__name__}.media:image", f"{__name__}.media:release"),
        "audio": Probe(f"{__name__}.media:audio", f"{__name__}.media:release"),
        "safetensors": Probe(f"{__name__}.media:safetensors", f"{__name__}.media:release"),
        "numpy": Probe(f"{__name__}.arrays:numpy", f"{__name__}.media:release"),
        "tar": Probe(f"{__name__}.tar:tar"),
    }
)
