"""The storage for `limits`, by its own strategies: what its own storages are tested for."""

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import (
    STRATEGIES,
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from hskv import HandlerSocketError, KeyValueStore
from hskv.exceptions import ConnectionError
from hskv.integrations.limits import HandlerSocketStorage
from hskv.mariadb import PrivateServer

SPAWN = multiprocessing.get_context("spawn")
ALL = pytest.mark.parametrize("strategy", sorted(STRATEGIES))


@pytest.fixture
def storage(
    hskv_server: PrivateServer, hskv_store: KeyValueStore[str, Any]
) -> Iterator[HandlerSocketStorage]:
    made = storage_from_string(hskv_server.url)
    assert isinstance(made, HandlerSocketStorage)
    yield made
    made.store.close()


@pytest.fixture
def begun() -> None:
    """Not in the last quarter of a second of the clock, where a window would end in mid-test."""
    if time.time() % 2 > 1.2:
        time.sleep(2 - time.time() % 2)


class TestMaking:
    @pytest.mark.handlersocket("it looks at the path of a socket")
    @pytest.mark.parametrize("tcp", [False, True])
    def test_limits_finds_it_by_its_scheme(self, tcp: bool, hskv_server: PrivateServer) -> None:
        url = "hskv://127.0.0.1:1,2/d" if tcp else hskv_server.url
        path = None if tcp else str(hskv_server.directory / "read.sock")
        made = storage_from_string(url)
        assert isinstance(made, HandlerSocketStorage)
        assert made.store.client.settings.readers[0].path == path
        made.store.close()

    def test_it_makes_no_connection(self) -> None:
        storage_from_string("hskv://127.0.0.1:1,2/d")

    def test_options_may_be_text_and_beat_the_url(self, hskv_server: PrivateServer) -> None:
        options: Any = {"timeout": "1.5", "prefix": "mine:", "secret": 12}
        made: Any = storage_from_string(hskv_server.url, **options)
        assert made.store.client.settings.timeout == 1.5
        assert made.store.row_key(b"a") == b"mine:a"

    def test_its_module_needs_limits_only(self) -> None:
        code = (
            "import sys, hskv.integrations.limits; "
            "sys.exit(any(name in sys.modules for name in ('dogpile', 'pymysql', 'redis')))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestStorage:
    def test_a_counter_counts_and_ends(self, storage: HandlerSocketStorage) -> None:
        assert [storage.incr("a", 1), storage.incr("a", 1, amount=3)] == [1, 4]
        assert storage.get("a") == 4
        assert 0 < storage.get_expiry("a") - time.time() <= 1.01
        time.sleep(1.05)
        assert storage.get("a") == 0
        assert storage.incr("a", 1) == 1

    def test_a_later_hit_does_not_move_the_end(self, storage: HandlerSocketStorage) -> None:
        storage.incr("a", 10)
        end = storage.get_expiry("a")
        time.sleep(0.05)
        storage.incr("a", 60)
        assert storage.get_expiry("a") == pytest.approx(end, abs=0.02)

    def test_a_counter_that_is_not_there(self, storage: HandlerSocketStorage) -> None:
        assert storage.get("a") == 0
        assert storage.get_expiry("a") == pytest.approx(time.time(), abs=5)

    def test_clear_forgets_one_key(self, storage: HandlerSocketStorage) -> None:
        storage.incr("a", 60)
        storage.incr("b", 60)
        storage.clear("a")
        storage.clear("a")
        assert (storage.get("a"), storage.get("b")) == (0, 1)

    def test_reset_forgets_all_of_its_own(
        self, storage: HandlerSocketStorage, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        hskv_store["mine"] = 1
        other = hskv_store.limiter("limits", 5, 60)
        other.hit("a")
        storage.incr("a", 60)
        storage.incr("x" * 1000, 60)
        storage.acquire_entry("b", 5, 60)
        storage.acquire_sliding_window_entry("c", 5, 60)
        storage.acquire_sliding_window_entry("y" * 1000, 5, 3600)
        assert storage.reset() == 5
        assert storage.get("a") == 0
        assert storage.get_moving_window("b", 5, 60)[1] == 0
        assert storage.get_sliding_window("c", 60)[2] == 0
        assert storage.get_sliding_window("y" * 1000, 3600)[2] == 0
        assert hskv_store["mine"] == 1
        assert other.peek("a").remaining == 4
        assert storage.reset() == 0

    def test_check_tells_whether_the_table_answers(self, storage: HandlerSocketStorage) -> None:
        assert storage.check() is True
        away = storage_from_string("hskv://127.0.0.1:1,2/d", connect_timeout=0.5, timeout=0.5)
        assert away.check() is False

    @pytest.mark.parametrize(
        "key",
        [*("k" * size for size in (246, 247, 248, 5000)), "\x00", "a\tb\nc", "é", "\ud800", "/"],
    )
    def test_any_key_works_and_meets_no_other(
        self, key: str, storage: HandlerSocketStorage
    ) -> None:
        assert storage.incr(key, 60) == 1
        assert storage.incr(key + "x", 60) == 1
        assert storage.acquire_entry(key, 1, 60)
        assert storage.acquire_sliding_window_entry(key, 1, 60)
        assert not storage.acquire_entry(key, 1, 60)
        assert not storage.acquire_sliding_window_entry(key, 1, 60)
        assert storage.get(key) == 1

    def test_a_moving_window_meets_no_counter(self, storage: HandlerSocketStorage) -> None:
        for key in ("a", "a/moving", "\udcfea", "þa"):
            assert storage.acquire_entry(key, 1, 60)
            assert storage.incr(key, 60) == 1
            assert storage.get_moving_window(key, 1, 60)[1] == 1
            storage.clear(key)
            assert (storage.get(key), storage.get_moving_window(key, 1, 60)[1]) == (0, 0)


class TestErrors:
    CALLS: dict[str, Callable[[Any], object]] = {  # noqa: RUF012 a table
        "incr": lambda storage: storage.incr("a", 1),
        "get": lambda storage: storage.get("a"),
        "get_expiry": lambda storage: storage.get_expiry("a"),
        "clear": lambda storage: storage.clear("a"),
        "reset": lambda storage: storage.reset(),
        "acquire_entry": lambda storage: storage.acquire_entry("a", 1, 1),
        "get_moving_window": lambda storage: storage.get_moving_window("a", 1, 1),
        "acquire_sliding": lambda storage: storage.acquire_sliding_window_entry("a", 1, 1),
        "get_sliding_window": lambda storage: storage.get_sliding_window("a", 1),
        "clear_sliding_window": lambda storage: storage.clear_sliding_window("a", 1),
    }

    @pytest.mark.parametrize("call", CALLS)
    def test_they_are_hskvs_own_unless_wrapped(self, call: str) -> None:
        options: dict[str, Any] = {"connect_timeout": 0.2, "timeout": 0.2}
        with pytest.raises(ConnectionError):
            self.CALLS[call](storage_from_string("hskv://127.0.0.1:1,2/d", **options))
        wrapped = storage_from_string("hskv://127.0.0.1:1,2/d", wrap_exceptions=True, **options)
        with pytest.raises(StorageError) as raised:
            self.CALLS[call](wrapped)
        assert isinstance(raised.value.storage_error, HandlerSocketError)


class TestStrategies:
    @ALL
    def test_the_limit_is_the_limit(self, strategy: str, storage: HandlerSocketStorage) -> None:
        limiter = STRATEGIES[strategy](storage)
        limit = RateLimitItemPerMinute(10)
        assert [limiter.hit(limit, "ann") for _ in range(11)] == [True] * 10 + [False]
        assert not limiter.test(limit, "ann")
        assert limiter.get_window_stats(limit, "ann").remaining == 0
        assert limiter.hit(limit, "bob")

    @ALL
    def test_amounts_are_taken_whole_or_not_at_all(
        self, strategy: str, storage: HandlerSocketStorage
    ) -> None:
        limiter = STRATEGIES[strategy](storage)
        limit = RateLimitItemPerMinute(10)
        assert not limiter.hit(limit, "big", cost=11)
        assert limiter.hit(limit, "ann", cost=6)
        assert limiter.test(limit, "ann", cost=4)
        assert not limiter.test(limit, "ann", cost=5)
        assert limiter.get_window_stats(limit, "ann").remaining == 4
        assert not limiter.hit(limit, "ann", cost=5)

    @pytest.mark.parametrize("strategy", ["moving-window", "sliding-window-counter"])
    def test_a_refused_hit_costs_nothing(
        self, strategy: str, storage: HandlerSocketStorage
    ) -> None:
        limiter = STRATEGIES[strategy](storage)
        limit = RateLimitItemPerMinute(2)
        assert [limiter.hit(limit, "ann", cost=2) for _ in range(3)] == [True, False, False]
        assert limiter.get_window_stats(limit, "ann").remaining == 0
        limiter.clear(limit, "ann")
        assert limiter.hit(limit, "ann", cost=2)

    @ALL
    def test_what_was_hit_is_forgotten(self, strategy: str, storage: HandlerSocketStorage) -> None:
        limiter = STRATEGIES[strategy](storage)
        limit = RateLimitItemPerSecond(2, 1)
        while limiter.hit(limit, "ann"):
            pass
        assert limiter.get_window_stats(limit, "ann").reset_time <= time.time() + 1.1
        time.sleep(2.05)
        assert limiter.get_window_stats(limit, "ann").remaining == 2
        assert limiter.hit(limit, "ann", cost=2)

    def test_a_moving_window_frees_each_hit_in_its_turn(
        self, storage: HandlerSocketStorage
    ) -> None:
        limiter = MovingWindowRateLimiter(storage)
        limit = RateLimitItemPerSecond(2, 2)
        began = time.time()
        assert limiter.hit(limit)
        time.sleep(1)
        assert limiter.hit(limit)
        assert not limiter.hit(limit)
        stats = limiter.get_window_stats(limit)
        assert stats.remaining == 0
        assert stats.reset_time == pytest.approx(began + 2, abs=0.5)
        time.sleep(max(began + 2.05 - time.time(), 0))
        assert limiter.hit(limit)

    def test_a_sliding_window_counts_the_one_before_by_its_part(
        self, storage: HandlerSocketStorage, begun: None
    ) -> None:
        limiter = SlidingWindowCounterRateLimiter(storage)
        limit = RateLimitItemPerSecond(10, 2)
        assert limiter.hit(limit, cost=10)
        before, _, current, left = storage.get_sliding_window(limit.key_for(), 2)
        assert (before, current) == (0, 10)
        assert 2 < left <= 4
        time.sleep(2 - time.time() % 2 + 0.02)
        before, left, current, _ = storage.get_sliding_window(limit.key_for(), 2)
        assert (before, current) == (10, 0)
        assert left == pytest.approx(2, abs=0.8)
        assert not limiter.hit(limit, cost=10)

    def test_a_hit_gets_what_test_and_the_stats_say(self, storage: HandlerSocketStorage) -> None:
        limiter = SlidingWindowCounterRateLimiter(storage)
        limit = RateLimitItemPerSecond(7)
        assert limiter.hit(limit, cost=7)
        passed = 0
        for _ in range(60):
            remaining = limiter.get_window_stats(limit).remaining
            # What counts of the window before only shrinks.
            if remaining or limiter.test(limit):
                assert limiter.hit(limit, cost=max(remaining, 1))
                passed += 1
            time.sleep(0.03)
        assert passed > 3

    def test_a_fixed_window_begins_with_its_first_hit(self, storage: HandlerSocketStorage) -> None:
        limiter = FixedWindowRateLimiter(storage)
        limit = RateLimitItemPerSecond(1, 2)
        assert limiter.hit(limit)
        reset = limiter.get_window_stats(limit).reset_time
        assert reset == pytest.approx(time.time() + 2, abs=0.5)
        time.sleep(max(reset - time.time(), 0) + 0.05)
        assert limiter.hit(limit)


def hit_often(url: str, strategy: str, times: int) -> int:
    limiter: RateLimiter = STRATEGIES[strategy](storage_from_string(url))
    limit = RateLimitItemPerMinute(100, 60)
    with ThreadPoolExecutor(4) as threads:
        hits = threads.map(lambda _: limiter.hit(limit, "one"), range(times))
        return sum(hits)


class TestConcurrency:
    @ALL
    def test_exactly_the_limit_passes(
        self, strategy: str, hskv_server: PrivateServer, storage: HandlerSocketStorage
    ) -> None:
        with ProcessPoolExecutor(4, SPAWN) as pool:
            passed = [pool.submit(hit_often, hskv_server.url, strategy, 60) for _ in range(4)]
            assert sum(one.result() for one in passed) == 100

    def test_threads_share_a_storage(self, storage: HandlerSocketStorage) -> None:
        values: set[int] = set()
        lock = threading.Lock()

        def count(_: int) -> None:
            value = storage.incr("a", 60)
            with lock:
                values.add(value)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(count, range(200)))
        assert values == set(range(1, 201))
