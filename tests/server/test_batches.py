"""Batches of any size, and what is known when one of them fails."""

import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import BatchError, Client, KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

from .test_exchange import Fate, Relay, inserts

Store = KeyValueStore[str, Any]

MIB = 1 << 20
ROWS = 100_000
SIZE = 1_000
LARGE = 300_000
"""Three values of this size fill a packet."""


def keys(count: int, start: int = 0) -> list[str]:
    return [f"k{number:06}" for number in range(start, start + count)]


def resident(pid: int | None) -> int:
    """The bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@contextmanager
def peak_below(size: int) -> Iterator[None]:
    """Python allocates less than so many bytes at any time inside."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak / MIB:.1f} MiB"


@pytest.fixture(scope="module")
def own_server() -> Iterator[PrivateServer]:
    """A server to be killed, and to be waited for no longer than a second."""
    with PrivateServer(options={"innodb_lock_wait_timeout": 1}) as server:
        yield server


@pytest.fixture
def own_store(own_server: PrivateServer) -> Iterator[Store]:
    with hskv.connect(own_server.url) as store:
        store.clear()
        yield store


@pytest.fixture
def relay(hskv_server: PrivateServer) -> Iterator[Relay]:
    relay = Relay(hskv_server, "batches.sock")
    yield relay
    relay.close()


