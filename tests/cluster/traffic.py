"""Reads and writes as a store does them on a cluster, and a writer that remembers.

SQL is written as the user of a store's URL, so that `read_only` holds; HandlerSocket reads.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

import pymysql

from hskv import Client
from hskv.mariadb.cluster import Node
from hskv.transport.address import load_settings


def login(server: Node) -> dict[str, Any]:
    """Arguments of `pymysql.connect` for the user whom a store writes as."""
    url = urlsplit(server.sql_url)
    return {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": "hskv",
        "autocommit": True,
        "connect_timeout": 5,
        "read_timeout": 5,
    }


def write(server: Node, key: str, value: str = "") -> None:
    """Write a row as a store would, by SQL."""
    with closing(pymysql.connect(**login(server))) as connection, connection.cursor() as cursor:
        cursor.execute("REPLACE kv (k, v) VALUES (%s, %s)", (key, value))


def reader(servers: Sequence[Node]) -> Client:
    """A client that reads from all of these servers by HandlerSocket."""
    settings = load_settings(servers[0].read_url)
    addresses = tuple(load_settings(server.read_url).readers[0] for server in servers)
    return Client.from_settings(replace(settings, readers=addresses))


def read(server: Node, key: str) -> bytes | None:
    """A value as this server's HandlerSocket has it."""
    with reader([server]) as client:
        rows = client.find(client.open("kv", ["v"]), "=", [key])
    return rows[0][0] if rows else None


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def arrives(server: Node, key: str, value: bytes = b"") -> bool:
    """Whether this server's HandlerSocket gives a value for a key in time."""
    return eventually(lambda: read(server, key) == value)


def keys(server: Node) -> set[str]:
    """All keys, by SQL."""
    return {row["k"].decode() for row in server.query("SELECT k FROM hskv.kv")}


class Writer(threading.Thread):
    """Writes one new row after another until it is ended, to whichever server takes it."""

    def __init__(self, servers: Sequence[Node], prefix: str) -> None:
        super().__init__(daemon=True)
        self.servers, self.prefix = servers, prefix
        self.acknowledged: list[str] = []
        self.longest_gap = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        number, last = 0, time.monotonic()
        while not self._ended.is_set():
            for server in self.servers:
                for key in self._write_to(server, number):
                    number += 1
                    now = time.monotonic()
                    self.longest_gap, last = max(self.longest_gap, now - last), now
                    self.acknowledged.append(key)
            time.sleep(0.01)

    def _write_to(self, server: Node, number: int) -> Iterator[str]:
        try:
            with closing(pymysql.connect(**login(server))) as connection:
                while not self._ended.is_set():
                    key = f"{self.prefix}{number}"
                    with connection.cursor() as cursor:
                        cursor.execute("REPLACE kv (k, v) VALUES (%s, 'x')", (key,))
                    yield key
                    number += 1
        except (pymysql.MySQLError, OSError):
            return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def wait_for(self, more: int, seconds: float = 20.0) -> None:
        """Wait until so many more writes were acknowledged."""
        wanted = len(self.acknowledged) + more
        assert eventually(lambda: len(self.acknowledged) >= wanted, seconds)

    def tell(self, what: str) -> None:
        """Print what it measured, for the summary of the run."""
        count = len(self.acknowledged)
        print(f"{what}: {count:,} writes acknowledged; they stopped for {self.longest_gap:.2f} s")
