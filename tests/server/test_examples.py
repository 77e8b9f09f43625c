"""The programs in examples/, asked by real HTTP requests."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0


class Answer(NamedTuple):
    status: int
    headers: Message
    body: str


def ask(port: int, path: str = "/") -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())
    finally:
        connection.close()


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


@pytest.mark.parametrize("example", ["wsgi_rate_limit", "asgi_rate_limit"])
def test_a_middleware_refuses_the_sixth_request(
    example: str, hskv_server: PrivateServer, hskv_store: KeyValueStore[str, object]
) -> None:
    with serving(example, hskv_server.url) as port:
        answers = [ask(port) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert [answer.body for answer in answers[4:]] == ["Hello.\n", "Too many requests.\n"]
    first, last = answers[0].headers, answers[-1].headers
    assert first["RateLimit-Policy"] == '"web";q=5;w=10'
    assert first["RateLimit"] == '"web";r=4;t=2'
    assert "Retry-After" not in first
    assert last["RateLimit"].startswith('"web";r=0;t=')
    assert last["Retry-After"] in ("1", "2")


def test_flask_limiter_counts_in_the_table(
    hskv_server: PrivateServer, hskv_store: KeyValueStore[str, object]
) -> None:
    with serving("flask_limits", hskv_server.url) as port:
        answers = [ask(port) for _ in range(4)]
        reports = [ask(port, "/report").status for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    assert answers[0].headers["X-RateLimit-Remaining"] == "2"
    assert reports == [200, 429]
