"""What the tests of the server itself share: bare connections, and tables of their own.

A request and its reply are written as text, a space for each TAB and "\0" for NULL; as bytes
they go out and come back exactly.
"""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from hskv.mariadb import PrivateServer

from ..conftest import sql_on
from .cli import Shell

Ask = Callable[[str], str]

TABLES = """
    facts_rows (id BIGINT PRIMARY KEY, n BIGINT NOT NULL, v VARBINARY(4), KEY n (n));
    facts_keys (k VARBINARY(4) PRIMARY KEY, l LONGBLOB NOT NULL, b BLOB);
    facts_auto (id INT AUTO_INCREMENT PRIMARY KEY, v INT);
    facts_pair (a INT, b INT, PRIMARY KEY (a, b));
    facts_unique (id INT PRIMARY KEY, u INT NOT NULL UNIQUE);
    facts_bare (a INT);
    `facts odd``né-.` (`key é` INT PRIMARY KEY);
    facts_ints (id INT PRIMARY KEY, t TINYINT NOT NULL, i INT NOT NULL, s VARCHAR(4) NOT NULL);
    facts_wide (id INT PRIMARY KEY, {wide});
""".format(wide=", ".join(f"c{number} INT" for number in range(1, 40)))

INDEXES = """
P 1 hskv facts_rows PRIMARY id,n,v id,n,v
P 2 hskv facts_rows PRIMARY n,v n,v
P 3 hskv facts_rows n id,n n
P 4 hskv facts_keys PRIMARY k,l l,k
P 5 hskv facts_auto PRIMARY id,v
P 6 hskv facts_pair PRIMARY a,b
P 7 hskv facts_ints PRIMARY t,i,s t
""".strip()


class Wire:
    """One connection to one port, with no client between."""

    def __init__(self, path: str, secret: str | None) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10.0)
        self.sock.connect(path)
        if secret is not None:
            assert self.ask(f"A 1 {secret}") == "0 1"

    def ask(self, requests: str) -> str:
        """The replies to requests that are sent at once, a line each."""
        replies = self.exact(b"%b\n" % requests.replace(" ", "\t").encode("latin-1"))
        return replies.decode("latin-1").replace("\t", " ").removesuffix("\n")

    def exact(self, requests: bytes) -> bytes:
        """The replies to whole lines, as they are."""
        self.sock.sendall(requests)
        return self.replies(requests.count(b"\n"))

    def replies(self, count: int) -> bytes:
        """What the server says until it has ended so many lines."""
        parts = []
        while count > 0:
            parts.append(self.sock.recv(1 << 20))
            assert parts[-1], "the server closed the connection"
            count -= parts[-1].count(b"\n")
        replies = b"".join(parts)
        assert count == 0, "the server sent more replies than it was asked for"
        assert replies.endswith(b"\n")
        return replies


@pytest.fixture(scope="session")
def facts_server(hskv_server: PrivateServer) -> PrivateServer:
    """`hskv_server` with the tables of these tests; they stay, DDL would wait for others."""
    with pymysql.connect(**hskv_server.sql) as connection, connection.cursor() as cursor:
        for table in TABLES.strip().removesuffix(";").split(";"):
            cursor.execute(f"CREATE TABLE {table}")
    return hskv_server


@pytest.fixture
def dial(facts_server: PrivateServer) -> Iterator[Callable[..., Wire]]:
    """Connects to the "read" or "write" port, logged in unless told otherwise."""
    wires: list[Wire] = []
    secrets = {"read": facts_server.secret, "write": facts_server.write_secret}

    def connect(port: str, *, login: bool = True, server: PrivateServer | None = None) -> Wire:
        path = (server or facts_server).directory / f"{port}.sock"
        wires.append(Wire(str(path), secrets[port] if login else None))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.sock.close()


@pytest.fixture(scope="session")
def sql(facts_server: PrivateServer) -> Iterator[Callable[[str], Any]]:
    """Runs one statement, committed at once, and gives its rows."""
    with pymysql.connect(**facts_server.sql, autocommit=True) as connection:

        def run(statement: str) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()

        yield run


@pytest.fixture(scope="module")
def unwritten_server() -> Iterator[PrivateServer]:
    """A server that nobody writes to by HandlerSocket: read_only would wait for who is connected.

    It has a SQL user `plain`, whom read_only binds, by TCP too.
    """
    with PrivateServer(sql_tcp=True) as server:
        for user in ("plain@localhost", "plain@127.0.0.1"):
            sql_on(server, f"CREATE USER {user}")
            sql_on(server, f"GRANT ALL ON hskv.* TO {user}")
            sql_on(server, f"GRANT SLAVE MONITOR ON *.* TO {user}")
        yield server


@pytest.fixture
def rows(sql: Callable[[str], Any]) -> None:
    """Fills the tables anew."""
    sql("BEGIN")
    for table in ("rows", "keys", "auto", "pair", "unique", "ints", "wide"):
        sql(f"DELETE FROM facts_{table}")
    sql("INSERT facts_rows VALUES (1,10,'a'), (2,20,'b'), (3,30,NULL), (4,40,''), (5,50,'e')")
    sql("INSERT facts_keys VALUES ('abcd', 'large', 'small')")
    sql("INSERT facts_pair VALUES (1,1), (1,2), (2,1), (3,3)")
    sql("INSERT facts_unique VALUES (1, 1)")
    sql("INSERT facts_ints VALUES (1, 100, 2147483647, 'abc')")
    sql("COMMIT")


@pytest.fixture
def rd(dial: Callable[..., Wire], rows: None) -> Ask:
    """Asks the read port, where the indexes are opened on full tables."""
    return _opened(dial("read"))


@pytest.fixture
def wr(dial: Callable[..., Wire], rows: None) -> Ask:
    """Asks the write port, where the indexes are opened on full tables."""
    return _opened(dial("write"))


def _opened(wire: Wire) -> Ask:
    assert set(wire.ask(INDEXES).split("\n")) == {"0 1"}
    return wire.ask


@pytest.fixture
def shell(
    hskv_server: PrivateServer,
    hskv_store: object,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Shell:
    """Runs the command hskv, on an empty table."""
    shell = Shell(monkeypatch, capsysbinary)
    shell.export("HSKV_URL", hskv_server.url)
    shell.export("HSKV_SQL", f"mysql+unix://root@{hskv_server.sql['unix_socket']}")
    return shell
