"""Every code of the server, provoked on it: the right exception, its words, what to do about it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pymysql
import pytest

from hskv import Client, Index
from hskv.exceptions import (
    AuthenticationError,
    ColumnNotFoundError,
    DuplicateKeyError,
    IndexNotFoundError,
    LockTimeoutError,
    OperationalError,
    ReadOnlyError,
    TableNotFoundError,
    TransactionAbortedError,
)
from hskv.mariadb import PrivateServer
from hskv.transport.retry import Effect
from hskv.wire.replies import _ERRORS, Reply, ReplyReader, operational_error

OPTIONS: dict[str, str | int | None] = {
    "innodb_lock_wait_timeout": 1,
    "lock_wait_timeout": 1,
    "handlersocket_wrlock_timeout": 1,
    "max_heap_table_size": 16384,
}

# Time for one wait for a lock of a second, and not for another attempt.
ONE_ATTEMPT = 1.9

MYISAMPACK = shutil.which("myisampack")

WIDE = [f"c{number}" for number in range(20)]

TABLES = f"""
    codes_rows (id INT PRIMARY KEY, u INT NOT NULL UNIQUE, n INT NOT NULL, b BLOB NOT NULL);
    codes_values (id INT PRIMARY KEY, v VARBINARY(9));
    codes_numbers (id INT AUTO_INCREMENT PRIMARY KEY, v INT NOT NULL);
    codes_few (id TINYINT AUTO_INCREMENT PRIMARY KEY, v INT NOT NULL);
    codes_parents (id INT PRIMARY KEY);
    codes_children (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES codes_parents (id));
    codes_memory (id INT AUTO_INCREMENT PRIMARY KEY, v CHAR(250) NOT NULL) ENGINE=MEMORY;
    codes_packed (id INT PRIMARY KEY, v CHAR(9) NOT NULL) ENGINE=MyISAM;
    codes_parts (id INT PRIMARY KEY)
        PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (10));
    codes_wide (id INT PRIMARY KEY, {", ".join(f"{name} VARBINARY(700)" for name in WIDE)})
        ROW_FORMAT=COMPACT
"""

ROWS = """
    INSERT codes_rows SELECT seq, seq, 0, 'blob' FROM seq_1_to_6;
    INSERT codes_values VALUES (1, 'a'), (2, ''), (3, NULL);
    INSERT codes_few VALUES (127, 0);
    INSERT codes_parents VALUES (1);
    INSERT codes_children VALUES (1, 1);
    INSERT codes_packed SELECT seq, 'packed' FROM seq_1_to_1000
