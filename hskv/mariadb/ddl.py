"""A change of a table that HandlerSocket has open, on one server or on all of a cluster.

HandlerSocket keeps the tables that it reads open for as long as anyone is connected, idle or not,
and a change of the table waits for it: on a replica that stops replication, in a Galera cluster
the writes of all nodes. So the clients let go first. Locks: none.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from ..store.schema import query
from .cluster import ClusterError
from .writable import is_galera, name, writable

_POLL_SECONDS: Final = 0.05
_CONNECTIONS: Final = re.compile(r"handlersocket: mode=.., (\d+) conns")


def change_table(
    statement: str,
    servers: Sequence[Mapping[str, Any]],
    *,
    drain: Callable[[], object],
    resume: Callable[[], object],
    timeout: float = 30.0,
) -> None:
    """Run a statement such as ALTER TABLE while no client has the table open.

    `servers` are keyword arguments for `pymysql.connect`, of each server that HandlerSocket reads
    from and of the one that is written to; the first of them that takes writes runs the
    statement. The user needs PROCESS and the right to change the table. `drain` makes every
    process that uses hskv call `Client.drain`, and need not wait until they have; `resume` makes
    them call `Client.resume`, and is called whatever happens. Requests wait meanwhile, for at
    most their `pool_timeout`.

    Returns when every server has the change. Within `timeout` seconds, or raises ClusterError,
    which says whether the statement was run; so where none takes writes. An error of the
    statement is PyMySQL's.
    """
    import pymysql

    deadline = time.monotonic() + timeout
    with ExitStack() as stack:
        connections = [
            stack.enter_context(
                closing(pymysql.connect(**login, autocommit=True, read_timeout=timeout))
            )
            for login in servers
        ]
        try:
            drain()
            for connection in connections:
                _wait_until_unused(connection, deadline)
            # Not before: another may have been promoted meanwhile.
            first = writable(connections)
            _run(first, statement, deadline)
            for other in connections:
                if other is not first:
                    _wait_until_there(first, other, deadline)
        finally:
            resume()


def _wait_until_unused(connection: Any, deadline: float) -> None:
    while (count := handlersocket_connections(connection)) > 0:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{count} HandlerSocket connections are still open on {name(connection)}: "
                "drain every process that uses it; nothing was changed"
            )
        time.sleep(_POLL_SECONDS)


def handlersocket_connections(connection: Any) -> int:
    """How many connections HandlerSocket has, by the list of processes; the user needs PROCESS."""
    threads = query(connection, "SELECT state FROM information_schema.processlist")
    found = (_CONNECTIONS.match(state or "") for (state,) in threads)
    return sum(int(match[1]) for match in found if match)


def _run(connection: Any, statement: str, deadline: float) -> None:
    # Whoever connects now is waited for, but not for ever.
    query(connection, f"SET SESSION lock_wait_timeout = {math.ceil(_left(deadline))}")
    query(connection, statement)


def _wait_until_there(first: Any, other: Any, deadline: float) -> None:
    """Wait until another server has done what the first has."""
    if is_galera(other):
        done = _committed(first)
        while not (there := _committed(other) >= done) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    else:
        ((position,),) = query(first, "SELECT @@gtid_binlog_pos")
        ((late,),) = query(other, "SELECT MASTER_GTID_WAIT(%s, %s)", position, _left(deadline))
        there = not late
    if not there:
        raise ClusterError(
            f"the statement was run, but {name(other)} has not done it yet: look at its SHOW "
            "PROCESSLIST; where it waits for a metadata lock, drain the clients once more"
        )


def _committed(connection: Any) -> int:
    ((_, number),) = query(connection, "SHOW GLOBAL STATUS LIKE 'wsrep_last_committed'")
    return int(number)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
