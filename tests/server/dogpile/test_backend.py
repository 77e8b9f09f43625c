"""The dogpile.cache backend: what dogpile's suites leave out, on the real server."""

import random
import subprocess
import sys
import time
from typing import Any

import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from dogpile.util import coerce_string_conf

from hskv import Client, KeyValueStore, RequestInfo
from hskv.integrations.dogpile import HandlerSocketBackend
from hskv.mariadb import PrivateServer

from .regions import region_of


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
                "cache.arguments.table": "kv",
                "cache.arguments.prefix": "12",
                "cache.arguments.timeout": "2",
                "cache.arguments.connect_timeout": "1.5",
                "cache.arguments.pool_timeout": "3",
                "cache.arguments.pool_size": "3",
                "cache.arguments.distributed_lock": "true",
                "cache.arguments.lock_timeout": "7",
                "cache.arguments.lock_sleep": "0.05",
                "cache.arguments.lock_blocking": "false",
                "cache.arguments.lock_blocking_timeout": "None",
                "cache.arguments.lock_prefix": "7",
                "cache.arguments.hskv_expiration_time": "60",
                "cache.arguments.ignore_errors": "off",
                "cache.arguments.what_others_need": "x",
            },
            "cache.",
        )
        backend = region.actual_backend
        settings = backend.store.client.settings
        assert (settings.timeout, settings.pool_size) == (2.0, 3)
        assert (settings.connect_timeout, settings.pool_timeout) == (1.5, 3.0)
        assert backend.store.row_key(b"a") == b"12a"
        assert backend.has_lock_timeout()
        held, other = backend.get_mutex("a"), backend.get_mutex("a")
        assert held.acquire()
        assert other.acquire() is False
        held.release()
        region.set("a", 1)
        assert region.get("a") == 1
        assert 50 < backend.store.ttl(b"a") <= 60

    def test_a_numeric_secret_of_a_configuration_arrives_as_an_int(self) -> None:
        secrets: dict[str, str | int | None] = {
            "handlersocket_plain_secret": "123456",
            "handlersocket_plain_secret_wr": "654321",
        }
        with PrivateServer(options=secrets) as server:
            url = f"hskv+unix:///hskv?{server.url.partition('?')[2].partition('&write_secret')[0]}"
            settings = {
                "cache.backend": "hskv",
                "cache.arguments.url": url,
                "cache.arguments.secret": "123456",
                "cache.arguments.write_secret": server.write_secret,
            }
            # What dogpile makes of it.
            coerce: Any = coerce_string_conf
            assert coerce(dict(settings))["cache.arguments.secret"] == 123456
            region = make_region().configure_from_config(settings, "cache.")
            region.set("a", 1)
            assert region.get("a") == 1
            region.actual_backend.close()

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


class TestBatches:
    def test_each_is_one_round_trip(
        self, url: str, hskv_store: KeyValueStore[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No cull, which is a round trip of its own, before a hundred writes.
        monkeypatch.setattr(random, "randrange", lambda most: most - 1)
        trips: list[RequestInfo] = []
        with Client(url, on_request=trips.append) as client:
            region = region_of(url=client)
            keys = [f"key {number}" for number in range(30)]
            new, again, found, gone = (
                (region.set_multi, dict.fromkeys(keys, 1)),
                (region.set_multi, dict.fromkeys(keys, 2)),
                (region.get_multi, keys),
                (region.delete_multi, keys),
            )
            counts = []
            for call, argument in (new, again, found, gone):
                trips.clear()
                call(argument)
                counts.append(len(trips))
        assert counts == [2, 1, 1, 1]

    def test_empty_ones_do_nothing(self, region: Any) -> None:
        backend = region.actual_backend
        assert list(backend.get_serialized_multi([])) == []
        backend.set_serialized_multi({})
        backend.delete_multi([])
        assert region.get_or_create_multi([], lambda *keys: [1 / 0]) == []

    def test_they_keep_the_order_of_keys_that_come_twice_or_are_missing(self, region: Any) -> None:
        region.set_multi({"a": 1, "b": 2})
        assert region.get_multi(["b", "none", "a", "b"]) == [2, NO_VALUE, 1, 2]

    def test_a_mapping_is_left_as_it_was(self, region: Any) -> None:
        mapping = {"x" * 1000: b"1", "b": b"2"}
        region.actual_backend.set_serialized_multi(mapping)
        assert mapping == {"x" * 1000: b"1", "b": b"2"}


def test_the_import_is_light() -> None:
    """stevedore imports every backend when it looks for one; this must cost hskv's import only."""
    code = """
import sys, time
import dogpile.cache.region
before = set(sys.modules)
import hskv
own = set(sys.modules)
import hskv.integrations.dogpile
print(sorted(m for m in set(sys.modules) - own if not m.startswith("hskv")))
print(sorted({"pymysql", "rich", "msgpack", "gevent", "ssl"} & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")
