"""Trouble at the server that is no fault of the wire: its exception, and what works afterwards.

Every code that the server answers is in tests/server/test_codes.py: rows and gaps that SQL holds,
deadlocks, `lock_tables`, `read_only`, tables that are missing or full. Here is what a store makes
of it, and what has no code: DDL that waits, locks on all tables, tables made anew, a full disk,
connections that the server ends.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import KeyValueStore
from hskv.exceptions import (
    BatchError,
    HandlerSocketError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    TableNotFoundError,
    TransactionAbortedError,
)
from hskv.mariadb import PrivateServer
from hskv.transport.pool import ChannelPool

Store = KeyValueStore[str, Any]

OPTIONS: dict[str, str | int | None] = {
    "innodb_lock_wait_timeout": 1,
    "lock_wait_timeout": 1,
    "handlersocket_wrlock_timeout": 1,
}
# Long enough for one wait for a lock at the server and too short for two.
ONE_ATTEMPT = 1.5


@pytest.fixture(scope="module")
def server(hskv_server: PrivateServer) -> Iterator[PrivateServer]:
    # The suite's own is asked for since it knows what to do where there is no MariaDB.
    with PrivateServer(options=OPTIONS) as server:
        yield server


@pytest.fixture
def store(server: PrivateServer) -> Iterator[Store]:
    with hskv.connect(server.url, timeout=ONE_ATTEMPT) as store:
        store.modify(">=", [""], "D", limit=2**32 - 1)
        store.update({"a": 1, "b": 2, "c": 3})
        yield store


@contextmanager
def session(server: PrivateServer, *statements: str) -> Iterator[Any]:
    """A cursor on a connection of its own, whose transaction is rolled back at the end."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield cursor
        with suppress(pymysql.Error):
            connection.rollback()


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waits(server: PrivateServer, state: str) -> Callable[[], bool]:
    """Is there a thread of SQL in this state?"""

    def look() -> bool:
        with session(server) as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE %s", (state,)
            )
            return bool(cursor.fetchone() != (0,))

    return look


