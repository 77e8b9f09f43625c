"""Long loads: nothing grows; and a burst of threads, each of which is told something in time."""

import multiprocessing
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pymysql
import pytest

import hskv
from hskv import KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

from ..server.test_threads import Outcome, eventually, locked
from .oracle import Figures

Store = KeyValueStore[str, Any]

THREADS = 64
PROCESSES = 8
CHANNELS = 8
# Of what threads leave half empty; one kilobyte lost in each of 10,000 calls is more.
GROWTH_KILOBYTES = 6_000


@pytest.fixture(scope="session")
def hskv_server(hskv_server: PrivateServer) -> Iterator[PrivateServer]:
    """One whose writers wait for as long as a test has SQL hold a row."""
    with PrivateServer(options={"innodb_lock_wait_timeout": 20}) as server:
        yield server


class Size(NamedTuple):
    """What a process holds."""

    kilobytes: int
    descriptors: int

    @classmethod
    def of(cls, process: int | str) -> "Size":
        status = Path(f"/proc/{process}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return cls(int(resident.split()[1]), len(list(Path(f"/proc/{process}/fd").iterdir())))


class Soaked(NamedTuple):
    """What a process was like when it was warm, and at the end."""

    warm: Size
    end: Size
    calls: int
    sizes: dict[str, dict[str, int]]
    errors: dict[str, int]


class Soak:
    """Threads that share a store and do a little of everything."""

    def __init__(self, store: Store, url: str, name: str) -> None:
        self.calls = 0
        self.errors: Counter[str] = Counter()
        self._store = store
        self._url = url
        self._name = name
        self._limiter = store.limiter("soak", 5, 0.5)
        self._until = 0.0

    def run(self, threads: int, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        running = [threading.Thread(target=self._work, args=(n,)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(seconds + 30)
            assert not thread.is_alive()

    def _work(self, number: int) -> None:
        turn = 0
        while time.monotonic() < self._until:
            turn += 1
            try:
                self._turn(f"{self._name}:{number}", turn)
            except exceptions.HandlerSocketError as error:
                self.errors[type(error).__name__] += 1

    def _turn(self, name: str, turn: int) -> None:
        store, key = self._store, f"{name}:{turn % 20}"
        value = f"{key} " * (1, 10, 1000)[turn % 3]
        store.set(key, value, ttl=60)
        assert store.get(key) == value
        store.incr(f"count:{self._name}")
        keys = [f"{name}:many:{part}" for part in range(5)]
        store.set_many(dict.fromkeys(keys, turn))
        assert store.get_many(keys) == dict.fromkeys(keys, turn)
        store.pop(keys[0])
        self._limiter.hit(name)
        lease = store.lease(name, ttl=5)
        if lease.acquire(wait=False):
            lease.release()
        if turn % 10 == 0:
            # A client of a moment: it must leave nothing behind.
            with hskv.connect(self._url, pool_size=1) as brief:
                brief.get(key)
        self.calls += 10


def soak(number: int, url: str, threads: int, warm_seconds: float, seconds: float) -> Soaked:
    """In a process of its own: warm up, and go on for so long."""
    with hskv.connect(url, pool_size=CHANNELS, pool_timeout=20) as store:
        load = Soak(store, url, str(number))
        load.run(threads, warm_seconds)
        warm = Size.of("self")
        load.run(threads, seconds)
        return Soaked(warm, Size.of("self"), load.calls, store.stats(), dict(load.errors))


def connections(server: PrivateServer) -> int:
    """How many the server has, of both ports, as its threads say when they are idle."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT state FROM information_schema.processlist")
        states = [state or "" for (state,) in cursor.fetchall()]
    return sum(int(count) for state in states for count in re.findall(r"(\d+) conns", state))


def soaked(
    server: PrivateServer, processes: int, threads: int, warm_seconds: float, seconds: float
) -> list[Soaked]:
    """What each process was like; the server has lost all of their connections."""
    before = connections(server)
    times = (warm_seconds, seconds)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = [
            pool.submit(soak, number, server.url, threads, *times) for number in range(processes)
        ]
        found = [future.result(warm_seconds + seconds + 120) for future in running]
    eventually(lambda: connections(server) <= before)
    return found


def check(one: Soaked) -> None:
    assert one.errors == {}
    assert one.calls > 100
    assert one.end.descriptors <= one.warm.descriptors + 2 * CHANNELS
    assert one.end.kilobytes <= one.warm.kilobytes + GROWTH_KILOBYTES
    for side in one.sizes.values():
        assert side["size"] == side["idle"] <= CHANNELS
        assert side["waiting"] == side["timeouts"] == 0


CROWDS = pytest.mark.parametrize(
    ("processes", "threads"), [(1, THREADS), (PROCESSES, THREADS // PROCESSES)]
)


class TestSoak:
    def test_leaves_memory_descriptors_and_connections_as_they_were(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        for one in soaked(hskv_server, PROCESSES, THREADS // PROCESSES, 1.0, 2.0):
            check(one)

    @pytest.mark.stress
    @pytest.mark.timeout(400)
    @CROWDS
    def test_of_two_minutes(
        self,
        hskv_store: Store,
        hskv_server: PrivateServer,
        processes: int,
        threads: int,
        figures: Figures,
    ) -> None:
        found = soaked(hskv_server, processes, threads, 30, 120)
        figures.calls += sum(one.calls for one in found)
        growth = max(one.end.kilobytes - one.warm.kilobytes for one in found)
        opened = max(one.end.descriptors - one.warm.descriptors for one in found)
        print(
            f"\n{processes} x {threads} threads, {sum(one.calls for one in found):,} calls in "
            f"two minutes: memory grew by {growth:,} kB at most, open files by {opened}"
        )
        for one in found:
            check(one)


THREADS_OF_BURST = 1000


def burst(store: Store) -> list[Outcome]:
    """What so many threads that all call at once come to."""
    outcomes: list[Outcome] = []
    start = threading.Barrier(THREADS_OF_BURST)

    def call() -> None:
        start.wait(30)
        outcomes.append(Outcome(lambda: store.incr("n")))

    threads = [threading.Thread(target=call) for _ in range(THREADS_OF_BURST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == THREADS_OF_BURST
    return outcomes


@contextmanager
def held_until_one_is_sent_away(store: Store, server: PrivateServer, key: str) -> Iterator[None]:
    """SQL holds the row of a key, from before what is inside until a caller gets no channel."""
    held = threading.Event()

    def hold() -> None:
        deadline = time.monotonic() + 30
        with locked(server, key):
            held.set()
            while not store.stats()["write"]["timeouts"] and time.monotonic() < deadline:
                time.sleep(0.01)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    try:
        yield
    finally:
        holder.join(30)


class TestBurst:
    def test_of_1000_threads_on_8_channels_is_answered(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with hskv.connect(hskv_server.url, pool_size=CHANNELS, pool_timeout=20) as store:
            store["n"] = 0
            outcomes = burst(store)
            assert sorted(outcome.answer for outcome in outcomes) == list(range(1, 1001))
            assert store.stats()["write"]["connects"] <= CHANNELS

    def test_of_1000_threads_that_cannot_all_be_served_is_sent_away_in_time(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with hskv.connect(hskv_server.url, pool_size=CHANNELS, pool_timeout=0.5) as store:
            store["n"] = 0
            with held_until_one_is_sent_away(store, hskv_server, "n"):
                outcomes = burst(store)
            sent_away = [one for one in outcomes if one.error is not None]
            assert {type(one.error) for one in sent_away} == {exceptions.PoolTimeoutError}
            assert max(one.seconds for one in sent_away) < 0.5 + 1
            assert store["n"] == len(outcomes) - len(sent_away)

    @pytest.mark.stress
    def test_of_1000_threads_lets_none_wait_much_longer_than_the_others(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with hskv.connect(hskv_server.url, pool_size=CHANNELS, pool_timeout=20) as store:
            store["n"] = 0
            ratios = []
            for _ in range(10):
                waits = self.waits_once_all_are_in_line(store, hskv_server)
                ratios.append(waits[989] / statistics.median(waits))
            print(
                "\n10 bursts of 1,000 threads on 8 channels: the 99th percentile of the waits was "
                f"{min(ratios):.1f} to {max(ratios):.1f} times their median"
            )
            assert max(ratios) < 5

    def waits_once_all_are_in_line(self, store: Store, server: PrivateServer) -> list[float]:
        """In rising order: how long each waited from when the row that stopped them was free."""
        ends: list[float] = []

        def call() -> None:
            store.incr("n")
            ends.append(time.monotonic())

        threads = [threading.Thread(target=call) for _ in range(THREADS_OF_BURST)]
        with locked(server, "n"):
            for thread in threads:
                thread.start()
            line = THREADS_OF_BURST - CHANNELS
            eventually(lambda: store.stats()["write"]["waiting"] == line)
            free = time.monotonic()
        for thread in threads:
            thread.join(30)
        assert len(ends) == THREADS_OF_BURST
        return sorted(end - free for end in ends)
