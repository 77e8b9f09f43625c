"""Several statements in one packet, of which one fails: those before it are done, and done once."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pymysql
import pytest

import hskv
from hskv import KeyValueStore, Table, exceptions
from hskv.mariadb import PrivateServer
from hskv.store.plans import found
from hskv.store.sql import SqlExecutor
from hskv.store.sql_text import SqlText
from hskv.store.verbs import Add, Find, Update
from hskv.transport.sql_channel import SqlChannel
from hskv.transport.sql_errors import refusal

from ..conftest import sql_on

pytestmark = pytest.mark.handlersocket("it says itself how a store goes")

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]


def opened(server: PrivateServer, user: str, timeout: float) -> Store:
    place = quote(str(server.directory / "sql.sock"))
    url = f"hskv:///hskv?reads=sql&writes=sql&sql=mysql+unix://{user}@{place}"
    return hskv.connect(url, cull=False, timeout=timeout)


@pytest.fixture
def store(hskv_server: PrivateServer, hskv_store: Store) -> Iterator[Store]:
    """A store that goes by SQL alone, on an empty table, and has little time."""
    with opened(hskv_server, "root", 1.5) as store:
        yield store


@pytest.fixture
def executor(store: Store) -> SqlExecutor:
    assert store.client.sql
    return SqlExecutor(store.client.sql, SqlText(Table(), "hskv", number_keys=False))


@pytest.fixture
def signals(run_sql: Sql) -> Iterator[Callable[[int], Any]]:
    """Makes each update of the row b fail with an error number."""

    def begin(number: int) -> None:
        run_sql(
            "CREATE OR REPLACE TRIGGER signals BEFORE UPDATE ON kv FOR EACH ROW IF OLD.k = 'b' "
            f"THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}; END IF"
        )

    yield begin
    run_sql("DROP TRIGGER IF EXISTS signals")


ADD = Add(b"a", (), ("number",), (1,))
SET = Update(b"b", (), ("number",), (7,))


@pytest.mark.parametrize("number", [1047, 1180, 1213, 1290, 1317])
def test_what_was_done_before_the_failure_is_not_done_again(
    store: Store, executor: SqlExecutor, signals: Callable[[int], Any], number: int
) -> None:
    store.set_many({"a": 1, "b": 1})
    signals(number)
    if number in (1047, 1180):
        with pytest.raises(hskv.OutcomeUnknownError):
            executor.execute([ADD, SET])
    else:
        added, refused = executor.execute([ADD, SET])
        assert list(found(added)) == [(b"1",)]
        assert isinstance(refused, exceptions.OperationalError)
        assert refused.code == number
    assert store.to_dict() == {"a": 2, "b": 1}


def test_each_statement_of_a_packet_may_be_undone_a_few_times(
    store: Store, executor: SqlExecutor, run_sql: Sql
) -> None:
    keys = [b"%02d" % number for number in range(20)]
    store.set_many({key.decode(): 1 for key in keys})
    run_sql(
        "CREATE OR REPLACE TRIGGER signals BEFORE UPDATE ON kv FOR EACH ROW "
        "IF IFNULL(@undone, '') <> OLD.k THEN SET @undone = OLD.k; "
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213; END IF"
    )
    try:
        outcomes = executor.execute([ADD._replace(key=key) for key in keys])
    finally:
        run_sql("DROP TRIGGER signals")
    assert [list(found(outcome)) for outcome in outcomes] == [[(b"1",)]] * 20
    assert set(store.values()) == {2}


@pytest.mark.parametrize("number", [1047, 1213, 1317])
@pytest.mark.parametrize("verb", [ADD, SET._replace(key=b"a", returning=True)])
def test_a_write_whose_old_cells_are_lost_is_unknown_and_done_once(
    store: Store,
    executor: SqlExecutor,
    monkeypatch: pytest.MonkeyPatch,
    verb: Add | Update,
    number: int,
) -> None:
    store["a"] = 1
    run = SqlChannel.run

    def cut(channel: SqlChannel, statements: bytes, count: int, deadline: float) -> Any:
        results, refused = run(channel, statements, count, deadline)
        if b"SELECT @hskv" in statements:
            return results[:1], refusal(number, "its words")
        return results, refused

    monkeypatch.setattr(SqlChannel, "run", cut)
    with pytest.raises(hskv.OutcomeUnknownError, match="a write was done"):
        executor.execute([verb])
    assert store["a"] == (2 if verb is ADD else 7)


@pytest.mark.parametrize("rows", [60, 1])
def test_who_is_let_in_no_more_is_refused_what_is_left(
    store: Store, executor: SqlExecutor, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    keys = [b"%02d" % number for number in range(rows)]
    store.set_many({key.decode(): 1 for key in keys})
    assert store.client.sql
    channels = iter([store.client.sql._acquire()] if rows > 50 else [])

    def acquire() -> SqlChannel:
        for channel in channels:
            return channel
        raise refusal(1045, "its words")

    monkeypatch.setattr(store.client.sql, "_acquire", acquire)
    outcomes = executor.execute([ADD._replace(key=key) for key in keys])
    done, left = (50, 10) if rows > 50 else (0, 1)
    assert [list(found(outcome)) for outcome in outcomes[:done]] == [[(b"1",)]] * done
    assert [type(one) for one in outcomes[done:]] == [hskv.AuthenticationError] * left
    monkeypatch.undo()
    assert sum(store.values()) == rows + done


def test_a_limit_that_is_smaller_halfway_says_that_a_part_was_done(
    store: Store, executor: SqlExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [b"%02d" % number for number in range(60)]
    store.set_many({key.decode(): 1 for key in keys})
    assert store.client.sql
    acquire = store.client.sql._acquire
    limits = iter([1 << 24, 100])

    def limited() -> SqlChannel:
        channel = acquire()
        channel.max_packet = next(limits)
        return channel

    monkeypatch.setattr(store.client.sql, "_acquire", limited)
    with pytest.raises(hskv.OutcomeUnknownError, match=r"a part .* max_allowed_packet"):
        executor.execute([ADD._replace(key=key) for key in keys])
    monkeypatch.undo()
    store.client.purge()
    assert sum(store.values()) == 60 + 50


def test_what_follows_a_lock_that_was_not_had_is_not_waited_for(
    hskv_server: PrivateServer, store: Store, executor: SqlExecutor
) -> None:
    store.set_many({"a": 1, "b": 1})
    with closing(pymysql.connect(**hskv_server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM kv WHERE k = 'a' FOR UPDATE")
        with pytest.raises(hskv.LockTimeoutError):
            store.add("a", 2)
        looked, *locked = executor.execute([Find((b"b",), ("number",)), ADD, SET])
    assert list(found(looked)) == [(b"1",)]
    assert [type(one) for one in locked] == [hskv.LockTimeoutError] * 2
    assert store.to_dict() == {"a": 1, "b": 1}


def test_a_packet_for_a_read_only_server_is_refused_as_one_write_is(
    unwritten_server: PrivateServer,
) -> None:
    with opened(unwritten_server, "plain", 0.5) as store:
        assert store.get("a") is None
        sql_on(unwritten_server, "SET GLOBAL read_only = 1")
        try:
            with pytest.raises(hskv.ReadOnlyError, match="1290"):
                store.add("a", 1)
        finally:
            sql_on(unwritten_server, "SET GLOBAL read_only = 0")
        assert "a" not in store
