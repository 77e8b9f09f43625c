"""Starts a program of examples/ that serves pages, and learns where."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
START_SECONDS = 30.0


@contextmanager
def serving(example: str, url: str) -> Iterator[int]:
    """The program, from when it says where it listens; the port."""
    command = [sys.executable, "-u", "-m", f"examples.{example}"]
    environment = {**os.environ, "HSKV_URL": url, "PORT": "0"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield listening_port(process)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def listening_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    deadline, said = time.monotonic() + START_SECONDS, ""
    # A program that says nothing must not stop the test for ever.
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        while time.monotonic() < deadline:
            line = process.stdout.readline().decode()
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
            assert line, said
    finally:
        timer.cancel()
    pytest.fail(said)
