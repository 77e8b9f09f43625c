"""The clients that are measured: to add one is to write one small class.

Each takes the place of a server and has five operations on a table `kv`, a redis or a memcached of
its own. What is measured is prepared before: a raw loop's bytes, the items of a batch.
"""

import importlib
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

VALUE = "x" * 100
NEVER = 2**63 - 1
FILTERS = ("kind", "expires", "n", "version", "k")
COLUMNS = ("k", "v", "n", "kind", "version", "expires")


class Place(NamedTuple):
    """Where the servers are: URLs for hskv, arguments for a SQL client, paths or ports."""

    hskv: str
    sql: dict[str, Any]
    redis: str
    memcached: str


class Contender(Protocol):
    """A client; what it returns is checked once, before it is measured."""

    def get(self, key: str) -> Any: ...  # noqa: D102 as its name says
    def set(self, key: str, value: Any) -> object: ...  # noqa: D102 as above
    def incr(self, key: str) -> int: ...  # noqa: D102 as above
    def get_many(self, keys: Sequence[str]) -> Any: ...  # noqa: D102 as above
    def set_many(self, items: Mapping[str, Any]) -> object: ...  # noqa: D102 as above


class Store:
    """hskv's store: pool, expiry filter, typed values."""

    def __init__(self, place: Place) -> None:
        import hskv

        store: hskv.KeyValueStore[str, Any] = hskv.connect(place.hskv, pool_size=16)
        self.get, self.set, self.incr = store.get, store.set, store.incr
        self.get_many, self.set_many = store.get_many, store.set_many


class Find:
    """hskv's Client without a store: only finds."""

    def __init__(self, place: Place) -> None:
        import hskv

        client = hskv.Client(place.hskv, pool_size=16)
        index = client.open("kv", ["v", "n", "kind"], filter_columns=FILTERS)
        self.get = lambda key: client.find(index, "=", [key])[0][0]


