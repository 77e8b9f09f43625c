"""KeyValueStore on the real server, from one client."""

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest

import hskv
from hskv import DEFAULT, Client, KeyValueStore, Table
from hskv.exceptions import BatchError, KeyTooLongError, SerializationError
from hskv.mariadb import PrivateServer
from hskv.transport.address import Address

Store = KeyValueStore[str, Any]


class TestMapping:
    def test_a_value_comes_back(self, hskv_store: Store) -> None:
        hskv_store["key"] = {"a": [1, None, "é"]}
        assert hskv_store["key"] == {"a": [1, None, "é"]}

    @pytest.mark.parametrize("value", [None, "", b"", 0, False, [], {}])
    def test_empty_values_are_values(self, hskv_store: Store, value: object) -> None:
        hskv_store["key"] = value
        assert "key" in hskv_store
        assert hskv_store["key"] == value
        assert type(hskv_store["key"]) is type(value)

    def test_a_missing_key_is_a_key_error_that_names_it(self, hskv_store: Store) -> None:
        with pytest.raises(KeyError) as caught:
            hskv_store["missing"]
        assert caught.value.args == ("missing",)
        with pytest.raises(KeyError):
            del hskv_store["missing"]
        with pytest.raises(KeyError):
            hskv_store.pop("missing")
        with pytest.raises(KeyError):
            hskv_store.popitem()
        assert hskv_store.pop("missing", 5) == 5
        assert hskv_store.get("missing") is None
        assert hskv_store.get("missing", 5) == 5
        assert "missing" not in hskv_store

    def test_it_behaves_as_a_dict_in_key_order(self, hskv_store: Store) -> None:
        model = {"b": 2, "a": 1, "c": 3}
        hskv_store.update(model)
        ordered = dict(sorted(model.items()))
        assert list(hskv_store) == list(ordered)
        assert list(hskv_store.items()) == list(ordered.items())
        assert list(hskv_store.values()) == list(ordered.values())
        assert hskv_store.keys() == model.keys()
        assert len(hskv_store) == 3
        assert hskv_store == model
        assert hskv_store != {**model, "d": 4}
        assert ("a", 1) in hskv_store.items()
        assert 3 in hskv_store.values()
        assert 4 not in hskv_store.values()
        assert hskv_store.keys() & {"a", "z"} == {"a"}

    def test_truth_is_whether_it_holds_anything(self, hskv_store: Store) -> None:
        assert not hskv_store
        hskv_store["a"] = None
        assert hskv_store

    def test_pop_and_popitem_remove(self, hskv_store: Store) -> None:
        hskv_store.update(a=1, b=2)
        assert hskv_store.pop("a") == 1
        assert hskv_store.popitem() == ("b", 2)
        assert not hskv_store

    def test_setdefault_stores_only_where_missing(self, hskv_store: Store) -> None:
        assert hskv_store.setdefault("a", 1) == 1
        assert hskv_store.setdefault("a", 2) == 1
        assert hskv_store.setdefault("none") is None
        assert hskv_store["none"] is None

    def test_update_takes_what_dict_takes(self, hskv_store: Store) -> None:
        hskv_store.update({"a": 1}, b=2)
        hskv_store.update([("c", 3)])
        hskv_store.update(d=4)
        hskv_store.update()
        assert dict(hskv_store) == {"a": 1, "b": 2, "c": 3, "d": 4}

    def test_clear_removes_all(self, hskv_store: Store) -> None:
        hskv_store.set_many({str(number): number for number in range(2_100)})
        hskv_store.clear()
        assert list(hskv_store) == []

    def test_pages_join_without_gap_or_repetition(self, hskv_store: Store) -> None:
        keys = [f"{number:05}" for number in range(2_345)]
        hskv_store.set_many(dict.fromkeys(keys, 0))
        assert list(hskv_store) == keys
        assert [key for key, _ in hskv_store.items()] == keys
        assert len(hskv_store) == len(keys)

    def test_it_is_not_hashable_and_its_repr_asks_nothing(self) -> None:
        store = KeyValueStore("hskv://:hunter2@127.0.0.1:1,2/d?prefix=p:")
        assert "hunter2" not in repr(store)
        assert "p:" in repr(store)
        with pytest.raises(TypeError):
            hash(store)


