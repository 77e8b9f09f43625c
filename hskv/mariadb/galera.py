"""A private Galera cluster. Locks: none."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .cluster import ClusterError, Node, PrivateCluster, wait_until
from .files import free_ports, install_datadir, prepare_datadir, quoted, write_private
from .process import as_server_user, give_to_server_user, run
from .programs import ServerStartError

_SETTINGS: Final[Mapping[str, str | int]] = {
    "max_connections": 500,
    "binlog_format": "ROW",
    "innodb_autoinc_lock_mode": 2,
    "wsrep_on": 1,
    "wsrep_cluster_name": "hskv",
    "wsrep_slave_threads": 4,
    "wsrep_sst_method": "rsync",
    "wsrep_node_address": "127.0.0.1",
}
# A node that is gone is missed after two seconds; by default it takes five. With a shorter
# evs.inactive_timeout the others may not agree in time on going on without it; see
# docs/replication.md.
_PROVIDER: Final[Mapping[str, str]] = {
    "gcache.size": "64M",
    "evs.keepalive_period": "PT0.5S",
    "evs.inactive_check_period": "PT0.25S",
    "evs.suspect_timeout": "PT2S",
}
_PROVIDERS: Final = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
    "/usr/lib/libgalera_smm.so",
)
_SYNCED: Final = "4"
# Apart from those of clients, which are chosen when other nodes do not listen yet.
_PEER_PORTS: Final = range(12000, 15000)


class GaleraNode(Node):
    """A server of a `PrivateGalera`."""

    def __init__(self, cluster: "PrivateGalera", number: int, *common: Any) -> None:
        super().__init__(*common)
        self._cluster = cluster
        self.number = number
        self.peer_ports = ("", "", "")

    @property
    def status(self) -> dict[str, str]:
        """What `SHOW STATUS LIKE 'wsrep%'` tells: `wsrep_ready`, `wsrep_local_state` and more."""
        rows = self.query("SHOW GLOBAL STATUS LIKE 'wsrep%'")
        return {row["Variable_name"]: row["Value"] for row in rows}

    def isolate(self) -> None:
        """Cut it off from the others, as a broken network does, until `reunite` or a restart.

        It soon refuses SQL, and goes on answering HandlerSocket with what it has.
        """
        self.query("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")

    def reunite(self) -> None:
        """End `isolate`, and wait until it has caught up. Raises ClusterError when it is late."""
        self.query("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
        deadline = time.monotonic() + self._start_timeout
        wait_until(self._is_synced, self, deadline, f"{self!r} does not rejoin")

    @property
    def peer_address(self) -> str:
        """HOST:PORT where the other nodes reach it."""
        return f"127.0.0.1:{self.peer_ports[0]}"

    @property
    def _cluster_settings(self) -> Mapping[str, str | int | None]:
        _, incremental, state = self.peer_ports
        provider = {
            "gmcast.listen_addr": f"tcp://{self.peer_address}",
            "ist.recv_addr": f"127.0.0.1:{incremental}",
            **_PROVIDER,
        }
        peers = ",".join(node.peer_address for node in self._cluster.servers)
        return {
            **_SETTINGS,
            "wsrep_provider": self._cluster.provider,
            "wsrep_cluster_address": f"gcomm://{peers}",
            "wsrep_node_name": f"node{self.number}",
            "wsrep_node_incoming_address": self.sql_listener,
            "wsrep_sst_receive_address": f"127.0.0.1:{state}",
            "wsrep_provider_options": quoted(";".join(f"{k}={v}" for k, v in provider.items())),
        }

    @property
    def _leads(self) -> bool:
        return self._cluster.bootstrapping is self

    def _start(self, deadline: float) -> None:
        if not self._cluster.running and not self._leads:
            raise ClusterError(
                "no node runs that this one could join: PrivateGalera.start() begins with the "
                "one that has the most"
            )
        prepare_datadir(self.datadir)
        # Any other gets its data from a node that has it.
        if self._leads:
            install_datadir(self._programs, self.datadir, self._tmpdir, deadline)
        give_to_server_user(self.datadir)
        self._start_somewhere(deadline)

    def _arguments(self) -> list[str]:
        return ["--wsrep-new-cluster"] if self._leads else []

    def _check_sql(self) -> None:
        super()._check_sql()
        if not self._is_synced():
            raise OSError("it has not joined the cluster yet")

    def _is_synced(self) -> bool:
        status = self.status
        return status.get("wsrep_ready") == "ON" and status["wsrep_local_state"] == _SYNCED

    def recovered_position(self, seconds: float) -> int:
        """The number of the last transaction in its data, while it is stopped; -1 for none.

        Takes the server about a second. Raises ServerStartError when it cannot tell.
        """
        if not (self.datadir / "mysql").is_dir():
            return -1
        log = self.directory / "recovery.log"
        log.unlink(missing_ok=True)
        trouble = run(
            [
                *as_server_user(self._programs.setpriv),
                *self._command(),
                "--wsrep-recover",
                f"--log-error={log}",
            ],
            seconds,
        )
        text = log.read_text(errors="replace") if log.exists() else ""
        found = re.search(r"Recovered position: \S+:(-?\d+)", text)
        if trouble is not None or found is None:
            raise ServerStartError(f"no position was found in {self.datadir}: {trouble}")
        return int(found[1])

    def allow_bootstrap(self) -> None:
        """Let a cluster begin with its data."""
        state = self.datadir / "grastate.dat"
        if state.exists():
            text = state.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1")
            write_private(state, text)


class PrivateGalera(PrivateCluster[GaleraNode]):
    """A Galera cluster, private to this process, on loopback: every node has all the data.

    A context manager, or `start` and `close`. Writes go to one node by SQL, reads by
    HandlerSocket to any: `url` opens a store so. A node that is killed is missed by the others
    after two to five seconds, and rejoins by `start`, with a fresh copy of the data. When all
    were stopped or killed, `start` begins with the node that has the most. `options` are
    settings of mariadbd for all nodes, `start_timeout` is in seconds, for each node. Needs
    Debian's packages `galera-4` and `rsync`.

    Raises ServerStartError, ClusterError; ImportError without PyMySQL.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        options: Mapping[str, str | int | None] | None = None,
        start_timeout: float = 90.0,
    ) -> None:
        if nodes < 2:
            raise ValueError(f"nodes is 2 or more, and best odd, not {nodes}")
        super().__init__(start_timeout)
        self.provider = _provider()
        self.bootstrapping: GaleraNode | None = None
        self._made = False
        common = (self._secret, self._sql_password, options or {}, start_timeout)
        self.servers = [GaleraNode(self, number, *common) for number in range(1, nodes + 1)]

    @property
    def nodes(self) -> Sequence[GaleraNode]:
        """Its servers, in the order of the URL."""
        return self.servers

    def _start_all(self, deadline: float) -> None:
        if not self._made:
            ports = free_ports(3 * len(self.servers), _PEER_PORTS)
            for node in self.servers:
                node.peer_ports = ports.pop(), ports.pop(), ports.pop()
            self._bootstrap(self.servers[0])
            self._make_table(self.servers[0])
            self._made = True
        elif not self.running:
            newest = self._newest(deadline)
            newest.allow_bootstrap()
            self._bootstrap(newest)
        for node in self.servers:
            node.start()

    def close(self) -> None:
        """Stop all nodes and remove their data."""
        super().close()
        self._made = False

    def _bootstrap(self, first: GaleraNode) -> None:
        self.bootstrapping = first
        try:
            first.start()
        finally:
            self.bootstrapping = None

    def _newest(self, deadline: float) -> GaleraNode:
        """The node whose data all are to have."""
        positions = {
            node: node.recovered_position(max(0.0, deadline - time.monotonic()))
            for node in self.servers
        }
        return max(self.servers, key=lambda node: positions[node])


def _provider() -> str:
    for path in _PROVIDERS:
        if Path(path).exists():
            return path
    raise ServerStartError(
        "libgalera_smm.so was not found; install it (on Debian: apt-get install galera-4 rsync)"
    )
