"""Which of several servers takes writes, asked by SQL. Locks: none.

An administrator may write to a read-only replica too: what is made there is on that server alone,
and replication stops at it.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from ..store.schema import query
from .cluster import ClusterError


def writable(connections: Iterable[Any]) -> Any:
    """The first of these PyMySQL connections whose server takes writes.

    That is one which is not read-only and, in Galera, has a majority. Raises ClusterError, with
    what each of them is instead.
    """
    troubles = []
    for connection in connections:
        trouble = _trouble(connection)
        if trouble is None:
            return connection
        troubles.append(f"{name(connection)}: {trouble}")
    raise _none(troubles)


def connect_writable(logins: Iterable[Mapping[str, Any]]) -> Any:
    """A connection to the first server that takes writes, committed at once; close it.

    `logins` are keyword arguments for `pymysql.connect`. A server that cannot be had is passed
    over: its error is PyMySQL's, the first one, where that is so of all. Raises ClusterError where
    one answers, and none takes writes.
    """
    import pymysql

    troubles, errors = [], []
    for login in logins:
        with ExitStack() as stack:
            try:
                connection = pymysql.connect(**login, autocommit=True)
            except pymysql.MySQLError as error:
                errors.append(error)
                troubles.append(f"{_place(login)}: {error.args[-1]}")
                continue
            stack.callback(connection.close)
            trouble = _trouble(connection)
            if trouble is None:
                stack.pop_all()
                return connection
            troubles.append(f"{name(connection)}: {trouble}")
    if len(errors) == len(troubles):
        raise errors[0]
    raise _none(troubles)


def is_galera(connection: Any) -> bool:
    """Whether the server is a node of a Galera cluster."""
    return _variable(connection, "VARIABLES", "wsrep_on") == "ON"


def name(connection: Any) -> str:
    """The server of a connection, for messages: the path of its socket, or HOST:PORT."""
    return connection.unix_socket or f"{connection.host}:{connection.port}"


def _place(login: Mapping[str, Any]) -> str:
    return str(login.get("unix_socket") or f"{login.get('host')}:{login.get('port', 3306)}")


def _trouble(connection: Any) -> str | None:
    """Why a server is not to be written to, None where it is."""
    # By SHOW, which a node without a majority answers too.
    if _variable(connection, "VARIABLES", "read_only") != "OFF":
        return "it is read-only"
    if is_galera(connection) and _variable(connection, "STATUS", "wsrep_ready") != "ON":
        return "it has no majority, or is joining"
    return None


def _variable(connection: Any, kind: str, variable: str) -> str | None:
    rows = query(connection, f"SHOW GLOBAL {kind} LIKE %s", variable)
    return str(rows[0][1]) if rows else None


def _none(troubles: Iterable[str]) -> ClusterError:
    return ClusterError(
        f"none of these servers takes writes, and nothing was changed: {'; '.join(troubles)}. "
        "Name the one that is written to; where none is, promote a replica, or SET GLOBAL "
        "read_only = OFF on a server that replicates from nobody"
    )
