"""Stores that go by SQL: what the server refuses, and tables."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import hskv
from hskv import KeyValueStore, Table, exceptions
from hskv.integrations.dogpile import HandlerSocketBackend
from hskv.mariadb import PrivateServer

from ..conftest import sql_on
from .sql_stores import Sql, Store, by_sql, path_of, session

pytestmark = pytest.mark.handlersocket("it says itself how a store goes")


@pytest.fixture
def store(hskv_server: PrivateServer, hskv_store: Store) -> Iterator[Store]:
    """A store that goes by SQL alone, on an empty table."""
    with hskv.connect(by_sql(path_of(hskv_server)), cull=False) as store:
        yield store


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
            assert store.get("missing") is None

    @pytest.mark.parametrize("timeout", [1.5, 2.5])
    def test_a_row_that_is_locked_is_waited_for_and_then_told(
        self, hskv_server: PrivateServer, hskv_store: Store, timeout: float
    ) -> None:
        with hskv.connect(by_sql(path_of(hskv_server)), timeout=timeout) as store:
            store["n"] = 1
            with session(hskv_server) as cursor:
                cursor.execute("SELECT n FROM kv WHERE k = 'n' FOR UPDATE")
                began = time.monotonic()
                with pytest.raises(hskv.LockTimeoutError, match="1205"):
                    store.incr("n")
                assert time.monotonic() - began < timeout
            assert store.incr("n") == 2

    def test_with_less_time_than_a_lock_is_waited_for_it_is_unknown(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        with hskv.connect(by_sql(path_of(hskv_server)), timeout=0.5) as store:
            store["n"] = 1
            with session(hskv_server) as cursor:
                cursor.execute("SELECT n FROM kv WHERE k = 'n' FOR UPDATE")
                with pytest.raises(hskv.OutcomeUnknownError):
                    store.incr("n")

    def test_what_a_deadlock_undid_is_done_again(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql
    ) -> None:
        """Of the two the server undoes the one that has changed less."""
        told: list[hskv.RequestInfo] = []
        with (
            hskv.connect(by_sql(path_of(hskv_server)), on_request=told.append) as store,
            ThreadPoolExecutor(1) as thread,
            session(hskv_server) as cursor,
        ):
            store.set_many(dict.fromkeys(["a", "z", *(f"m{number}" for number in range(100))], 0))
            told.clear()
            cursor.execute("UPDATE kv SET n = 1 WHERE k BETWEEN 'm' AND 'z'")
            batch = thread.submit(store.set_many, {"a": 2, "z": 2})
            waiting = (
                "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            )
            eventually(lambda: run_sql(waiting) == ((1,),))
            cursor.execute("UPDATE kv SET n = 1 WHERE k = 'a'")
            cursor.execute("COMMIT")
            batch.result(10)
            assert [getattr(one.error, "code", None) for one in told] == [1213, None]
            assert told[-1].requests == 1, "the same again, and not row by row"
            assert store.get_many(["a", "z", "m0"]) == {"a": 2, "z": 2, "m0": 1}

    def test_a_lock_that_was_not_had_in_time_is_waited_for_again(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        told: list[hskv.RequestInfo] = []
        # Half of it, in whole seconds, the server waits for a row.
        url = by_sql(path_of(hskv_server), "&timeout=3.9")
        with (
            hskv.connect(url, on_request=told.append) as store,
            ThreadPoolExecutor(1) as thread,
            session(hskv_server) as cursor,
        ):
            store["n"] = 1
            told.clear()
            cursor.execute("SELECT n FROM kv WHERE k = 'n' FOR UPDATE")
            counted = thread.submit(store.incr, "n")
            eventually(lambda: told)
            cursor.execute("COMMIT")
            assert counted.result(10) == 2
        assert [getattr(one.error, "code", None) for one in told] == [1205, None]

    def test_a_value_beyond_max_allowed_packet_is_refused_before_it_is_sent(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql
    ) -> None:
        with packets_of(run_sql, 65_536), hskv.connect(by_sql(path_of(hskv_server))) as store:
            with pytest.raises(hskv.ValueTooLargeError, match="max_allowed_packet"):
                store["a"] = b"x" * 70_000
            store["a"] = b"x" * 40_000
            # Each of the two statements fits, though not both in one packet.
            assert store.add("b", b"x" * 40_000)
            assert store.stats()["write"]["connects"] == 1

    def test_told_is_what_was_sent_of_statements_that_do_not_fit_in_one_packet(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql
    ) -> None:
        told: list[hskv.RequestInfo] = []
        url = by_sql(path_of(hskv_server))
        with (
            packets_of(run_sql, 65_536),
            hskv.connect(url, on_request=told.append, cull=False) as store,
        ):
            store["z"] = 1
            told.clear()
            # Of the three statements the first two have the value.
            assert store.add("b", b"x" * 40_000)
            assert [info.requests for info in told] == [1, 2]
            assert 2 * 40_000 < sum(info.bytes_sent for info in told) < 2 * 40_000 + 2_000
            told.clear()
            store.set_many({f"k{number}": b"y" * 1000 for number in range(300)})
            assert {(info.requests, info.error) for info in told} == {(1, None)}
            assert max(info.bytes_sent for info in told) < 65_536
            told.clear()
            with pytest.raises(hskv.ValueTooLargeError):
                store["a"] = b"x" * 70_000
            assert told == [], "nothing was sent"

    def test_of_a_server_that_is_not_there_an_error_is_told(self, tmp_path: Path) -> None:
        told: list[hskv.RequestInfo] = []
        url = by_sql(str(tmp_path / "nothing"), "&timeout=0.2")
        with (
            hskv.connect(url, on_request=told.append, cull=False) as store,
            pytest.raises(exceptions.ConnectionError),
        ):
            store.get("a")
        assert {(info.operation, info.requests, info.table) for info in told} == {("find", 1, "kv")}
        assert all(isinstance(info.error, exceptions.ConnectionError) for info in told)

    def test_nothing_of_a_batch_is_sent_where_one_of_its_rows_is_too_large(
        self, hskv_server: PrivateServer, run_sql: Sql
    ) -> None:
        run_sql("DROP TABLE IF EXISTS two_unique")
        create = Table("two_unique").create_sql()
        run_sql(create.replace("KEY `expires`", "UNIQUE KEY other (n, version), KEY `expires`"))
        with packets_of(run_sql, 65_536):
            for table in ("kv", "two_unique"):
                with KeyValueStore(by_sql(path_of(hskv_server)), table, cull=False) as store:
                    store.clear()
                    store.set_many({"a": b"old", "b": b"old"})
                    with pytest.raises(exceptions.BatchError) as caught:
                        store.set_many(iter([("a", b"new"), ("b", b"'" * 40_000)]))
                    assert isinstance(caught.value.__cause__, hskv.ValueTooLargeError)
                    assert caught.value.failed == ("a", "b")
                    assert store.to_dict() == {"a": b"old", "b": b"old"}

    @pytest.mark.parametrize("size", [100, 1000, 20_000])
    def test_a_batch_takes_as_many_statements_as_its_rows_need(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql, size: int
    ) -> None:
        told: list[hskv.RequestInfo] = []
        items = {f"k{number}": "x" * size for number in range(min(1000, 1_000_000 // size))}
        items["large"] = "y" * 60_000
        with packets_of(run_sql, 65_536):
            url = by_sql(path_of(hskv_server))
            with hskv.connect(url, on_request=told.append, cull=False) as store:
                store.set_many(items)
                # In hexadecimal, with the other columns, and one that did not fit.
                assert len(told) < 3 * sum(map(len, items.values())) / 65_536 + 10
                assert store.to_dict() == items
                store.set_many(dict.fromkeys(items, "new"))
                assert set(store.values()) == {"new"}

    def test_of_a_batch_in_several_statements_those_rows_fail_that_are_refused(
        self, hskv_server: PrivateServer, hskv_store: Store, run_sql: Sql
    ) -> None:
        items = {f"k{number:03}": "x" * 1000 for number in range(100)}
        for_k050 = "BEFORE INSERT ON kv FOR EACH ROW IF NEW.k = 'k050' THEN SIGNAL SQLSTATE '45000'"
        run_sql(f"CREATE OR REPLACE TRIGGER refuses {for_k050}; END IF")
        try:
            with packets_of(run_sql, 65_536), hskv.connect(by_sql(path_of(hskv_server))) as store:
                with pytest.raises(exceptions.BatchError) as caught:
                    store.set_many(items)
                assert caught.value.failed == ("k050",)
                assert set(caught.value.stored) == set(store) == {*items} - {"k050"}
        finally:
            run_sql("DROP TRIGGER refuses")

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


def test_a_batch_waits_once_for_a_server_that_is_read_only(
    unwritten_server: PrivateServer,
) -> None:
    told: list[hskv.RequestInfo] = []
    url = by_sql(path_of(unwritten_server), "&timeout=1").replace("root@", "plain@")
    with hskv.connect(url, cull=False, on_request=told.append) as store:
        store["a"] = 1
        sql_on(unwritten_server, "SET GLOBAL read_only = 1")
        try:
            told.clear()
            with pytest.raises(exceptions.BatchError) as caught:
                store.set_many({"a": 2, "b": 3})
        finally:
            sql_on(unwritten_server, "SET GLOBAL read_only = 0")
    assert isinstance(caught.value.__cause__, hskv.ReadOnlyError)
    assert (set(caught.value.failed), caught.value.unknown) == ({"a", "b"}, ())
    # Not row by row after that.
    assert {info.requests for info in told} == {1}


def test_only_the_first_hit_waits_for_a_server_that_is_read_only(
    unwritten_server: PrivateServer,
) -> None:
    url = by_sql(path_of(unwritten_server), "&timeout=1.5").replace("root@", "plain@")
    with hskv.connect(url, cull=False) as store:
        limiter = store.limiter("l", 5, 3600, fail="open")
        assert limiter.hit("a").remaining == 4
        sql_on(unwritten_server, "SET GLOBAL read_only = 1")
        try:
            assert isinstance(limiter.hit("a").error, hskv.ReadOnlyError)
            began = time.monotonic()
            for _ in range(5):
                assert isinstance(limiter.hit("a").error, hskv.ReadOnlyError)
                assert limiter.peek("a").remaining == 4
            assert time.monotonic() - began < 0.5
        finally:
            sql_on(unwritten_server, "SET GLOBAL read_only = 0")
        deadline = time.monotonic() + 5
        while limiter.hit("a").error:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert limiter.peek("a").remaining == 3


def test_where_none_of_several_can_be_written_to_only_the_first_set_waits_and_replicas_are_read(
    unwritten_server: PrivateServer,
) -> None:
    ((port,),) = sql_on(unwritten_server, "SELECT @@port")
    url = "hskv:///hskv?reads=sql&writes=sql&read=replica&max_lag=60&timeout=1.5"
    url += f"&sql=mysql://plain@127.0.0.1:{port},localhost:{port}/"
    backend = HandlerSocketBackend({"url": url, "ignore_errors": True})
    with closing(backend):
        backend.set_serialized("b", b"1")
        # It was well then, and what it has is not older: it is read from for max_lag.
        assert backend.get_serialized("b") == b"1"
        sql_on(unwritten_server, "SET GLOBAL read_only = 1")
        try:
            backend.set_serialized("b", b"2")
            waits, ends = [], time.monotonic() + 4
            while (began := time.monotonic()) < ends:
                backend.set_serialized("b", b"2")
                waits.append(time.monotonic() - began)
                assert backend.get_serialized("b") == b"1"
                time.sleep(0.02)
            # After pauses of one second and of two.
            assert sum(wait > 0.3 for wait in waits) <= 2
        finally:
            sql_on(unwritten_server, "SET GLOBAL read_only = 0")


@contextmanager
def packets_of(run_sql: Sql, size: int) -> Iterator[None]:
    """New connections take packets of so many bytes."""
    ((before,),) = run_sql("SELECT @@global.max_allowed_packet")
    run_sql(f"SET GLOBAL max_allowed_packet = {size}")
    try:
        yield
    finally:
        run_sql(f"SET GLOBAL max_allowed_packet = {before}")


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


class TestTables:
    def test_a_text_key_of_any_length_is_the_same_by_sql_as_by_handlersocket(
        self, hskv_server: PrivateServer, run_sql: Sql
    ) -> None:
        run_sql("DROP TABLE IF EXISTS long_texts")
        run_sql(
            "CREATE TABLE long_texts (k VARCHAR(700) COLLATE utf8mb4_nopad_bin PRIMARY KEY, "
            "v LONGBLOB NOT NULL) ENGINE=InnoDB"
        )
        lacks: dict[str, Any] = dict.fromkeys(("number", "kind", "version", "expires"))
        table = Table("long_texts", **lacks, key_bytes=2800, byte_exact=False)
        keys = [
            one * count for one in ("\u20ac", "\\'") for count in (300, 341, 342, 700 // len(one))
        ]
        by_handlersocket = KeyValueStore(hskv_server.url, table, value_type=bytes)
        by_itself = KeyValueStore(by_sql(path_of(hskv_server)), table, value_type=bytes)
        with by_handlersocket as one, by_itself as other:
            for key in keys:
                one[key] = b"1"
                assert other[key] == b"1"
                other[key] = b"2"
                assert one[key] == b"2"
            assert other.get_many(keys) == one.get_many(keys)
            assert list(other) == list(one)
            assert other.delete_many(keys) == len(keys)
            other[keys[0]] = b"3"
            assert one.pop(keys[0]) == b"3"

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
        url = by_sql(path_of(hskv_server))
        with hskv.connect(url, on_request=told.append, cull=False) as store:
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
