"""What becomes of the space of expired rows."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pymysql
import pytest

import hskv
from hskv import Client, KeyValueStore, Table
from hskv.mariadb import PrivateServer

from .test_batches import keys

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

GRACE = 60


@pytest.fixture
def rows(hskv_server: PrivateServer) -> Iterator[Callable[[], int]]:
    """How many rows the table has, live and dead, without what is reserved."""
    with (
        closing(pymysql.connect(autocommit=True, **hskv_server.sql)) as connection,
        connection.cursor() as cursor,
    ):

        def count() -> int:
            cursor.execute("SELECT COUNT(*) FROM kv WHERE k >= x'01'")
            ((number,),) = cursor.fetchall()
            return int(number)

        yield count


@pytest.fixture
def later(clock: Any) -> Callable[[float], None]:
    def move(seconds: float) -> None:
        clock.now += seconds

    return move


class TestPurge:
    def test_a_row_goes_when_it_expired_a_minute_ago(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        timed_store.set("a", 1, ttl=10)
        timed_store.set("b", 1, ttl=10.001)
        later(10 + GRACE - 0.001)
        assert timed_store.purge_expired() == 0
        assert rows() == 2
        later(0.001)
        assert timed_store.purge_expired() == 1
        later(0.001)
        assert timed_store.purge_expired() == 1
        assert rows() == 0

    def test_what_lives_stays(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(100), 1), ttl=10)
        timed_store.set_many(dict.fromkeys(keys(100, 100), 1), ttl=1_000)
        timed_store.set_many(dict.fromkeys(keys(100, 200), 1))
        later(10 + GRACE)
        assert timed_store.purge_expired() == 100
        assert list(timed_store) == keys(200, 100)
        assert rows() == 200
        timed_store.touch("k000100", ttl=None)
        later(1_000)
        assert timed_store.purge_expired() == 99
        assert list(timed_store) == ["k000100", *keys(100, 200)]

    def test_it_goes_in_batches_as_far_as_the_limit(
        self, hskv_server: PrivateServer, clock: Any, rows: Callable[[], int]
    ) -> None:
        sent: list[hskv.RequestInfo] = []
        with KeyValueStore(hskv_server.url, clock=clock, on_request=sent.append) as store:
            store.clear()
            store.set_many(dict.fromkeys(keys(100), 1), ttl=10)
            clock.now += 10 + GRACE
            sent.clear()
            assert store.purge_expired(batch=7, limit=20) == 20
            assert len(sent) == 3
            assert rows() == 80
            sent.clear()
            assert store.purge_expired(limit=0) == 0
            assert not sent
            assert store.purge_expired(batch=40) == 80
            assert len(sent) == 3
            for batch in (0, -1):
                with pytest.raises(ValueError, match="batch"):
                    store.purge_expired(batch=batch)

    def test_it_is_for_the_whole_table(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        timed_store.set("a", 1, ttl=10)
        timed_store.namespace("n:").set("a", 1, ttl=10)
        later(10 + GRACE)
        assert timed_store.namespace("other:").purge_expired() == 2
        assert rows() == 0

    def test_no_live_row_goes_by_an_index_in_descending_order(
        self, hskv_server: PrivateServer, clock: Any, run_sql: Sql
    ) -> None:
        table = Table("cull_descending")
        run_sql("DROP TABLE IF EXISTS cull_descending")
        run_sql(table.create_sql().replace("(`expires`)", "(`expires` DESC)"))
        with KeyValueStore(hskv_server.url, table, clock=clock) as store:
            store.set_many(dict.fromkeys(keys(50), 1), ttl=10)
            store.set_many(dict.fromkeys(keys(50, 50), 1))
            clock.now += 10 + GRACE
            store.purge_expired(limit=10)
            assert list(store) == keys(50, 50)
            for number in range(210):
                store["k000050"] = number
            assert list(store) == keys(50, 50)

    @pytest.mark.parametrize("fence", [False, True])
    def test_leases_are_left_alone(
        self, timed_store: Store, later: Callable[[float], None], run_sql: Sql, fence: bool
    ) -> None:
        name = f"purged {fence}"
        lease = timed_store.lease(name, ttl=5, fence=fence)
        assert lease.acquire(wait=False)
        timed_store.set("a", 1, ttl=5)
        later(3_600)
        assert timed_store.purge_expired() == 1
        for number in range(300):
            timed_store["b"] = number
        assert run_sql("SELECT COUNT(*) FROM kv WHERE kind = 32 AND k LIKE %s", f"%{name}") == (
            (1,),
        )
        other = timed_store.lease(name, ttl=5, fence=fence)
        assert other.acquire(wait=False)
        assert other.fence == ((lease.fence or 0) + 1 if fence else None)
        other.release()


class TestCull:
    def test_writes_remove_a_few_rows_at_a_time(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(500), 1), ttl=10)
        later(10 + GRACE)
        counts = [rows()]
        for number in range(150):
            timed_store["live"] = number
            counts.append(rows())
        removed = [before - after for before, after in pairwise(counts[1:])]
        assert max(removed) == 20
        # At most one write in ten.
        assert sum(map(bool, removed)) <= 16
        assert sum(removed) >= 20

    def test_about_every_hundredth_write_looks_once_there_is_little(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        def writes_until_gone() -> int:
            timed_store.set("dead", 1, ttl=1)
            later(1 + GRACE)
            for number in range(300):
                timed_store["live"] = number
                if rows() == 1:
                    return number
            return 300

        writes_until_gone()
        assert 50 <= writes_until_gone() <= 150
        assert 50 <= writes_until_gone() <= 150

    @pytest.mark.parametrize(
        "write",
        [
            lambda store, number: store.set("live", number),
            lambda store, number: store.incr("live"),
            lambda store, number: store.swap("live", number, default=None),
            lambda store, number: store.setdefault("live", number),
            lambda store, number: store.add("live", number),
            lambda store, number: store.replace("live", number),
            lambda store, number: store.set_many({"live": number}),
            lambda store, number: store.update(live=number),
        ],
    )
    def test_every_sort_of_write_does_its_share(
        self,
        timed_store: Store,
        later: Callable[[float], None],
        rows: Callable[[], int],
        write: Callable[[Store, int], object],
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(60), 1), ttl=10)
        later(10 + GRACE)
        for number in range(150):
            write(timed_store, number)
        assert rows() <= 1

    def test_rows_that_expired_less_than_a_minute_ago_stay(
        self, timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
    ) -> None:
        timed_store.set_many(dict.fromkeys(keys(60), 1), ttl=10)
        later(10 + GRACE - 0.001)
        for number in range(210):
            timed_store["live"] = number
        assert rows() == 61

    def test_many_short_lived_stores_do_it_between_them(
        self, hskv_server: PrivateServer, clock: Any, rows: Callable[[], int]
    ) -> None:
        with Client(hskv_server.url) as client:
            first = KeyValueStore(client, clock=clock)
            first.clear()
            first.set_many(dict.fromkeys(keys(200), 1), ttl=10)
            clock.now += 10 + GRACE
            for number in range(150):
                store = KeyValueStore(client, clock=clock)
                for _ in range(10):
                    store["live"] = number
            assert rows() < 180

    def test_cull_false_leaves_them_to_others(
        self, hskv_server: PrivateServer, clock: Any, rows: Callable[[], int]
    ) -> None:
        with KeyValueStore(hskv_server.url, clock=clock, cull=False) as store:
            store.clear()
            store.set_many(dict.fromkeys(keys(60), 1), ttl=10)
            clock.now += 3_600
            for number in range(300):
                store["live"] = number
            store.set_many(dict.fromkeys(keys(1_000, 100), 1))
            assert rows() == 1_061
            assert store.purge_expired() == 60

    @pytest.mark.handlersocket("SQL culls without an index")
    def test_a_cull_that_fails_does_no_harm_to_the_write(
        self, hskv_server: PrivateServer, run_sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        run_sql("DROP TABLE IF EXISTS cull_bare")
        run_sql(Table("cull_bare", expires_index=None).create_sql())
        # Says that it has the index.
        with KeyValueStore(hskv_server.url, "cull_bare") as store:
            with caplog.at_level(logging.WARNING, "hskv"):
                for number in range(1, 220):
                    assert store.incr("n") == number
            assert 1 <= len(caplog.messages) <= 3
            assert all("could not be culled" in message for message in caplog.messages)
            with pytest.raises(hskv.IndexNotFoundError):
                store.purge_expired()


class TestWithoutTheIndex:
    @pytest.fixture
    def bare(self, hskv_server: PrivateServer, run_sql: Sql, clock: Any) -> Iterator[Store]:
        table = Table("cull_unindexed", expires_index=None)
        # Not dropped: another test's channel on the same thread of the server may hold it open.
        run_sql(table.create_sql().replace("TABLE", "TABLE IF NOT EXISTS", 1))
        run_sql("DELETE FROM cull_unindexed")
        with KeyValueStore(hskv_server.url, table, clock=clock) as store:
            yield store

    def test_it_works_and_nothing_is_culled(
        self, bare: Store, clock: Any, run_sql: Sql, caplog: pytest.LogCaptureFixture
    ) -> None:
        bare.set_many(dict.fromkeys(keys(60), 1), ttl=10)
        clock.now += 3_600
        with caplog.at_level(logging.WARNING, "hskv"):
            for number in range(300):
                bare.set("live", number, ttl=10)
        assert bare.to_dict() == {"live": 299}
        assert not caplog.messages
        assert run_sql("SELECT COUNT(*) FROM cull_unindexed") == ((61,),)
        assert bare.add("k000001", 2)
        assert bare.popitem() == ("k000001", 2)

    def test_purge_says_what_it_lacks(self, bare: Store) -> None:
        with pytest.raises(hskv.UnsupportedError, match="index on the expires column"):
            bare.purge_expired()


@pytest.mark.timeout(120)
def test_an_hour_of_cache_and_limiter_traffic_leaves_a_table_that_does_not_grow(
    timed_store: Store, later: Callable[[float], None], rows: Callable[[], int]
) -> None:
    most, written = [], 0
    for minute in range(60):
        for turn in range(3):
            at = 3 * minute + turn
            timed_store.set_many(dict.fromkeys(keys(20, 20 * at), "cached"), ttl=60)
            for number in range(10):
                timed_store.set(f"session:{at}:{number}", "x" * 100, ttl=30)
                timed_store.incr(f"limit:{at}:{number}", ttl=20)
            written += 40
            later(20)
        most.append(rows())
    # Those that live, and those that have been dead for less than a minute.
    steady = 3 * 40 * 2
    assert written == 7_200
    assert max(most[5:]) < 3 * steady
    assert max(most[30:]) <= 1.5 * max(most[5:30])
