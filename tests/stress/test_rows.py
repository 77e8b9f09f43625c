"""Many rows: `make stress`."""

import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

PROCESSES = 8

ITERATE = """
import resource, sys
import hskv

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with hskv.connect(sys.argv[1]) as store:
    before, last, count = peak_mib(), "", 0
    for key in store:
        assert key > last
        last, count = key, count + 1
    for key, value in store.items():
        assert value == int(key)
        count += 1
    print(count, round(peak_mib() - before))
"""


@pytest.mark.timeout(600)
def test_1000000_rows_are_gone_through_with_flat_memory(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    hskv_store.set_many((f"{number:07}", number) for number in range(1_000_000))
    done = subprocess.run(
        [sys.executable, "-c", ITERATE, hskv_server.url], capture_output=True, text=True
    )
    assert done.stderr == ""
    count, grown = map(int, done.stdout.split())
    assert count == 2_000_000
    assert grown < 20
    assert len(hskv_store) == 1_000_000
    assert hskv_store.delete_prefix("0") == 1_000_000


def drain(url: str) -> list[str]:
    taken = []
    with hskv.connect(url) as store:
        while True:
            try:
                taken.append(store.popitem()[0])
            except KeyError:
                return taken


@pytest.mark.timeout(300)
def test_8_processes_take_each_of_10000_rows_once(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer
) -> None:
    keys = [f"{number:05}" for number in range(10_000)]
    hskv_store.set_many(dict.fromkeys(keys, 1))
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        taken = [key for part in pool.map(drain, [hskv_server.url] * PROCESSES) for key in part]
    assert Counter(taken) == Counter(keys)


@pytest.mark.timeout(300)
def test_an_hour_of_keys_that_expire_leaves_the_table_bounded(
    hskv_server: PrivateServer, hskv_store: KeyValueStore[str, Any]
) -> None:
    started = time.time()
    now = [started]
    with KeyValueStore(hskv_server.url, clock=lambda: now[0]) as store:
        largest = 0
        for second in range(3600):
            now[0] = started + second
            # Cache entries of 30 s, and a window of 10 s for each of ten callers.
            for number in range(10):
                store.set(f"page:{second}:{number}", "x" * 50, ttl=30)
                store.incr(f"window:{second // 10}:{number}", ttl=20)
            if second % 300 == 299:
                largest = max(largest, int(rows(hskv_server)))
    # Alive are 300 pages and at most 30 windows; dead ones stay for a minute at least.
    assert largest < 3_000


def rows(server: PrivateServer) -> int:
    with hskv.Client(server.url) as client:
        index = client.open("kv", ["k"])
        return len(client.find(index, ">=", [""], limit=100_000))