class TestWrites:
    def test_delete_tells_whether_it_was_there(self, hskv_store: Store) -> None:
        hskv_store["a"] = 1
        assert hskv_store.delete("a") is True
        assert hskv_store.delete("a") is False

    def test_add_stores_only_where_missing(self, hskv_store: Store) -> None:
        assert hskv_store.add("a", 1) is True
        assert hskv_store.add("a", 2) is False
        assert hskv_store["a"] == 1

    def test_replace_stores_only_where_there(self, hskv_store: Store) -> None:
        assert hskv_store.replace("a", 1) is False
        hskv_store["a"] = 1
        assert hskv_store.replace("a", "two") is True
        assert hskv_store["a"] == "two"

    def test_many_at_once(self, hskv_store: Store) -> None:
        items = {f"k{number}": number for number in range(2_500)}
        hskv_store["k7"] = "old"
        hskv_store.set_many(items)
        assert hskv_store.get_many([*items, "missing"]) == items
        assert hskv_store.delete_many(["k0", "k0", "missing", *list(items)[:2_000]]) == 2_000
        assert len(hskv_store) == 500

    def test_get_many_keeps_the_order_asked(self, hskv_store: Store) -> None:
        hskv_store.update(a=1, b=2, c=3)
        assert list(hskv_store.get_many(iter(["c", "x", "a", "c"]))) == ["c", "a"]

    def test_empty_batches_send_nothing(self) -> None:
        store: Store = KeyValueStore("hskv://:x@127.0.0.1:1,2/d")
        assert store.get_many([]) == {}
        assert store.delete_many([]) == 0
        store.set_many({})

    def test_one_string_is_no_list_of_keys(self, hskv_store: Store) -> None:
        with pytest.raises(TypeError):
            hskv_store.get_many("abc")

    def test_a_batch_with_a_bad_key_stores_nothing(self, hskv_store: Store) -> None:
        with pytest.raises(KeyTooLongError):
            hskv_store.set_many({"good": 1, "x" * 256: 2})
        assert not hskv_store

    def test_a_batch_that_fails_says_what_it_did(
        self, run_sql: Callable[..., Any], hskv_server: PrivateServer
    ) -> None:
        run_sql("DROP TABLE IF EXISTS picky")
        run_sql(Table("picky").create_sql().replace(") ENGINE", ", UNIQUE KEY (n)) ENGINE"))
        with KeyValueStore(hskv_server.url, "picky") as store:
            with pytest.raises(BatchError) as caught:
                store.set_many({"a": 1, "b": 1, "c": 2})
            assert caught.value.stored == ("a", "c")
            assert caught.value.failed == ("b",)
            assert caught.value.unknown == ()
            assert store.get_many(["a", "b", "c"]) == {"a": 1, "c": 2}

    def test_values_of_every_size_come_back(self, hskv_store: Store) -> None:
        for size in (1, 15, 16_383, 65_535, 65_536, 1 << 20, 5_000_000):
            value = os.urandom(size)
            hskv_store["big"] = value
            assert hskv_store["big"] == value

    def test_large_values_in_a_batch(self, hskv_store: Store) -> None:
        items = {str(number): os.urandom(300_000) for number in range(10)}
        hskv_store.set_many(items)
        assert hskv_store.get_many(items) == items


