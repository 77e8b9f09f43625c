"""pyhs's low-level API: connections, and sockets that read or write by index ids.

Built on `hskv.client`, which has the newer and faster API. The sockets may be shared by threads
and used after a fork. Locks: `HandlerSocket._lock` guards its tables of index ids; it is never
held across I/O.
"""

import codecs
import itertools
import logging
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TextIO

from .client import Client, Condition, RequestInfo, Row, Value
from .exceptions import (
    ConnectionError,
    IndexedConnectionError,
    OperationalError,
    RecoverableConnectionError,
    RequestTimeoutError,
    SerializationError,
)
from .lookups import checked_in
from .transport.address import Address, Secret, SecretSource, Settings, check
from .transport.channel import Index, masked, open_socket
from .transport.fork import renew_after_fork
from .transport.retry import Effect
from .wire import requests

# With the exceptions, as pyhs's module.
__all__ = [
    "Connection",
    "ConnectionError",
    "HandlerSocket",
    "IndexedConnectionError",
    "OperationalError",
    "ReadSocket",
    "RecoverableConnectionError",
    "WriteSocket",
]

Server = Sequence[Any]
"""(protocol, host, port, timeout): "inet" or "unix", a host or path, a port, seconds or None."""
Text = Any
"""str, or bytes where the encoding is None; None for NULL."""

_traffic = logging.getLogger("hskv.traffic")

_RECV_BYTES: Final = 1 << 16


class Connection:
    """One socket to a HandlerSocket listener, for lines in and out; knows nothing of indexes.

    `protocol` is "inet" (`host` and `port`) or "unix" (`host` is the path). `timeout` in seconds
    is for connecting and for each line, 3 by default. After a failure `retry_time` is the time
    (epoch seconds) from which `is_ready` is true again; else 0. For one thread at a time.
    Raises ValueError for another protocol or a missing port.
    """

    UNIX_PROTO: Final = "unix"
    INET_PROTO: Final = "inet"
    DEFAULT_TIMEOUT: Final = 3
    RETRY_INTERVAL: Final = 30

    def __init__(
        self,
        protocol: str,
        host: str,
        port: int | None = None,
        timeout: float | None = None,
        *,
        encoding: str | None = "utf-8",
    ) -> None:
        self.timeout: float = timeout or self.DEFAULT_TIMEOUT
        self.address = _address((protocol, host, port))
        self.socket: socket.socket | None = None
        self.retry_time: float = 0
        self.debug = False
        self._encoding = _checked(encoding)
        self._received = b""

    def __repr__(self) -> str:
        return f"<Connection to {self.address}, {'open' if self.socket else 'closed'}>"

    def set_debug_mode(self, mode: bool) -> None:
        """Show what is sent and received on stdout, or stop that."""
        self.debug = mode
        if mode:
            _show_traffic()

    def connect(self) -> None:
        """Connect, unless it is connected. Raises ConnectionError."""
        if self.socket is None:
            try:
                self.socket = open_socket(self.address, self.timeout)
            except ConnectionError:
                self.retry_time = time() + self.RETRY_INTERVAL
                raise

    def disconnect(self) -> None:
        """Close the socket, if there is one; never raises."""
        sock, self.socket, self._received = self.socket, None, b""
        if sock is not None:
            sock.close()

    def is_ready(self) -> bool:
        """False until 30 s have passed since a failure."""
        if self.retry_time > time():
            return False
        self.retry_time = 0
        return True

    def send(self, data: str | bytes) -> None:
        """Send a line, its LF included; str is encoded. Raises ConnectionError."""
        encoded = data.encode(self._encoding or "utf-8") if isinstance(data, str) else data
        sock = self._connected()
        try:
            sock.settimeout(self.timeout)
            sock.sendall(encoded)
        except OSError as error:
            raise self._failed(error) from error
        self._trace(">", encoded)

    def readline(self) -> Text:
        """The next line, without its LF. Raises ConnectionError, RequestTimeoutError."""
        sock = self._connected()
        deadline = monotonic() + self.timeout
        parts = [self._received]
        try:
            while b"\n" not in parts[-1]:
                parts.append(self._recv(sock, deadline))
        except BaseException:
            # What is left of the line must not pass for the next one.
            self.disconnect()
            raise
        line, _, self._received = b"".join(parts).partition(b"\n")
        return decoded([(line,)], self._encoding)[0][0]

    def _recv(self, sock: socket.socket, deadline: float) -> bytes:
        try:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            data = sock.recv(_RECV_BYTES)
        except OSError as error:
            raise self._failed(error) from error
        if not data:
            raise self._failed(OSError("closed by the server"))
        self._trace("<", data)
        return data

    def _connected(self) -> socket.socket:
        if self.socket is None:
            raise ConnectionError(f"not connected to {self.address}: call connect first")
        return self.socket

    def _failed(self, error: OSError) -> ConnectionError:
        self.disconnect()
        self.retry_time = time() + self.RETRY_INTERVAL
        if isinstance(error, TimeoutError):
            return RequestTimeoutError(f"{self.address} did not answer within {self.timeout} s")
        return ConnectionError(f"the connection to {self.address} broke: {error}")

    def _trace(self, direction: str, data: bytes) -> None:
        if self.debug:
            _traffic.debug("%s %s %r", self.address, direction, masked(data))


