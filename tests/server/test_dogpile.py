"""The dogpile.cache backend: dogpile's own suites, and what they leave out, on the real server."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

import hskv
from hskv import Client, KeyValueStore
from hskv.integrations.dogpile import HandlerSocketBackend, HandlerSocketInvalidator
from hskv.mariadb import PrivateServer

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def hskv_server() -> Iterator[PrivateServer]:
    """One of its own: regions never close their connections, and DDL of other tests would wait."""
    with PrivateServer() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def url(hskv_server: PrivateServer) -> Iterator[str]:
    """In the environment too, since dogpile's suites have their arguments at import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSKV_URL", hskv_server.url)
        yield hskv_server.url


class TestPlain(_GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"timeout": 5}}  # noqa: RUF012 dogpile's


class TestByItsLongName(_GenericBackendTestSuite):
    backend = "dogpile.cache.hskv"
    config_args = {"arguments": {"hskv_expiration_time": 60, "prefix": "long:"}}  # noqa: RUF012 dogpile's


class TestDistributedLock(_GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"distributed_lock": True}}  # noqa: RUF012 dogpile's


class TestMutex(_GenericMutexTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"distributed_lock": True, "lock_sleep": 0.01}}  # noqa: RUF012 dogpile's


class TestSerializers(_GenericSerializerTestSuite, _GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"timeout": 5}}  # noqa: RUF012 dogpile's


def region_of(**arguments: Any) -> Any:
    return make_region().configure("hskv", arguments=arguments)


@pytest.fixture
def region(hskv_store: KeyValueStore[str, Any], url: str) -> Any:
    return region_of(url=url)


class TestKeys:
    @pytest.mark.parametrize(
        "key", ["x" * 10_000, "é" * 200, "\x00", "\ud800", "", "\t\n", "_lock"], ids=range(7)
    )
    def test_any_key_works_and_meets_no_other(self, region: Any, key: str) -> None:
        others = [key + "y", "z" + key]
        region.set_multi({key: 1, others[0]: 2, others[1]: 3})
        assert region.get_multi([key, *others]) == [1, 2, 3]
        region.delete(key)
        assert region.get_multi([key, *others]) == [NO_VALUE, 2, 3]

    def test_a_mangler_of_the_region_is_used(self, url: str) -> None:
        region = make_region(key_mangler=str.upper).configure("hskv", arguments={"url": url})
        region.set("shout", 1)
        assert region.actual_backend.get_serialized("SHOUT") is not NO_VALUE

    def test_rows_of_others_are_misses(self, region: Any) -> None:
        region.actual_backend.store[b"other"] = 5
        assert region.get("other") is NO_VALUE
        assert region.get_multi(["other"]) == [NO_VALUE]

    def test_a_lock_is_no_key(self, url: str, hskv_store: KeyValueStore[str, Any]) -> None:
        region = region_of(url=url, distributed_lock=True)
        mutex = region.actual_backend.get_mutex("a")
        assert mutex.acquire()
        assert list(hskv_store) == []
        assert region.get("_locka") is NO_VALUE
        region.delete("_locka")
        assert mutex.locked()
        mutex.release()