def attempts(call: Callable[[], object], kind: type[BaseException]) -> float:
    """How long a call took that raised this very exception."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return time.monotonic() - began


class TestRowLockedBySql:
    def test_a_single_write_says_that_nothing_was_done(
        self, server: PrivateServer, store: Store
    ) -> None:
        with session(server, "SELECT * FROM kv WHERE k = 'a' FOR UPDATE"):
            assert attempts(lambda: store.incr("a"), LockTimeoutError) < ONE_ATTEMPT + 1
            assert store["a"] == 1
            assert store.incr("b") == 3
        assert store.incr("a") == 2

    def test_a_batch_tells_which_keys_are_stored(self, server: PrivateServer, store: Store) -> None:
        with (
            hskv.connect(server.url) as patient,
            session(server, "SELECT * FROM kv WHERE k = 'b' FOR UPDATE"),
            pytest.raises(BatchError) as caught,
        ):
            patient.set_many({"a": 10, "b": 20, "c": 30})
        assert isinstance(caught.value.__cause__, LockTimeoutError)
        told = caught.value
        assert set(told.stored) | set(told.failed) == {"a", "b", "c"}
        assert told.unknown == ()
        for key, old in (("a", 1), ("b", 2), ("c", 3)):
            assert store[key] == (10 * old if key in told.stored else old)
        assert "b" in told.failed

    def test_it_is_tried_again_where_the_timeout_leaves_time(
        self, server: PrivateServer, store: Store
    ) -> None:
        with hskv.connect(server.url, timeout=5) as patient, ThreadPoolExecutor(1) as thread:
            with session(server, "SELECT * FROM kv WHERE k = 'a' FOR UPDATE"):
                counted = thread.submit(patient.incr, "a")
                time.sleep(1.3)
            assert counted.result(5) == 2


class TestDeadlockWithSql:
    def test_every_write_of_its_batch_is_unknown_and_none_was_done(
        self, server: PrivateServer, store: Store
    ) -> None:
        store.set_many({f"row{number}": 0 for number in range(9)})
        # It has changed more rows than the batch: the batch is the victim.
        held = [f"UPDATE kv SET n = 7 WHERE k = 'row{number}'" for number in range(1, 9)]
        with session(server, *held) as cursor, ThreadPoolExecutor(1) as thread:
            batch = thread.submit(store.set_many, {"a": 10, "row0": 10, "row1": 10, "new": 10})
            eventually(locks_wait(server))
            cursor.execute("UPDATE kv SET n = 7 WHERE k = 'row0'")
            error = batch.exception(10)
        assert isinstance(error, BatchError)
        assert isinstance(error.__cause__, TransactionAbortedError)
        assert isinstance(error.__cause__, OutcomeUnknownError)
        assert {"a", "row0", "row1"} <= set(error.unknown)
        assert error.stored == ()
        assert (store["a"], store["row0"], store["row1"]) == (1, 0, 0)
        assert "new" not in store
        store.set_many({"a": 10, "new": 10})
        assert store.get_many(["a", "new"]) == {"a": 10, "new": 10}


def locks_wait(server: PrivateServer) -> Callable[[], bool]:
    def look() -> bool:
        with session(server) as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_lock_waits")
            return bool(cursor.fetchone() != (0,))

    return look


class TestLocksOnAllTables:
    def test_flush_tables_with_read_lock_waits_in_vain_for_the_writers_and_they_go_on(
        self, server: PrivateServer, store: Store
    ) -> None:
        store["a"] = 5
        with session(server) as cursor, pytest.raises(pymysql.OperationalError, match="1205"):
            cursor.execute("FLUSH TABLES WITH READ LOCK")
        assert store.incr("a") == 6

    def test_what_a_writer_that_connects_under_it_wrote_is_unknown_and_readers_go_on(
        self, server: PrivateServer, store: Store
    ) -> None:
        # Who has written already would keep the lock from being taken.
        assert store.client.drain()
        with hskv.connect(server.url, timeout=0.5, connect_timeout=0.5) as late:
            with session(server, "FLUSH TABLES WITH READ LOCK"):
                assert attempts(lambda: late.set("a", 9), OutcomeUnknownError) < 3
                assert late["a"] == 1
            eventually(lambda: writable(late))
            # The server may have done it when the lock was gone.
            assert late["a"] in (1, 9)


def writable(store: Store) -> bool:
    try:
        store["written"] = 1
    except HandlerSocketError:
        return False
    return True


class TestDdl:
    def test_alter_table_that_waits_stops_who_opens_the_table_anew_and_nobody_else(
        self, server: PrivateServer, store: Store
    ) -> None:
        assert store.client.drain()
        with (
            hskv.connect(server.url) as reader,
            hskv.connect(server.url, timeout=5) as late,
            hskv.connect(server.url, timeout=0.5) as hasty,
        ):
            assert reader["a"] == 1
            with altering(server, "COMMENT 'altered'") as altered:
                assert attempts(lambda: late.set("a", 9), TableNotFoundError) < 3
                assert attempts(lambda: hasty.set("a", 9), OutcomeUnknownError) < 3
                assert reader["a"] == 1
                assert not altered.done()
                for other in (late, hasty, reader):
                    assert other.client.drain()
                altered.result(10)
        store.client.resume()
        # The server may have done what the hasty one gave up.
        assert store["a"] in (1, 9)
        store["a"] = 2
        assert store["a"] == 2

    def test_a_table_that_is_gone_says_so_and_one_made_anew_is_used(
        self, server: PrivateServer, store: Store
    ) -> None:
        store["a"] = store["a"]
        with session(server) as cursor:
            assert store.client.drain()
            cursor.execute("DROP TABLE kv")
            store.client.resume()
            try:
                for call in (lambda: store.get("a"), lambda: store.set("a", 1), store.clear):
                    attempts(call, TableNotFoundError)
                with pytest.raises(BatchError) as caught:
                    store.set_many({"a": 1})
                assert isinstance(caught.value.__cause__, TableNotFoundError)
                assert (caught.value.stored, caught.value.unknown) == ((), ())
            finally:
                # Not even those who asked in vain are in its way.
                cursor.execute(store.table.create_sql())
        assert dict(store) == {}
        assert store.incr("a") == 1


@contextmanager
def altering(server: PrivateServer, how: str) -> Iterator[Future[None]]:
    """An ALTER TABLE that waits for longer than HandlerSocket does."""

    def alter() -> None:
        with session(server, "SET lock_wait_timeout = 20") as cursor:
            cursor.execute(f"ALTER TABLE kv {how}")

    with ThreadPoolExecutor(1) as thread:
        altered = thread.submit(alter)
        eventually(waits(server, "Waiting for table metadata lock"))
        yield altered


SMALL: dict[str, str | int | None] = {
    "innodb_log_file_size": "8M",
    "innodb_buffer_pool_size": "16M",
}
VALUE = "x" * 1_000_000


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A directory on a file system of its own, of 100 MB; skips where none can be mounted."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    place = Path(tempfile.mkdtemp(prefix="hskv-disk-"))
    try:
        if mount is None or umount is None:
            pytest.skip("there is no program mount to make a small disk with")
        command = [mount, "-t", "tmpfs", "-o", "size=100m,mode=755", "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True, text=True, timeout=10)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        place.chmod(0o755)
        try:
            yield place
        finally:
            subprocess.run([umount, "--lazy", str(place)], check=True, timeout=10)
    finally:
        place.rmdir()


class TestFullDisk:
    def test_ends_in_an_error_and_loses_nothing_that_was_acknowledged(
        self, small_disk: Path
    ) -> None:
        with (
            PrivateServer(small_disk / "data", options=SMALL) as server,
            hskv.connect(server.url, timeout=1, connect_timeout=1) as store,
        ):
            stored, error = fill(store)
            # What test_codes.py sees of a file that cannot grow, or the end of the server.
            assert isinstance(error, (OutcomeUnknownError, OperationalError))
            assert stored > 5
            if isinstance(error, OperationalError):
                assert store["0"] == "0" + VALUE
            more_room = ["mount", "-o", "remount,size=300m", str(small_disk)]
            subprocess.run(more_room, check=True, timeout=10)
            server.kill()
            server.start()
            kept = {key for key, value in store.items() if value == key + VALUE}
            assert set(map(str, range(stored))) <= kept <= set(map(str, range(stored + 1)))
            store["after"] = VALUE
            assert store["after"] == VALUE


def fill(store: Store) -> tuple[int, HandlerSocketError]:
    """How many large values could be stored, and why not one more."""
    for number in range(300):
        try:
            store[str(number)] = f"{number}{VALUE}"
        except HandlerSocketError as error:
            return number, error
    raise AssertionError("the disk was larger than that")


class TestIdle:
    @pytest.mark.stress
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("kept_by_the_client", [False, True])
    def test_connections_that_the_server_ends_cost_no_call_an_error(
        self, hskv_server: PrivateServer, kept_by_the_client: bool, monkeypatch: Any
    ) -> None:
        if kept_by_the_client:
            # As on a server whose handlersocket_timeout is shorter than what hskv keeps.
            keep = partial(ChannelPool, max_idle=1000.0)
            monkeypatch.setattr(hskv.exchange, "ChannelPool", keep)
        options: dict[str, str | int | None] = {"handlersocket_timeout": 30}
        with PrivateServer(options=options) as server, hskv.connect(server.url) as store:
            store["a"] = 1
            assert store.incr("a") == store["a"] == 2
            time.sleep(50)
            assert store.incr("a") == 3
            assert store["a"] == 3
            print(f"\nafter 50 s of silence: {store.stats()}")
            assert {side["connects"] for side in store.stats().values()} == {2}
