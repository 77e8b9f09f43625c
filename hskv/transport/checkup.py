"""Asks one server by SQL whether its copy of the data may be read from.

HandlerSocket cannot tell: a Galera node without a majority, and a replica whose replication
stands still, go on answering with what they had. Locks: none; an `Examiner` is for one thread.
"""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple

from .fork import renew_after_fork

DEFAULT_MAX_LAG_SECONDS: Final = 10.0

_ROLE: Final = "SELECT @@global.read_only, @@global.wsrep_on"
_GALERA: Final = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state', 'wsrep_ready')"
_REPLICATION: Final = "SHOW ALL SLAVES STATUS"
_SYNCED: Final = "4"


class Checkup(NamedTuple):
    """What came of asking a server.

    `trouble` is why it must not be read from, None where it may; `primary` whether it takes
    writes and follows nobody: a primary, or any healthy node of Galera.
    """

    trouble: str | None
    primary: bool = False


class Examiner:
    """Asks one server, again and again, on a connection that it keeps.

    `connect` gives a PyMySQL connection with timeouts. A replica is well while what it shows is
    known to be at most `max_lag` seconds old: also when it has just lost its primary.
    """

    def __init__(self, connect: Callable[[], Any], max_lag: float) -> None:
        self._connect = connect
        self._max_lag = max_lag
        self._connection: Any = None
        # Until when a replica that cannot reach its primary is new enough.
        self._new_until = float("-inf")
        renew_after_fork(self)

    def __call__(self) -> Checkup:
        """Ask; whatever goes wrong is a trouble of the server. Two or three round trips."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            return self._examined()
        except Exception as error:  # noqa: BLE001 it is told, and who cannot tell is not well
            self.close()
            return Checkup(f"SQL failed: {error}")

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # It may be closed already, where it broke.
            with suppress(Exception):
                connection.close()

    def after_fork(self) -> None:
        """In a child: close its copy of the connection, without a word to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection._force_close()

    def _examined(self) -> Checkup:
        ((read_only, galera),) = self._rows(_ROLE)
        if galera:
            trouble = _trouble_of_node(dict(self._rows(_GALERA)))
            return Checkup(trouble, primary=trouble is None and not read_only)
        replication = self._dicts(_REPLICATION)
        if not replication:
            trouble = "it is read-only, and replicates from nobody" if read_only else None
            return Checkup(trouble, primary=trouble is None)
        troubles = (self._trouble_of_replica(status) for status in replication)
        return Checkup(next(filter(None, troubles), None))

    def _trouble_of_replica(self, status: dict[str, Any]) -> str | None:
        receives, applies = status["Slave_IO_Running"], status["Slave_SQL_Running"]
        now = monotonic()
        if applies != "Yes" or receives not in ("Yes", "Connecting"):
            reason = status["Last_SQL_Error"] or status["Last_IO_Error"]
            return f"replication is stopped{reason and ': '}{reason}"
        lag = status["Seconds_Behind_Master"]
        if receives == "Yes" and lag is not None:
            self._new_until = now + self._max_lag - lag
        if now <= self._new_until:
            return None
        if lag is None:
            return f"it lost its primary more than {self._max_lag:g} s ago, or never had it"
        return f"it is {lag} s behind, more than max_lag ({self._max_lag:g} s)"

    def _rows(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def _dicts(self, statement: str) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _trouble_of_node(status: dict[str, str]) -> str | None:
    ready, state = status.get("wsrep_ready"), status.get("wsrep_local_state")
    if ready == "ON" and state == _SYNCED:
        return None
    return f"it is no synced node of its cluster (wsrep_ready {ready}, wsrep_local_state {state})"
