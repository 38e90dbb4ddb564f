"""A Slurm cluster of one node, with Debian's daemons on the loopback interface. Root runs it, and its jobs."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port
from tests.support.waiting import eventually

NODE = "gpu-1"
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
Prolog={prolog}
PrologFlags=Alloc,DeferBatch
SchedulerParameters=nohold_on_prolog_fail,sched_interval=1
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
PartitionName=gpus Nodes={node} Default=YES
"""


@dataclass(frozen=True)
class Slurm:
    """The cluster's command line."""

    environment: dict[str, str]

    def __call__(self, *words: str | Path) -> str:
        """Run one of Slurm's commands; returns what it printed."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller says of a job: `JobState`, `Restarts` and more."""
        return dict(word.split("=", 1) for word in self("scontrol", "show", "job", number).split() if "=" in word)

    def node_state(self) -> str:
        """The node's state: `IDLE`, or another."""
        words = self("scontrol", "show", "node", NODE).split()
        return next(word.removeprefix("State=") for word in words if word.startswith("State="))

    def wait_for(self, number: str, is_reached: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """The job, once it is in a state."""
        assert eventually(lambda: is_reached(self.job(number))), self.job(number)
        return self.job(number)

    def submit(self, script: Path, *words: str) -> str:
        """Submit a batch script, whose output goes beside it; returns the job's number."""
        return self("sbatch", "--parsable", f"--output={script.with_suffix('.log')}", *words, script).strip()


@contextmanager
def slurm(folder: Path, prolog: Path) -> Iterator[Slurm]:
    """Run a cluster whose node runs `prolog` before each job."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    values = {"folder": folder, "prolog": prolog, "host": host, "node": NODE, "ports": (free_port(), free_port())}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(**values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    key = folder / "slurm.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    cluster = Slurm({**os.environ, "SLURM_CONF": str(configuration)})

    def answers() -> bool:
        pinged = subprocess.run(["scontrol", "ping"], env=cluster.environment, capture_output=True, check=False)
        return pinged.returncode == 0

    daemon = ("-D", "-f", str(configuration))
    with (
        launched(["/usr/sbin/slurmctld", *daemon], folder / "slurmctld.log", answers, env=cluster.environment),
        launched(
            ["/usr/sbin/slurmd", *daemon, "-N", NODE],
            folder / "slurmd.log",
            lambda: cluster.node_state() == "IDLE",
            env=cluster.environment,
        ),
    ):
        yield cluster
