"""The Slurm array of the documentation, run by a Slurm of one machine that the test starts; else skipped."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from fake_round import write_round

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "slurm" / "rescan.sbatch"
DEADLINE_S = 300
CONFIGURATION = """
ClusterName=tiny
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=30
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} CPUs={cores} State=UNKNOWN
PartitionName=tiny Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which Slurm's commands reach a cluster of this machine."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in DAEMONS):
        pytest.skip("needs root, munge and slurm-wlm")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2), cores=os.cpu_count()))
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    options = {"key-file": key, **{f"{name}-file": folder / f"munge.{name}" for name in ("pid", "log", "seed")}}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}={path}" for name, path in options.items()]
    daemons = [subprocess.Popen(munge, env=environment)]
    try:
        wait_for(lambda: (folder / "munge.socket").exists(), folder)
        for command in (["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)]):
            daemons.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        wait_for(lambda: "idle" in output(["sinfo", "-h", "-o", "%T"], environment), folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()


def output(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def wait_for(true, folder):
    end = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
            raise AssertionError(f"it did not happen in {DEADLINE_S} s\n{logs}")
        time.sleep(0.2)


def test_an_array_writes_one_run_and_one_that_was_ended_goes_on(slurm, tmp_path):
    round_dir, run = write_round(tmp_path / "round", models=3, per_class=2), tmp_path / "run"
    options = [
        "--verdict", "naive", "--device", "cpu", "--data", "examples", "--set", "data.train_per_class=3",
        "--set", "data.held_per_class=2", "--set", "scanner.steps=2", "--set", "scanner.screen_steps=2",
        "--set", "scanner.pair_bound=1e-9",
    ]  # fmt: skip

    def submit():
        command = ["sbatch", "--parsable", "--array=1-2", str(SCRIPT), str(round_dir), str(run), *options]
        done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def over(job):
        return output(["squeue", "-h", "-j", job], slurm).strip() == ""

    first = submit()
    wait_for(lambda: len(list(tmp_path.glob("*.log"))) == 2, tmp_path)
    subprocess.run(["scancel", "--signal=TERM", "--batch", first], env=slurm, check=True)
    wait_for(lambda: over(first), tmp_path)
    second = submit()
    wait_for(lambda: over(second), tmp_path)
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    rows = pd.read_csv(run / "results.csv")
    assert rows["verdict"].to_list() == ["clean"] * 3, logs
    assert os.listdir(run / "leases") == [] if (run / "leases").exists() else True
    for index in (1, 2):
        assert f"Shard {index} of 2" in logs[f"rescan-{second}_{index}.log"]