class HandlerSocket:
    """Servers that hold the same data, and index ids to use on any of them.

    `servers` is a list of (protocol, host, port, timeout); a timeout of None, or left out, is
    `timeout` (3). They are used in turn, and one that fails is set aside for a while; see
    `hskv.transport.servers`. `debug` shows the traffic of the whole process on stdout. Text is
    in `encoding`, UTF-8 unless given; with None values are bytes. `secret` is that of the
    server, `pool_size` how many connections are opened to each at most, `pool_timeout` the
    seconds to wait for one of them. No I/O before the first request. Raises ValueError for
    servers that cannot be meant.
    """

    RETRY_LIMIT: Final = 5
    FIND_OPERATIONS: Final = requests.FIND_OPERATIONS

    _effect: ClassVar[Effect] = Effect.READ

    def __init__(
        self,
        servers: Iterable[Any],
        debug: bool = False,
        *,
        secret: SecretSource = None,
        encoding: str | None = "utf-8",
        timeout: float = Connection.DEFAULT_TIMEOUT,
        pool_size: int = 16,
        pool_timeout: float = 5.0,
        on_request: Callable[[RequestInfo], object] | None = None,
    ) -> None:
        addresses = addresses_of(servers)
        if self._effect is Effect.WRITE:
            warn_of_writers(addresses)
        settings = Settings(
            readers=addresses,
            writers=addresses,
            secret=Secret(secret),
            timeout=timeout,
            connect_timeout=timeout,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            on_request=on_request,
        )
        check(settings)
        self._start(Client.from_settings(settings), debug, encoding)

    @classmethod
    def over(cls, client: Client, debug: bool, encoding: str | None) -> Self:
        """One that uses a client which is there already."""
        handler_socket = cls.__new__(cls)
        handler_socket._start(client, debug, encoding)
        return handler_socket

    def _start(self, client: Client, debug: bool, encoding: str | None) -> None:
        self.client = client
        self.encoding = _checked(encoding)
        self.after_fork()
        renew_after_fork(self)
        self._numbers = itertools.count()
        self._ids: dict[tuple[Any, ...], int] = {}
        self._indexes: dict[int, Index] = {}
        if debug:
            _show_traffic()

    def after_fork(self) -> None:
        """In a child: another thread may have held the lock."""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.client!r}, {len(self._indexes)} indexes>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; requests after it are ConnectionError."""
        self.client.close()

    def get_index_id(
        self,
        db: str,
        table: str,
        fields: Iterable[str],
        index_name: str | None = None,
        *,
        filter_fields: Iterable[str] = (),
    ) -> int:
        """A number for these columns of a table, reached by an index (PRIMARY unless given).

        The same each time for the same names, good on every server and after a reconnect, until
        it is purged. The first time the server is asked to open it. `filter_fields` may be named
        in filters. Raises TableNotFoundError, IndexNotFoundError, ColumnNotFoundError,
        ConnectionError; ValueError for names the protocol cannot carry.
        """
        index = open_index(self.client, db, table, fields, index_name, filter_fields)
        names = (index.database, index.table, index.name, index.columns, index.filter_columns)
        number = self._ids.get(names)
        if number is None:
            self.client.verify(index, self._effect)
            with self._lock:
                number = self._ids.get(names)
                if number is None:
                    number = self._ids[names] = next(self._numbers)
                    self._indexes[number] = index
        return number

    def purge(self) -> None:
        """Close all connections and forget all index ids; the next requests connect anew."""
        with self._lock:
            self._ids.clear()
            self._indexes.clear()
        self.client.purge()

    def purge_indexes(self) -> None:
        """As `purge`: a connection keeps its indexes open until it is closed."""
        self.purge()

    def purge_index(self, index_id: int) -> None:
        """Forget one index id. Raises OperationalError for an unknown one."""
        index = self._index(index_id)
        names = (index.database, index.table, index.name, index.columns, index.filter_columns)
        with self._lock:
            self._ids.pop(names, None)
            self._indexes.pop(index_id, None)

    def _index(self, index_id: int) -> Index:
        index = self._indexes.get(index_id)
        if index is None:
            raise OperationalError(
                f"no index has the id {index_id!r} here: get one from get_index_id"
            )
        return index


class ReadSocket(HandlerSocket):
    """Finds rows by index id; `servers` are read listeners (port 9998)."""

    def find(
        self,
        index_id: int,
        operation: str,
        columns: Sequence[Value],
        limit: int = 0,
        offset: int = 0,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: tuple[int, Sequence[Value]] | None = None,
    ) -> list[list[Text]]:
        """Rows, each a list of its values, in the order of the index's columns.

        `columns` are the values to compare with, one for each leading part of the index;
        `operation` one of `FIND_OPERATIONS`. A limit of 0 is 1, with `in_` the number of its
        values. For `in_`, `filters`, `while_` and errors see `hskv.Client.find`; an unknown
        index id is OperationalError.
        """
        rows = self.client.find(
            self._index(index_id),
            operation,
            encoded(columns, self.encoding),
            **lookup_options(self.encoding, limit, offset, filters, while_, in_),
        )
        return decoded(rows, self.encoding)


class WriteSocket(HandlerSocket):
    """Inserts and changes rows by index id; `servers` are write listeners (port 9999)."""

    MODIFY_OPERATIONS: Final = requests.MODIFY_OPERATIONS

    _effect: ClassVar[Effect] = Effect.WRITE

    def insert(self, index_id: int, columns: Sequence[Value]) -> bool:
        """Insert a row of one value for each of the index's columns; True.

        Errors as in `hskv.Client.insert`; an unknown index id is OperationalError.
        """
        self.client.insert(self._index(index_id), encoded(columns, self.encoding))
        return True

    def find_modify(
        self,
        index_id: int,
        operation: str,
        columns: Sequence[Value],
        modify_operation: str,
        modify_columns: Sequence[Value] = [],  # pyhs's default, never changed
        limit: int = 0,
        offset: int = 0,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: tuple[int, Sequence[Value]] | None = None,
    ) -> list[list[Text]]:
        """Change the rows that `ReadSocket.find` would give; one row with their number.

        `modify_operation` is U (set to `modify_columns`), D (delete), + or - (add, subtract),
        and with a ? after it the rows as they were are given instead. Not repeated where it may
        have been done: see `hskv.Client.modify` for that and for errors; an unknown index id
        is OperationalError.
        """
        if type(modify_operation) is not str or modify_operation not in self.MODIFY_OPERATIONS:
            listed = " ".join(self.MODIFY_OPERATIONS)
            raise ValueError(f"modify operation {modify_operation!r} is not one of {listed}")
        returning = modify_operation.endswith("?")
        modify = self.client.modify_returning if returning else self.client.modify
        result = modify(
            self._index(index_id),
            operation,
            encoded(columns, self.encoding),
            modify_operation[0],
            encoded(modify_columns, self.encoding),
            **lookup_options(self.encoding, limit, offset, filters, while_, in_),
        )
        rows = [(b"%d" % result,)] if isinstance(result, int) else result
        return decoded(rows, self.encoding)


def addresses_of(servers: Iterable[Any]) -> tuple[Address, ...]:
    """The addresses of pyhs's server tuples, also where their list is nested once more.

    Raises ValueError for none at all, and for servers that cannot be meant.
    """
    listed = list(servers)
    if listed and all(isinstance(one, (list, tuple)) and not _is_server(one) for one in listed):
        listed = [server for group in listed for server in group]
    if not listed:
        raise ValueError("no server is given: give [('inet', HOST, PORT)]")
    return tuple(_address(server) for server in listed)


def warn_of_writers(addresses: Sequence[Address]) -> None:
    """Warn where writes would go to one of several servers."""
    if len(addresses) > 1:
        warnings.warn(
            "each write goes to one of several servers, and HandlerSocket's writes are not "
            "replicated: their tables drift apart; give one write server",
            RuntimeWarning,
            stacklevel=3,
        )


def open_index(
    client: Client,
    db: str,
    table: str,
    fields: Iterable[str],
    index_name: str | None,
    filter_fields: Iterable[str],
) -> Index:
    """The index of pyhs's names, which are a list of any kind, but not a string."""
    names = fields if isinstance(fields, str) else tuple(fields)
    filters = filter_fields if isinstance(filter_fields, str) else tuple(filter_fields)
    return client.open(
        table, names, index_name=index_name or "PRIMARY", filter_columns=filters, database=db
    )


