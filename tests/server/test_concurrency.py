"""Many processes and threads on the same rows of the real server."""

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

PROCESSES = 8
SPAWN = multiprocessing.get_context("spawn")


def in_processes(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run `work(number, *arguments)` in 8 fresh processes at once; their results."""
    with ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool:
        futures = [pool.submit(work, number, *arguments) for number in range(PROCESSES)]
        return [future.result(timeout=100) for future in futures]


def count_up(number: int, url: str, times: int) -> list[int]:
    with hskv.connect(url) as store:
        return [store.incr("shared") for _ in range(times)]


@pytest.mark.timeout(120)
def test_40000_increments_by_8_processes_count_to_40000(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    seen = in_processes(count_up, hskv_server.url, 5_000)
    assert hskv_store["shared"] == 40_000
    assert sorted(value for values in seen for value in values) == list(range(1, 40_001))


def count_in_windows(number: int, url: str, times: int) -> list[int]:
    with hskv.connect(url) as store:
        return [store.incr("window", ttl=0.05) for _ in range(times)]


@pytest.mark.timeout(120)
def test_a_counter_that_expires_again_and_again_misses_and_doubles_nothing(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    seen = in_processes(count_in_windows, hskv_server.url, 1_500)
    times = Counter(value for values in seen for value in values)
    windows = times[1]
    assert windows > 1, "the key expired at least once"
    # Each window counts 1, 2, 3 ... without a gap: so a value is never seen more often than
    # the one before it.
    for value in range(2, max(times) + 1):
        assert times[value] <= times[value - 1]
    assert sum(times.values()) == PROCESSES * 1_500


def race_to_add(number: int, url: str, rounds: int) -> list[int]:
    with hskv.connect(url) as store:
        return [turn for turn in range(rounds) if store.add(f"turn{turn}", number)]


def test_exactly_one_of_8_processes_adds_a_key(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    won = in_processes(race_to_add, hskv_server.url, 300)
    assert sorted(turn for turns in won for turn in turns) == list(range(300))


def take_all(number: int, url: str) -> list[str]:
    taken = []
    with hskv.connect(url) as store:
        while True:
            try:
                taken.append(store.popitem()[0])
            except KeyError:
                return taken


def test_8_processes_take_each_item_once(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    keys = [f"{number:05}" for number in range(2_000)]
    hskv_store.set_many(dict.fromkeys(keys, 1))
    taken = in_processes(take_all, hskv_server.url)
    assert sorted(key for part in taken for key in part) == keys


def set_and_pop(number: int, url: str, rounds: int) -> int:
    balance = 0
    with hskv.connect(url) as store:
        for turn in range(rounds):
            balance += store.add("hot", f"{number}:{turn}")
            balance -= store.pop("hot", None) is not None
    return balance


def test_what_was_added_was_popped_once(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    balances = in_processes(set_and_pop, hskv_server.url, 300)
    assert sum(balances) == len(hskv_store)


def test_16_threads_share_one_store(hskv_store: KeyValueStore[str, Any]) -> None:
    start = threading.Barrier(16)

    def work(number: int) -> None:
        start.wait()
        for turn in range(100):
            key, value = f"t{number}:{turn}", os.urandom(50)
            hskv_store[key] = value
            assert hskv_store[key] == value
            hskv_store.incr("all")
        assert len(hskv_store.get_many([f"t{number}:{turn}" for turn in range(100)])) == 100

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work, number) for number in range(16)]:
            future.result()
    assert hskv_store["all"] == 1_600
    assert len(hskv_store) == 1_601


def test_more_threads_than_channels_wait_their_turn(hskv_server: PrivateServer) -> None:
    with hskv.connect(hskv_server.url, pool_size=2, prefix="turn:") as store:
        store.clear()
        with ThreadPoolExecutor(32) as pool:
            results = list(pool.map(lambda _: store.incr("n"), range(640)))
        assert sorted(results) == list(range(1, 641))


def test_a_store_is_used_on_both_sides_of_a_fork(hskv_store: KeyValueStore[str, Any]) -> None:
    hskv_store["before"] = 1
    child = os.fork()
    if child == 0:
        try:
            right = hskv_store["before"] == 1 and hskv_store.incr("n") > 0
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    for _ in range(100):
        hskv_store.incr("n")
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert hskv_store["n"] == 101
