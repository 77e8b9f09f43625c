"""HandlerSocket of the server that is written to by SQL, whichever that is now. Locks: none."""

from collections.abc import Mapping
from time import monotonic

from ..exceptions import ConnectionError, HandlerSocketError, PoolTimeoutError
from .address import Settings
from .channel import Channel
from .health import Health
from .pairs import sql_ports
from .servers import Servers
from .sql_servers import SqlPool, SqlServers


class NotByHandlerSocketError(HandlerSocketError):
    """By which listener to read what was written is not known now: read it by SQL."""


class PrimaryServer:
    """Of several servers that are read from, the one that this process writes to.

    It must be the one that SQL was last sent to, and by its own word a primary (in Galera: a
    node that is well) within the last second or so. Where the two differ, as in the midst of a
    promotion, or where its listener fails, NotByHandlerSocketError is raised at once.
    """

    def __init__(
        self,
        servers: Servers[Channel],
        health: Health,
        writers: SqlServers,
        places: Mapping[SqlPool, int],
    ) -> None:
        """`places` are those of the servers, by the pools of their SQL ports."""
        self._servers = servers
        self._health = health
        self._writers = writers
        self._places = places
        # A channel goes back as any other does.
        self.release, self.discard = servers.release, servers.discard
        self.purge, self.drain, self.resume = servers.purge, servers.drain, servers.resume
        self.stats, self.close = servers.stats, servers.close

    @property
    def closed(self) -> bool:
        """As of the servers."""
        return self._servers.closed

    def acquire(self) -> Channel:
        """A channel to it. Raises NotByHandlerSocketError; PoolTimeoutError."""
        place = self._places.get(self._writers.writer)
        try:
            if place is not None and place in self._health.primaries(monotonic()):
                return self._servers.acquire_from(place)
        except PoolTimeoutError:
            raise
        except ConnectionError as error:
            raise NotByHandlerSocketError(str(error)) from error
        raise NotByHandlerSocketError("it is not known now which server is the primary")


def primary_server(
    settings: Settings, servers: Servers[Channel], health: Health, writers: SqlServers
) -> PrimaryServer:
    """Of the servers that settings name, the one that is written to."""
    hosts = settings.sql.hosts if settings.sql else ()
    pools = dict(zip(hosts, writers.pools, strict=True))
    ports = sql_ports(settings.readers, hosts)
    places = {pools[port]: place for place, port in enumerate(ports) if port is not None}
    return PrimaryServer(servers, health, writers, places)
