"""Stores that go by SQL: connections that break, servers that refuse, and what is refused."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import pymysql
import pytest

import hskv
from hskv import KeyValueStore, Table, exceptions
from hskv.mariadb import PrivateServer

from ..conftest import sql_on
from ..faults.proxy import Direction, Fault, Kind, Proxy

pytestmark = pytest.mark.handlersocket("it says itself how a store goes")

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]


def by_sql(path: str, more: str = "") -> str:
    return f"hskv:///hskv?reads=sql&writes=sql&sql=mysql+unix://root@{quote(path)}{more}"


def path_of(server: PrivateServer) -> str:
    return str(server.directory / "sql.sock")


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


@contextmanager
def session(server: PrivateServer) -> Iterator[Any]:
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        yield cursor


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


class TestRefusalsOfTheServer:
    @pytest.mark.parametrize(
        ("table", "error", "says"),
        [
            ("missing", hskv.TableNotFoundError, "1146"),
            (Table(number="nix", byte_exact=True), hskv.ColumnNotFoundError, "1054"),
            (Table(database="nowhere"), hskv.TableNotFoundError, "nowhere"),
        ],
    )
    def test_names_that_are_not_there(
        self, hskv_server: PrivateServer, table: Any, error: type[Exception], says: str
    ) -> None:
        with KeyValueStore(by_sql(path_of(hskv_server)), table) as store:
            with pytest.raises(error, match=says):
                store.get("a")
            with pytest.raises(error):
                store["a"] = 1

    def test_a_wrong_password_shows_nowhere(self, hskv_server: PrivateServer, run_sql: Sql) -> None:
        run_sql("CREATE OR REPLACE USER hskv@localhost IDENTIFIED BY 'right'")
        url = by_sql(path_of(hskv_server)).replace("root@", "hskv@")
        with hskv.connect(url, sql_password="hunter2") as store:
            with pytest.raises(
                hskv.AuthenticationError, match="password of sql= is wrong"
            ) as caught:
                store.get("a")
            assert "hunter2" not in shown(caught.value)
        asked = iter(["right", "right"])
        with hskv.connect(url, sql_password=lambda: next(asked)) as store:
            with pytest.raises(hskv.AuthenticationError, match="GRANT"):
                store.get("a")
            run_sql("GRANT ALL ON hskv.* TO hskv@localhost")
            assert store.get("a") is None

    def test_a_row_that_is_locked_is_waited_for_and_then_told(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        with hskv.connect(by_sql(path_of(hskv_server), "&timeout=2.5")) as store:
            store["n"] = 1
            with session(hskv_server) as cursor:
                cursor.execute("SELECT n FROM kv WHERE k = 'n' FOR UPDATE")
                began = time.monotonic()
                with pytest.raises(hskv.LockTimeoutError, match="1205"):
                    store.incr("n")
                assert time.monotonic() - began < 2.5
            assert store.incr("n") == 2

    def test_deadlocks_are_done_again(self, hskv_server: PrivateServer, store: Store) -> None:
        """Batches whose rows are locked the other way round by transactions."""
        store.set_many({"a": 0, "b": 0, "z": 0})
        stop = threading.Event()

        def disturb() -> int:
            deadlocks = 0
            with session(hskv_server) as cursor:
                while not stop.is_set():
                    try:
                        for key in ("z", "b", "a"):
                            cursor.execute("UPDATE kv SET n = n + 1 WHERE k = %s", (key,))
                        cursor.execute("COMMIT")
                    except pymysql.err.OperationalError as error:
                        assert error.args[0] == 1213  # noqa: PT017 the rest is a failure
                        deadlocks += 1
                return deadlocks

        with ThreadPoolExecutor(1) as thread:
            lost = thread.submit(disturb)
            try:
                for number in range(150):
                    store.set_many({"a": number, "b": number, "z": number})
            finally:
                stop.set()
            assert lost.result(10) >= 0
        assert set(store) == {"a", "b", "z"}

    def test_a_value_beyond_max_allowed_packet_is_refused_before_it_is_sent(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql
    ) -> None:
        ((before,),) = run_sql("SELECT @@global.max_allowed_packet")
        run_sql("SET GLOBAL max_allowed_packet = 65536")
        try:
            with hskv.connect(by_sql(path_of(hskv_server))) as store:
                with pytest.raises(hskv.ValueTooLargeError, match="max_allowed_packet"):
                    store["a"] = b"x" * 70_000
                store["a"] = b"x" * 40_000
                # Each of the two statements fits, though not both in one packet.
                assert store.add("b", b"x" * 40_000)
                assert store.stats()["write"]["connects"] == 1
        finally:
            run_sql(f"SET GLOBAL max_allowed_packet = {before}")

    def test_a_read_only_server_is_waited_for_and_then_told(
        self, unwritten_server: PrivateServer
    ) -> None:
        url = by_sql(path_of(unwritten_server), "&timeout=1").replace("root@", "plain@")
        writable = (unwritten_server, "SET GLOBAL read_only = 0")
        with hskv.connect(url) as store:
            store["a"] = 1
            sql_on(unwritten_server, "SET GLOBAL read_only = 1")
            try:
                with pytest.raises(hskv.ReadOnlyError, match="1290"):
                    store["a"] = 2
                assert store["a"] == 1
                threading.Timer(0.3, sql_on, writable).start()
                with hskv.connect(url, timeout=20) as patient:
                    patient["a"] = 3
            finally:
                sql_on(*writable)
            assert store["a"] == 3


def shown(error: BaseException | None) -> str:
    """All that a traceback may show, the variables of its frames included."""
    text = ""
    while error is not None:
        text += f"{error} {error!r}"
        trace = error.__traceback__
        while trace is not None:
            text += (
                str(trace.tb_frame.f_locals) if "hskv" in trace.tb_frame.f_code.co_filename else ""
            )
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return text


class TestWhatIsRefused:
    """HandlerSocket beside SQL, where it would lose writes or crash the server."""

    @pytest.mark.parametrize("create", ["VIEW", "TABLE"])
    @pytest.mark.parametrize("writes", ["sql", "handlersocket"])
    def test_a_view_and_a_partitioned_table(
        self, hskv_server: PrivateServer, run_sql: Sql, create: str, writes: str
    ) -> None:
        run_sql("DROP VIEW IF EXISTS odd")
        run_sql("DROP TABLE IF EXISTS odd")
        run_sql("DELETE FROM kv")
        statement = Table("odd").create_sql() + " PARTITION BY KEY (k) PARTITIONS 2"
        run_sql("CREATE VIEW odd AS SELECT * FROM kv" if create == "VIEW" else statement)
        sql = f"sql=mysql+unix://root@{quote(path_of(hskv_server))}"
        with KeyValueStore(f"{hskv_server.url}&{sql}&writes={writes}", "odd") as store:
            for call in (lambda: store.get("a"), lambda: list(store), lambda: store.incr("a")):
                with pytest.raises(hskv.UnsupportedError, match="crash"):
                    call()
        with KeyValueStore(by_sql(path_of(hskv_server)), "odd") as store:
            assert store.incr("only by SQL") == 1
            assert store["only by SQL"] == 1
            assert list(store.scan()) == [("only by SQL", 1)]

    @pytest.mark.parametrize(
        ("options", "says"),
        [({"autocommit": 0}, "autocommit=0"), ({"log_bin": "bin", "server_id": 1}, "binary log")],
    )
    def test_servers_on_which_writes_would_be_lost(
        self, options: dict[str, Any], says: str
    ) -> None:
        with PrivateServer(options=options) as server:
            sql = f"sql=mysql+unix://root@{quote(path_of(server))}"
            with hskv.connect(f"{server.url}&{sql}") as store:
                with pytest.raises(hskv.UnsupportedError, match=says):
                    store["a"] = 1
                with pytest.raises(hskv.UnsupportedError, match=says):
                    store.get("a")
            with hskv.connect(f"{server.url}&{sql}&writes=sql") as store:
                if "log_bin" in options:
                    store["a"] = 1
                    assert store["a"] == 1
                else:
                    with pytest.raises(hskv.UnsupportedError, match=says):
                        store.get("a")

    def test_it_is_looked_at_once(self, hskv_server: PrivateServer, hskv_store: Store) -> None:
        told: list[hskv.RequestInfo] = []
        sql = f"sql=mysql+unix://root@{quote(path_of(hskv_server))}&writes=sql"
        with hskv.connect(f"{hskv_server.url}&{sql}", on_request=told.append) as store:
            store["a"] = 1
            told.clear()
            for one in (store, store.namespace("x:"), store.reading("replica")):
                one["a"] = 1
                assert one["a"] == 1
            assert [info.operation for info in told].count("find") == 3

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.find("=", ["a"]),
            lambda store: store.modify("=", ["a"], "D"),
            lambda store: store.manager.get("hskv", "kv", ["k"], "a"),
            lambda store: (
                store.client.pipeline().insert(store.client.open("kv", ["k"]), ["a"]).execute()
            ),
        ],
    )
    def test_the_raw_calls_say_that_they_need_handlersocket(
        self, store: Store, call: Callable[[Store], Any]
    ) -> None:
        with pytest.raises(hskv.UnsupportedError, match="no HandlerSocket listener"):
            call(store)


class TestTables:
    def test_a_batch_hits_no_other_row_by_another_unique_index(
        self, hskv_server: PrivateServer, run_sql: Sql
    ) -> None:
        run_sql("DROP TABLE IF EXISTS unique_kinds")
        create = Table("unique_kinds").create_sql()
        run_sql(create.replace("KEY `expires`", "UNIQUE KEY other (n), KEY `expires`"))
        with KeyValueStore(by_sql(path_of(hskv_server)), "unique_kinds") as store:
            store["a"] = 1
            with pytest.raises(exceptions.BatchError) as caught:
                store.set_many({"b": 2, "c": 1})
            assert isinstance(caught.value.__cause__, hskv.DuplicateKeyError)
            assert store.to_dict() == {"a": 1, "b": 2}

    def test_it_tells_on_request_what_was_sent(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        told: list[hskv.RequestInfo] = []
        with hskv.connect(by_sql(path_of(hskv_server)), on_request=told.append) as store:
            store["a"] = "x"
            store.get("a")
            store.add("a", 1)
        assert [(info.operation, info.requests) for info in told] == [
            ("modify", 1),
            ("insert", 1),
            ("find", 1),
            ("pipeline", 3),
        ]
        assert {info.table for info in told} == {"kv"}
        assert told[2].bytes_received == len("x") + len("0") + len("1")

    @pytest.mark.parametrize("read", ["primary", "replica"])
    def test_a_store_that_reads_elsewhere_is_the_same_store(
        self, hskv_server: PrivateServer, hskv_store: Store, read: Any
    ) -> None:
        url = f"{hskv_server.url}&writes=sql&sql=mysql+unix://root@{quote(path_of(hskv_server))}"
        with hskv.connect(url, prefix="p:", serializer="pickle") as store:
            for one in (store, store.namespace("n:"), store.reserved(b"I")):
                other = one.reading(read)
                one["a"] = {1, 2}
                assert other["a"] == {1, 2}
                assert other.row_key("a") == one.row_key("a")
                other.close()
            assert store["a"] == {1, 2}, "its connections are those of the store"
            with pickle.loads(pickle.dumps(store.reading(read))) as again:
                assert again["a"] == {1, 2}