class TestExpiry:
    def test_a_value_is_gone_when_its_time_is_up(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("a", 1, ttl=10)
        timed_store.set("b", 1, ttl=timedelta(minutes=1))
        timed_store.set("c", 1)
        assert timed_store.ttl("a") == 10
        clock.now += 9.999
        assert timed_store["a"] == 1
        clock.now += 0.001
        assert "a" not in timed_store
        assert timed_store.get("a") is None
        assert list(timed_store) == ["b", "c"]
        assert timed_store.get_many(["a", "b", "c"]) == {"b": 1, "c": 1}
        assert timed_store.delete("a") is False
        assert timed_store.touch("a") is False
        assert timed_store.replace("a", 1) is False
        with pytest.raises(KeyError):
            timed_store.ttl("a")
        with pytest.raises(KeyError):
            timed_store.pop("a")

    def test_an_expired_key_can_be_made_again(self, timed_store: Store, clock: Any) -> None:
        for make in (timed_store.add, timed_store.setdefault):
            timed_store.set("a", "old", ttl=1)
            clock.now += 2
            assert make("a", "new") in (True, "new")
            assert timed_store["a"] == "new"
            assert timed_store.ttl("a") is None

    def test_popitem_passes_over_the_expired(self, timed_store: Store, clock: Any) -> None:
        timed_store.set_many({f"a{number:04}": 1 for number in range(1_500)}, ttl=1)
        timed_store["b"] = 2
        clock.now += 2
        assert timed_store.popitem() == ("b", 2)

    def test_touch_moves_the_end(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("a", 1, ttl=10)
        clock.now += 5
        assert timed_store.touch("a", 20) is True
        assert timed_store.ttl("a") == 20
        assert timed_store.touch("a", None) is True
        assert timed_store.ttl("a") is None

    def test_the_default_is_used_where_no_ttl_is_given(
        self, hskv_server: PrivateServer, clock: Any
    ) -> None:
        with KeyValueStore(hskv_server.url, default_ttl=30, clock=clock, prefix="d:") as store:
            store["a"] = 1
            store.set("b", 1, ttl=None)
            store.set("c", 1, ttl=DEFAULT)
            store.set("d", 1, ttl=1)
            store.set_many({"e": 1})
            store.incr("f")
            assert [store.ttl(key) for key in "abcdef"] == [30, None, 30, 1, 30, 30]
            store.clear()


class TestCounters:
    def test_a_counter_counts(self, hskv_store: Store) -> None:
        assert hskv_store.incr("n") == 1
        assert hskv_store.incr("n", 41) == 42
        assert hskv_store.decr("n", 50) == -8
        assert hskv_store["n"] == -8
        assert hskv_store.incr("m", 5, initial=100) == 105
        assert hskv_store.decr("d", initial=10) == 9

    def test_a_stored_integer_is_a_counter(self, hskv_store: Store) -> None:
        hskv_store["n"] = 2**62
        assert hskv_store.incr("n") == 2**62 + 1

    @pytest.mark.parametrize("value", ["5", b"5", 5.0, True, None, 2**63, [5]])
    def test_another_value_is_a_type_error_and_stays(
        self, hskv_store: Store, value: object
    ) -> None:
        hskv_store["n"] = value
        with pytest.raises(TypeError):
            hskv_store.incr("n")
        assert hskv_store["n"] == value

    def test_it_never_wraps(self, hskv_store: Store) -> None:
        hskv_store["n"] = 2**63 - 2
        assert hskv_store.incr("n") == 2**63 - 1
        for _ in range(2):
            with pytest.raises(OverflowError):
                hskv_store.incr("n")
        assert hskv_store["n"] == 2**63 - 1
        hskv_store["n"] = -(2**63)
        with pytest.raises(OverflowError):
            hskv_store.decr("n")
        assert hskv_store.incr("n", 2**63 - 1) == -1
        with pytest.raises(OverflowError):
            hskv_store.incr("new", initial=2**63 - 1)
        assert "new" not in hskv_store

    @pytest.mark.parametrize("amount", [2**63, -(2**63) - 1])
    def test_an_amount_beyond_64_bits_is_refused(self, hskv_store: Store, amount: int) -> None:
        with pytest.raises(OverflowError):
            hskv_store.incr("n", amount)
        with pytest.raises(OverflowError):
            hskv_store.incr("n", initial=amount)
        with pytest.raises(OverflowError):
            hskv_store.decr("n", -(2**63))
        assert "n" not in hskv_store

    @pytest.mark.parametrize("amount", [True, 1.0, "1"])
    def test_an_amount_that_is_no_int_is_refused(self, hskv_store: Store, amount: Any) -> None:
        with pytest.raises(TypeError):
            hskv_store.incr("n", amount)

    def test_a_live_counter_keeps_its_end_and_an_expired_one_begins_anew(
        self, timed_store: Store, clock: Any
    ) -> None:
        assert timed_store.incr("n", ttl=10) == 1
        clock.now += 6
        assert timed_store.incr("n", ttl=10) == 2
        assert timed_store.ttl("n") == 4
        clock.now += 5
        assert timed_store.incr("n", 5, initial=100, ttl=10) == 105

    def test_sql_can_sum_them(self, hskv_store: Store, run_sql: Callable[..., Any]) -> None:
        for number in range(10):
            hskv_store.incr(f"n{number}", number)
        assert run_sql("SELECT SUM(n), MIN(kind), MAX(kind) FROM kv") == ((45, 2, 2),)


class TestKeys:
    def test_every_byte_can_stand_in_a_key(self, hskv_server: PrivateServer) -> None:
        with KeyValueStore(hskv_server.url, key_type=bytes, prefix="bytes:") as store:
            keys = [bytes([byte]) for byte in range(256)] + [b"", b"a\t\n\x00\x01b", b"\xff" * 9]
            store.set_many({key: key for key in keys})
            assert list(store) == sorted(keys)
            assert all(store[key] == key for key in keys)
            assert store.delete_many(keys) == len(keys)

    def test_a_key_of_255_bytes_fits_and_one_more_is_refused(self, hskv_store: Store) -> None:
        hskv_store["x" * 255] = 1
        assert hskv_store["x" * 255] == 1
        for call in (hskv_store.get, hskv_store.delete, hskv_store.incr, hskv_store.ttl):
            with pytest.raises(KeyTooLongError):
                call("x" * 256)
        with pytest.raises(KeyTooLongError):
            hskv_store["é" * 128] = 1
        with pytest.raises(KeyTooLongError):
            hskv_store["x" * 256] = 1
        assert list(hskv_store) == ["x" * 255]

    @pytest.mark.parametrize("key", ["", "\x00", "\x00L:name", "\ud800"])
    def test_reserved_and_broken_keys_are_refused(self, hskv_store: Store, key: str) -> None:
        with pytest.raises(ValueError, match=r"reserved|not valid Unicode"):
            hskv_store[key] = 1

    @pytest.mark.parametrize("key", [b"a", 1, None, 1.5, ("a",)])
    def test_a_key_of_another_type_is_refused(self, hskv_store: Store, key: Any) -> None:
        with pytest.raises(TypeError):
            hskv_store[key] = 1
        with pytest.raises(TypeError):
            assert key in hskv_store

    def test_a_prefix_owns_the_keys_that_begin_with_it(self, hskv_server: PrivateServer) -> None:
        with Client(hskv_server.url) as client:
            everything = KeyValueStore(client)
            everything.clear()
            short, long = KeyValueStore(client, prefix="a"), KeyValueStore(client, prefix="ab")
            other = KeyValueStore(client, prefix="b")
            short["x"], long["y"], other["z"], short[""] = 1, 2, 3, 4
            assert dict(everything) == {"a": 4, "ax": 1, "aby": 2, "bz": 3}
            assert dict(short) == {"": 4, "x": 1, "by": 2}
            assert dict(long) == {"y": 2}
            long.clear()
            assert short.popitem() == ("", 4)
            assert dict(everything) == {"ax": 1, "bz": 3}
            everything.clear()

    def test_a_prefix_of_the_highest_bytes_has_no_end(self, hskv_server: PrivateServer) -> None:
        with KeyValueStore(hskv_server.url, key_type=bytes, prefix=b"\xff\xff") as store:
            store[b"a"] = 1
            assert list(store) == [b"a"]
            store.clear()
            assert not store

    def test_rows_under_reserved_keys_are_no_items(
        self, hskv_store: Store, run_sql: Callable[..., Any]
    ) -> None:
        run_sql("REPLACE INTO kv (k, v) VALUES (x'004c', ''), ('', '')")
        assert list(hskv_store) == []
        hskv_store.clear()
        assert run_sql("SELECT COUNT(*) FROM kv") == ((2,),)
        run_sql("DELETE FROM kv")

    def test_a_key_that_is_no_text_is_an_error_of_iteration(
        self, hskv_store: Store, run_sql: Callable[..., Any]
    ) -> None:
        run_sql("INSERT INTO kv (k, v) VALUES (x'ff', '')")
        with pytest.raises(SerializationError, match="key_type=bytes"):
            list(hskv_store)

    def test_a_prefix_as_long_as_the_column_is_refused(self) -> None:
        with pytest.raises(KeyTooLongError, match="prefix"):
            KeyValueStore("hskv://h/d", prefix="a" * 255)

    def test_a_prefix_with_nul_is_refused(self) -> None:
        with pytest.raises(ValueError, match="NUL"):
            KeyValueStore("hskv://h/d", prefix="a\x00")


class TestRowsOfOthers:
    def test_what_cannot_be_read_is_not_taken(
        self, hskv_store: Store, run_sql: Callable[..., Any]
    ) -> None:
        run_sql("INSERT INTO kv (k, v, kind) VALUES ('a', 'other', 5)")
        hskv_store["b"] = 1
        for call in (hskv_store.get, hskv_store.pop):
            with pytest.raises(SerializationError, match="kind 5"):
                call("a")
        assert hskv_store.popitem() == ("b", 1)
        assert run_sql("SELECT v FROM kv") == ((b"other",),)
        assert hskv_store.delete("a")

    def test_update_takes_another_store(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with KeyValueStore(hskv_server.url, prefix="from:") as other:
            other.set_many({str(number): number for number in range(500)})
            hskv_store.update(other, more=1)
            assert hskv_store.pop("more") == 1
            assert len(hskv_store) == 1_000


class TestOpening:
    def test_the_url_comes_from_the_environment(
        self, hskv_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HSKV_URL", f"{hskv_server.url}&prefix=env:&default_ttl=60")
        with hskv.connect() as store, KeyValueStore(hskv_server.url) as everything:
            store["a"] = 1
            assert everything.pop("env:a") == 1

    def test_it_works_over_tcp(self, tcp_server: PrivateServer) -> None:
        with hskv.connect(tcp_server.url) as store:
            store.clear()
            store["a"] = b"\x00\t\n"
            assert dict(store) == {"a": b"\x00\t\n"}

    def test_columns_may_have_other_names(
        self, hskv_server: PrivateServer, run_sql: Callable[..., Any]
    ) -> None:
        table = Table(
            "other",
            key="id",
            value="data",
            number="num",
            kind="type",
            version="rev",
            expires="until",
            key_bytes=20,
        )
        run_sql("DROP TABLE IF EXISTS other")
        run_sql(table.create_sql())
        with KeyValueStore(hskv_server.url, table) as store:
            store["a"] = "x"
            assert store.incr("n") == 1
            assert dict(store) == {"a": "x", "n": 1}
            with pytest.raises(KeyTooLongError):
                store["x" * 21] = 1
        assert run_sql("SELECT data FROM other WHERE id = 'a'") == ((b"x",),)

    def test_a_store_pickles_by_its_arguments(self, hskv_server: PrivateServer) -> None:
        with KeyValueStore(hskv_server.url, prefix="pickle:", default_ttl=60) as store:
            store["a"] = 1
            with pickle.loads(pickle.dumps(store)) as copy:
                assert copy.pop("a") == 1
                copy["b"] = 2
                assert store.ttl("b") == pytest.approx(60, abs=5)
                assert store.pop("b") == 2

    def test_close_leaves_a_client_that_was_given(self, hskv_server: PrivateServer) -> None:
        with Client(hskv_server.url) as client:
            with KeyValueStore(client) as store:
                store["a"] = 1
            assert KeyValueStore(client).pop("a") == 1
            with pytest.raises(TypeError, match="timeout"):
                KeyValueStore(client, timeout=3)

    def test_a_closed_store_says_so(self, hskv_server: PrivateServer) -> None:
        store = hskv.connect(hskv_server.url)
        store["a"] = 1
        store.close()
        store.close()
        with pytest.raises(hskv.exceptions.ConnectionError, match="closed"):
            store["a"]

    @pytest.mark.parametrize("side", ["readers", "writers"])
    def test_several_servers_are_refused(self, side: str) -> None:
        client = hskv.Client("hskv://h/d")
        several: Any = {side: (Address("one"), Address("two"))}
        settings = replace(client.settings, **several)
        with pytest.raises(hskv.UnsupportedError, match="drift apart"):
            KeyValueStore(hskv.Client.from_settings(settings))

    def test_a_wrong_key_type_is_refused(self) -> None:
        with pytest.raises(TypeError, match="key_type"):
            KeyValueStore("hskv://h/d", key_type=float)  # type: ignore[arg-type]


@pytest.mark.handlersocket("PyMySQL has frames of its own")
def test_get_reaches_the_socket_in_six_frames(hskv_store: Store) -> None:
    hskv_store["a"] = 1
    assert hskv_store.get("a") == 1, "connects and opens the index"
    depths: list[int] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__name__ == "send":
            depth = 0
            caller: FrameType | None = frame
            while caller is not None and caller.f_code.co_name != test_frames.__name__:
                depth, caller = depth + 1, caller.f_back
            depths.append(depth)

    def test_frames() -> None:
        sys.setprofile(profile)
        try:
            hskv_store.get("a")
        finally:
            sys.setprofile(None)

    test_frames()
    assert depths
    assert max(depths) <= 6
