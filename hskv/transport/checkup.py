"""Asks one server by SQL whether its copy of the data may be read from.

HandlerSocket cannot tell: a Galera node without a majority, and a replica whose replication
stands still, go on answering with what they had. Locks: none; an `Examiner` is for one thread.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from .sql_channel import SqlChannel

_READ_ONLY: Final = b"SELECT @@global.read_only;"
_REPLICATION: Final = _READ_ONLY + b"SHOW ALL SLAVES STATUS"
_GALERA: Final = (
    _READ_ONLY + b"SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state', 'wsrep_ready')"
)
_SYNCED: Final = "4"
_NO_AUTOCOMMIT: Final = (
    "it has autocommit=0, with which HandlerSocket shows a row for ever as it was at first: set "
    "autocommit=1 in its configuration, and restart it"
)


class Checkup(NamedTuple):
    """What came of asking a server.

    `trouble` is why it must not be read from, None where it may; `primary` whether it takes
    writes and follows nobody: a primary, or any healthy node of Galera.
    """

    trouble: str | None
    primary: bool = False


class Examiner:
    """Asks one server, again and again, on a connection that it keeps.

    A replica is well while what it shows is known to be at most `max_lag` seconds old: so also
    when it has just lost its primary, or is being made one. One that somebody stopped is not.
    """

    def __init__(
        self, connect: Callable[[], SqlChannel], max_lag: float, *, by_handlersocket: bool = True
    ) -> None:
        self._connect = connect
        self._by_handlersocket = by_handlersocket
        self._max_lag = max_lag
        self._channel: SqlChannel | None = None
        # Until when it is new enough, whatever becomes of its primary.
        self._new_until = float("-inf")

    def __call__(self) -> Checkup:
        """Ask, in one round trip; whatever goes wrong is a trouble of the server."""
        try:
            if self._channel is None:
                self._channel = self._connect()
            return self._examined(self._channel)
        except Exception as error:  # noqa: BLE001 it is told, and who cannot tell is not well
            self.close()
            return Checkup(f"SQL failed: {error}")

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _examined(self, channel: SqlChannel) -> Checkup:
        # As it was when HandlerSocket's threads began: what SET GLOBAL says does not reach them.
        if self._by_handlersocket and not channel.state.autocommit:
            return Checkup(_NO_AUTOCOMMIT)
        statements = _GALERA if channel.state.wsrep_on else _REPLICATION
        deadline = monotonic() + channel.timeout
        results, refused = channel.run(statements, 2, deadline)
        if refused is not None:
            raise refused
        writable = results[0].rows[0][0] == b"0"
        if channel.state.wsrep_on:
            trouble = _trouble_of_node(
                {_text(name): _text(value) for name, value in results[1].rows}
            )
            return Checkup(trouble, primary=writable and trouble is None)
        names, rows = channel.column_names, results[1].rows
        primaries = [dict(zip(names, map(_text, row), strict=True)) for row in rows]
        return self._of_server(writable, primaries)

    def _of_server(self, writable: bool, primaries: list[dict[str, str | None]]) -> Checkup:
        """Of one that follows these, or none."""
        if primaries:
            troubles = (self._trouble_of_replica(status) for status in primaries)
            return Checkup(next(filter(None, troubles), None))
        if writable:
            self._new_until = monotonic() + self._max_lag
            return Checkup(None, primary=True)
        if monotonic() <= self._new_until:
            return Checkup(None)
        return Checkup("it is read-only, and replicates from nobody")

    def _trouble_of_replica(self, status: dict[str, str | None]) -> str | None:
        receives, applies = status["Slave_IO_Running"], status["Slave_SQL_Running"]
        now = monotonic()
        if applies != "Yes" or receives not in ("Yes", "Connecting"):
            reason = status["Last_SQL_Error"] or status["Last_IO_Error"]
            return f"replication is stopped{reason and ': '}{reason}"
        lag = status["Seconds_Behind_Master"]
        if receives == "Yes" and lag is not None:
            self._new_until = now + (self._max_lag - int(lag))
        if now <= self._new_until:
            return None
        if lag is None:
            return f"it lost its primary more than {self._max_lag:g} s ago, or never had it"
        return f"it is {lag} s behind, more than max_lag ({self._max_lag:g} s)"


def _trouble_of_node(status: dict[str | None, str | None]) -> str | None:
    ready, state = status.get("wsrep_ready"), status.get("wsrep_local_state")
    if ready == "ON" and state == _SYNCED:
        return None
    return f"it is no synced node of its cluster (wsrep_ready {ready}, wsrep_local_state {state})"


def _text(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode("utf-8", "replace")
