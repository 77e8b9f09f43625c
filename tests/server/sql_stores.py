"""What the tests of stores that go by SQL share: URLs, and sessions beside the store."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import pymysql

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]


def by_sql(path: str, more: str = "") -> str:
    """The URL of a store that goes by SQL alone, through a unix socket."""
    return f"hskv:///hskv?reads=sql&writes=sql&sql=mysql+unix://root@{quote(path)}{more}"


def path_of(server: PrivateServer) -> str:
    return str(server.directory / "sql.sock")


@contextmanager
def session(server: PrivateServer) -> Iterator[Any]:
    """A cursor, in a transaction."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        yield cursor
