"""Every verb has the same outcome by SQL as by HandlerSocket, and leaves the same rows."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hskv import Client, Table
from hskv.exceptions import DuplicateKeyError
from hskv.mariadb import PrivateServer
from hskv.sql import SqlClient
from hskv.store.handlersocket import HandlerSocketExecutor
from hskv.store.sql import SqlExecutor
from hskv.store.sql_text import SqlText
from hskv.store.verbs import (
    Add,
    Column,
    Condition,
    Delete,
    DeleteExpired,
    DeleteRange,
    Find,
    Insert,
    Inserts,
    Row,
    Scan,
    Update,
    Updates,
    Verb,
)
from hskv.transport.address import load_settings

pytestmark = pytest.mark.handlersocket("it compares the two")

INT64 = 2**63

KEYS = st.sampled_from([b"a", b"A", b"a ", b"b\x00'\\", b"\x00L", b"\xff\xfe", b"z" * 255])
VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"'", b"\\", b"\\'; DROP TABLE kv; -- ", b"x" * 1025, b"'\\\x00" * 700]),
)
NUMBERS = st.one_of(st.integers(-INT64, INT64 - 1), st.sampled_from([0, 1, -1, INT64 - 1, -INT64]))
SMALL = st.integers(-5, 5)
VERSIONS = st.integers(0, 3)
EXPIRES = st.sampled_from([0, 10, 20, INT64 - 1])
KINDS = st.sampled_from([0, 2, 32, 255])
ROWS = st.builds(Row, KEYS, VALUES, NUMBERS, KINDS, VERSIONS, EXPIRES)
CELLS: dict[Column, st.SearchStrategy[Any]] = {
    "value": VALUES,
    "number": NUMBERS,
    "kind": KINDS,
    "version": VERSIONS,
    "expires": EXPIRES,
}
COMPARED = {"number": NUMBERS, "kind": KINDS, "version": VERSIONS, "expires": EXPIRES}
WHERES = st.lists(
    st.sampled_from(sorted(COMPARED)).flatmap(
        lambda column: st.builds(
            Condition,
            st.just(column),
            st.sampled_from(["=", "!=", ">", ">=", "<", "<="]),
            COMPARED[column],
        )
    ),
    max_size=2,
).map(tuple)
READ = st.lists(st.sampled_from(["key", *CELLS]), min_size=1, max_size=6, unique=True).map(tuple)
CHANGED = st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=5, unique=True).map(tuple)
ENDS = st.one_of(st.none(), KEYS)
SOME_KEYS = st.lists(KEYS, min_size=1, max_size=4, unique=True)


@st.composite
def updates(draw: Any) -> Update:
    columns = draw(CHANGED)
    cells = tuple(draw(CELLS[column]) for column in columns)
    return Update(draw(KEYS), draw(WHERES), columns, cells, draw(st.booleans()))


@st.composite
def additions(draw: Any) -> Add:
    within = (Condition("number", ">=", -1000), Condition("number", "<=", 1000))
    columns: Any = draw(st.sampled_from([("number",), ("number", "version"), ("version",)]))
    deltas = tuple(draw(SMALL) for _ in columns)
    return Add(draw(KEYS), (*within, *draw(WHERES)), columns, deltas)


RETURNED = st.one_of(st.just(()), READ)
VERBS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Find, SOME_KEYS, READ, WHERES),
    st.builds(Scan, KEYS, ENDS, READ, st.integers(1, 5), WHERES, st.booleans()),
    st.builds(Insert, ROWS),
    updates(),
    additions(),
    st.builds(Delete, SOME_KEYS, WHERES, RETURNED),
    st.builds(
        DeleteRange, KEYS, ENDS, st.integers(1, 5), WHERES, st.just(()), RETURNED, st.booleans()
    ),
    st.builds(DeleteExpired, st.sampled_from([9, 10]), st.just(100), WHERES),
)


class Pair:
    """The same table twice, reached by either executor."""

    def __init__(self, server: PrivateServer, client: Client, sql: SqlClient) -> None:
        by_handlersocket, by_sql = Table("verbs_one"), Table("verbs_two")
        self.one = HandlerSocketExecutor(client, by_handlersocket)
        self.two = SqlExecutor(sql, SqlText(by_sql, "hskv", number_keys=False))

    def same(self, verbs: list[Verb]) -> None:
        assert outcomes(self.one, verbs) == outcomes(self.two, verbs)

    def rows(self, executor: Any) -> Any:
        columns: tuple[Column, ...] = ("key", "value", "number", "kind", "version", "expires")
        (rows,) = executor.execute([Scan(b"", None, columns, 1000)])
        return [tuple(row) for row in rows]


def outcomes(executor: Any, verbs: list[Verb]) -> list[Any]:
    """What came of verbs, so that it can be compared."""
    found: list[Any] = []
    for verb, outcome in zip(verbs, executor.execute(verbs), strict=True):
        if isinstance(outcome, Exception):
            found.append(type(outcome))
        elif isinstance(outcome, int):
            found.append(int(outcome))
        else:
            rows = [tuple(row) for row in outcome]
            # Rows of several keys come in no order that is promised.
            found.append(sorted(rows) if isinstance(verb, (Find, Delete)) else rows)
    return found


@pytest.fixture(scope="module")
def pair(hskv_server: PrivateServer, run_sql: Any) -> Iterator[Pair]:
    for name in ("verbs_one", "verbs_two"):
        run_sql(f"DROP TABLE IF EXISTS {name}")
        run_sql(Table(name).create_sql())
    socket = quote(str(hskv_server.directory / "sql.sock"), safe="/")
    loaded = load_settings(f"{hskv_server.url}&sql=mysql+unix://root@{socket}")
    with Client.from_settings(loaded) as client:
        assert client.sql is not None
        yield Pair(hskv_server, client, client.sql)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ROWS, max_size=8, unique_by=lambda row: row.key), st.lists(VERBS, max_size=8))
def test_one_by_one(pair: Pair, rows: list[Row], verbs: list[Verb]) -> None:
    for executor in (pair.one, pair.two):
        executor.execute([DeleteRange(b"", None, 1000)])
        for row in rows:
            executor.execute([Insert(row)])
    for verb in verbs:
        pair.same([verb])
    assert pair.rows(pair.one) == pair.rows(pair.two)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(ROWS, max_size=8, unique_by=lambda row: row.key),
    st.lists(VERBS, min_size=2, max_size=8),
)
def test_in_one_packet_whatever_fails_in_it(pair: Pair, rows: list[Row], verbs: list[Verb]) -> None:
    for executor in (pair.one, pair.two):
        executor.execute([DeleteRange(b"", None, 1000)])
        for row in rows:
            executor.execute([Insert(row)])
    pair.same(verbs)
    assert pair.rows(pair.one) == pair.rows(pair.two)


def test_the_rows_that_stop_a_range_stay(pair: Pair) -> None:
    for stop in (None, b"c", b"a"):
        for executor in (pair.one, pair.two):
            executor.execute([DeleteRange(b"", None, 1000)])
            for key in (b"\x01", b"a", b"b", b"c", b"d", b"\xff" * 255):
                executor.execute([Insert(Row(key, b"", 0, 0, 0, 20 if key == stop else 10))])
        dead = (Condition("expires", "<=", 15),)
        pair.same([DeleteRange(b"\x01", None, 1000, while_=dead)])
        pair.same([DeleteRange(b"\x01", None, 2, while_=dead, returning=("key",))])
        assert pair.rows(pair.one) == pair.rows(pair.two)


def test_a_batch_stores_what_is_there_and_what_is_not(pair: Pair) -> None:
    rows = [Row(b"key%03d" % n, b"'\\\x00%d" % n, -n, 1, n, INT64 - 1) for n in range(300)]
    pair.two.execute([DeleteRange(b"", None, 1000)])
    pair.two.execute([Insert(rows[0])])
    assert pair.two.execute([Updates(rows[:200])]) == [1] * 200
    assert pair.rows(pair.two) == [
        tuple(b"%d" % c if type(c) is int else c for c in r) for r in rows[:200]
    ]
    answers = pair.two.execute([Inserts(rows[199:])])
    assert [type(answer) for answer in answers] == [DuplicateKeyError, *[bool] * 100]
