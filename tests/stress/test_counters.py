"""Long races on counters: `make stress`."""

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

PROCESSES = 8
TIMES = 25_000


def count(url: str, ttl: float | None) -> Counter[int]:
    with hskv.connect(url) as store:
        return Counter(store.incr("shared", ttl=ttl) for _ in range(TIMES))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ttl", [None, 0.05])
def test_200000_increments_miss_and_double_nothing(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer, ttl: float | None
) -> None:
    seen: Counter[int] = Counter()
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        for counted in pool.map(count, [hskv_server.url] * PROCESSES, [ttl] * PROCESSES):
            seen += counted
    assert sum(seen.values()) == PROCESSES * TIMES
    if ttl is None:
        assert set(seen.values()) == {1}
        assert hskv_store["shared"] == PROCESSES * TIMES
    # Each window of the key counts 1, 2, 3 ... without a gap.
    assert all(seen[value] <= seen[value - 1] for value in range(2, max(seen) + 1))
