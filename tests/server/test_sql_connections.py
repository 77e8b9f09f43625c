"""Stores that go by SQL, whose connections break: what was sent once, and what again."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hskv
from hskv import exceptions
from hskv.mariadb import PrivateServer

from ..faults.proxy import Direction, Fault, Kind, Proxy
from .sql_stores import Sql, Store, by_sql, path_of, session

pytestmark = pytest.mark.handlersocket("it says itself how a store goes")


@pytest.fixture
def store(hskv_server: PrivateServer, hskv_store: Store) -> Iterator[Store]:
    """A store that goes by SQL alone, on an empty table."""
    with hskv.connect(by_sql(path_of(hskv_server)), cull=False) as store:
        yield store


@pytest.fixture
def proxy(hskv_server: PrivateServer) -> Iterator[Proxy]:
    with Proxy(path_of(hskv_server), str(hskv_server.directory / "p.sock")) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: Proxy, hskv_store: Store) -> Iterator[Store]:
    """A store that goes by SQL through the proxy, and has one connection."""
    url = by_sql(proxy.place, "&timeout=1")
    with hskv.connect(url, cull=False) as store:
        store["n"] = 5
        yield store


class TestLostConnections:
    @pytest.mark.parametrize(
        "write",
        [
            lambda store: store.incr("n"),
            lambda store: store.set("n", 6),
            lambda store: store.pop("n"),
            lambda store: store.swap("n", 6),
            lambda store: store.add("m", 6),
            lambda store: store.limiter("l", 5, 60).hit("a"),
        ],
    )
    @pytest.mark.parametrize("kind", [Kind.CUT, Kind.BLACK_HOLE])
    def test_a_write_whose_answer_is_lost_is_unknown_and_sent_once(
        self, behind: Store, proxy: Proxy, kind: Kind, write: Callable[[Store], Any]
    ) -> None:
        proxy.arm(Fault(kind, Direction.REPLY, 0))
        with pytest.raises(hskv.OutcomeUnknownError, match="read the row before you write again"):
            write(behind)
        sent = proxy.seen(Direction.REQUEST)
        assert len([word for word in (b"INSERT", b"UPDATE", b"DELETE") if word in sent]) >= 1
        assert sent.count(b"`kv` SET") <= 2, "one statement, or an update behind an insert"
        proxy.arm(None)
        assert behind.get("n") in (5, 6, None)

    def test_an_increment_whose_answer_was_lost_was_done_once(
        self, behind: Store, proxy: Proxy
    ) -> None:
        proxy.arm(Fault(Kind.CUT, Direction.REPLY, 0))
        with pytest.raises(hskv.OutcomeUnknownError):
            behind.incr("n")
        proxy.arm(None)
        assert behind["n"] == 6

    def test_a_write_that_did_not_reach_the_server_whole_was_not_done(
        self, behind: Store, proxy: Proxy
    ) -> None:
        proxy.arm(Fault(Kind.CUT, Direction.REQUEST, 9))
        with pytest.raises(hskv.OutcomeUnknownError):
            behind.incr("n")
        proxy.arm(None)
        assert behind["n"] == 5

    @pytest.mark.parametrize("offset", [0, 3, 40])
    def test_a_read_is_sent_again(self, behind: Store, proxy: Proxy, offset: int) -> None:
        proxy.arm(Fault(Kind.CUT, Direction.REPLY, offset))
        assert behind["n"] == 5
        assert proxy.fired

    def test_what_is_no_reply_is_not_believed(self, behind: Store, proxy: Proxy) -> None:
        proxy.arm(Fault(Kind.GARBLE, Direction.REPLY, 3, mask=0xFF))
        with pytest.raises((exceptions.ProtocolError, hskv.OutcomeUnknownError)):
            behind.incr("n")
        proxy.arm(None)
        assert behind["n"] == 6

    @pytest.mark.parametrize("write", [lambda store: store.incr("n"), lambda store: store["n"]])
    def test_an_answer_that_came_twice_is_not_taken_for_that_of_the_next_question(
        self, behind: Store, proxy: Proxy, write: Callable[[Store], int]
    ) -> None:
        proxy.arm(Fault(Kind.DUPLICATE, Direction.REPLY, 0))
        first = write(behind)
        assert proxy.fired
        assert behind.incr("n", 10) == first + 10
        assert behind.stats()["write"]["connects"] == 2

    def test_a_connection_that_the_server_ended_while_it_was_idle_costs_nothing(
        self, store: Store, run_sql: Sql
    ) -> None:
        assert store.incr("n") == 1
        kill(run_sql)
        assert store.incr("n") == 2
        kill(run_sql)
        assert store["n"] == 2

    def test_an_interrupt_closes_the_connection(
        self, store: Store, hskv_server: PrivateServer
    ) -> None:
        store["n"] = 1
        with session(hskv_server) as cursor:
            cursor.execute("SELECT n FROM kv WHERE k = 'n' FOR UPDATE")
            threading.Timer(0.3, lambda: interrupt(main)).start()
            main = threading.main_thread()
            with pytest.raises(KeyboardInterrupt):
                store.incr("n")
        assert store.stats()["write"]["size"] == 0
        assert store.incr("n") in (2, 3)

    def test_a_server_that_is_down_is_waited_for_and_then_told(self) -> None:
        url = by_sql("/nonexistent/sql.sock", "&timeout=0.5")
        with hskv.connect(url) as store:
            began = time.monotonic()
            with pytest.raises(exceptions.ConnectionError, match="does MariaDB's SQL listen there"):
                store.get("a")
            assert time.monotonic() - began < 2


def kill(run_sql: Sql) -> None:
    """End every connection of a store, and wait until that is done."""
    idle = (
        "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db IS NULL"
    )
    for (number,) in run_sql(f"{idle} AND command = 'Sleep'"):
        run_sql(f"KILL {number}")
    deadline = time.monotonic() + 5
    while run_sql(f"{idle} AND command = 'Sleep'") and time.monotonic() < deadline:
        time.sleep(0.01)


def interrupt(thread: threading.Thread) -> None:
    import signal

    assert thread.ident
    signal.pthread_kill(thread.ident, signal.SIGINT)
