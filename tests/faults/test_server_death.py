"""A server that dies, stops, or answers no more, under 8 processes of mixed load."""

import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import exceptions as hskv_errors
from hskv.mariadb import PrivateServer

from .ledger import (
    CONNECT_SECONDS,
    HITS_ALLOWED,
    PERIOD_SECONDS,
    TIMEOUT_SECONDS,
    Crowd,
    Load,
    Log,
    Shift,
    Store,
    Turn,
    Verdict,
    compare,
)
from .oracle import Figures

Disaster = Callable[[PrivateServer], None]

# Of a call of one request, past its timeout and the time to connect: on a machine that is busy.
OVERRUN_SECONDS = 1.0


@pytest.fixture(scope="module")
def crowd(hskv_server: PrivateServer) -> Iterator[Crowd]:
    # The suite's own server is asked for since it knows what to do where there is no MariaDB.
    crowd = Crowd()
    yield crowd
    crowd.close()


@pytest.fixture(scope="module")
def mortal(crowd: Crowd) -> Iterator[PrivateServer]:
    """A server that may be killed, as durable as it is by default."""
    with PrivateServer() as server:
        yield server


@pytest.fixture
def mended(mortal: PrivateServer) -> Iterator[PrivateServer]:
    """The same; whatever a test left of it, the next finds it well."""
    yield mortal
    if mortal.pid is not None:
        os.kill(mortal.pid, signal.SIGCONT)
    mortal.kill()
    mortal.start()


def killed(server: PrivateServer) -> None:
    server.kill()
    time.sleep(random.uniform(0, 0.3))
    server.start()


def restarted(server: PrivateServer) -> None:
    server.stop()
    server.start()


def stopped(server: PrivateServer) -> None:
    """For longer than its clients wait, also where they connect anew."""
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(TIMEOUT_SECONDS + CONNECT_SECONDS + random.uniform(0.3, 0.6))
    os.kill(server.pid, signal.SIGCONT)


def writer_ended(server: PrivateServer) -> None:
    """`KILL` of the thread that writes: its port accepts, and never answers."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        # Its state is another at each moment; the thread that writes is the one with a database.
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'handlersocket'")
        ((thread,),) = cursor.fetchall()
        cursor.execute(f"KILL {thread}")
    still_accepts(server, "write")


def listener_ended(server: PrivateServer) -> None:
    """One byte ends every thread of a port, which goes on accepting."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.directory / "write.sock"))
        sock.sendall(b"Q")
        sock.settimeout(0.5)
        assert not heard(sock)
    still_accepts(server, "write")


def still_accepts(server: PrivateServer, port: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.3)
            sock.connect(str(server.directory / f"{port}.sock"))
            sock.sendall(b"9\t=\t1\t1\n")
            if not heard(sock):
                return
        assert time.monotonic() < deadline, "the thread still answers"


