"""Going through keys and items: order, pages, prefixes, and writers meanwhile."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .test_batches import MIB, keys, peak_below

Store = KeyValueStore[str, Any]


@pytest.fixture
def byte_store(hskv_server: PrivateServer) -> Iterator[KeyValueStore[bytes, Any]]:
    with KeyValueStore(hskv_server.url, key_type=bytes) as store:
        store.clear()
        yield store
        store.clear()


@pytest.fixture
def noted(hskv_server: PrivateServer) -> Iterator[tuple[Store, list[hskv.RequestInfo]]]:
    """A store, and what it has asked the server."""
    sent: list[hskv.RequestInfo] = []
    with hskv.connect(hskv_server.url, on_request=sent.append, timeout=60) as store:
        store.clear()
        yield store, sent
        store.clear()


class TestOrder:
    def test_keys_come_in_the_order_of_their_bytes(self, hskv_store: Store) -> None:
        names = [
            "b",
            "a",
            "B",
            "é",
            "z",
            "aa",
            "a\x00",
            "€",
            "\U0001f600",
            "\uffff",
            "a\uffff",
            " ",
        ]
        hskv_store.set_many({name: name for name in names})
        ordered = sorted(names, key=str.encode)
        assert list(hskv_store) == ordered
        assert [key for key, value in hskv_store.scan() if key == value] == ordered
        assert list(hskv_store.values()) == ordered

    @pytest.mark.parametrize("batch", [1, 2, 7, 1_000, 10_000])
    @pytest.mark.parametrize("prefix", [None, "", "k0000", "k00001", "k0001", "x"])
    @pytest.mark.parametrize("start", [None, "a", "k000015", "k000105", "z"])
    def test_a_scan_gives_what_a_dict_would(
        self, hskv_store: Store, batch: int, prefix: str | None, start: str | None
    ) -> None:
        items = {key: number for number, key in enumerate(keys(130))}
        if not hskv_store:
            hskv_store.set_many(items)
        expected = [
            (key, value)
            for key, value in items.items()
            if key.startswith(prefix or "") and key >= (start or "")
        ]
        assert list(hskv_store.scan(prefix, start, batch)) == expected

    @pytest.mark.parametrize("batch", [0, -1])
    def test_a_batch_is_at_least_one_row(self, hskv_store: Store, batch: int) -> None:
        with pytest.raises(ValueError, match="batch"):
            list(hskv_store.scan(batch=batch))

    def test_a_key_that_cannot_be_is_no_place_to_start(self, hskv_store: Store) -> None:
        with pytest.raises(ValueError, match="key"):
            list(hskv_store.scan(start="x" * 256))
        with pytest.raises(TypeError):
            list(hskv_store.scan(5))  # type: ignore[arg-type]

    def test_bytes_that_have_no_successor_end_no_prefix(
        self, byte_store: KeyValueStore[bytes, Any]
    ) -> None:
        names = [b"a", b"a\xfe\xff", b"a\xff", b"a\xff\x00", b"a\xff\xff", b"a\xff\xffz", b"b"]
        names += [b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\xff\x01"]
        byte_store.set_many({name: name for name in names})
        for prefix in (b"a\xff", b"a\xff\xff", b"\xff", b"\xff\xff", b"a", b"\xfe"):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert [key for key, _ in byte_store.scan(prefix)] == expected
            assert list(byte_store.namespace(prefix)) == [name[len(prefix) :] for name in expected]
            assert byte_store.delete_prefix(prefix) == len(expected)
            assert sorted(byte_store) == sorted(set(names) - set(expected))
            byte_store.set_many({name: name for name in expected})


class TestMeanwhile:
    def test_a_key_is_met_if_it_comes_ahead_of_the_page(self, hskv_store: Store) -> None:
        hskv_store.set_many(dict.fromkeys(["b", "c", "d"], 1))
        items = iter(hskv_store.items())
        assert next(items) == ("b", 1)
        hskv_store.update(a=2, e=2)
        # The row that the next page would follow may go.
        del hskv_store["b"]
        del hskv_store["d"]
        assert list(items) == [("c", 1), ("e", 2)]

    def test_what_expires_meanwhile_is_met_no_more(self, timed_store: Store, clock: Any) -> None:
        timed_store.set_many(dict.fromkeys(["a", "c"], 1))
        timed_store.set_many(dict.fromkeys(["b", "d"], 1), ttl=10)
        items = iter(timed_store.items())
        assert next(items)[0] == "a"
        clock.now += 10
        assert [key for key, _ in items] == ["c"]
        assert len(timed_store) == 2

    def test_many_expired_rows_make_no_empty_page_an_end(
        self, timed_store: Store, clock: Any
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(3_000), 1), ttl=10)
        timed_store.set_many({"a": 1, "z": 2})
        clock.now += 10
        assert list(timed_store) == ["a", "z"]
        assert timed_store.to_dict() == {"a": 1, "z": 2}

    def test_keys_that_stay_are_met_exactly_once_while_others_come_and_go(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        stay = keys(3_000)
        hskv_store.set_many(dict.fromkeys(stay, 1))
        stop = threading.Event()
        errors: list[BaseException] = []

        def disturb() -> None:
            turn = 0
            with hskv.connect(hskv_server.url) as store:
                while not stop.is_set():
                    turn += 7
                    passing = [f"{key}x{turn}" for key in stay[turn % 50 :: 50]]
                    store.set_many(dict.fromkeys(passing, 2))
                    store.set_many(dict.fromkeys(stay[turn % 13 :: 13], 1))
                    store.delete_many(passing)

        def run() -> None:
            try:
                disturb()
            except BaseException as error:  # noqa: BLE001 shown below
                errors.append(error)

        writer = threading.Thread(target=run)
        writer.start()
        try:
            met = rounds = 0
            # On a busy machine the writer may come to nothing for a while.
            while rounds < 5 or (met == 0 and rounds < 500):
                batch, rounds = (1_000, 100, 33)[rounds % 3], rounds + 1
                seen = list(hskv_store.scan(batch=batch))
                assert [key for key, value in seen if value == 1] == stay
                assert [key for key, _ in seen] == sorted({key for key, _ in seen})
                met += len(seen) - len(stay)
                assert [key for key in hskv_store if "x" not in key] == stay
        finally:
            stop.set()
            writer.join()
        assert not errors
        assert met > 0, "nobody wrote meanwhile"


class TestViews:
    def test_views_show_what_is_there_now(self, hskv_store: Store) -> None:
        names, values, items = hskv_store.keys(), hskv_store.values(), hskv_store.items()
        assert (list(names), list(values), list(items)) == ([], [], [])
        hskv_store.update(a=1, b=[2])
        assert (len(names), len(values), len(items)) == (2, 2, 2)
        assert (list(names), list(values)) == (["a", "b"], [1, [2]])
        assert dict(items) == {"a": 1, "b": [2]}
        assert "a" in names
        assert "c" not in names
        assert [2] in values
        assert 2 not in values
        assert ("b", [2]) in items
        assert ("b", 2) not in items

    def test_views_of_keys_and_items_are_sets(self, hskv_store: Store) -> None:
        hskv_store.update(a=1, b=2)
        assert hskv_store.keys() | {"c"} == {"a", "b", "c"}
        assert hskv_store.keys() - {"a"} == {"b"}
        assert hskv_store.keys() >= {"a"}
        assert hskv_store.keys().isdisjoint({"c"})
        assert hskv_store.items() & {("a", 1), ("b", 1)} == {("a", 1)}
        assert hskv_store.items() == {"a": 1, "b": 2}.items()
        assert hskv_store.items() ^ {("a", 1)} == {("b", 2)}

    def test_they_read_page_by_page(self, noted: tuple[Store, list[hskv.RequestInfo]]) -> None:
        store, sent = noted
        store.set_many({key: key for key in keys(3_000)})
        for view, most in ((store.keys(), 4), (store.values(), 27), (store.items(), 27)):
            sent.clear()
            # list() would ask for the length first.
            assert sum(1 for _ in view) == 3_000
            assert 4 <= len(sent) <= most
            assert {info.operation for info in sent} == {"find"}
        sent.clear()
        assert store
        assert len(sent) == 1

    def test_a_copy_is_a_dict_of_its_own(self, hskv_store: Store) -> None:
        hskv_store.set_many({key: number for number, key in enumerate(keys(2_500))})
        copy = hskv_store.to_dict()
        assert type(copy) is dict
        assert copy == {key: number for number, key in enumerate(keys(2_500))}
        assert hskv_store == copy
        copy.clear()
        assert len(hskv_store) == 2_500

    def test_a_copy_can_be_made_while_keys_go(self, hskv_store: Store) -> None:
        hskv_store.set_many(dict.fromkeys(keys(2_000), 1))
        stop = threading.Event()

        def take() -> None:
            with suppress(KeyError):
                while not stop.is_set():
                    hskv_store.popitem()

        taker = threading.Thread(target=take)
        taker.start()
        try:
            for _ in range(5):
                copy = hskv_store.to_dict()
                assert list(copy) == sorted(copy)
                assert copy.keys() <= set(keys(2_000))
        finally:
            stop.set()
            taker.join()


class TestPrefixes:
    def test_a_namespace_is_a_store_of_its_keys(self, hskv_store: Store) -> None:
        users = hskv_store.namespace("user:")
        admins = users.namespace("admin:")
        hskv_store["other"] = 0
        users["ann"] = 1
        admins["bob"] = 2
        assert hskv_store.to_dict() == {"other": 0, "user:admin:bob": 2, "user:ann": 1}
        assert users.to_dict() == {"admin:bob": 2, "ann": 1}
        assert admins.to_dict() == {"bob": 2}
        assert list(users.scan("a", start="admin:z")) == [("ann", 1)]
        assert admins.client is hskv_store.client
        admins.clear()
        assert users.to_dict() == {"ann": 1}

    def test_stores_of_several_prefixes_do_not_see_each_others_rows(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        prefixes = ["a:", "a;", "b", "é", "a:b"]
        stores = {prefix: hskv_store.namespace(prefix) for prefix in prefixes}
        for prefix, store in stores.items():
            store.set_many({"1": prefix, "2": prefix})
        for prefix, store in stores.items():
            inside = {"b1": "a:b", "b2": "a:b"} if prefix == "a:" else {}
            expected = {"1": prefix, "2": prefix, **inside}
            assert store.to_dict() == expected
            assert list(store) == list(expected)
            assert len(store) == len(expected)
            assert list(store.scan(start="2")) == [
                item for item in expected.items() if item[0] > "1"
            ]
            assert store.get_many(["1", "3"]) == {"1": prefix}
        assert stores["b"].popitem() == ("1", "b")
        assert stores["é"].delete_prefix("") == 2
        stores["a;"].clear()
        assert [bool(store) for store in stores.values()] == [True, False, True, False, True]
        assert stores["a:"].delete_many(["1", "b1", "x"]) == 2
        assert hskv_store.to_dict() == {"a:2": "a:", "a:b2": "a:b", "b2": "b"}

    def test_delete_prefix_counts_what_was_alive(
        self, timed_store: Store, clock: Any, run_sql: Callable[..., Any]
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(2_600), 1), ttl=10)
        timed_store.set_many(dict.fromkeys(keys(2_200, 5_000), 1))
        timed_store.update(j=1, l=1, k=1)
        clock.now += 10
        assert timed_store.delete_prefix("k0") == 2_200
        assert timed_store.delete_prefix("k0") == 0
        assert run_sql("SELECT k FROM kv WHERE k >= 'k0'") == ((b"l",),)
        assert list(timed_store) == ["j", "k", "l"]
        assert timed_store.delete_prefix("") == 3

    def test_only_keys_that_begin_so_are_deleted(self, hskv_store: Store) -> None:
        hskv_store.set_many(dict.fromkeys(["a", "ab", "aba", "abb", "abé", "ac", "b"], 1))
        assert hskv_store.delete_prefix("ab") == 4
        assert list(hskv_store) == ["a", "ac", "b"]
        assert hskv_store.delete_prefix("x" * 300) == 0


class TestReserved:
    @pytest.fixture
    def leased(self, hskv_store: Store, hskv_server: PrivateServer) -> Iterator[Store]:
        """A store in whose table others hold leases, which must be held at the end."""
        with hskv.connect(hskv_server.url, prefix="a") as other:
            leases = [hskv_store.lease("x" * length) for length in (1, 300)]
            leases += [other.lease("b"), other.lease("c", fence=True)]
            for lease in leases:
                assert lease.acquire(wait=False)
            yield hskv_store
            for lease in leases:
                assert lease.locked()
                lease.release()

    def test_leases_are_in_no_mapping(self, leased: Store) -> None:
        assert list(leased) == []
        assert len(leased) == 0
        assert not leased
        assert list(leased.scan()) == list(leased.scan("")) == []
        assert leased.to_dict() == {}
        with pytest.raises(KeyError):
            leased.popitem()
        leased["a"] = 1
        assert leased.delete_prefix("") == 1
        leased.clear()

    def test_no_prefix_leads_to_them(self, leased: Store) -> None:
        leased["a"] = 1
        for prefix in ("\x00", "\x00L", "\x00La"):
            with suppress(ValueError):
                assert list(leased.scan(prefix)) == []
            with suppress(ValueError):
                assert leased.delete_prefix(prefix) == 0
            with pytest.raises(ValueError, match="NUL"):
                leased.namespace(prefix)
        assert leased.to_dict() == {"a": 1}

    def test_no_start_leads_to_them(self, leased: Store) -> None:
        with pytest.raises(ValueError, match="NUL"):
            list(leased.scan(start="\x00"))

    def test_a_key_may_hold_nul_where_it_does_not_begin_the_row(self, hskv_store: Store) -> None:
        space = hskv_store.namespace("p")
        space.set_many({"\x00": 1, "\x00L": 2, "a\x00": 3})
        assert [key for key, _ in space.scan("\x00")] == ["\x00", "\x00L"]
        assert space.delete_prefix("\x00") == 2
        assert list(space) == ["a\x00"]


class TestLargeValues:
    @pytest.mark.timeout(120)
    def test_64_values_of_4_mib_are_read_one_at_a_time(
        self, hskv_store: Store, hskv_server: PrivateServer, run_sql: Callable[..., Any]
    ) -> None:
        size = 4 * MIB
        run_sql(
            "INSERT INTO kv (k, v) SELECT CONCAT('large', LPAD(seq, 2, '0')), REPEAT(%s, %s) "
            "FROM seq_1_to_60",
            bytes(range(16, 80)),
            size // 64,
        )
        with hskv.connect(hskv_server.url, timeout=60) as store:
            for number in range(4):
                store[f"random{number}"] = os.urandom(size)
            # By SQL one more copy is made than by HandlerSocket.
            with peak_below(6 * size):
                assert [len(value) for value in store.values()] == [size] * 64
            store.clear()

    @pytest.mark.timeout(120)
    def test_large_values_behind_small_ones_do_not_come_all_at_once(
        self, noted: tuple[Store, list[hskv.RequestInfo]], run_sql: Callable[..., Any]
    ) -> None:
        store, sent = noted
        store.set_many({f"a{number:04}": number for number in range(1_600)})
        run_sql(
            "INSERT INTO kv (k, v) SELECT CONCAT('b', LPAD(seq, 3, '0')), REPEAT('x', %s) "
            "FROM seq_1_to_500",
            256 << 10,
        )
        sent.clear()
        assert sum(1 for _ in store.items()) == 2_100
        assert max(info.bytes_received for info in sent) < sum(i.bytes_received for i in sent) / 2

    def test_a_batch_bounds_what_comes_at_once(
        self, noted: tuple[Store, list[hskv.RequestInfo]]
    ) -> None:
        store, sent = noted
        store.set_many(dict.fromkeys(keys(100), "small"))
        store.set_many(dict.fromkeys(keys(20, 100), "x" * MIB))
        sent.clear()
        assert sum(1 for _ in store.scan(batch=3)) == 120
        assert max(info.bytes_received for info in sent) < 3.1 * MIB

    def test_keys_are_read_without_values(
        self, noted: tuple[Store, list[hskv.RequestInfo]]
    ) -> None:
        store, sent = noted
        store.set_many(dict.fromkeys(keys(20), "x" * MIB))
        sent.clear()
        assert list(store) == keys(20)
        assert len(store) == 20
        assert "k000001" in store
        assert sum(info.bytes_received for info in sent) < 1_000


def test_a_scan_takes_about_as_long_wherever_it_starts(hskv_store: Store) -> None:
    hskv_store.set_many(dict.fromkeys(keys(20_000), 1))
    times = []
    for start in ("k000000", "k019000") * 3:
        began = time.perf_counter()
        rows = hskv_store.scan(start=start)
        assert sum(1 for _ in zip(range(900), rows, strict=False)) == 900
        times.append(time.perf_counter() - began)
    # By offset instead of by key the later page would cost twenty times as much.
    assert min(times[1::2]) < 5 * min(times[0::2])
