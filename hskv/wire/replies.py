"""Replies: the bytes of the server in, rows or errors out.

The outcome of one request is a list of rows, or an `OperationalError` that is a value until
somebody raises it, so that a pipeline can hand out any mix of the two.
"""

from typing import Final, cast

from ..exceptions import (
    AuthenticationError,
    ColumnNotFoundError,
    DuplicateKeyError,
    IndexNotFoundError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    ProtocolError,
    ReadOnlyError,
    TableNotFoundError,
    TransactionAbortedError,
)
from . import codec

Row = tuple[bytes | None, ...]
Reply = list[Row] | OperationalError

CHANGED_ONE: Final[Reply] = [(b"1",)]
"""The reply to most writes: one row was changed."""

MAX_REPLY_BYTES: Final = 1 << 30
"""A reply line longer than this (1 GiB) is taken for nonsense."""

_DIGITS: Final = b"0123456789"
_LF: Final = 0x0A

_SMALLEST_BUFFER: Final = 1 << 18
_LEAST_ROOM: Final = 1 << 16
# A buffer doubles, and beyond this grows by so much.
_MOST_GROWTH: Final = 1 << 24
# Of buffers up to this size some are kept for the next large reply.
_LARGEST_SPARE: Final = 1 << 22
_SPARE_BUFFERS: Final = 4
_spare_buffers: Final[list[bytearray]] = []

# The words of the server -> what to raise, and what the user can do about it.
_ERRORS: dict[tuple[int, str], tuple[type[OperationalError], str]] = {
    (1, "121"): (
        DuplicateKeyError,
        "a row with this key exists already: take another key, or modify that row",
    ),
    (1, "open_table"): (
        TableNotFoundError,
        "the table does not exist, or SQL holds a lock on it: check the database and table names",
    ),
    (1, "lock_tables"): (
        LockTimeoutError,
        (
            "the server lets nobody write now (read_only, or another holds its write lock): "
            "try again later"
        ),
    ),
    (1, "146"): (
        LockTimeoutError,
        "another transaction holds the row for longer than innodb_lock_wait_timeout: try again",
    ),
    (1, "149"): (
        TransactionAbortedError,
        (
            "deadlock with a SQL transaction; the whole batch was rolled back: read the rows "
            "again, and keep SQL transactions off this table"
        ),
    ),
    (1, "147"): (
        TransactionAbortedError,
        (
            "too many row locks for the server's memory; the whole batch was rolled back: read the "
            "rows again, and change fewer at once"
        ),
    ),
    (1, "200"): (
        TransactionAbortedError,
        "an earlier request of the batch aborted its transaction: read the rows again",
    ),
    (1, "151"): (OperationalError, "a foreign key has no parent row: insert the parent first"),
    (1, "152"): (
        OperationalError,
        "a foreign key refers to this row: delete or change those rows first",
    ),
    (1, "135"): (OperationalError, "the table is full: make room in it, or raise its limit"),
    (1, "139"): (
        OperationalError,
        "the row is too large for the table: shorten it, or use BLOB columns",
    ),
    (1, "160"): (
        OperationalError,
        "no partition takes this row: add a partition; scans of the table crash the server",
    ),
    (1, "165"): (OperationalError, "the table is read-only: is innodb_read_only set?"),
    (1, "167"): (
        OperationalError,
        (
            "AUTO_INCREMENT has no numbers left; or on the write port a table could not be opened, "
            "or a row was too large before, which makes this server refuse explicit ids until it "
            "is restarted"
        ),
    ),
    (1, "189"): (OperationalError, "the server's disk is full: free some space"),
    (2, "readonly"): (
        ReadOnlyError,
        "a write was sent to the read port: are the two ports of the URL swapped?",
    ),
    (2, "idxnum"): (IndexNotFoundError, "the table has no index of this name (case counts)"),
    (2, "fld"): (ColumnNotFoundError, "a column does not exist (case counts)"),
    (2, "stmtnum"): (OperationalError, "this index id was never opened on the connection"),
    (2, "op"): (OperationalError, "the operation is unknown to the server"),
    (2, "klen"): (OperationalError, "the request has no values"),
    (2, "fldnum"): (OperationalError, "more than 32 values"),
    (2, "kpnum"): (OperationalError, "more key values than the index has columns"),
    (2, "modop"): (OperationalError, "the modify operation is unknown to the server"),
    (2, "invalueslen"): (OperationalError, "an IN list without values"),
    (2, "filtertype"): (OperationalError, "a filter is neither F nor W"),
    (2, "filterfld"): (OperationalError, "a filter names a column the index was not opened with"),
    (2, "filterblob"): (OperationalError, "the server cannot filter on BLOB or TEXT columns"),
    (2, "notimpl"): (OperationalError, "the server does not implement this operation"),
    (2, "cmd"): (OperationalError, "the server did not understand the request"),
    (3, "unauth"): (
        AuthenticationError,
        (
            "the secret is missing or wrong: give handlersocket_plain_secret in the URL, and "
            "write_secret where handlersocket_plain_secret_wr differs"
        ),
    ),
    (3, "authtype"): (AuthenticationError, "the server does not know this kind of login"),
}


class NoRows(list[Row]):
    """No rows, of so many columns: they tell whether it is the reply to what was asked."""

    __slots__ = ("columns",)

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns


def modified_rows(rows: list[Row]) -> int:
    """The number of rows that a find_modify found and processed.

    Raises OutcomeUnknownError for a reply without one.
    """
    number = _only_number(rows)
    if number is None:
        raise OutcomeUnknownError(
            "the server answered a write without the number of rows: read them again"
        )
    return number