def heard(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except (TimeoutError, ConnectionResetError):
        return b""


class Secret:
    """Where the clients read the secret of a server, which changes with each restart."""

    def __init__(self, server: PrivateServer, file: Path) -> None:
        self._file = file
        # So that it is the same for both ports.
        self.another_secret(server)
        read, write = (server.directory / f"{port}.sock" for port in ("read", "write"))
        self.options = {
            "url": f"hskv+unix:///hskv/kv?read={read}&write={write}",
            "secret_file": str(file),
        }

    def another_secret(self, server: PrivateServer) -> None:
        """A restart with another one, which is written down a while after."""
        server.kill()
        server.secret = server.write_secret = secrets.token_hex(16)
        server.start()
        time.sleep(random.uniform(0, 0.3))
        self._tell(server.secret)

    def _tell(self, secret: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(secret)
        new.replace(self._file)


def survive(
    crowd: Crowd,
    server: PrivateServer,
    place: Path,
    rounds: int,
    disaster: Disaster,
    figures: Figures,
    url: str | None = None,
    **options: Any,
) -> Verdict:
    """What is left after so many rounds; every process must have worked on after the last."""
    with crowd.at_work(url or server.url, place, **options) as shift:
        for _ in range(rounds):
            time.sleep(random.uniform(0.2, 0.5))
            disaster(server)
        back = time.monotonic()
        shift.wait_until_all_work()
    figures.rounds[disaster.__name__.replace("_", " ")] += rounds
    return judged(shift, server, back, figures, late=disaster is stopped)


def judged(
    shift: Shift, server: PrivateServer, back: float, figures: Figures, *, late: bool
) -> Verdict:
    with hskv.connect(server.url) as store:
        verdict = compare(shift.logs, store, late=late)
    count(verdict, figures)
    assert verdict.lost == []
    assert verdict.doubled == []
    assert verdict.misread == []
    assert verdict.overrun < OVERRUN_SECONDS
    assert min(log.last_acknowledged for log in shift.logs) > back
    assert sum(len(log.turns) for log in shift.logs) > 0
    assert verdict.acknowledged > 100
    return verdict


def count(verdict: Verdict, figures: Figures) -> None:
    figures.calls += verdict.acknowledged + verdict.unknown + verdict.errors.total()
    figures.acknowledged += verdict.acknowledged
    figures.unknown += verdict.unknown
    figures.lost_writes += len(verdict.lost)
    figures.doubled_writes += len(verdict.doubled)
    figures.wrong_answers += len(verdict.misread)
    figures.overlong_waits += verdict.overrun >= OVERRUN_SECONDS


@pytest.mark.parametrize(("disaster", "rounds"), [(killed, 3), (restarted, 1), (stopped, 1)])
def test_nothing_acknowledged_is_lost_and_nothing_is_won_twice(
    crowd: Crowd,
    mended: PrivateServer,
    tmp_path: Path,
    disaster: Disaster,
    rounds: int,
    figures: Figures,
) -> None:
    verdict = survive(crowd, mended, tmp_path, rounds, disaster, figures)
    assert verdict.unknown + sum(verdict.errors.values()) > 0


def test_nothing_is_lost_where_the_secret_changes_with_the_restart(
    crowd: Crowd, mended: PrivateServer, tmp_path: Path, figures: Figures
) -> None:
    secret = Secret(mended, tmp_path / "secret")
    survive(crowd, mended, tmp_path, 1, secret.another_secret, figures, **secret.options)


@pytest.mark.parametrize(
    "end", [writer_ended, pytest.param(listener_ended, marks=pytest.mark.stress)]
)
def test_a_writer_that_is_dead_but_accepts_loses_nothing_and_stops_no_reader(
    crowd: Crowd, mended: PrivateServer, tmp_path: Path, end: Disaster, figures: Figures
) -> None:
    def without_a_writer(server: PrivateServer) -> None:
        end(server)
        with hskv.connect(server.url, timeout=0.3, connect_timeout=0.3) as store:
            before = store["count"]
            began = time.monotonic()
            with pytest.raises(hskv_errors.ConnectionError, match="did not finish the login"):
                store.incr("count")
            assert time.monotonic() - began < 0.3 + 0.3 + 0.3 + 1
            assert store["count"] == before
        killed(server)

    survive(crowd, mended, tmp_path, 1, without_a_writer, figures)


def seen_twice(logs: list[Log], store: Store) -> None:
    logs[0].counted.append(logs[1].counted[0])
    logs[0].exchanged.append(logs[1].exchanged[0])
    store.set_many({"count": store["count"] + 1, "chain": store["chain"] + 1})


def forgotten_hits(logs: list[Log], store: Store) -> None:
    name = next(name for name in logs[0].hits if name.startswith("fixed"))
    store.limiter("api", HITS_ALLOWED, PERIOD_SECONDS).reset(name.partition(":")[2])


def held_by_another_too(logs: list[Log], store: Store) -> None:
    turn = logs[1].turns[0]
    logs[0].turns.append(Turn(turn.since, turn.until + 0.001, 10**9))


def old_fence(logs: list[Log], store: Store) -> None:
    turn = logs[1].turns[0]
    logs[0].turns.append(Turn(turn.until + 100, turn.until + 101, turn.fence))


def misread(logs: list[Log], store: Store) -> None:
    load = Load(99, store)
    load.turn("set")
    (key,) = load.log.written
    load.turn("read")
    assert load.log.misread == []
    store[key] = -1
    for _ in range(1000):
        load.turn("read")
    logs[0].misread += load.log.misread


# One after another, each adds to what is wrong.
FORGERIES: dict[str, Callable[[list[Log], Store], object]] = {
    "a value that was not set": lambda logs, _: min(logs[0].written.items())[1].acknowledge(-1),
    "a read of what was not written": misread,
    "a key that two added": lambda logs, _: logs[0].added.update(logs[1].added),
    "a key that is missing": lambda logs, _: logs[0].added.add("add:never"),
    "a number too many": lambda logs, store: store.incr("count"),
    "numbers given twice": seen_twice,
    "numbers that are missing": lambda logs, store: store.set_many({"count": 1, "chain": 1}),
    "an item that is missing": lambda logs, _: logs[0].put.add("never"),
    "an item of nobody": lambda logs, store: store.set("item:nobody", 0),
    "an item taken twice": lambda logs, _: logs[0].taken.append(logs[1].taken[0]),
    "an item taken that is left": lambda logs, store: store.set(f"item:{logs[0].taken[0]}", 0),
    "a lease held by two": held_by_another_too,
    "a fence given twice": old_fence,
    "hits that were not counted": forgotten_hits,
    "hits past the limit": lambda logs, _: logs[0].hits.update(
        dict.fromkeys(logs[1].hits, HITS_ALLOWED)
    ),
}


def test_the_comparison_notices_what_is_wrong(
    crowd: Crowd, mended: PrivateServer, tmp_path: Path
) -> None:
    with crowd.at_work(mended.url, tmp_path) as shift, hskv.connect(mended.url) as store:
        deadline = time.monotonic() + 20
        # Enough of everything.
        while store["count"] < 500 and time.monotonic() < deadline:
            time.sleep(0.05)
    with hskv.connect(mended.url) as store:
        right = compare(shift.logs, store)
        assert (right.lost, right.doubled, right.misread, right.unknown) == ([], [], [], 0)
        known = 0
        for what, forge in FORGERIES.items():
            forge(shift.logs, store)
            verdict = compare(shift.logs, store)
            found = len(verdict.lost) + len(verdict.doubled) + len(verdict.misread)
            assert found > known, what
            known = found


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("disaster", [killed, restarted, stopped])
def test_nothing_is_lost_in_20_rounds(
    crowd: Crowd, mended: PrivateServer, tmp_path: Path, disaster: Disaster, figures: Figures
) -> None:
    verdict = survive(crowd, mended, tmp_path, 20, disaster, figures)
    print(f"\n20 rounds of a server {disaster.__name__} survived: {verdict}")


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_nothing_is_lost_in_20_rounds_of_another_secret(
    crowd: Crowd, mended: PrivateServer, tmp_path: Path, figures: Figures
) -> None:
    secret = Secret(mended, tmp_path / "secret")
    verdict = survive(crowd, mended, tmp_path, 20, secret.another_secret, figures, **secret.options)
    print(f"\n20 rounds of another secret survived: {verdict}")


@pytest.mark.stress
def test_what_a_server_loses_that_flushes_once_a_second_is_noticed(
    crowd: Crowd, tmp_path: Path
) -> None:
    with PrivateServer(options={"innodb_flush_log_at_trx_commit": 0}) as server:
        with crowd.at_work(server.url, tmp_path) as shift:
            time.sleep(0.5)
            server.kill()
        server.start()
        with hskv.connect(server.url) as store:
            assert compare(shift.logs, store).lost
