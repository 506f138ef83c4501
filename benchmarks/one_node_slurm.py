"""A Slurm of one node on loopback, as root, without systemd, cgroups or accounting: for trials of what it does to jobs.

Needs Debian's slurm-wlm and munge (22.05.8 and 0.5.15 were used). Clusters without accounting are the harder kind:
nothing tells afterwards how a job ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_CPUS = 4
_CONF = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
{signals}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} CoresPerSocket={cpus} RealMemory=4000
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes={host} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def is_installed() -> bool:
    return all(shutil.which(name) for name in ("munged", "slurmctld", "slurmd", "sbatch"))


@contextlib.contextmanager
def one_node_slurm(folder: Path, signals: bool = True) -> Iterator[None]:
    """Start it, with the partitions ``low`` and ``high``, which preempts the first; `SLURM_CONF` names it meanwhile.

    Args:
        folder: for its files.
        signals: preempted jobs get the signal that they asked for, which is not Slurm's default: there they are killed
            without a word that they could hear.
    """
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o700)
    key, conf, munge = folder / "munge/key", folder / "slurm.conf", folder / "munge"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    port = _free_port()
    host = socket.gethostname().split(".")[0]
    told = "SlurmctldParameters=preempt_send_user_signal" if signals else ""
    conf.write_text(_CONF.format(host=host, port=port, node_port=_free_port(), folder=folder, cpus=_CPUS, signals=told))
    before, os.environ["SLURM_CONF"] = os.environ.get("SLURM_CONF"), str(conf)
    try:
        _run("munged", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
             f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--force")  # fmt: skip
        _run("slurmctld", "-f", str(conf))
        start_node()
        for _ in range(100):
            if "idle" in _run("sinfo", "--noheader", "--format=%T"):
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"Slurm's node is not idle after 10 s:\n{(folder / 'slurmctld.log').read_text()}")
        yield
    finally:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _run("scancel", f"--user={os.getuid()}")
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "pid"):
            with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
                psutil.Process(int(pid_file.read_text())).terminate()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def start_node() -> None:
    _run("slurmd", "-N", socket.gethostname().split(".")[0])


def kill_node() -> None:
    for daemon in psutil.process_iter(["name"]):
        if daemon.info["name"] == "slurmd":
            daemon.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
