"""A connection to a SQL port, for the pool: statements as bytes out, rows of bytes in.

It speaks through PyMySQL, which is imported when the first connection is made.
"""

import random
import select
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..exceptions import (
    AuthenticationError,
    ConnectionError,
    HandlerSocketError,
    IndexedConnectionError,
    OperationalError,
    ProtocolError,
    RecoverableConnectionError,
    RequestTimeoutError,
)
from .endpoint import Address
from .interrupt import is_interrupt, raise_interrupt
from .sql_address import SqlLogin
from .sql_errors import refusal
from .sql_socket import OutOfTimeError, open_sql_socket
from .tls import tls_trouble

if TYPE_CHECKING:
    from pymysql.connections import Connection

    from .sql_tls import Encryption

# Strict, so that nothing is cut in silence; without modes that change what a statement means
# (NO_BACKSLASH_ESCAPES, ANSI_QUOTES, SIMULTANEOUS_ASSIGNMENT). The server ends no connection that
# a pool still keeps: a write that is on its way then would be lost. No DEFAULT, which is what the
# server has set for all.
_SESSION: Final = (
    b"SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1,"
    b" character_set_results = NULL, sql_select_limit = 18446744073709551615,"
    b" sql_safe_updates = 0, innodb_lock_wait_timeout = %d, lock_wait_timeout = %d,"
    b" wait_timeout = GREATEST(@@wait_timeout, 60);"
    # Whatever is the server's: what is not committed is shown to nobody.
    b" SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;"
    # It stays as it is now in this session, whatever is set for later ones.
    b" SHOW SESSION VARIABLES LIKE 'max_allowed_packet'"
)
# SHOW, which a Galera node without a majority answers too.
_VARIABLES: Final = (
    b"SHOW GLOBAL VARIABLES WHERE Variable_name IN"
    b" ('read_only', 'wsrep_on', 'log_bin', 'autocommit')"
)
_READY: Final = b"SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status')"
_LOST_WHILE_SENDING: Final = 2006
_LOST: Final = 2013
_GOODBYE_SECONDS: Final = 0.5

Rows = Sequence[tuple[bytes | None, ...]]


class Result(NamedTuple):
    """What came of a statement: its rows, how many it found, what LAST_INSERT_ID was set to."""

    rows: Rows
    found: int
    insert_id: int


class State(NamedTuple):
    """What a server says of itself. `ready` is False for a Galera node that has no majority."""

    read_only: bool
    ready: bool
    log_bin: bool
    wsrep_on: bool
    autocommit: bool


