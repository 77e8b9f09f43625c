"""`make demo-cluster`, run as a newcomer runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "examples.demo_cluster", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("replication", ["promote() took", "comes back as a replica"]),
        ("galera", ["nobody does anything about it", "joins again, with a copy of the data"]),
    ],
)
def test_it_shows_what_it_promises(engine: str, says: list[str]) -> None:
    done = run("--engines", engine)
    assert (done.returncode, done.stderr) == (0, "")
    for text in [*says, "3 servers on loopback", "Nothing that was acknowledged is lost"]:
        assert text in done.stdout


def test_a_wrong_option_is_a_message() -> None:
    done = run("--processes", "0")
    assert done.returncode == 2
    assert "--processes is at least 1" in done.stderr
