"""What the checks ask this machine: GPUs, devices, memory, and how fast files are read."""

from prefect_stagegate.doors import Checks, Plugin

PLUGIN = Plugin(
    checks=(
        Checks(f"{__name__}.checks.gpu", "gpu_inventory gpu_devices gpu_memory gpu_idle"),
        Checks(f"{__name__}.checks.dcgm", "dcgm"),
        Checks(f"{__name__}.checks.job_checks", "feed_rate utilisation"),
        Checks(f"{__name__}.checks.locality", "gpu_locality"),
        Checks(f"{__name__}.checks.parity", "parity_image parity_python parity_cuda parity_env parity_host"),
        Checks(f"{__name__}.checks.pools", "worker work_pool queue"),
        Checks(f"{__name__}.checks.schedules", "schedule concurrency alert"),
    )
)
