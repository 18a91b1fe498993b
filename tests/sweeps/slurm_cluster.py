"""A SLURM cluster of this one machine, in a folder, without systemd, cgroups and accounting: ready in seconds.

Debian's ``slurm-wlm`` and ``munge`` are all it takes. It has a configuration, keys and ports of its own and does not
touch a cluster that this machine belongs to.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_START_SECONDS = 60.0
_CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again may start after 5 seconds, by default after 120.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that a cluster takes and this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run a cluster in the empty ``folder`` and yield the environment variables with which commands find it.

    It has as many cores as this process may use, at least two.

    Raises:
        RuntimeError: it is not ready after a minute.
    """
    for name in ("spool", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    cpus = max(len(os.sched_getaffinity(0)), 2)
    settings = {"host": host, "ports": (_free_port(), _free_port()), "user": getpass.getuser(), "cpus": cpus}
    (folder / "slurm.conf").write_text(_CONFIG.format(folder=folder, **settings))
    environment = {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": _PATH}
    daemons = (
        ("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
         f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log"),
        ("slurmctld", "-D"),
        ("slurmd", "-D", "-N", host),
    )  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words in daemons:
            with (folder / f"{words[0]}.out").open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        words, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT,
                        start_new_session=True, preexec_fn=_end_with_the_tests,
                    )
                )  # fmt: skip
        _wait_until_idle(folder, environment, processes)
        yield environment
    finally:
        with contextlib.suppress(OSError):
            ask(environment, "scancel", "--user", getpass.getuser())
        for process in reversed(processes):
            process.terminate()
            process.wait()


def ask(environment: Mapping[str, str], *words: str) -> str:
    """What a command of the cluster's says."""
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _wait_until_idle(folder: Path, environment: Mapping[str, str], processes: list[subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + _START_SECONDS
    while ask(environment, "sinfo", "--noheader", "--format=%T") != "idle":
        if time.monotonic() > limit or any(process.poll() is not None for process in processes):
            said = "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"SLURM did not start:\n{said}")
        time.sleep(0.2)


def _end_with_the_tests() -> None:
    """Also where the tests are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
