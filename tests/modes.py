"""The modes of a store that its whole suite runs in, by `--hskv-mode`: only the URL differs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import quote

import pymysql

from hskv.mariadb import PrivateGalera, PrivateReplication, PrivateServer
from hskv.mariadb.cluster import PrivateCluster

PLAIN: Final = "handlersocket"


class ServerInMode:
    """A server whose `url` opens stores in a mode; else it is the server."""

    def __init__(self, server: PrivateServer, url: Callable[[], str]) -> None:
        self._server = server
        self._url = url

    @property
    def url(self) -> str:
        """The URL of a store in the mode."""
        return self._url()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


def _sql(server: PrivateServer) -> str:
    socket = quote(str(server.directory / "sql.sock"), safe="/")
    return f"writes=sql&sql=mysql+unix://root@{socket}"


GetServer = Callable[[], PrivateServer]


@contextmanager
def _plain(get_server: GetServer) -> Iterator[Any]:
    yield get_server()


@contextmanager
def _by_sql(get_server: GetServer) -> Iterator[Any]:
    """Writes and reads by SQL."""
    server = _with_large_packets(get_server())
    yield ServerInMode(server, lambda: f"hskv:///hskv/kv?reads=sql&{_sql(server)}")


@contextmanager
def _mixed(get_server: GetServer) -> Iterator[Any]:
    """Writes by SQL, reads by HandlerSocket, on one server."""
    server = _with_large_packets(get_server())
    yield ServerInMode(server, lambda: f"{server.url}&{_sql(server)}")


def _with_large_packets(server: PrivateServer) -> PrivateServer:
    # Values of any size are tested, which SQL takes only as far as this.
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 1073741824")
    return server


# Commits by the thousand, one after another: what they wait for is other tests' concern.
_CLUSTER_OPTIONS: Final[Mapping[str, int]] = {
    "max_allowed_packet": 1 << 30,
    "innodb_flush_log_at_trx_commit": 2,
    "sync_binlog": 0,
}


def _on(make: Callable[..., PrivateCluster[Any]]) -> Callable[[GetServer], Any]:
    @contextmanager
    def on_cluster(_: GetServer) -> Iterator[Any]:
        """Writes by SQL to the primary, or one node; reads by HandlerSocket from the same."""
        with make(options=_CLUSTER_OPTIONS) as cluster:
            yield ServerInMode(cluster.servers[0], lambda: cluster.url)

    return on_cluster


MODES: Final[Mapping[str, Callable[[GetServer], Any]]] = {
    PLAIN: _plain,
    "sql": _by_sql,
    "mixed": _mixed,
    "replication": _on(PrivateReplication),
    "galera": _on(PrivateGalera),
}
"""What gives the server of a run, by the name of the mode; from the plain one, or others."""
