"""What MySQL's error numbers mean to a store: which exception, and what may be done next."""

from typing import Final

from ..exceptions import (
    AuthenticationError,
    ColumnNotFoundError,
    DuplicateKeyError,
    HandlerSocketError,
    IndexedConnectionError,
    LockTimeoutError,
    OperationalError,
    ReadOnlyError,
    RecoverableConnectionError,
    TableNotFoundError,
)

DEADLOCKS: Final = frozenset({1020, 1213})
"""The statement was undone as a whole for the sake of another: it may be sent again."""

ELSEWHERE: Final = frozenset({1047, 1290, 1792, 1836})
"""Nothing was done, since the server is not the one to write to (now)."""

_ENDING: Final = frozenset({1053, 1180, 1927})
"""The server ends the connection, or failed at the commit: what was under way may be done."""

_LOCK: Final = "another holds the row or the table for too long: try again, or end what holds it"
_RIGHTS: Final = "the user of sql= may not do this: GRANT it what the store needs"
_LOGIN: Final = (
    "the user or the password of sql= is wrong, or the server wants TLS of it: sql_ssl=on, or "
    "sql_ssl_cert"
)
_ERRORS: Final[dict[int, tuple[type[OperationalError], str]]] = {
    1317: (OperationalError, "somebody killed the statement, and nothing was done: try again"),
    1969: (OperationalError, "nothing was done: raise max_statement_time of the server"),
    1062: (
        DuplicateKeyError,
        "a row with this key exists already: take another key, or modify that row",
    ),
    1020: (LockTimeoutError, "another changed the row each time: try again"),
    1205: (LockTimeoutError, _LOCK),
    1213: (LockTimeoutError, "deadlocks with other statements, each time: try again"),
    1044: (AuthenticationError, _RIGHTS),
    1045: (AuthenticationError, _LOGIN),
    1142: (AuthenticationError, _RIGHTS),
    1143: (AuthenticationError, _RIGHTS),
    1130: (AuthenticationError, "the server lets nobody in from here"),
    1698: (AuthenticationError, "the user of sql= cannot log in from here"),
    4151: (AuthenticationError, "the user of sql= is locked: ALTER USER ... ACCOUNT UNLOCK"),
    1049: (TableNotFoundError, "the database does not exist: check its name in the URL"),
    1146: (TableNotFoundError, "the table does not exist: check the database and table names"),
    1054: (ColumnNotFoundError, "a column does not exist: check the names in the Table"),
    1290: (ReadOnlyError, "the server is read-only: does sql= name the one to write to?"),
    1792: (ReadOnlyError, "the server's transactions are read-only"),
    1836: (ReadOnlyError, "the server is read-only"),
    1021: (OperationalError, "the server's disk is full: free some space"),
    1114: (OperationalError, "the table is full: make room in it, or raise its limit"),
    1118: (OperationalError, "the row is too large for the table: use BLOB columns"),
    1406: (OperationalError, "the value is too long for its column: give the Table its width"),
    1264: (OperationalError, "the number is out of the range of its column"),
    1690: (OperationalError, "the number would leave the range of its column"),
    1366: (OperationalError, "the column cannot hold this value"),
    1364: (OperationalError, "a column that the Table does not name has no default: give it one"),
}


def refusal(number: int, message: str, server: object = "the server") -> HandlerSocketError:
    """The exception for an error that a server, which is named, answered with.

    Of a statement that was certainly not carried out an OperationalError, or, where another server
    is to be asked, RecoverableConnectionError; IndexedConnectionError where it may be done.
    """
    words = f"{server} said {number}: {message}"
    if number in _ENDING:
        return IndexedConnectionError(f"the server ended the connection meanwhile; {words}")
    if number == 1047:
        return RecoverableConnectionError(
            f"the Galera node has no majority, or is joining; {words}"
        )
    kind, advice = _ERRORS.get(number, (OperationalError, "the server refused the statement"))
    return kind(f"{advice} ({words})", code=number, reason=message)
