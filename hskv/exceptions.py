"""Every error hskv raises; the root of all is `HandlerSocketError`.

Each takes one positional argument, its message, which says what to do next; whatever
else an error knows is an attribute. All of them pickle, attributes included.
`ConnectionError` keeps pyhs's name and is also the builtin of that name.
"""

import builtins as _builtins
from collections.abc import Hashable as _Hashable


class HandlerSocketError(Exception):
    """Root of every error that hskv raises."""


class ConnectionError(HandlerSocketError, _builtins.ConnectionError):  # noqa: A001 pyhs's name
    """The server could not be reached, or the connection to it broke."""


class RequestTimeoutError(ConnectionError, TimeoutError):
    """No complete reply came within the timeout of the request."""


class PoolTimeoutError(ConnectionError, TimeoutError):
    """Every channel of the pool stayed in use for the whole pool timeout; nothing was sent."""


class IndexedConnectionError(ConnectionError):
    """The connection broke while a request on an opened index was under way."""


class RecoverableConnectionError(IndexedConnectionError):
    """The connection broke before anything of the request was sent: nothing was done."""


class OutcomeUnknownError(IndexedConnectionError):
    """A write was sent and no trustworthy answer came: it may or may not have been done.

    `version` is the version the write would have given the row, where it has one: a row
    that carries it proves that the write was done.
    """

    version: int | None = None


class OperationalError(HandlerSocketError):
    """The server refused a request. `code` and `reason` are the server's own words.

    `code` is the first token of the reply (1 engine or lock, 2 request, 3 authentication),
    `reason` the text after it, such as "121" or "stmtnum".
    """

    code: int | None = None
    reason: str | None = None

    def __init__(self, message: str, *, code: int | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class DuplicateKeyError(OperationalError):
    """A row with this key (or this value of another unique index) exists already."""


class AuthenticationError(OperationalError):
    """The secret is missing or wrong."""


class TableNotFoundError(OperationalError):
    """The table does not exist, or is locked by SQL."""


class IndexNotFoundError(OperationalError):
    """The table has no index of this name."""


class ColumnNotFoundError(OperationalError):
    """A column in the list does not exist."""


class ReadOnlyError(OperationalError):
    """A write was sent to the read port."""


class LockTimeoutError(OperationalError):
    """A lock was not obtained in time; a single-row request changed nothing."""


class TransactionAbortedError(OperationalError, OutcomeUnknownError):
    """The server rolled back the batch that held this write; earlier successes are void too."""


class ProtocolError(HandlerSocketError):
    """What came back is not HandlerSocket; the connection was closed."""


class KeyTooLongError(HandlerSocketError, ValueError):
    """The key, prefix included, is longer than the key column; nothing was sent."""


class ValueTooLargeError(HandlerSocketError, ValueError):
    """The value is larger than the value column; nothing was sent."""


class SerializationError(HandlerSocketError, ValueError):
    """A value cannot be stored by this serializer, or a stored value cannot be read."""


class KeyMismatchError(HandlerSocketError):
    """The server answered for another key than was asked: its column is not byte-exact."""


class UnsupportedError(HandlerSocketError):
    """What was asked needs a column, or a kind of column, that the table does not have."""


class LeaseLostError(HandlerSocketError):
    """A lease ended, or another took it over, before its holder let go of it."""


class LeaseTimeoutError(HandlerSocketError, TimeoutError):
    """`with lease:` waited for as long as it may, and another holds it still."""


class RateLimitExceededError(HandlerSocketError):
    """A call of a limited function was refused, and not made.

    `limit` is how many are allowed. Seconds: `retry_after` until this one would be allowed if no
    others came, `reset_after` until all of the limit is there again.
    """

    def __init__(
        self, message: str, *, limit: int = 0, retry_after: float = 0.0, reset_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after
        self.reset_after = reset_after


class ContentionError(HandlerSocketError):
    """Other clients changed the same key in each of many rounds; nothing was changed here."""


class BatchError(HandlerSocketError):
    """A batch stopped half way; the first failure is its `__cause__`.

    `stored`, `failed` and `unknown` are the keys that are surely stored, surely not stored,
    and those of which neither is known.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: tuple[_Hashable, ...] = (),
        failed: tuple[_Hashable, ...] = (),
        unknown: tuple[_Hashable, ...] = (),
    ) -> None:
        super().__init__(message)
        self.stored = stored
        self.failed = failed
        self.unknown = unknown
