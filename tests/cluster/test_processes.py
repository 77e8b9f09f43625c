"""Clusters end with the process that started them, whatever they are at."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .traffic import eventually

SCRIPT = """
    import sys, threading, time
    from hskv.mariadb import {kind}
    cluster = {kind}()
    def tell():
        told = set()
        while True:
            for server in cluster.running:
                if server.pid not in told:
                    told.add(server.pid)
                    print(server.pid, server.directory, flush=True)
            time.sleep(0.01)
    threading.Thread(target=tell, daemon=True).start()
    cluster.start()
    {then}
"""


def run(kind: str, then: str) -> "subprocess.Popen[str]":
    script = textwrap.dedent(SCRIPT.format(kind=kind, then=then))
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def processes_that_name(directories: list[str]) -> list[str]:
    """Command lines of processes that work in these directories."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(directory in line for directory in directories):
            found.append(line)
    return found


@pytest.mark.parametrize("kind", ["PrivateReplication", "PrivateGalera"])
def test_an_owner_that_ends_leaves_no_process_and_no_directory(kind: str) -> None:
    with run(kind, "time.sleep(0.1)") as owner:
        assert owner.stdout
        lines = owner.stdout.read().splitlines()
    directories = [line.split()[1] for line in lines]
    assert len(directories) == (2 if kind == "PrivateReplication" else 3)
    assert processes_that_name(directories) == []
    assert not any(Path(directory).exists() for directory in directories)


# Of Galera in the midst of copying its data from one node to another.
@pytest.mark.parametrize(("kind", "servers"), [("PrivateReplication", 2), ("PrivateGalera", 2)])
def test_an_owner_that_is_killed_leaves_no_process(kind: str, servers: int) -> None:
    with run(kind, "time.sleep(60)") as owner:
        assert owner.stdout
        directories = [owner.stdout.readline().split()[1] for _ in range(servers)]
        if kind == "PrivateGalera":
            assert eventually(
                lambda: any("rsync" in one for one in processes_that_name(directories))
            )
        owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: processes_that_name(directories) == [], 20.0)
    subprocess.run(["rm", "-r", *directories], check=True)


def test_a_node_that_is_killed_while_it_copies_leaves_no_process() -> None:
    with run("PrivateGalera", "time.sleep(60)") as owner:
        assert owner.stdout
        lines = [owner.stdout.readline().split() for _ in range(2)]
        directories = [directory for _, directory in lines]
        assert eventually(lambda: any("rsync" in one for one in processes_that_name(directories)))
        os.kill(int(lines[1][0]), signal.SIGKILL)
        assert eventually(lambda: processes_that_name(directories[1:]) == [])
        owner.wait(60)
    assert owner.returncode == 1
    assert processes_that_name(directories) == []