class TestArguments:
    def test_each_may_come_as_a_string(self, hskv_server: PrivateServer) -> None:
        url, _, query = hskv_server.url.partition("?")
        bare = "hskv+unix://" + url.rpartition("@")[2] + "?" + query.partition("&write_secret")[0]
        region = make_region().configure_from_config(
            {
                "cache.backend": "hskv",
                "cache.arguments.url": bare,
                "cache.arguments.secret": hskv_server.secret,
                "cache.arguments.write_secret": hskv_server.write_secret,
                "cache.arguments.timeout": "2",
                "cache.arguments.pool_size": "3",
                "cache.arguments.distributed_lock": "true",
                "cache.arguments.lock_timeout": "7",
                "cache.arguments.lock_blocking": "false",
                "cache.arguments.hskv_expiration_time": "60",
                "cache.arguments.ignore_errors": "off",
                "cache.arguments.what_others_need": "x",
            },
            "cache.",
        )
        backend = region.actual_backend
        settings = backend.store.client.settings
        assert (settings.timeout, settings.pool_size) == (2.0, 3)
        assert backend.has_lock_timeout()
        region.set("a", 1)
        assert region.get("a") == 1
        assert 50 < backend.store.ttl(b"a") <= 60

    def test_a_numeric_secret_arrives_as_an_int(self) -> None:
        options: dict[str, str | int | None] = {
            "handlersocket_plain_secret": "123456",
            "handlersocket_plain_secret_wr": "123456",
        }
        with PrivateServer(options=options) as server:
            url = server.url.replace(":123456@", "@").partition("&write_secret")[0]
            url = url.replace("://@", "://")
            backend = HandlerSocketBackend({"url": url, "secret": 123456})
            backend.set_serialized("a", b"1")
            assert backend.get_serialized("a") == b"1"
            backend.close()

    def test_they_are_not_changed_and_nothing_is_connected(self) -> None:
        arguments = {
            "url": "hskv://:x@127.0.0.1:1,2/d",
            "distributed_lock": True,
            "other": object(),
        }
        before = dict(arguments)
        backend = HandlerSocketBackend(arguments)
        assert arguments == before
        assert backend.store.stats()["read"]["connects"] == 0

    @pytest.mark.parametrize("wrong", [{"ignore_errors": "maybe"}, {"lock_timeout": "soon"}])
    def test_what_cannot_be_meant_is_refused(self, url: str, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"maybe|soon"):
            HandlerSocketBackend({"url": url, "distributed_lock": "yes", **wrong})

    def test_dogpile_finds_it_in_a_fresh_process(self) -> None:
        code = (
            "from dogpile.cache import make_region\n"
            "region = make_region().configure('hskv')\n"
            "region.set('fresh', 1)\n"
            "print(region.get('fresh'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("1\n", "")


class TestExpiry:
    def test_past_the_hard_end_there_is_no_value(self, url: str) -> None:
        region = region_of(url=url, hskv_expiration_time=0.2)
        region.set("a", 1)
        assert region.get("a", ignore_expiration=True) == 1
        time.sleep(0.25)
        assert region.get("a", ignore_expiration=True) is NO_VALUE
        assert region.get_multi(["a"], ignore_expiration=True) == [NO_VALUE]


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
        code = (
            "import time\n"
            "from dogpile.cache import make_region\n"
            "region = make_region().configure('hskv', arguments=dict("
            "distributed_lock=True, lock_timeout=1))\n"
            "region.actual_backend.get_mutex('killed').acquire()\n"
            "print('held', flush=True)\n"
            "time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            holder.send_signal(signal.SIGKILL)
        mutex = region_of(url=url, distributed_lock=True).actual_backend.get_mutex("killed")
        assert mutex.locked()
        assert not mutex.acquire(False)
        began = time.monotonic()
        assert mutex.acquire()
        # A second of its own, and one for clocks that differ.
        assert time.monotonic() - began < 3
        mutex.release()

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


def region_with_invalidator(url: str, max_age: float = 0.05) -> Any:
    region = make_region()
    invalidator: Any = HandlerSocketInvalidator(region, max_age=max_age)
    arguments = {"url": url}
    return region.configure("hskv", 60, arguments=arguments, region_invalidator=invalidator)


def get_elsewhere(url: str) -> Any:
    found = region_with_invalidator(url).get("a")
    return None if found is NO_VALUE else found


class TestInvalidation:
    @pytest.mark.parametrize("hard", [True, False])
    def test_it_reaches_every_process(
        self, url: str, hskv_store: KeyValueStore[str, Any], hard: bool
    ) -> None:
        here = region_with_invalidator(url)
        here.set("a", 1)
        with ProcessPoolExecutor(1, SPAWN) as pool:
            assert pool.submit(get_elsewhere, url).result() == 1
            here.invalidate(hard)
            assert here.get("a") is NO_VALUE
            assert pool.submit(get_elsewhere, url).result() is None
        strategy = here.region_invalidator
        assert strategy.was_hard_invalidated() is hard
        assert strategy.was_soft_invalidated() is not hard
        assert strategy.is_hard_invalidated(time.time() - 60) is hard
        assert strategy.is_soft_invalidated(time.time() - 60) is not hard
        here.set("a", 2)
        assert here.get("a") == 2

    def test_another_client_sees_it_after_max_age(
        self, url: str, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        here, there = region_with_invalidator(url), region_with_invalidator(url, max_age=0.3)
        here.set("a", 1)
        assert there.get("a") == 1
        here.invalidate()
        assert there.get("a") == 1
        time.sleep(0.35)
        assert there.get("a") is NO_VALUE

    def test_a_region_on_another_backend_is_refused(self) -> None:
        region: Any = make_region()
        invalidator = HandlerSocketInvalidator(region)
        region.configure("dogpile.cache.memory", region_invalidator=invalidator)
        with pytest.raises(hskv.UnsupportedError, match="backend 'hskv'"):
            region.invalidate()


class TestErrors:
    NOWHERE = "hskv+unix:///d?read=/nonexistent/r&write=/nonexistent/w"

    def test_an_unreachable_server_is_an_error(self) -> None:
        region = region_of(url=self.NOWHERE, timeout=0.1)
        with pytest.raises(hskv.exceptions.ConnectionError):
            region.get("a")

    def test_or_a_miss_that_is_logged_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        region = region_of(url=self.NOWHERE, timeout=0.1, ignore_errors=True, distributed_lock=True)
        assert region.get("a") is NO_VALUE
        assert region.get_multi(["a", "b"]) == [NO_VALUE, NO_VALUE]
        region.set("a", 1)
        region.set_multi({"a": 1})
        region.delete("a")
        region.delete_multi(["a"])
        assert region.get_or_create("a", lambda: 5) == 5
        assert region.actual_backend.errors >= 8
        assert "could not be reached" in caplog.text


def test_the_import_needs_no_more_than_dogpile_and_is_quick() -> None:
    code = (
        "import sys, dogpile.cache.region\n"
        "before = set(sys.modules)\n"
        "import hskv.integrations.dogpile\n"
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('hskv')"
        " and '.' not in m and m in ('pymysql', 'rich', 'msgpack', 'gevent')))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