class SqlChannel:
    """A connection that is logged in, where each statement is a transaction of its own."""

    def __init__(
        self,
        address: Address,
        login: SqlLogin,
        *,
        connect_timeout: float,
        timeout: float,
        lifetime: float,
    ) -> None:
        """Connects and logs in; times in seconds. Raises ConnectionError, AuthenticationError."""
        self.address = address
        self.holder: object = None
        self.last_used = monotonic()
        self.expires = self.last_used + lifetime * random.uniform(0.9, 1.0)
        self.timeout = timeout
        deadline = self.last_used + connect_timeout
        self._sock = open_sql_socket(address, deadline)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        try:
            self._log_in(login)
            # Half of the time, so that what waits for a lock ends before its deadline. With 0 it
            # would not wait in its turn: under semi-sync many a write of a busy row gives up then.
            patience = max(int(timeout / 2), 1)
            ((_, size),) = self._ask(_SESSION % (patience, patience), deadline, 3)
            self.max_packet = int(size)
            """How many bytes the server takes in one packet of this connection."""
            self.look(deadline)
        except BaseException:
            self._sock.close()
            raise

    def __repr__(self) -> str:
        return f"<SqlChannel to {self.address}, {'closed' if self.closed else 'open'}>"

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Say goodbye and close the socket; never raises."""
        if not self.closed:
            self._sock.deadline = monotonic() + _GOODBYE_SECONDS
            with suppress(Exception):
                self._connection.close()
        self._sock.close()

    def gone(self) -> bool:
        """True when the server has closed its end, or sent bytes that nobody asked for."""
        return bool(self._poll.poll(0))

    def look(self, deadline: float) -> State:
        """Ask the server what it is now, and keep it in `state`. Raises as `run` does."""
        found = dict(self._ask(_VARIABLES, deadline))
        on = {name: value in (b"ON", b"1") for name, value in found.items()}
        ready = True
        if on.get(b"wsrep_on", False):
            status = dict(self._ask(_READY, deadline))
            ready = (status.get(b"wsrep_ready"), status.get(b"wsrep_cluster_status")) == (
                b"ON",
                b"Primary",
            )
        self.looked = monotonic()
        self.state = State(
            read_only=on.get(b"read_only", False),
            ready=ready,
            log_bin=on.get(b"log_bin", False),
            wsrep_on=on.get(b"wsrep_on", False),
            autocommit=on.get(b"autocommit", True),
        )
        return self.state

    def run(
        self, statements: bytes, count: int, deadline: float
    ) -> tuple[list[Result], HandlerSocketError | None]:
        """Send statements, joined by semicolons, which give `count` results.

        The results, and the error where the server stopped before the last: those behind it are
        not carried out. Raises RecoverableConnectionError when nothing was done; when something
        may have been, IndexedConnectionError, RequestTimeoutError or ProtocolError. Each of
        them, and any other exception, closes the connection.
        """
        from pymysql import MySQLError

        if self._sock.unread():
            self._sock.close()
            raise RecoverableConnectionError(f"{self.address} answered what nobody asked")
        self._sock.deadline = deadline
        results: list[Result] = []
        cursor = self._cursor
        try:
            cursor.execute(statements)
            results.append(Result(cursor.fetchall(), cursor.rowcount, cursor.lastrowid))
            while len(results) < count:
                if not cursor.nextset():
                    raise ValueError(f"{len(results)} results, not {count}")
                results.append(Result(cursor.fetchall(), cursor.rowcount, cursor.lastrowid))
        except MySQLError as error:
            if is_interrupt(error):
                self._sock.close()
                raise_interrupt(error)
            if not self._connection.open:
                raise self._lost(error) from error
            return results, self._refusal(error)
        except Exception as error:
            self._sock.close()
            raise_interrupt(error)
            raise ProtocolError(
                f"{self.address} answered with what is no reply of MySQL: {error!r}"
            ) from error
        except BaseException:
            self._sock.close()
            raise
        return results, None

    @property
    def column_names(self) -> list[str]:
        """Those of the last result of the last `run`."""
        return [column[0] for column in self._cursor.description or ()]

    def _ask(self, statements: bytes, deadline: float, count: int = 1) -> Any:
        """The rows of the last of so many."""
        results, refused = self.run(statements, count, deadline)
        if refused is not None:
            raise refused
        return results[-1].rows

    def _refusal(self, error: Exception) -> HandlerSocketError:
        refused = refusal(error.args[0], str(error.args[-1]), self.address)
        if not isinstance(refused, OperationalError):
            self._sock.close()
        return refused

    def _lost(self, error: Exception) -> HandlerSocketError:
        """What to raise where the connection broke; it is closed already."""
        self._sock.close()
        number = error.args[0] if error.args else None
        cause = _caught(error)
        raise_interrupt(cause)
        # An error without a number may have come between a call that sent and its end.
        counted = getattr(cause, "errno", None) or isinstance(cause, OutOfTimeError)
        if number == _LOST_WHILE_SENDING and counted:
            # A server carries out nothing of what did not reach it whole.
            return RecoverableConnectionError(
                f"the connection to {self.address} broke before the statement was sent"
            )
        if isinstance(cause, TimeoutError):
            return RequestTimeoutError(
                f"{self.address} did not answer in time; if it is only slow, raise timeout"
            )
        if number in (_LOST, _LOST_WHILE_SENDING):
            return IndexedConnectionError(f"{self.address} closed the connection")
        return ProtocolError(f"{self.address} answered with what is no reply of MySQL: {error}")

    def _log_in(self, login: SqlLogin) -> None:
        encryption = None
        if login.tls is not None:
            from .sql_tls import encryption as encrypting

            encryption = encrypting(self._sock, login.tls)
        self._connection = _connection(self.address, login, encryption)
        try:
            failed = self._connected()
        finally:
            if encryption is not None:
                self._sock = encryption.socket
        # Raised out here, so that no frame with the password hangs on it.
        if failed is not None:
            raise failed
        self._cursor = self._connection.cursor()

    def _connected(self) -> HandlerSocketError | None:
        try:
            self._connection.connect(self._sock)
        except Exception as error:  # noqa: BLE001 what is no greeting raises anything
            raise_interrupt(error)
            raise_interrupt(_caught(error))
            number, text = (*error.args, None, None)[:2]
            if isinstance(number, int):
                refused = refusal(number, str(text), self.address)
                if isinstance(refused, AuthenticationError):
                    return refused
            if (trouble := tls_trouble(self.address, error)) is not None:
                return ConnectionError(trouble)
            return ConnectionError(f"{self.address} did not finish the login: {error}")
        return None


def _caught(error: Exception) -> BaseException | None:
    """What PyMySQL caught, and raised its own error in place of."""
    caught, trace = error.__context__, error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # The caller may be about to handle another one, which is the context then.
    if caught is None or caught.__traceback__ is None or trace is None:
        return None
    return caught if caught.__traceback__.tb_frame is trace.tb_frame else None


def _connection(
    address: Address, login: SqlLogin, encryption: "Encryption | None"
) -> "Connection[Any]":
    import pymysql
    from pymysql.constants import CLIENT

    return pymysql.connect(
        user=login.user,
        password=login.password.read() or b"",
        host=address.host,
        # As it is, of whatever type.
        use_unicode=False,
        conv={},
        charset="utf8mb4",
        # Counts are of the rows that were found, changed or not.
        client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
        autocommit=None,
        defer_connect=True,
        ssl=encryption,
        ssl_disabled=encryption is None,
    )
