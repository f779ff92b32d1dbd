"""A real Slurm of two nodes on this machine: its own munged, slurmctld and two slurmd, in a folder and at ports of its own.

Jobs are numbered from a port on, so that those of two such clusters do not meet at the same one.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from getpass import getuser
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,requeue_delay=1
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
KillWait=5
FirstJobId={first_job}
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=4000
PartitionName=tests Nodes=n1,n2 Default=YES MaxTime=INFINITE DefaultTime=5 State=UP OverSubscribe=FORCE:4
"""


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"


class Slurm:
    """Starts at once; `stop` ends every process of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("munge", "state", "spool.n1", "spool.n2"):
            (folder / name).mkdir(mode=0o755)
        configuration, ports = folder / "slurm.conf", _free_ports(3)
        configuration.write_text(
            _CONFIGURATION.format(folder=folder, user=getuser(), host=socket.gethostname(), ports=ports, first_job=ports[0])
        )
        self.environment = {"SLURM_CONF": str(configuration), "PATH": _path()}
        munge = folder / "munge"
        self.call("mungekey", "--create", f"--keyfile={munge}/key")
        files = [f"--{what}={munge}/{what.removesuffix('-file')}" for what in ("key-file", "pid-file", "log-file", "seed-file", "socket")]
        self.call("munged", "--force", *files)
        self.call("slurmctld", "-c")
        for node in ("n1", "n2"):
            self.call("slurmd", "-N", node)
        self.wait_for(lambda: self.call("sinfo", "--noheader", "--states=idle", "--format=%D").strip() == "2", "two idle nodes")

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, ExitCode, ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", "--oneliner", number)))

    def hasten(self, number: str) -> None:
        """Slurm lets a job wait for two minutes before it starts again; two seconds are enough for its old credential to be gone."""
        self.wait_for(lambda: self.job(number)["JobState"] == "PENDING", f"job {number} in the queue")
        self.call("scontrol", "update", f"jobid={number}", "starttime=now+2")

    def wait_for_end(self, number: str, seconds: float = 120) -> dict[str, str]:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait_for(lambda: self.job(number)["JobState"] in ended, f"the end of job {number}", seconds)
        return self.job(number)

    def wait_for(self, condition, what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"no {what} after {seconds} s; see {self.folder}"
            time.sleep(0.1)

    def stop(self) -> None:
        subprocess.run(["scontrol", "shutdown"], env=os.environ | self.environment, capture_output=True, timeout=60)
        self.wait_for(lambda: not list(self.folder.glob("*.pid")), "end of Slurm")  # whose daemons ask munge who tells them to end
        pid = self.folder / "munge" / "pid"
        if pid.exists():
            os.kill(int(pid.read_text()), 15)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
