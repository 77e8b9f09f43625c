"""Many threads on one store of the real server: whose answers, and how long anyone waits."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest

import hskv
from hskv import KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]

CLOSED = "this client is closed: make a new one"


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call `work(number)` in so many threads at once; their results."""
    start = threading.Barrier(count)

    def begin(number: int) -> Any:
        start.wait(10)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(begin, number) for number in range(count)]
        return [future.result(30) for future in futures]


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="session")
def hskv_server(hskv_server: PrivateServer) -> Iterator[PrivateServer]:
    """One whose writers wait for as long as a test has SQL hold a row."""
    with PrivateServer(options={"innodb_lock_wait_timeout": 20}) as server:
        yield server


@contextmanager
def locked(server: PrivateServer, key: str) -> Iterator[None]:
    """An SQL transaction holds the row of a key: whoever writes it waits."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM kv WHERE k = %s FOR UPDATE", (key,))
        assert cursor.fetchall()
        try:
            yield
        finally:
            connection.rollback()


def all_is_given_back(store: Store) -> bool:
    return all(
        side["size"] == side["idle"] and not side["waiting"]
        for side in store.client.stats().values()
    )


class Outcome:
    """What a call came to, and when."""

    def __init__(self, call: Callable[[], Any]) -> None:
        started = time.monotonic()
        try:
            self.answer, self.error = call(), None
        except exceptions.ConnectionError as error:
            self.answer, self.error = None, error
        self.seconds = time.monotonic() - started


def test_64_threads_share_8_channels_and_each_gets_the_answers_to_its_own_questions(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    def value_of(key: str) -> str:
        # Some come in one piece with others behind them, some in many pieces.
        return f"{key} " * (1, 10, 1_000, 6_000)[len(key) % 4]

    keys = [[f"{number}:{'x' * turn}" for turn in range(20)] for number in range(64)]
    with hskv.connect(hskv_server.url, pool_size=8) as store:
        store.set_many({key: value_of(key) for own in keys for key in own})

        def work(number: int) -> list[int]:
            counted = []
            for key in keys[number]:
                assert store[key] == value_of(key)
                assert store.get(f"missing {key}", key) == key
                counted.append(store.incr("all"))
            assert store.get_many(keys[number]) == {key: value_of(key) for key in keys[number]}
            return counted

        counted = [number for numbers in in_threads(64, work) for number in numbers]
        assert sorted(counted) == list(range(1, 64 * 20 + 1))
        assert store["all"] == 64 * 20
        for side in store.client.stats().values():
            assert 1 <= side["size"] <= 8
            assert side["idle"] == side["size"] == side["connects"]
            assert side["waiting"] == side["timeouts"] == 0


def test_threads_that_get_no_channel_in_time_say_so_in_time(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    with (
        hskv.connect(hskv_server.url, pool_size=4, pool_timeout=0.5, timeout=4) as store,
        ThreadPoolExecutor(16) as pool,
    ):
        store["n"] = 0
        # The server gives up on a lock after 3 s: this one is held for a second or so.
        with locked(hskv_server, "n"):
            futures = [pool.submit(Outcome, lambda: store.incr("n")) for _ in range(16)]
            eventually(lambda: sum(future.done() for future in futures) == 12)
            time.sleep(0.3)
        outcomes = [future.result(10) for future in futures]
        answered = [outcome for outcome in outcomes if outcome.error is None]
        refused = [outcome for outcome in outcomes if outcome.error is not None]
        assert sorted(outcome.answer for outcome in answered) == [1, 2, 3, 4]
        assert max(outcome.seconds for outcome in answered) <= 0.5 + 4 + 1
        assert {type(outcome.error) for outcome in refused} == {hskv.PoolTimeoutError}
        assert min(outcome.seconds for outcome in refused) >= 0.5
        assert max(outcome.seconds for outcome in refused) <= 0.5 + 1
        counts = store.client.stats()["write"]
        assert counts == {"size": 4, "idle": 4, "waiting": 0, "connects": 4, "timeouts": 12}
        assert store.incr("n") == 5


def test_a_server_slow_by_fits_costs_no_thread_more_than_its_deadlines_and_no_count(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    stop = threading.Event()

    def count() -> list[Outcome]:
        outcomes = []
        while not stop.is_set():
            outcomes.append(Outcome(lambda: store.incr("n")))
        return outcomes

    with (
        hskv.connect(hskv_server.url, pool_size=3, pool_timeout=0.2, timeout=2) as store,
        ThreadPoolExecutor(24) as pool,
    ):
        store["n"] = 0
        futures = [pool.submit(count) for _ in range(24)]
        try:
            for _ in range(4):
                with locked(hskv_server, "n"):
                    time.sleep(0.4)
                time.sleep(0.1)
        finally:
            stop.set()
        outcomes = [outcome for future in futures for outcome in future.result(10)]
        kinds = Counter(type(outcome.error) for outcome in outcomes)
        assert set(kinds) == {hskv.PoolTimeoutError, type(None)}
        assert store["n"] == kinds[type(None)]
        assert store.client.stats()["write"]["timeouts"] == kinds[hskv.PoolTimeoutError]
        for outcome in outcomes:
            assert outcome.seconds <= 0.2 + 1 + (2 if outcome.error is None else 0)
        assert all_is_given_back(store)


def queue_up(pool: ThreadPoolExecutor, store: Store, count: int) -> list[Future[Outcome]]:
    """So many threads that count; each has its place in the queue before the next one comes."""

    def places() -> tuple[int, int]:
        side = store.client.stats()["write"]
        return side["size"] - side["idle"], side["waiting"]

    def one_more() -> Future[Outcome]:
        before = places()
        future = pool.submit(Outcome, lambda: store.incr("n"))
        eventually(lambda: places() != before)
        return future

    return [one_more() for _ in range(count)]


def test_threads_are_served_in_the_order_in_which_they_came(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    with (
        hskv.connect(hskv_server.url, pool_size=1) as store,
        ThreadPoolExecutor(16) as pool,
    ):
        store["n"] = 0
        with locked(hskv_server, "n"):
            futures = queue_up(pool, store, 16)
            assert store.client.stats()["write"]["waiting"] == 15
        assert [future.result(10).answer for future in futures] == list(range(1, 17))
        assert all_is_given_back(store)


def test_one_that_gives_up_waiting_leaves_the_order_of_those_behind_it(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    with (
        hskv.connect(hskv_server.url, pool_size=1, pool_timeout=1.0) as store,
        ThreadPoolExecutor(5) as pool,
    ):
        store["n"] = 0
        with locked(hskv_server, "n"):
            first, impatient = queue_up(pool, store, 2)
            time.sleep(0.5)
            others = queue_up(pool, store, 3)
            eventually(impatient.done)
        assert isinstance(impatient.result().error, hskv.PoolTimeoutError)
        assert [future.result(10).answer for future in (first, *others)] == [1, 2, 3, 4]
        assert all_is_given_back(store)


@pytest.mark.handlersocket("by SQL reads and writes share their connections")
def test_readers_need_not_wait_for_writers(hskv_server: PrivateServer, hskv_store: Store) -> None:
    with hskv.connect(hskv_server.url, pool_size=2, pool_timeout=5) as store:
        store["n"] = 0
        with ThreadPoolExecutor(8) as pool:
            with locked(hskv_server, "n"):
                writes = [pool.submit(store.incr, "n") for _ in range(8)]
                eventually(lambda: store.client.stats()["write"]["waiting"] == 6)
                reads = in_threads(16, lambda _: Outcome(lambda: store["n"]))
                assert not any(write.done() for write in writes)
            assert {read.answer for read in reads} == {0}
            assert max(read.seconds for read in reads) < 1
            assert sorted(write.result(10) for write in writes) == list(range(1, 9))


def test_drain_and_resume_under_32_threads_cost_no_thread_an_error(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    stop = threading.Event()

    def count(number: int) -> int:
        times = 0
        store[f"own{number}"] = number
        while not stop.is_set():
            assert store[f"own{number}"] == number
            store.incr("n")
            times += 1
        return times

    with hskv.connect(hskv_server.url, pool_size=4) as store, ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(count, number) for number in range(32)]
        try:
            for _ in range(10):
                assert store.client.drain(5.0)
                assert {side["size"] for side in store.client.stats().values()} == {0}
                store.client.resume()
                time.sleep(0.03)
        finally:
            stop.set()
        times = sum(future.result(10) for future in futures)
        assert store["n"] == times > 0
        assert all_is_given_back(store)


def test_a_store_closed_while_threads_wait_sends_those_away_and_lets_the_others_finish(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    hskv_store["n"] = 0
    store = hskv.connect(hskv_server.url, pool_size=2)
    with ThreadPoolExecutor(8) as pool:
        with locked(hskv_server, "n"):
            futures = queue_up(pool, store, 8)
            store.close()
            eventually(lambda: sum(future.done() for future in futures) == 6)
        outcomes = [future.result(10) for future in futures]
    assert sorted(outcome.answer for outcome in outcomes[:2]) == [1, 2]
    assert {str(outcome.error) for outcome in outcomes[2:]} == {CLOSED}
    assert hskv_store["n"] == 2
    assert {side["size"] for side in store.client.stats().values()} == {0}


def test_a_store_closed_under_32_threads_ends_each_of_them_at_once_and_loses_no_count(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    store = hskv.connect(hskv_server.url, pool_size=4)
    closed: list[float] = []

    def count(number: int) -> tuple[int, float, str]:
        times = 0
        while (last := Outcome(lambda: store.incr("n"))).error is None:
            times += 1
        return times, time.monotonic(), str(last.error)

    def close() -> None:
        store.close()
        closed.append(time.monotonic())

    timer = threading.Timer(0.4, close)
    timer.start()
    ended = in_threads(32, count)
    timer.join(10)
    assert {error for _, _, error in ended} == {CLOSED}
    assert max(at for _, at, _ in ended) < closed[0] + 1
    assert hskv_store["n"] == sum(times for times, _, _ in ended) > 0
    assert {side["size"] for side in store.client.stats().values()} == {0}
