"""What private clusters have in common: their servers, the SQL they are led by, one URL.

Locks: none. A cluster is used by one thread.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from ..client import Client
from ..exceptions import HandlerSocketError, TableNotFoundError
from .programs import ServerStartError
from .server import PrivateServer, table_statements, user_statements

_SQL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


class ClusterError(HandlerSocketError):
    """A private cluster could not be brought to what was asked; the message says what to do."""


class Node(PrivateServer, ABC):
    """A server of a private cluster: HandlerSocket to read, SQL to write, both on TCP.

    As `PrivateServer`; all of a cluster have the same secret and the same SQL user.
    """

    def __init__(
        self, secret: str, sql_password: str, options: Mapping[str, Any], start_timeout: float
    ) -> None:
        options = {**options, "handlersocket_plain_secret": secret}
        super().__init__(tcp=True, sql_tcp=True, options=options, start_timeout=start_timeout)
        self._sql_password = sql_password

    @property
    def url(self) -> str:
        """The URL of a store on this server alone: reads by HandlerSocket, writes by SQL."""
        return f"{self.read_url}?writes=sql&sql={self.sql_url}"

    @property
    def read_url(self) -> str:
        """The URL of a client that only reads, on this server alone, by HandlerSocket."""
        return f"hskv://:{self.secret}@{self.listener}/hskv/kv"

    @property
    def listener(self) -> str:
        """HOST:PORT where HandlerSocket reads."""
        return f"127.0.0.1:{self._ports.get('read', '')}"

    @property
    def sql_listener(self) -> str:
        """HOST:PORT of SQL."""
        return f"127.0.0.1:{self._ports.get('sql', '')}"

    def query(self, statement: str, *arguments: object, timeout: float = _SQL_SECONDS) -> Any:
        """Run a statement as SQL's root, committed at once; its rows, as dicts.

        Raises ClusterError when the server does not answer within `timeout` seconds, or refuses.
        """
        import pymysql
        from pymysql.cursors import DictCursor

        login: dict[str, Any] = {**self.sql, "database": None, "autocommit": True}
        login |= dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), timeout)
        try:
            with (
                closing(pymysql.connect(**login)) as connection,
                connection.cursor(DictCursor) as cursor,
            ):
                cursor.execute(statement, arguments or None)
                return list(cursor.fetchall())
        except (pymysql.MySQLError, OSError) as error:
            # Without the statement: it may hold a password.
            raise ClusterError(f"SQL failed on {self!r} ({error})") from None

    def ask(self, statement: str, *arguments: object) -> Any:
        """The first value that a query gives, None where it gives no row."""
        rows = self.query(statement, *arguments)
        return next(iter(rows[0].values())) if rows else None

    @property
    @abstractmethod
    def _cluster_settings(self) -> Mapping[str, str | int | None]:
        """What makes it a server of its cluster."""

    def _port_names(self) -> list[str]:
        return ["read", "sql"]

    def _own_settings(self) -> dict[str, str | int | None]:
        # A write by HandlerSocket would stay on this server. The table comes by replication.
        writes = ("port_wr", "plain_secret_wr", "threads_wr")
        without = {f"handlersocket_{name}": None for name in writes} | {"init_file": None}
        # Who holds a row may be waiting for another server.
        waits = {"innodb_lock_wait_timeout": 3}
        return {**super()._own_settings(), **without, **waits, **self._cluster_settings}

    def _check_handlersocket(self) -> None:
        with (
            Client(self.read_url, timeout=1.0, connect_timeout=1.0, pool_size=1) as client,
            # Its answer is enough: the table may come later.
            suppress(TableNotFoundError),
        ):
            client.verify(client.open("kv", ["kind"]))


NodeT = TypeVar("NodeT", bound=Node)


class PrivateCluster(ABC, Generic[NodeT]):
    """Servers that hold the same data, for the time of a `with` block."""

    def __init__(self, start_timeout: float) -> None:
        try:
            import pymysql  # noqa: F401 only whether it is there
        except ImportError as error:
            raise ImportError("a private cluster needs PyMySQL: pip install PyMySQL") from error
        self._start_timeout = start_timeout
        self._secret = secrets.token_hex(16)
        self._sql_password = secrets.token_hex(16)
        self.servers: Sequence[NodeT] = []

    def __repr__(self) -> str:
        running = sum(server.pid is not None for server in self.servers)
        return f"<{type(self).__name__}, {running} of {len(self.servers)} servers run>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of a store on all servers, the same for as long as the cluster is there.

        It names every HandlerSocket listener for reads and every SQL port for writes.
        """
        first, *others = self.servers
        replicas = "".join(f"replica={server.listener}&" for server in others)
        return f"{first.read_url}?{replicas}writes=sql&sql={self.sql_url}"

    @property
    def sql_url(self) -> str:
        """The SQL ports of all servers and their user, as the option `sql` of a URL."""
        hosts = ",".join(server.sql_listener for server in self.servers)
        return f"mysql://hskv:{self._sql_password}@{hosts}/"

    @property
    def running(self) -> list[NodeT]:
        """The servers that run."""
        return [server for server in self.servers if server.pid is not None]

    def start(self) -> None:
        """Start the servers that do not run. Raises ServerStartError, ClusterError."""
        try:
            self._start_all(time.monotonic() + self._start_timeout)
        except BaseException:
            if not self.running:
                self.close()
            raise

    def stop(self) -> None:
        """Stop all servers, and keep their data until `close`. Idempotent."""
        for server in reversed(self.servers):
            server.stop()

    def close(self) -> None:
        """Stop all servers and remove their data."""
        for server in self.servers:
            server.close()

    @abstractmethod
    def _start_all(self, deadline: float) -> None:
        """Start the servers that do not run, in the right order."""

    def _make_table(self, server: NodeT) -> None:
        for statement in [*table_statements(), *user_statements(self._sql_password)]:
            server.query(statement)


def wait_until(condition: Callable[[], bool], server: Node, deadline: float, trouble: str) -> None:
    """Wait for what a server is to do; where it is late, an error that quotes its log."""
    while not condition():
        if server.pid is None:
            raise server._failed(ServerStartError, f"mariadbd ended: {trouble}")
        if time.monotonic() > deadline:
            raise server._failed(ClusterError, f"not in time: {trouble}")
        time.sleep(_POLL_SECONDS)