class RawLoop:
    """A socket and prebuilt bytes, those that the store sends: what no client can beat."""

    bare = False

    def __init__(self, place: Place) -> None:
        from hskv.transport.address import load_settings
        from hskv.wire import requests

        settings = load_settings(place.hskv)
        self._requests = requests
        self._built: dict[Any, tuple[bytes, ...]] = {}
        self._turn = 0
        opened = (
            ["v", "n", "kind"],
            ["k", "v", "n", "kind"],
            COLUMNS[1:],
            ["n", "version"],
            COLUMNS,
        )
        self._reader, self._writer = (
            self._connected(side[0], secret.read() or b"", opened)
            for side, secret in (
                (settings.readers, settings.secret),
                (settings.writers, settings.write_secret),
            )
        )

    def _connected(self, address: Any, secret: bytes, opened: Any) -> socket.socket:
        if address.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address.path)
        else:
            sock = socket.create_connection((address.host, address.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [self._requests.auth(secret)]
        for number, columns in enumerate(opened):
            line = self._requests.open_index(number, "hskv", "kv", "PRIMARY", columns, FILTERS)
            lines.append(line)
        sock.send(b"".join(lines))
        received = b""
        while received.count(b"\n") < len(lines):
            received += sock.recv(1 << 16)
        return sock

    def _prepared(self, what: Any, build: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        if what not in self._built:
            self._built[what] = build()
        return self._built[what]

    def _live(self) -> list[Any]:
        return [] if self.bare else [self._requests.Filter(1, ">", b"1700000000000")]

    def get(self, key: str) -> bytes:
        """One find; the reply is not looked into."""
        if (packet := self._built.get(key)) is None:
            find = self._requests.find("=", [key.encode()], filters=self._live())
            packet = self._prepared(key, lambda: (b"0" + find,))
        self._reader.send(packet[0])
        data = self._reader.recv(1 << 14)
        if data[-1] != 10:
            parts = [data]
            while data[-1] != 10:
                data = self._reader.recv(1 << 18)
                parts.append(data)
            return parts[0]
        return data

    def _update(self, key: str, value: Any, version: int) -> bytes:
        data = value.encode() if isinstance(value, str) else value
        row = [data, b"0", b"1", b"%d" % version, b"%d" % NEVER]
        return b"2" + self._requests.find_modify("=", [key.encode()], "U", row)

    def _insert(self, key: str, value: str) -> bytes:
        row = [key.encode(), value.encode(), b"0", b"1", b"5", b"%d" % NEVER]
        return b"4" + self._requests.insert(row)

    def set(self, key: str, value: Any) -> None:
        """An update; in turns of two versions, since what changes nothing is not written."""
        if (packets := self._built.get((key, id(value)))) is None:
            versions = (2**61, 2**61 + 1)
            build = lambda: tuple(self._update(key, value, one) for one in versions)  # noqa: E731
            packets = self._prepared((key, id(value)), build)
        self._turn ^= 1
        self._writer.send(packets[self._turn])
        self._writer.recv(1 << 14)

    def incr(self, key: str) -> int:
        """One `+?`, with the filters of the store."""
        if (packet := self._built.get(("+", key))) is None:
            named = self._requests.Filter
            room = [named(0, "=", b"2"), *self._live(), named(2, "<=", b"%d" % (NEVER - 1))]
            line = self._requests.find_modify("=", [key.encode()], "+?", [b"1", b"1"], filters=room)
            packet = self._prepared(("+", key), lambda: (b"3" + line,))
        self._writer.send(packet[0])
        return int(self._writer.recv(1 << 14).split(b"\t")[2]) + 1

    def get_many(self, keys: Sequence[str]) -> bytes:
        """One IN."""
        if (packet := self._built.get(("many", id(keys)))) is None:
            values: Any = self._requests.In(0, [key.encode() for key in keys])
            find = self._requests.find("=", [b""], len(keys), 0, values, self._live())
            packet = self._prepared(("many", id(keys)), lambda: (b"1" + find,))
        self._reader.sendall(packet[0])
        data = self._reader.recv(1 << 16)
        while data[-1] != 10:
            data += self._reader.recv(1 << 16)
        return data

    def set_many(self, items: Mapping[str, str]) -> None:
        """A packet of updates, and where the first finds no row one of inserts."""
        if (packets := self._built.get(("set", id(items)))) is None:
            versions = (2**61, 2**61 + 1)
            updates = [
                b"".join(self._update(key, value, version) for key, value in items.items())
                for version in versions
            ]
            inserts = b"".join(self._insert(key, value) for key, value in items.items())
            packets = self._prepared(("set", id(items)), lambda: (*updates, inserts))
        self._turn ^= 1
        if self._many(packets[self._turn], len(items)).startswith(b"0\t1\t0"):
            self._many(packets[2], len(items))

    def _many(self, packet: bytes, replies: int) -> bytes:
        self._writer.sendall(packet)
        data = self._writer.recv(1 << 16)
        while data.count(b"\n") < replies:
            data += self._writer.recv(1 << 16)
        return data

    def prepare(self, items: Sequence[Mapping[str, str]]) -> None:
        """Build what `set_many` will send."""
        for one in items:
            updates = b"".join(self._update(key, value, 2**61) for key, value in one.items())
            inserts = b"".join(self._insert(key, value) for key, value in one.items())
            self._built["set", id(one)] = (updates, updates, inserts)


class BareLoop(RawLoop):
    """The raw loop without the filter by expiry."""

    bare = True


class Memcache:
    """pymemcache's Client."""

    pooled = False

    def __init__(self, place: Place) -> None:
        base: Any = importlib.import_module("pymemcache.client.base")
        server: Any = place.memcached
        if not server.startswith("/"):
            host, port = server.split(":")
            server = (host, int(port))
        kind = base.PooledClient if self.pooled else base.Client
        client = kind(server, default_noreply=False)
        self.get, self.set = client.get, client.set
        self.get_many, self.set_many = client.get_many, client.set_many
        self._incr = client.incr

    def incr(self, key: str) -> int:
        """By one."""
        return int(self._incr(key, 1) or 0)


class PooledMemcache(Memcache):
    """pymemcache's PooledClient, which threads can share."""

    pooled = True


class Redis:
    """redis-py, with hiredis."""

    def __init__(self, place: Place) -> None:
        import redis

        client: Any = redis.Redis.from_url(place.redis)
        self.get, self.set, self.incr = client.get, client.set, client.incr
        self.get_many, self.set_many = client.mget, client.mset


class RedisPipeline:
    """redis-py's pipeline for batches."""

    def __init__(self, place: Place) -> None:
        import redis

        client: Any = redis.Redis.from_url(place.redis)
        self.get, self.set, self.incr = client.get, client.set, client.incr
        self._client = redis.Redis.from_url(place.redis)

    def get_many(self, keys: Sequence[str]) -> Any:
        """As many GETs."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        return pipeline.execute()

    def set_many(self, items: Mapping[str, str]) -> object:
        """As many SETs."""
        pipeline = self._client.pipeline(transaction=False)
        for key, value in items.items():
            pipeline.set(key, value)
        return pipeline.execute()


GET = "SELECT v FROM kv WHERE k = %s"
SET = (
    "INSERT INTO kv (k, v, n, kind, version, expires) VALUES (%s, %s, 0, 1, 5, "
    f"{NEVER}) ON DUPLICATE KEY UPDATE v = VALUES(v), version = version + 1"
)
INCR = "UPDATE kv SET n = LAST_INSERT_ID(n + 1), version = version + 1 WHERE k = %s"


class PyMySQL:
    """PyMySQL on the same table."""

    def __init__(self, place: Place) -> None:
        self._connection = self._connected(place.sql)
        self._cursor = self._connection.cursor()

    def _connected(self, sql: dict[str, Any]) -> Any:
        import pymysql

        return pymysql.connect(**sql, autocommit=True)

    def get(self, key: str) -> Any:
        """A SELECT by key."""
        self._cursor.execute(GET, (key,))
        return self._cursor.fetchone()[0]

    def set(self, key: str, value: Any) -> None:
        """An upsert."""
        self._cursor.execute(SET, (key, value))

    def incr(self, key: str) -> int:
        """An UPDATE that tells the new value."""
        self._cursor.execute(INCR, (key,))
        return int(self._cursor.lastrowid)

    def get_many(self, keys: Sequence[str]) -> Any:
        """A SELECT with IN."""
        places = ", ".join(["%s"] * len(keys))
        self._cursor.execute(f"SELECT k, v FROM kv WHERE k IN ({places})", tuple(keys))
        return dict(self._cursor.fetchall())

    def set_many(self, items: Mapping[str, str]) -> None:
        """One upsert of many rows."""
        self._cursor.executemany(SET, list(items.items()))


class MySQLClient(PyMySQL):
    """mysqlclient, which is written in C, on the same table."""

    def _connected(self, sql: dict[str, Any]) -> Any:
        MySQLdb: Any = importlib.import_module("MySQLdb")  # noqa: N806 its name
        return MySQLdb.connect(**sql, autocommit=True)


CONTENDERS: dict[str, type[Any]] = {
    "raw loop, bare": BareLoop,
    "raw loop, same bytes": RawLoop,
    "hskv Client.find": Find,
    "hskv Client.find, pure Python": Find,
    "hskv store": Store,
    "hskv store, pure Python": Store,
    "pymemcache Client": Memcache,
    "pymemcache PooledClient": PooledMemcache,
    "redis-py": Redis,
    "redis-py pipeline": RedisPipeline,
    "PyMySQL": PyMySQL,
    "mysqlclient": MySQLClient,
}