def generated_id(rows: list[Row]) -> int | None:
    """The AUTO_INCREMENT number that an insert made, None where it made none.

    Raises OutcomeUnknownError for a reply that is neither.
    """
    number = _only_number(rows) if rows else 0
    if number is None:
        raise OutcomeUnknownError(
            "the server answered an insert with what is no number: read the row before you insert "
            "it again"
        )
    return number or None


def checked_columns(reply: Reply, columns: int, *, or_one: bool = False) -> Reply:
    """The reply, if its rows have so many columns, or one where a write is answered by a number.

    Raises ProtocolError: then it is not the reply to what was asked.
    """
    if isinstance(reply, OperationalError):
        return reply
    has = reply.columns if isinstance(reply, NoRows) else len(reply[0])
    if has == columns or (or_one and has == 1):
        return reply
    raise ProtocolError(
        f"a reply with {has} columns came to a request for {columns}; the connection was closed"
    )


def _only_number(rows: list[Row]) -> int | None:
    if len(rows) == 1 and len(rows[0]) == 1 and rows[0][0] and rows[0][0].isdigit():
        return int(rows[0][0])
    return None


def operational_error(code: int, reason: str) -> OperationalError:
    """The exception for the server's words, its message saying what to do."""
    kind, advice = _ERRORS.get((code, reason), (OperationalError, "see perror for its number"))
    message = f"the server answered {code} {reason}: {advice}"
    return kind(message, code=code, reason=reason)


class ReplyReader:
    """Cuts the bytes of a channel into replies; scans no byte twice.

    What is not whole waits in a buffer that the socket fills further. Such buffers are used again,
    by any channel: to have the kernel clear new memory costs more than to read a reply into it.
    """

    def __init__(self, max_bytes: int = MAX_REPLY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer: bytearray | None = None
        self._size = 0

    @property
    def empty(self) -> bool:
        """True when every byte that was fed has become part of a reply."""
        return not self._size

    def feed(self, data: bytes) -> list[Reply]:
        """Take over bytes, and give the replies that they complete.

        Raises ProtocolError as soon as the bytes cannot become a reply.
        """
        if not self._size:
            replies, end = _decoded(data)
            if end < len(data):
                self._keep(memoryview(data)[end:])
            return replies
        replies = []
        while data:
            with self.get_buffer() as room:
                count = min(len(room), len(data))
                room[:count] = data[:count]
            replies += self.buffer_updated(count)
            data = data[count:]
        return replies

    def get_buffer(self) -> memoryview:
        """Where to receive what follows, to be told by `buffer_updated`; release it before."""
        buffer = self._take_buffer()
        if len(buffer) - self._size < _LEAST_ROOM:
            buffer += bytes(min(len(buffer), _MOST_GROWTH))
        return memoryview(buffer)[self._size :]

    def buffer_updated(self, count: int) -> list[Reply]:
        """The replies that so many bytes more complete; raises as `feed`."""
        buffer, before = self._take_buffer(), self._size
        self._size += count
        if buffer.find(_LF, before, self._size) < 0:
            self._check()
            return []
        with memoryview(buffer)[: self._size] as data:
            replies, end = _decoded(data)
            rest = bytes(data[end:])
        self._drop_buffer()
        if rest:
            self._keep(rest)
        return replies

    def _keep(self, rest: bytes | memoryview) -> None:
        buffer = self._take_buffer()
        self._size = len(rest)
        # A slice may be longer than what it replaces: then the buffer grows.
        buffer[: self._size] = rest
        self._check()

    def _take_buffer(self) -> bytearray:
        if self._buffer is None:
            try:
                self._buffer = _spare_buffers.pop()
            except IndexError:
                self._buffer = bytearray(_SMALLEST_BUFFER)
        return self._buffer

    def _drop_buffer(self) -> None:
        buffer = self._take_buffer()
        if len(buffer) <= _LARGEST_SPARE and len(_spare_buffers) < _SPARE_BUFFERS:
            _spare_buffers.append(buffer)
        self._buffer, self._size = None, 0

    def _check(self) -> None:
        buffer = self._take_buffer()
        if buffer[0] not in _DIGITS:
            raise _nonsense(bytes(buffer[: min(self._size, 80)]))
        if self._size > self._max_bytes:
            raise ProtocolError(
                f"a reply did not end within {self._max_bytes} bytes; the connection was closed"
            )


def _decoded(data: bytes | memoryview) -> tuple[list[Reply], int]:
    try:
        decoded, end = codec.decode_replies(data)
    except ValueError:
        raise _nonsense(bytes(data[:80])) from None
    if {list}.issuperset(map(type, decoded)):
        return cast(list[Reply], decoded), end
    return [one if isinstance(one, list) else _reply(*one, data) for one in decoded], end


def _reply(code: bytes | None, columns: int, rows: list[Row], data: bytes | memoryview) -> Reply:
    return NoRows(columns) if code == b"0" else _error(code, rows, data)


def _error(code: bytes | None, rows: list[Row], data: bytes | memoryview) -> OperationalError:
    words = rows[0] if rows else ()
    if code not in (b"1", b"2", b"3") or None in words:
        raise _nonsense(bytes(data[:80]))
    reason = b" ".join(words).decode("ascii", "replace")  # type: ignore[arg-type]
    return operational_error(int(code), reason)


def _nonsense(line: bytes) -> ProtocolError:
    return ProtocolError(
        f"this is no reply of HandlerSocket: {line[:80]!r}; do host and port name a HandlerSocket "
        "listener (not MariaDB's SQL port)? The connection was closed"
    )