"""


class Wire:
    """One connection to one port, with no client between."""

    def __init__(self, path: str, secret: str | None) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10.0)
        self.sock.connect(path)
        self._lines = self.sock.makefile("rb")
        if secret is not None:
            assert self.ask(f"A 1 {secret}") == [[]]

    def send(self, lines: str) -> None:
        """Requests, a space for each TAB, in one write."""
        self.sock.sendall(lines.replace(" ", "\t").encode() + b"\n")

    def replies(self, count: int) -> list[Reply]:
        return [ReplyReader().feed(self._lines.readline())[0] for _ in range(count)]

    def ask(self, lines: str) -> list[Reply]:
        self.send(lines)
        return self.replies(lines.count("\n") + 1)

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


class Bench:
    """A server, and what one test opens on it."""

    def __init__(self, server: PrivateServer, opened: ExitStack) -> None:
        self.server = server
        self._opened = opened
        self.client = self.connect()

    def connect(self, **options: Any) -> Client:
        return self._opened.enter_context(Client(self.server.url, **options))

    def open(self, table: str, *columns: str, **options: Any) -> Index:
        return self.client.open(f"codes_{table}", columns, **options)

    def call(self, body: bytes, effect: Effect = Effect.READ) -> object:
        """What a body made by hand gives, on an index of `codes_rows`."""
        index = self.open("rows", "id", "n", filter_columns=["n"])
        return self.client.call(index, body.replace(b" ", b"\t") + b"\n", effect)

    def dial(self, port: str, *, login: bool = True) -> Wire:
        server = self.server
        secret = {"read": server.secret, "write": server.write_secret}[port] if login else None
        return self._opened.enter_context(
            closing(Wire(str(server.directory / f"{port}.sock"), secret))
        )

    def sql(self, statement: str) -> Any:
        """Runs one statement, committed at once, and gives its rows."""
        with self.session(autocommit=True) as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    @contextmanager
    def session(self, *statements: str, autocommit: bool = False) -> Iterator[Any]:
        """A cursor on a connection of its own, rolled back at the end."""
        with (
            closing(pymysql.connect(**self.server.sql, autocommit=autocommit)) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            yield cursor
            connection.rollback()

    def wait_for_a_blocked_request(self) -> None:
        deadline = time.monotonic() + 5
        while self.sql("SELECT COUNT(*) FROM information_schema.innodb_lock_waits") == ((0,),):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def codes_server() -> Iterator[PrivateServer]:
    with PrivateServer(options=OPTIONS) as server:
        with pymysql.connect(**server.sql) as connection, connection.cursor() as cursor:
            # It would refuse a table whose rows may become too large.
            cursor.execute("SET innodb_strict_mode = 0")
            for table in TABLES.split(";"):
                cursor.execute(f"CREATE TABLE {table}")
            for statement in ROWS.split(";"):
                cursor.execute(statement)
            connection.commit()
            if MYISAMPACK is not None:
                cursor.execute("FLUSH TABLES codes_packed WITH READ LOCK")
                file = server.datadir / "hskv" / "codes_packed.MYI"
                subprocess.run([MYISAMPACK, "--silent", file], check=True, timeout=10)
                cursor.execute("UNLOCK TABLES")
                cursor.execute("FLUSH TABLES codes_packed")
        yield server


@pytest.fixture
def bench(codes_server: PrivateServer) -> Iterator[Bench]:
    with ExitStack() as opened:
        yield Bench(codes_server, opened)


class TestSuccess:
    """The success forms of the server, as `Client` gives them."""

    @pytest.mark.parametrize(("key", "rows"), [(1, [(b"a",)]), (2, [(b"",)]), (3, [(None,)])])
    def test_row_that_is_found_is_told_from_none(self, bench: Bench, key: int, rows: Any) -> None:
        index = bench.open("values", "v")
        assert bench.client.find(index, "=", [key]) == rows
        assert bench.client.find(index, "=", [99]) == []

    def test_rows_come_one_after_the_other(self, bench: Bench) -> None:
        rows = bench.client.find(bench.open("values", "id", "v"), ">=", [1], limit=3)
        assert rows == [(b"1", b"a"), (b"2", b""), (b"3", None)]

    def test_login_and_open_give_no_rows(self, bench: Bench) -> None:
        login = f"A 1 {bench.server.secret}\nP 1 hskv codes_values PRIMARY v"
        assert bench.dial("read", login=False).ask(login) == [[], []]

    def test_index_without_columns_is_refused_here_since_it_finds_nothing(
        self, bench: Bench
    ) -> None:
        replies = bench.dial("read").ask("P 1 hskv codes_values PRIMARY \n1 = 1 1\n1 = 1 99")
        assert replies == [[], [], []]
        with pytest.raises(ValueError, match="at least one column"):
            bench.open("values")

    def test_insert_gives_a_number_only_where_the_server_generates_one(self, bench: Bench) -> None:
        # What others provoked on the write port may have ended explicit numbers.
        bench.server.kill()
        bench.server.start()
        bench.sql("DELETE FROM codes_values WHERE id > 3")
        assert bench.client.insert(bench.open("values", "id", "v"), [4, "d"]) is None
        index = bench.open("numbers", "id", "v")
        generated = bench.client.insert(index, [None, 1])
        assert generated
        assert bench.client.insert(index, [generated + 5, 1]) is None
        assert bench.client.insert(index, [None, 1]) == generated + 6

    def test_change_counts_the_rows_it_met_even_unchanged(self, bench: Bench) -> None:
        bench.sql("REPLACE codes_values VALUES (5, 'e'), (6, 'f')")
        index = bench.open("values", "v")
        for value, before in (("x", b"e"), ("x", b"x")):
            assert bench.client.modify_returning(index, "=", [5], "U", [value]) == [(before,)]
            assert bench.client.modify(index, "=", [5], "U", [value]) == 1
        assert bench.client.modify(index, "=", [99], "U", ["x"]) == 0
        assert bench.client.modify_returning(index, "=", [99], "U", ["x"]) == []
        assert bench.client.modify(index, ">=", [5], "D", limit=9) == 2


def swapped_ports(bench: Bench) -> object:
    right = bench.client.settings
    swapped = replace(right, writers=right.readers, write_secret=right.secret)
    with Client.from_settings(swapped) as client:
        return client.insert(client.open("codes_values", ["id", "v"]), [1, "a"])


def locked_table(bench: Bench) -> object:
    with bench.session("LOCK TABLES codes_parents WRITE"):
        return bench.client.find(bench.open("parents", "id"), "=", [1])


def temporary_table(bench: Bench) -> object:
    with bench.session("CREATE TEMPORARY TABLE codes_passing (id INT PRIMARY KEY)"):
        return bench.client.find(bench.open("passing", "id"), "=", [1])


def held_write_lock(bench: Bench) -> object:
    with bench.session("SELECT GET_LOCK('handlersocket_wr', 5)") as cursor:
        try:
            client = bench.connect(timeout=ONE_ATTEMPT)
            return client.modify(bench.open("rows", "n"), "=", [1], "U", [1])
        finally:
            cursor.execute("SELECT RELEASE_LOCK('handlersocket_wr')")


def read_only_server(bench: Bench) -> object:
    bench.sql("SET GLOBAL read_only = 1")
    try:
        with Client(bench.server.url, timeout=ONE_ATTEMPT) as client:
            return client.modify(bench.open("rows", "n"), "=", [1], "U", [1])
    finally:
        bench.sql("SET GLOBAL read_only = 0")


def read_only_table(bench: Bench) -> Index:
    if MYISAMPACK is None:
        pytest.skip("myisampack is not installed")
    return bench.open("packed", "v")


def packed_table_of_another_writer(bench: Bench) -> object:
    other = bench.connect(timeout=ONE_ATTEMPT)
    with pytest.raises(LockTimeoutError):
        other.modify(read_only_table(bench), "=", [1], "U", ["x"])
    return bench.client.modify(bench.open("rows", "n"), "=", [99], "D")


def find_in_a_packed_table(bench: Bench) -> object:
    return bench.client.find(read_only_table(bench), "=", [1])


@contextmanager
def held_row(bench: Bench) -> Iterator[Client]:
    with bench.session("SELECT * FROM codes_rows WHERE id = 1 FOR UPDATE"):
        yield bench.connect(timeout=ONE_ATTEMPT)


def change_of_a_held_row(bench: Bench) -> object:
    with held_row(bench) as client:
        return client.modify(bench.open("rows", "n"), "=", [1], "+", [1])


def change_of_several_rows_one_of_them_held(bench: Bench) -> object:
    with held_row(bench):
        return bench.client.modify(bench.open("rows", "n"), "<=", [1], "U", [0], limit=9)


def find_in_a_pipeline_that_writes(bench: Bench) -> object:
    index = bench.open("rows", "n")
    with held_row(bench):
        pipeline = bench.client.pipeline().find(index, "=", [1]).modify(index, "=", [99], "D")
        refused, count = pipeline.execute(raise_on_error=False)
    assert count == 0
    return refused


def insert_in_a_held_gap(bench: Bench) -> object:
    with bench.session("SELECT * FROM codes_rows WHERE id > 6 FOR UPDATE"):
        client = bench.connect(timeout=ONE_ATTEMPT)
        return client.insert(bench.open("rows", "id", "u", "n", "b"), [8, 8, 0, ""])


@contextmanager
def deadlock(bench: Bench) -> Iterator[Callable[[], None]]:
    """A transaction that holds row 1, and what makes it wait for row 2.

    It has changed more rows than a request can have, so the request is the victim.
    """
    held = [f"UPDATE codes_rows SET n = n + 1 WHERE id = {row}" for row in (1, 3, 4, 5, 6)]
    with bench.session(*held) as cursor:

        def close_the_circle() -> None:
            bench.wait_for_a_blocked_request()
            cursor.execute("UPDATE codes_rows SET n = n + 1 WHERE id = 2")

        yield close_the_circle


def pipeline_in_a_deadlock(bench: Bench) -> object:
    rows, insert = bench.open("rows", "n"), bench.open("values", "id", "v")
    pipeline = bench.client.pipeline().insert(insert, [77, "lost"])
    pipeline.modify(rows, "=", [2], "U", [5]).modify(rows, "=", [1], "U", [5])
    with ThreadPoolExecutor(1) as executor, deadlock(bench) as close_the_circle:
        running = executor.submit(pipeline.execute, raise_on_error=False)
        close_the_circle()
        error = running.exception(10)
    assert bench.client.find(insert, "=", [77]) == []
    return error


def change_of_two_rows_in_a_deadlock(bench: Bench) -> object:
    rows = bench.open("rows", "n")
    with ThreadPoolExecutor(1) as executor, deadlock(bench) as close_the_circle:
        running = executor.submit(bench.client.modify, rows, "<=", [2], "U", [5], limit=2)
        close_the_circle()
        return running.exception(10)


def request_behind_a_deadlock(bench: Bench) -> object:
    wire = bench.dial("write")
    wire.ask("P 1 hskv codes_rows PRIMARY n\nP 2 hskv codes_values PRIMARY id,v")
    with deadlock(bench) as close_the_circle:
        wire.send("1 = 1 2 1 0 U 5\n1 = 1 1 1 0 U 5\n2 + 2 77 lost")
        close_the_circle()
        done, victim, behind = wire.replies(3)
    assert done == [(b"1",)]
    assert isinstance(victim, TransactionAbortedError)
    return behind


def full_memory_table(bench: Bench) -> object:
    index = bench.open("memory", "v")
    pipeline = bench.client.pipeline()
    for _ in range(200):
        pipeline.insert(index, ["x"])
    return pipeline.execute()


def full_tablespace(bench: Bench) -> object:
    """What a full disk looks like: the file that the table is in cannot grow."""
    bench.sql("SET GLOBAL innodb_file_per_table = 0")
    bench.sql("CREATE TABLE codes_full (id INT PRIMARY KEY, v VARBINARY(4000) NOT NULL)")
    bench.server.stop()
    limit: dict[str, str | int | None] = {
        "innodb_data_file_path": "ibdata1:12M",
        "innodb_flush_log_at_trx_commit": 0,
    }
    try:
        with (
            PrivateServer(bench.server.datadir, options=limit) as server,
            Client(server.url) as full,
        ):
            index = full.open("codes_full", ["id", "v"])
            return [full.insert(index, [number, "x" * 4000]) for number in range(3000)]
    finally:
        bench.server.start()
        bench.sql("DROP TABLE codes_full")


SMALL_POOL: dict[str, str | int | None] = {
    "innodb_buffer_pool_size": "6M",
    "innodb_flush_log_at_trx_commit": 0,
    "innodb_doublewrite": 0,
}


def scan_with_more_locks_than_fit_in_memory(bench: Bench) -> object:
    # Two rows fill a page, and each page that is scanned costs a lock.
    wide = ", ".join(f"c{number} BINARY(250) NOT NULL DEFAULT ''" for number in range(32))
    with ExitStack() as opened:
        bench = Bench(opened.enter_context(PrivateServer(options=SMALL_POOL)), opened)
        for table, rows in (("scanned", 24_000), ("locked", 2_000)):
            bench.sql(f"CREATE TABLE codes_{table} (id INT PRIMARY KEY, {wide})")
            bench.sql(f"INSERT codes_{table} (id) SELECT seq FROM seq_1_to_{rows}")
        for _ in range(40):
            lock = "SELECT COUNT(c0) FROM codes_locked LOCK IN SHARE MODE"
            opened.enter_context(bench.session(lock))
        insert = bench.client.open("kv", ["k", "n"])
        scan = bench.open("scanned", "id", filter_columns=["id"])
        pipeline = bench.client.pipeline().insert(insert, ["lost", 1])
        pipeline.modify(scan, ">=", [0], "D", limit=24_000, filters=[("id", "<", 0)])
        try:
            return pipeline.execute(raise_on_error=False)[1]
        finally:
            assert bench.client.find(insert, "=", ["lost"]) == []


def row_of_wide_columns(bench: Bench) -> object:
    return bench.client.insert(bench.open("wide", "id", *WIDE), [1, *["x" * 700] * 20])


def row_that_grows_too_wide(bench: Bench) -> object:
    bench.sql("INSERT IGNORE codes_wide (id) VALUES (5)")
    return bench.client.modify(bench.open("wide", *WIDE), "=", [5], "U", ["x" * 700] * 20)


def change_in_a_read_only_innodb(bench: Bench) -> object:
    bench.server.stop()
    try:
        with (
            PrivateServer(bench.server.datadir, options={"innodb_read_only": 1}) as server,
            Client(server.url) as client,
        ):
            index = client.open("codes_values", ["id", "v"])
            assert client.find(index, "=", [1]) == [(b"1", b"a")]
            try:
                return client.modify(index, "=", [1], "U", [1, "b"])
            finally:
                server.kill()
    finally:
        bench.server.start()


def explicit_number_after_a_failed_open(bench: Bench) -> object:
    with pytest.raises(TableNotFoundError):
        bench.client.insert(bench.open("missing", "id"), [1])
    return bench.client.insert(bench.open("numbers", "id", "v"), [1_000_000, 1])


def explicit_number_after_a_row_too_large(bench: Bench) -> object:
    bench.server.kill()
    bench.server.start()
    with pytest.raises(OperationalError):
        row_of_wide_columns(bench)
    return bench.client.insert(bench.open("numbers", "id", "v"), [1_000_000, 1])


def login_of_another_kind(bench: Bench) -> object:
    return bench.dial("read").ask(f"A 2 {bench.server.secret}")[0]


class Case(NamedTuple):
    code: int
    reason: str
    kind: type[OperationalError]
    trigger: str
    provoke: Callable[[Bench], object]

    def __str__(self) -> str:
        return f"{self.reason}: {self.trigger}"


def by_client(
    code: int, reason: str, kind: type[OperationalError], provoke: Callable[[Bench], object]
) -> Case:
    return Case(code, reason, kind, provoke.__name__.replace("_", " "), provoke)


def by_body(reason: str, trigger: str, body: bytes, effect: Effect = Effect.READ) -> Case:
    return Case(2, reason, OperationalError, trigger, lambda bench: bench.call(body, effect))


def by_line(reason: str, line: str, *, login: bool = True, code: int = 2) -> Case:
    kind = AuthenticationError if code == 3 else OperationalError
    return Case(
        code,
        reason,
        kind,
        f"{line or 'an empty line'}{'' if login else ' before the login'}",
        lambda bench: bench.dial("read", login=login).ask(line)[0],
    )


def find(
    reason: str, kind: type[OperationalError], trigger: str, names: Callable[[Bench], Index]
) -> Case:
    code = 1 if kind is TableNotFoundError else 2
    return Case(
        code, reason, kind, trigger, lambda bench: bench.client.find(names(bench), "=", [1])
    )


CASES = [
    Case(
        1,
        "121",
        DuplicateKeyError,
        "insert of a taken key",
        lambda bench: bench.client.insert(bench.open("values", "id", "v"), [1, "b"]),
    ),
    Case(
        1,
        "121",
        DuplicateKeyError,
        "insert of a taken value of another index",
        lambda bench: bench.client.insert(bench.open("rows", "id", "u", "n", "b"), [9, 1, 0, ""]),
    ),
    Case(
        1,
        "121",
        DuplicateKeyError,
        "update that moves a row to a taken value",
        lambda bench: bench.client.modify(bench.open("rows", "u"), "=", [1], "U", [2]),
    ),
    Case(
        1,
        "121",
        DuplicateKeyError,
        "addition that moves a row to a taken value",
        lambda bench: bench.client.modify(bench.open("rows", "u"), "=", [1], "+", [1]),
    ),
    find("open_table", TableNotFoundError, "missing table", lambda b: b.open("missing", "id")),
    find(
        "open_table",
        TableNotFoundError,
        "missing database",
        lambda b: b.open("rows", "id", database="missing"),
    ),
    find("open_table", TableNotFoundError, "name in capitals", lambda b: b.open("ROWS", "id")),
    by_client(1, "open_table", TableNotFoundError, temporary_table),
    by_client(1, "open_table", TableNotFoundError, locked_table),
    by_client(1, "lock_tables", LockTimeoutError, held_write_lock),
    by_client(1, "lock_tables", LockTimeoutError, read_only_server),
    by_client(1, "lock_tables", LockTimeoutError, packed_table_of_another_writer),
    by_client(1, "124", OperationalError, find_in_a_packed_table),
    by_client(1, "146", LockTimeoutError, change_of_a_held_row),
    by_client(1, "146", LockTimeoutError, change_of_several_rows_one_of_them_held),
    by_client(1, "146", LockTimeoutError, find_in_a_pipeline_that_writes),
    by_client(1, "146", LockTimeoutError, insert_in_a_held_gap),
    by_client(1, "149", TransactionAbortedError, pipeline_in_a_deadlock),
    by_client(1, "149", TransactionAbortedError, change_of_two_rows_in_a_deadlock),
    by_client(1, "147", TransactionAbortedError, scan_with_more_locks_than_fit_in_memory),
    by_client(1, "200", TransactionAbortedError, request_behind_a_deadlock),
    Case(
        1,
        "151",
        OperationalError,
        "insert of a child without a parent",
        lambda bench: bench.client.insert(bench.open("children", "id", "p"), [2, 9]),
    ),
    Case(
        1,
        "151",
        OperationalError,
        "update to a parent that is missing",
        lambda bench: bench.client.modify(bench.open("children", "p"), "=", [1], "U", [9]),
    ),
    Case(
        1,
        "152",
        OperationalError,
        "delete of a parent",
        lambda bench: bench.client.modify(bench.open("parents", "id"), "=", [1], "D"),
    ),
    by_client(1, "135", OperationalError, full_memory_table),
    by_client(1, "135", OperationalError, full_tablespace),
    by_client(1, "139", OperationalError, row_of_wide_columns),
    by_client(1, "139", OperationalError, row_that_grows_too_wide),
    Case(
        1,
        "160",
        OperationalError,
        "insert of a row for no partition",
        lambda bench: bench.client.insert(bench.open("parts", "id"), [10]),
    ),
    by_client(1, "165", OperationalError, change_in_a_read_only_innodb),
    Case(
        1,
        "167",
        OperationalError,
        "insert when all numbers are used",
        lambda bench: bench.client.insert(bench.open("few", "v"), [1]),
    ),
    by_client(1, "167", OperationalError, explicit_number_after_a_failed_open),
    by_client(1, "167", OperationalError, explicit_number_after_a_row_too_large),
    by_client(2, "readonly", ReadOnlyError, swapped_ports),
    Case(
        2,
        "readonly",
        ReadOnlyError,
        "change sent to the read port",
        lambda bench: bench.call(b" = 1 1 1 0 D"),
    ),
    find(
        "idxnum",
        IndexNotFoundError,
        "missing index",
        lambda b: b.open("rows", "id", index_name="missing"),
    ),
    find(
        "idxnum",
        IndexNotFoundError,
        "index in small letters",
        lambda b: b.open("rows", "id", index_name="primary"),
    ),
    find("fld", ColumnNotFoundError, "missing column", lambda b: b.open("rows", "missing")),
    find("fld", ColumnNotFoundError, "column in capitals", lambda b: b.open("rows", "ID")),
    find(
        "fld",
        ColumnNotFoundError,
        "missing filter column",
        lambda b: b.open("rows", "id", filter_columns=["missing"]),
    ),
    Case(
        2,
        "kpnum",
        OperationalError,
        "key of two values for an index of one column",
        lambda bench: bench.client.find(bench.open("rows", "n"), "=", [1, 2]),
    ),
    Case(
        2,
        "filterblob",
        OperationalError,
        "filter on a BLOB",
        lambda bench: bench.client.find(
            bench.open("rows", "n", filter_columns=["b"]), "=", [1], filters=[("b", "=", "blob")]
        ),
    ),
    by_line("stmtnum", "7 = 1 1"),
    by_line("cmd", ""),
    by_line("cmd", "x"),
    by_line("cmd", "", login=False),
    by_body("op", "unequal", b" != 1 1"),
    by_body("op", "two equals signs", b" == 1 1"),
    by_body("op", "nothing", b""),
    by_body("klen", "no values", b" = 0"),
    by_body("klen", "a number of values that is none", b" = x 1"),
    by_body("klen", "insert of no values", b" + 0", Effect.WRITE),
    by_body("fldnum", "33 values", b" = 33" + b" 1" * 33),
    by_body("fldnum", "insert of 33 values", b" + 33" + b" 1" * 33, Effect.WRITE),
    by_body("modop", "unknown change", b" = 1 1 1 0 x", Effect.WRITE),
    by_body("invalueslen", "IN without values", b" = 1 1 1 0 @ 0 0"),
    by_body("filtertype", "filter of two letters", b" = 1 1 1 0 FX = 0 1"),
    by_body("filterfld", "filter on a column past the last", b" = 1 1 1 0 F = 1 1"),
    by_body("notimpl", "operation S", b" S 1 1"),
    Case(
        3,
        "unauth",
        AuthenticationError,
        "wrong secret",
        lambda bench: bench.connect(secret="wrong").find(bench.open("rows", "n"), "=", [1]),
    ),
    Case(
        3,
        "unauth",
        AuthenticationError,
        "wrong secret for writing",
        lambda bench: bench.connect(write_secret="wrong").modify(
            bench.open("rows", "n"), "=", [99], "D"
        ),
    ),
    by_line("unauth", "1 = 1 1", login=False, code=3),
    by_client(3, "authtype", AuthenticationError, login_of_another_kind),
]

NOT_PROVOKED = {
    (1, "189"): "with a full disk InnoDB says 135 or ends the server, MyISAM waits for room",
}

REMEDIES = {
    (1, "121"): "modify|update|another key",
    (1, "open_table"): "check the database and table names",
    (1, "lock_tables"): "try again later",
    (1, "146"): "try again",
    (1, "149"): "read the rows again",
    (1, "200"): "read the rows again",
    (1, "147"): "read the rows again",
    (1, "124"): "see perror",
    (1, "151"): "insert the parent",
    (1, "152"): "(delete|change|remove) .* first",
    (1, "135"): "free|room|disk|raise",
    (1, "139"): "shorten|smaller|BLOB|DYNAMIC",
    (1, "160"): "add a partition",
    (1, "165"): "innodb_read_only",
    (1, "167"): "wider|larger|restart",
    (1, "189"): "free",
    (2, "readonly"): "are the two ports .* swapped",
    (2, "idxnum"): "case counts",
    (2, "fld"): "case counts",
    (2, "kpnum"): "more key values than the index has columns",
    (2, "filterblob"): "cannot filter on BLOB or TEXT",
    (2, "stmtnum"): "never opened",
    (2, "cmd"): "did not understand",
    (2, "op"): "operation is unknown",
    (2, "klen"): "no values",
    (2, "fldnum"): "more than 32",
    (2, "modop"): "modify operation is unknown",
    (2, "invalueslen"): "IN list without values",
    (2, "filtertype"): "neither F nor W",
    (2, "filterfld"): "not opened with",
    (2, "notimpl"): "does not implement",
    (3, "unauth"): "give handlersocket_plain_secret",
    (3, "authtype"): "kind of login",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_code_is_raised_as_the_exception_that_stands_for_it(bench: Bench, case: Case) -> None:
    try:
        outcome = case.provoke(bench)
    except OperationalError as error:
        outcome = error
    assert isinstance(outcome, OperationalError)
    assert type(outcome) is case.kind
    assert (outcome.code, outcome.reason) == (case.code, case.reason)
    assert str(outcome).startswith(f"the server answered {case.code} {case.reason}: ")


@pytest.mark.parametrize(("code", "reason"), REMEDIES)
def test_message_says_what_to_do(code: int, reason: str) -> None:
    with pytest.raises(OperationalError, match=f"{code} {reason}: .*({REMEDIES[code, reason]})"):
        raise operational_error(code, reason)


def test_every_code_that_hskv_knows_is_provoked_or_cannot_be() -> None:
    provoked = {(case.code, case.reason) for case in CASES}
    assert set(_ERRORS) - provoked == set(NOT_PROVOKED)
    assert set(_ERRORS) <= set(REMEDIES)