@contextmanager
def locked(server: PrivateServer, key: str) -> Iterator[None]:
    """SQL keeps a row locked."""
    with closing(pymysql.connect(**server.sql)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT k FROM kv WHERE k = %s FOR UPDATE", (key,))
        yield
        connection.rollback()


@pytest.mark.timeout(180)
class TestSize:
    def test_100000_rows_of_a_generator_need_little_memory_on_either_side(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        value = b"x" * SIZE
        before = resident(hskv_server.pid)
        with peak_below(ROWS * SIZE // 4):
            hskv_store.set_many((key, value) for key in keys(ROWS))
        # Its buffer pool, of 64 MiB, fills up.
        assert resident(hskv_server.pid) - before < ROWS * SIZE
        assert len(hskv_store) == ROWS
        before = resident(hskv_server.pid)
        hskv_store.set_many((key, value) for key in keys(ROWS // 2))
        assert resident(hskv_server.pid) - before < ROWS * SIZE // 4
        assert hskv_store.delete_prefix("k") == ROWS

    def test_100000_keys_of_a_mapping_go_in_come_out_and_go(self, hskv_store: Store) -> None:
        items = {key: number for number, key in enumerate(keys(ROWS))}
        hskv_store.set_many(items, ttl=600)
        assert hskv_store.get_many(iter(items)) == items
        some = keys(ROWS // 2, 70_000)
        assert hskv_store.get_many(some) == {key: items[key] for key in some if key in items}
        assert hskv_store.delete_many(some) == 30_000
        assert hskv_store.delete_many(key for key in items) == 70_000
        assert not hskv_store

    def test_large_values_are_taken_as_they_are_sent(self, hskv_store: Store) -> None:
        value = b"x" * MIB
        with peak_below(10 * MIB):
            hskv_store.set_many((key, value[: MIB - 1] + b"y") for key in keys(30))
        assert len(hskv_store) == 30
        assert hskv_store.delete_prefix("k") == 30

    @pytest.mark.handlersocket("SQL stores new keys in one round trip, not two")
    def test_packets_are_cut_by_number_and_by_bytes(self, hskv_server: PrivateServer) -> None:
        sent: list[tuple[int, int]] = []
        note: Callable[[Any], None] = lambda info: sent.append((info.requests, info.bytes_sent))  # noqa: E731
        with hskv.connect(hskv_server.url, on_request=note, cull=False) as store:
            store.clear()
            store.set_many(dict.fromkeys(keys(2_500), 0))
            assert [count for count, _ in sent[-6:]] == [1000, 1000, 1000, 1000, 500, 500]
            sent.clear()
            store.set_many(dict.fromkeys(keys(8), b"x" * LARGE))
            assert [count for count, _ in sent] == [3, 3, 2]
            assert max(size for _, size in sent) < 1.1 * MIB
            store.clear()


class TestSemantics:
    def test_of_several_values_for_a_key_the_last_counts(self, hskv_store: Store) -> None:
        hskv_store["old"] = 0
        pairs = [("new", 1), ("old", 2), ("new", 3), ("old", 4), ("new", 5)]
        far = [("new", 6), *[(key, 0) for key in keys(1_500)], ("new", 7)]
        hskv_store.set_many(pairs)
        assert hskv_store.to_dict() == {"new": 5, "old": 4}
        hskv_store.set_many(iter(far))
        assert hskv_store["new"] == 7

    def test_the_last_value_counts_although_another_comes_in_between(
        self, relay: Relay, hskv_store: Store
    ) -> None:
        def make_it(request: bytes) -> Fate:
            if len(relay.asked()) == 2:
                hskv_store["a"] = "theirs"
            return Fate.PASS

        relay.treat = make_it
        with hskv.connect(relay.url, cull=False) as store:
            store.set_many([("a", "first"), ("a", "last")])
        assert hskv_store["a"] == "last"

    def test_keys_asked_for_twice_are_found_and_deleted_once(self, hskv_store: Store) -> None:
        hskv_store.update(a=1, b=2)
        assert hskv_store.get_many(["b", "a", "b", "b"]) == {"b": 2, "a": 1}
        assert hskv_store.delete_many(["a", "a", "b", "a"]) == 2

    def test_nothing_is_sent_for_nothing(self) -> None:
        with hskv.connect("hskv://:x@127.0.0.1:1,2/d") as store:
            nothings: list[Any] = [{}, [], iter(()), ((key, 1) for key in "")]
            for nothing in nothings:
                store.set_many(nothing)
            store.update()
            assert store.get_many(iter(())) == {}
            assert store.delete_many(()) == 0

    def test_each_row_lives_from_when_it_is_sent(self, timed_store: Store, clock: Any) -> None:
        def slowly() -> Iterator[tuple[str, int]]:
            for key in keys(3_000):
                clock.now += 0.01
                yield key, 1

        timed_store.set_many(slowly(), ttl=20)
        # The last packet was sent less than 10 seconds ago, and set would have given it 20.
        assert timed_store.get_many(keys(500, 2_500)) == dict.fromkeys(keys(500, 2_500), 1)

    def test_another_store_can_be_copied_while_it_grows(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        source, copy = hskv_store.namespace("from:"), hskv_store.namespace("to:")
        source.set_many(dict.fromkeys(keys(1_500), 0))
        more = iter(range(1_000))

        def grow(_: object) -> None:
            source[f"x{next(more)}"] = 0

        with Client(hskv_server.url, on_request=grow) as client:
            copy.set_many(KeyValueStore(client, prefix="from:", cull=False))
        assert set(keys(1_500)) <= set(copy)

    @pytest.mark.parametrize("bad", ["", "\x00", "x" * 256, "\ud800", 5, b"a"])
    def test_a_bad_key_in_a_mapping_is_refused_before_anything_is_sent(
        self, hskv_store: Store, bad: Any
    ) -> None:
        items: dict[Any, Any] = dict.fromkeys(keys(2_500), 1)
        with pytest.raises((ValueError, TypeError)):
            hskv_store.set_many({**items, bad: 1})
        assert not hskv_store
        hskv_store.set_many(items)
        for call in (hskv_store.get_many, hskv_store.delete_many):
            with pytest.raises((ValueError, TypeError)):
                call([*items, bad])
        assert len(hskv_store) == 2_500

    def test_a_bad_ttl_is_refused_before_anything_is_taken(self, hskv_store: Store) -> None:
        pairs = iter([("a", 1)])
        with pytest.raises(ValueError, match="ttl"):
            hskv_store.set_many(pairs, ttl=0)
        assert list(pairs) == [("a", 1)]
        assert not hskv_store


def spoilt(key: Any = None, value: Any = 0, at: int = 2_500) -> Iterator[tuple[Any, Any]]:
    """Items of which one has a bad key or value."""
    for number, good in enumerate(keys(3_000)):
        yield (good if key is None else key, value) if number == at else (good, number)


class TestFailures:
    @pytest.mark.parametrize(
        "items",
        [
            pytest.param(lambda: spoilt(value={1}), id="a value"),
            pytest.param(lambda: dict(spoilt(value={1})), id="a value in a mapping"),
            pytest.param(lambda: spoilt(key="x" * 256), id="a key too long"),
            pytest.param(lambda: spoilt(key=""), id="an empty key"),
            pytest.param(lambda: spoilt(key="\ud800"), id="a key that is no Unicode"),
            pytest.param(lambda: spoilt(key=5), id="a key of another type"),
        ],
    )
    def test_what_is_bad_in_the_third_packet_leaves_two_stored(
        self, hskv_store: Store, items: Callable[[], Any]
    ) -> None:
        with pytest.raises(BatchError, match="2000 stored") as caught:
            hskv_store.set_many(items())
        assert caught.value.stored == tuple(keys(2_000))
        assert set(keys(500, 2_000)) <= set(caught.value.failed)
        assert caught.value.unknown == ()
        assert isinstance(caught.value.__cause__, (ValueError, TypeError))
        assert list(hskv_store) == keys(2_000)

    @pytest.mark.parametrize("value", [{1}, float("nan"), "\ud800"])
    def test_what_is_bad_in_the_first_packet_is_its_own_error(
        self, hskv_store: Store, value: Any
    ) -> None:
        with pytest.raises(exceptions.SerializationError):
            hskv_store.set_many(spoilt(value=value, at=500))
        assert not hskv_store

    def test_an_error_of_the_iterator_itself_comes_through(self, hskv_store: Store) -> None:
        def broken() -> Iterator[tuple[str, int]]:
            yield from dict.fromkeys(keys(1_500), 1).items()
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            hskv_store.set_many(broken())
        assert list(hskv_store) == keys(1_000)

    def test_a_server_that_goes_away_midway(
        self, own_server: PrivateServer, own_store: Store
    ) -> None:
        def deadly() -> Iterator[tuple[str, int]]:
            for number, key in enumerate(keys(5_000)):
                if number == 2_500:
                    own_server.kill()
                yield key, number

        with pytest.raises(BatchError) as caught:
            own_store.set_many(deadly())
        own_server.start()
        assert isinstance(caught.value.__cause__, exceptions.ConnectionError)
        assert caught.value.stored == tuple(keys(2_000))
        # One more is taken to see that the packet is full.
        assert caught.value.failed == tuple(keys(1_001, 2_000))
        assert caught.value.unknown == ()
        assert list(own_store) == keys(2_000)

    def test_a_connection_that_breaks_in_a_packet_leaves_that_packet_unknown(
        self, relay: Relay, hskv_store: Store
    ) -> None:
        names = keys(8)
        done: list[bytes] = []

        def cut(request: bytes) -> Fate:
            done.extend([request] if inserts(request) else [])
            return Fate.LOSE if len(done) == 5 else Fate.PASS

        relay.treat = cut
        with hskv.connect(relay.url, cull=False) as store, pytest.raises(BatchError) as caught:
            store.set_many(dict.fromkeys(names, b"x" * LARGE))
        assert isinstance(caught.value.__cause__, hskv.OutcomeUnknownError)
        assert caught.value.stored == tuple(names[:3])
        assert caught.value.unknown == tuple(names[3:6])
        assert caught.value.failed == tuple(names[6:])
        assert list(hskv_store) == names[:5]

    def test_a_delete_whose_reply_is_lost_leaves_its_packet_unknown(
        self, relay: Relay, hskv_store: Store
    ) -> None:
        relay.treat = lambda request: Fate.SWALLOW if b"k000004" in request else Fate.PASS
        with hskv.connect(relay.url, cull=False) as store, pytest.raises(BatchError) as caught:
            store.delete_many(keys(8))
        assert caught.value.unknown == tuple(keys(8))
        assert caught.value.stored == caught.value.failed == ()

    @pytest.mark.parametrize("call", ["set_many", "delete_many"])
    def test_a_row_that_sql_has_locked(
        self, own_server: PrivateServer, own_store: Store, call: str
    ) -> None:
        old: dict[str, int] = dict.fromkeys(keys(10), 0)
        new: dict[str, int] = dict.fromkeys(keys(12), 1)
        own_store.set_many(old)
        batch: dict[str, Callable[[], object]] = {
            "set_many": lambda: own_store.set_many(new),
            "delete_many": lambda: own_store.delete_many(list(new)),
        }
        with locked(own_server, "k000005"), pytest.raises(BatchError) as caught:
            batch[call]()
        assert isinstance(caught.value.__cause__, hskv.LockTimeoutError)
        error = caught.value
        left: dict[Any, Any] = own_store.to_dict()
        assert {*error.stored, *error.failed, *error.unknown} == set(new)
        assert "k000005" not in error.stored
        if call == "set_many":
            assert {key: left.get(key) for key in error.stored} == dict.fromkeys(error.stored, 1)
            assert {key: left.get(key, 0) for key in error.failed} == dict.fromkeys(error.failed, 0)
        else:
            assert set(error.stored).isdisjoint(left)
            assert set(error.failed) & set(old) <= set(left)


def test_update_takes_what_dict_takes(hskv_store: Store) -> None:
    class Keyed:
        def keys(self) -> Iterable[str]:
            return ["k"]

        def __getitem__(self, key: str) -> int:
            return 5

    arguments: list[Mapping[str, int] | Iterable[tuple[str, int]] | Keyed] = [
        {"a": 1},
        [("b", 2)],
        (pair for pair in [("c", 3)]),
        Keyed(),
    ]
    for argument in arguments:
        hskv_store.update(argument)
    hskv_store.update({"a": 6}, d=4)
    assert hskv_store.to_dict() == {"a": 6, "b": 2, "c": 3, "d": 4, "k": 5}
