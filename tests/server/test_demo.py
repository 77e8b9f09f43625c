"""The demo, run as a newcomer runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ("-m", "examples.demo")

pytestmark = pytest.mark.timeout(120)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *DEMO, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def test_it_shows_what_it_promises() -> None:
    done = run("--limit", "40", "--processes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "40/40" in done.stdout
    assert "40 of 40 served from the store" in done.stdout
    assert "later: None" in done.stdout
    assert done.stdout.count("80 answers after") == 2
    assert "'report 1, by process" in done.stdout
    assert "'report 2, by process" in done.stdout
    assert "1,000 passed, 9,000 were refused" in done.stdout
    assert "SELECT SUM(n) FROM kv" in done.stdout
    assert "Largest modules, by SQL" in done.stdout
    assert "The counters agree with the plain Python count." in done.stdout
    assert "NO" not in done.stdout.split()


def test_a_missing_server_is_a_message() -> None:
    done = run(HSKV_MARIADBD="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: /nonexistent was not found")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_a_wrong_option_is_a_message() -> None:
    done = run("--processes", "0")
    assert done.returncode == 2
    assert "--processes is at least 1" in done.stderr


def test_an_interrupt_ends_it_with_a_message() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", *DEMO],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        while "2. " not in demo.stdout.readline():
            assert demo.poll() is None
        # To the whole group, as a terminal does.
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert errors == "demo: interrupted\n"