def lookup_options(
    encoding: str | None,
    limit: int,
    offset: int,
    filters: Iterable[Condition],
    while_: Iterable[Condition],
    in_: tuple[int, Sequence[Value]] | None,
) -> dict[str, Any]:
    """The keyword arguments of `Client.find` and `Client.modify` for pyhs's.

    A limit of 0 is what the server takes it for: one row, or one for each value of an IN.
    """
    if in_ is not None:
        column, values = checked_in(in_)
        in_ = (column, encoded(values, encoding))
    return {
        "limit": limit or (len(in_[1]) if in_ else 1),
        "offset": offset,
        "in_": in_,
        "filters": [(*one[:2], *encoded(one[2:], encoding)) for one in filters],
        "while_": [(*one[:2], *encoded(one[2:], encoding)) for one in while_],
    }


def encoded(values: Sequence[Value], encoding: str | None) -> Sequence[Value]:
    """The values with text as bytes, where it is not in UTF-8."""
    if encoding in ("utf-8", None) or isinstance(values, (str, bytes, bytearray)):
        return values
    return [value.encode(encoding) if isinstance(value, str) else value for value in values]


def decoded(rows: Iterable[Row], encoding: str | None) -> list[list[Text]]:
    """The rows as lists, with bytes as text unless the encoding is None."""
    if encoding is None:
        return [list(row) for row in rows]
    try:
        return [
            [value if value is None else value.decode(encoding) for value in row] for row in rows
        ]
    except UnicodeDecodeError as error:
        raise SerializationError(
            f"a value is no {encoding} text: {error.object[:40]!r}; give the encoding it is in, "
            "or encoding=None for bytes"
        ) from None


def _checked(encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        # Refuses those of codecs.lookup that are for no text, such as hex.
        "".encode(encoding)
        return codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"Python knows no encoding {encoding!r} of text") from None


def _is_server(one: Any) -> bool:
    return isinstance(one, (list, tuple)) and 2 <= len(one) <= 4 and isinstance(one[1], str)


def _address(server: Server) -> Address:
    if not _is_server(server):
        raise ValueError(f"a server is (protocol, host, port, timeout), not {server!r}")
    protocol, host, port, timeout = (*server, None, None)[:4]
    if protocol == Connection.UNIX_PROTO:
        return Address(path=host, timeout=timeout)
    if protocol != Connection.INET_PROTO:
        raise ValueError(f"protocol {protocol!r} is neither 'inet' nor 'unix'")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"{port!r} is no port for {host}")
    return Address(host, port, timeout=timeout)


class _Stdout(logging.StreamHandler[TextIO]):
    """Writes to what sys.stdout is now, not to what it was."""

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


def _show_traffic() -> None:
    if not any(isinstance(handler, _Stdout) for handler in _traffic.handlers):
        _traffic.addHandler(_Stdout())
    _traffic.setLevel(logging.DEBUG)
