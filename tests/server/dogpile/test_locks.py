"""Locks of regions among threads and processes, whose holders are slow or die."""

import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from dogpile.cache import make_region

from hskv import Client, KeyValueStore

from .regions import SPAWN, region_of

PREFIXES: list[dict[str, Any]] = [{}, {"lock_prefix": "other"}, {"prefix": "p:"}]


def create_once(number: int, url: str) -> int:
    region = region_of(url=url, distributed_lock=True, lock_sleep=0.01)
    with Client(url) as client:
        store: KeyValueStore[str, Any] = KeyValueStore(client)

        def create() -> str:
            store.incr("created")
            time.sleep(0.3)
            return "made"

        with ThreadPoolExecutor(8) as pool:
            made = [pool.submit(region.get_or_create, "slow", create) for _ in range(8)]
            return sum(future.result() == "made" for future in made)


class TestLocks:
    def test_8_threads_in_4_processes_create_once(
        self, url: str, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        with ProcessPoolExecutor(4, SPAWN) as pool:
            answers = list(pool.map(create_once, range(4), [url] * 4))
        assert answers == [8] * 4
        assert hskv_store["created"] == 1

    def test_a_killed_holder_delays_others_by_its_lease(self, url: str) -> None:
        code = """
import time
from dogpile.cache import make_region
arguments = {"distributed_lock": True, "lock_timeout": 1}
region = make_region().configure("hskv", arguments=arguments)

def create():
    print("creating", flush=True)
    time.sleep(60)

region.get_or_create("killed", create)
"""
        holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "creating\n"
            holder.send_signal(signal.SIGKILL)
        died = time.monotonic()
        region = region_of(url=url, distributed_lock=True, lock_timeout=1, lock_sleep=0.02)
        mutex = region.actual_backend.get_mutex("killed")
        assert mutex.locked()
        assert not mutex.acquire(False)
        assert region.get_or_create("killed", lambda: "made after all") == "made after all"
        # A second of its own, one for clocks that differ, and what a busy machine adds.
        assert time.monotonic() - died < 5

    def test_a_lock_that_was_lost_is_released_without_an_error(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = region_of(url=url, distributed_lock=True, lock_timeout=0.05).actual_backend
        mutex, other = backend.get_mutex("lost"), backend.get_mutex("lost")
        assert mutex.acquire()
        assert other.acquire()
        mutex.release()
        assert "raise lock_timeout" in caplog.text
        assert other.locked()
        other.release()
        other.release()
        assert not other.locked()

    def test_it_waits_no_longer_than_it_may(self, url: str) -> None:
        options: dict[str, Any] = {"url": url, "distributed_lock": True}
        held = region_of(**options).actual_backend.get_mutex("held")
        assert held.acquire()
        bounded = region_of(**options, lock_blocking_timeout=0.2).actual_backend.get_mutex("held")
        began = time.monotonic()
        assert not bounded.acquire()
        assert 0.2 <= time.monotonic() - began < 1
        never = region_of(**options, lock_blocking=False).actual_backend.get_mutex("held")
        assert not never.acquire()
        held.release()

    def test_another_thread_may_release_it(self, url: str) -> None:
        mutex = region_of(url=url, distributed_lock=True).actual_backend.get_mutex("threads")
        thread = threading.Thread(target=mutex.acquire)
        thread.start()
        thread.join()
        mutex.release()
        assert not mutex.locked()

    def test_without_distributed_lock_it_is_dogpiles_own(self, region: Any) -> None:
        assert region.actual_backend.get_mutex("a") is None
        assert not region.actual_backend.has_lock_timeout()

    def test_the_lease_of_one_ends_by_itself_though_nobody_said_when(self, url: str) -> None:
        mutex = region_of(url=url, distributed_lock="true").actual_backend.get_mutex("default")
        assert mutex.acquire()
        row = b"\0Ldogpile:\0_lockdefault"
        with Client(url) as client:
            ((end,),) = client.find(client.open("kv", ["expires"]), "=", [row])
        assert end is not None
        assert 20 < int(end) / 1000 - time.time() <= 30
        mutex.release()

    def test_locks_of_another_prefix_or_key_are_others(self, url: str) -> None:
        regions = [region_of(url=url, distributed_lock=True, **more) for more in PREFIXES]
        names = ["a", "a" * 300, "a" * 301, "\x00", "\t\n", "\ud800", ""]
        held = [region.actual_backend.get_mutex(name) for region in regions for name in names]
        assert all(mutex.acquire(False) for mutex in held)
        again = [region.actual_backend.get_mutex(name) for region in regions for name in names]
        assert not any(mutex.acquire(False) for mutex in again)
        for mutex in held:
            mutex.release()
        assert not any(mutex.locked() for mutex in again)

    def test_dogpile_keeps_one_for_as_long_as_it_is_used(self, url: str) -> None:
        region = region_of(url=url, distributed_lock=True)
        mutex = region._mutex("kept")
        assert region._mutex("kept") is mutex
        gone = weakref.ref(mutex)
        del mutex
        assert gone() is None

    def test_a_creator_in_the_background_releases_it(self, url: str) -> None:
        threads: list[threading.Thread] = []

        def run(region: Any, key: str, creator: Any, mutex: Any) -> None:
            def create() -> None:
                try:
                    region.set(key, creator())
                finally:
                    mutex.release()

            threads.append(threading.Thread(target=create))
            threads[-1].start()

        arguments = {"url": url, "distributed_lock": True}
        region: Any = make_region(async_creation_runner=run)
        region.configure("hskv", 0.2, arguments=arguments)
        region.set("stale", 1)
        time.sleep(0.25)
        assert region.get_or_create("stale", lambda: 2) == 1
        threads[0].join()
        assert region.get("stale", ignore_expiration=True) == 2
        assert not region.actual_backend.get_mutex("stale").locked()
        assert len(threads) == 1
