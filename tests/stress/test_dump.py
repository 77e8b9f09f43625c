"""A million rows of every kind, out and in, stopped half way: the same, in flat memory."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import hskv
from hskv.mariadb import PrivateServer

ROWS: Final = 1_000_000
# Of Python with hskv and click; a page and a block are a few MiB.
MOST_MIB: Final = 64
# After which share of the work, how, and with which exit code.
STOPS: Final = ((0.3, signal.SIGINT, 130), (0.6, signal.SIGKILL, -signal.SIGKILL))


class Own:
    kind = 6

    def dumps(self, value: object) -> bytes:
        return b"\xff\x00" + repr(value).encode()

    def loads(self, data: bytes) -> bytes:
        return data


KINDS: Final[list[tuple[dict[str, Any], Callable[[int], Any]]]] = [
    ({}, lambda n: f"text {n} é\n\t\0"),
    ({}, lambda n: n * 7 - 10**6),
    ({}, lambda n: random.randbytes(20)),
    ({}, lambda n: {"n": n, "list": [1, None, "x"]}),
    ({"serializer": "msgpack"}, lambda n: {"b": b"\0\xff", "n": n}),
    ({"serializer": "pickle"}, lambda n: {1, 2, n}),
    ({"serializer": Own()}, lambda n: (n, 1.5)),
    ({"compress_min_bytes": 10}, lambda n: "compress me " * 20 + str(n)),
]


def key(n: int) -> bytes:
    return b"key:%07d" % n if n % 3 else b"\xff\x00\\%07d\n" % n


def fill(url: str) -> None:
    for first, (options, value) in enumerate(KINDS):
        with hskv.connect(url, key_type=bytes, **options) as store:
            mine = range(first, ROWS, len(KINDS))
            store.set_many((key(n), value(n)) for n in mine if n % 5)
            store.set_many(((key(n), value(n)) for n in mine if not n % 5), ttl=10**6)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateServer]:
    with PrivateServer(options={"innodb_buffer_pool_size": "256M"}) as server:
        monkeypatch.setenv("HSKV_URL", server.url)
        fill(server.url)
        with hskv.connect(server.url) as store:
            assert store.lease("nightly", ttl=9000, fence=True).acquire()
        yield server


def begin(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "hskv", *arguments, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What it reports, after it was looked at how much memory it took."""
    assert process.stdout is not None
    with process.stdout as stdout:
        report = stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss < MOST_MIB * 1024
    found: dict[str, Any] = json.loads(report)
    print(found, f"{usage.ru_maxrss // 1024} MiB")
    return found


def stop_when_there_are(
    bytes_or_rows: float, there: Callable[[], int], process: "subprocess.Popen[bytes]", how: int
) -> int:
    """Send a signal in the middle, and wait; the exit code."""
    with process:
        while there() < bytes_or_rows:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(how)
    return process.returncode


@pytest.mark.timeout(900)
def test_a_million_rows(server: PrivateServer, tmp_path: Path) -> None:
    file, again = tmp_path / "rows", tmp_path / "again"
    whole = finish(begin("dump", str(file)))
    assert whole["dumped"] == ROWS + 1

    part, size = Path(f"{again}.partial"), file.stat().st_size
    for share, how, code in STOPS:
        dump = begin("dump", str(again), *["--resume"] * part.exists())
        assert stop_when_there_are(share * size, lambda: _bytes(part), dump, how) == code
        assert not again.exists()
    resumed = finish(begin("dump", str(again), "--resume"))
    assert resumed["sha256"] == whole["sha256"]

    with hskv.connect(server.url, timeout=600) as store:
        store.modify(">=", [""], "D", limit=2**32 - 1)
        assert store.find(">=", [""], limit=1) == []
    bookmark = Path(f"{file}.loading")
    for share, how, code in STOPS:
        load = begin("load", str(file), *["--resume"] * bookmark.exists())
        assert stop_when_there_are(share * ROWS, lambda: _rows(bookmark), load, how) == code
    assert finish(begin("load", str(file), "--resume"))["loaded"] == ROWS + 1
    third = finish(begin("dump", str(again), "--overwrite"))
    assert third["sha256"] == whole["sha256"]


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _rows(bookmark: Path) -> int:
    return int(json.loads(bookmark.read_bytes())["rows"]) if bookmark.exists() else 0
