"""A private primary with replicas. Locks: none.

Every server is set up as a replica: read-only, and asking no other for its acknowledgement. SQL
alone makes one of them the primary. So a primary that crashed comes back as one that can do no
harm, whoever starts it.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from .cluster import ClusterError, Node, PrivateCluster, wait_until

_SETTINGS: Final[Mapping[str, str | int]] = {
    "max_connections": 500,
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "sync_binlog": 1,
    "log_slave_updates": 1,
    "gtid_strict_mode": 1,
    "relay_log": "relay",
    "slave_parallel_threads": 4,
    "slave_parallel_mode": "optimistic",
    "slave_net_timeout": 10,
    "read_only": 1,
}
_SEMI_SYNC: Final[Mapping[str, str | int]] = {
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_master_wait_no_slave": 1,
    # After it writes are acknowledged by the primary alone, in silence: 49 days.
    "rpl_semi_sync_master_timeout": 2**32 - 1,
    "rpl_semi_sync_slave_enabled": 1,
    # A primary that crashed drops what no replica had acknowledged.
    "init_rpl_role": "SLAVE",
}
_OTHER_HISTORY: Final = 1236


class ReplicationServer(Node):
    """A server of a `PrivateReplication`: its primary, or a replica."""

    def __init__(self, cluster: "PrivateReplication", number: int, *common: Any) -> None:
        super().__init__(*common)
        self._cluster = cluster
        self.number = number

    @property
    def is_primary(self) -> bool:
        """Whether it is the one to write to."""
        return self._cluster.primary is self

    @property
    def _cluster_settings(self) -> Mapping[str, str | int | None]:
        semi_sync = _SEMI_SYNC if self._cluster.semi_sync else {}
        return {"server_id": self.number, **_SETTINGS, **semi_sync}

    def _arguments(self) -> list[str]:
        # The primary keeps what no replica had acknowledged: one may have it all the same.
        return ["--init-rpl-role=MASTER"] if self.is_primary else []

    def _start(self, deadline: float) -> None:
        super()._start(deadline)
        self._cluster._place(self, deadline)


class PrivateReplication(PrivateCluster[ReplicationServer]):
    """A primary with replicas, private to this process, on loopback.

    A context manager, or `start` and `close`. Writes go to the primary by SQL, reads by
    HandlerSocket to any server: `url` opens a store so. With `semi_sync` a write is acknowledged
    when one replica has received it: what was acknowledged outlives the primary. Without, the
    last writes may be lost with it. `options` are settings of mariadbd for all servers,
    `start_timeout` is in seconds, for each start and promotion. `servers` are the servers in
    the order of the URL, whoever is the primary.

    Raises ServerStartError, ClusterError; ImportError without PyMySQL.
    """

    def __init__(
        self,
        replicas: int = 1,
        *,
        semi_sync: bool = True,
        options: Mapping[str, str | int | None] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if replicas < 1:
            raise ValueError(f"replicas is 1 or more, not {replicas}: one server is PrivateServer")
        super().__init__(start_timeout)
        self.semi_sync = semi_sync
        self._password = secrets.token_hex(16)
        common = (self._secret, self._sql_password, options or {}, start_timeout)
        numbers = range(1, replicas + 2)
        self.servers = [ReplicationServer(self, number, *common) for number in numbers]
        self.primary = self.servers[0]
        # Whether the primary takes writes; whether it does so with nobody who follows it.
        self._opened, self._alone = False, True

    @property
    def replicas(self) -> list[ReplicationServer]:
        """All servers but the primary, running or not."""
        return [server for server in self.servers if server is not self.primary]

    def promote(self, replica: ReplicationServer | None = None) -> ReplicationServer:
        """Make a replica the primary, and point the others at it. Gives the new primary.

        Where the primary runs it is stopped from writing first, and nothing is lost. Where it
        does not, a replica that has received the most is chosen, unless one is named; naming
        another is refused. Whoever is not running follows when it is started; a primary that
        nobody follows yet acknowledges alone. Raises ClusterError, before anything is changed
        where no replica can be promoted.
        """
        deadline = time.monotonic() + self._start_timeout
        chosen = self._candidate(replica)
        if self.primary.pid is not None:
            self._hand_over(chosen, deadline)
        else:
            self._catch_up(chosen, _status(chosen)["Gtid_IO_Pos"], deadline)
        chosen.query("STOP SLAVE")
        chosen.query("RESET SLAVE ALL")
        self.primary, self._alone = chosen, True
        for server in self.running:
            if server is not chosen:
                self._follow(server, deadline)
        self._lead(chosen)
        return chosen

    def _start_all(self, deadline: float) -> None:
        for server in [self.primary, *self.replicas]:
            server.start()
        self._opened = True
        self._lead(self.primary)

    def close(self) -> None:
        """Stop all servers and remove their data; the first server is the primary again."""
        super().close()
        self.primary = self.servers[0]
        self._opened, self._alone = False, True

    def _place(self, server: ReplicationServer, deadline: float) -> None:
        """What a server that was just started is told."""
        if not server.is_primary:
            self._follow(server, deadline)
            if self._opened and self.primary.pid is not None:
                self._lead(self.primary)
        elif self._opened:
            self._lead(server)
        else:
            self._make_accounts(server)

    def _make_accounts(self, server: ReplicationServer) -> None:
        self._make_table(server)
        server.query(f"CREATE USER replicator@'127.0.0.1' IDENTIFIED BY '{self._password}'")
        server.query("GRANT REPLICATION SLAVE ON *.* TO replicator@'127.0.0.1'")

    def _lead(self, server: ReplicationServer) -> None:
        """Open a server for writes, which wait for a replica as soon as there was one."""
        if self.semi_sync and not self._alone:
            server.query("SET GLOBAL rpl_semi_sync_master_enabled = ON")
        server.query("SET GLOBAL read_only = OFF")

    def _follow(self, server: ReplicationServer, deadline: float) -> None:
        """Make a server a replica of the primary; wait until it has all, where that runs."""
        server.query("SET GLOBAL read_only = ON")
        server.query("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
        server.query("STOP SLAVE")
        # What it had as the primary counts as what it has received.
        server.query(
            "CHANGE MASTER TO master_host = '127.0.0.1', master_port = %s, "
            "master_user = 'replicator', master_password = %s, master_connect_retry = 1, "
            "master_use_gtid = slave_pos, master_demote_to_slave = 1",
            int(self.primary._ports["sql"]),
            self._password,
        )
        server.query("START SLAVE")
        if self.primary.pid is not None:
            wait_until(lambda: _runs(server), server, deadline, f"{server!r} does not replicate")
            self._catch_up(server, _written(self.primary), deadline)
            self._alone = False

    def _hand_over(self, chosen: ReplicationServer, deadline: float) -> None:
        """Stop the primary from writing, and wait until a replica has all that it wrote."""
        old = self.primary
        old.query("SET GLOBAL read_only = ON")
        try:
            self._catch_up(chosen, _written(old), deadline)
        except BaseException:
            old.query("SET GLOBAL read_only = OFF")
            raise

    def _catch_up(self, server: ReplicationServer, position: str, deadline: float) -> None:
        seconds = max(0.0, deadline - time.monotonic())
        waited = server.query(
            "SELECT MASTER_GTID_WAIT(%s, %s) AS late", position, seconds, timeout=seconds + 1.0
        )
        if waited[0]["late"]:
            raise server._failed(ClusterError, f"{server!r} did not reach {position} in time")

    def _candidate(self, named: ReplicationServer | None) -> ReplicationServer:
        """The replica to promote."""
        running = [server for server in self.running if server is not self.primary]
        if named is not None and named not in running:
            raise ClusterError(f"{named!r} is no running replica: start it, or name another")
        if not running:
            raise ClusterError("no replica runs: start one, or start the primary again")
        received = {server: _sequence(_status(server)["Gtid_IO_Pos"]) for server in running}
        most = max(received.values())
        chosen = named or next(server for server in running if received[server] == most)
        if self.primary.pid is None and received[chosen] < most:
            raise ClusterError(
                f"{chosen!r} has received less than another replica: what was acknowledged by "
                "that one would be lost; promote without naming one"
            )
        return chosen


def _written(server: Node) -> str:
    """The GTID position of its last write."""
    return str(server.ask("SELECT @@gtid_binlog_pos"))


def _status(server: Node) -> dict[str, Any]:
    rows = server.query("SHOW SLAVE STATUS")
    if not rows:
        raise ClusterError(f"{server!r} is no replica: start it again")
    status: dict[str, Any] = rows[0]
    return status


def _runs(server: Node) -> bool:
    """Whether a replica replicates. Raises ClusterError where it never will."""
    status = _status(server)
    if status["Last_IO_Errno"] == _OTHER_HISTORY:
        raise ClusterError(
            f"{server!r} has transactions that the primary has not ({status['Last_IO_Error']}): "
            "its data must be made anew from the primary's"
        )
    if status["Last_SQL_Errno"]:
        raise server._failed(ClusterError, f"a replica stopped: {status['Last_SQL_Error']}")
    return bool(status["Slave_IO_Running"] == status["Slave_SQL_Running"] == "Yes")


def _sequence(position: str) -> int:
    """The last number of a GTID position; there is one domain."""
    return int(position.rpartition("-")[2] or 0)
