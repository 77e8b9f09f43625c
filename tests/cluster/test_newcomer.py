"""docs/replication.md followed by the letter, from servers with no data to a store.

What the page calls 10.0.0.1 is here 127.0.0.2, and so on; the ports are free ones.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pymysql
import pytest
from pymysql.cursors import DictCursor

import hskv
from hskv.mariadb import PrivateServer
from hskv.mariadb.doctor import examine
from hskv.mariadb.files import free_ports
from hskv.transport.address import load_settings

from .test_docs import DIRECTORIES, blocks, settings
from .traffic import eventually

OF_THE_PAGE: Final = ("3306", "9998", "4567", "4568", "4444")


class Network:
    """Puts this machine's addresses in for those of the page."""

    def __init__(self) -> None:
        self._ports = dict(zip(OF_THE_PAGE, free_ports(len(OF_THE_PAGE)), strict=True))

    def __call__(self, text: str) -> str:
        text = re.sub(r"\b10\.0\.0\.(\d)", lambda host: f"127.0.0.{int(host[1]) + 1}", text)
        text = text.replace("10.0.0.%", "127.0.0.%")
        ports = rf"(?<=[:= ])({'|'.join(OF_THE_PAGE)})\b"
        return re.sub(ports, lambda port: self._ports[port[1]], text)


class NewServer(PrivateServer):
    """A server with the settings of the page, and nothing made in it."""

    def __init__(self, configuration: str, *arguments: str) -> None:
        super().__init__(tcp=True, sql_tcp=True, start_timeout=90.0)
        self._configuration = settings(configuration)
        self._once = list(arguments)

    def _settings(self) -> dict[str, str | int | None]:
        own = {name: value for name, value in super()._settings().items() if name in DIRECTORIES}
        return {**own, **self._configuration}

    def _arguments(self) -> list[str]:
        return self._once

    def _check_handlersocket(self) -> None:
        """There is no table to look at yet."""

    def told(self, block: str) -> list[dict[str, Any]]:
        """What the last statement of a block gives, to the administrator."""
        with (
            pymysql.connect(**{**self.sql, "database": None}, autocommit=True) as connection,
            connection.cursor(DictCursor) as cursor,
        ):
            for statement in filter(str.strip, block.split(";")):
                cursor.execute(statement)
            return list(cursor.fetchall())


def numbered(configuration: str, number: int) -> str:
    """The configuration of the first server, for another; who is in the cluster stays the same."""
    lines = configuration.splitlines()
    return "\n".join(
        line
        if "gcomm://" in line
        else line.replace("10.0.0.1", f"10.0.0.{number}")
        .replace("server_id = 1", f"server_id = {number}")
        .replace("node1", f"node{number}")
        for line in lines
    )


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def ran(block: str) -> str:
    """Run a block of the shell; the URL that it has set."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-ec", f"{block}\necho $HSKV_URL"]
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, made, url = done.stdout.splitlines()
    assert made == "the table kv in app was made"
    return url


def check_store(url: str) -> None:
    """That a store works, each server has what it wrote, and the doctor finds no fault."""
    with hskv.connect(url) as store:
        store.check()
        store["a"] = 1
    for listener in load_settings(url).readers:
        with hskv.Client(f"hskv://:CHANGE-ME@{listener}/app") as client:
            assert eventually(partial(has_arrived, client))
    # The secret is the page's; the store's user does not see what other connections do.
    assert {finding.id for finding in examine(url).findings} == {"secret-weak", "rights"}


def has_arrived(client: hskv.Client) -> bool:
    return client.find(client.open("kv", ["n"]), "=", ["a"]) == [(b"1",)]


def replicates(server: NewServer) -> bool:
    (status,) = server.told("SHOW SLAVE STATUS")
    return bool(status["Slave_IO_Running"] == status["Slave_SQL_Running"] == "Yes")


def test_a_primary_with_a_replica(network: Network, stack: ExitStack) -> None:
    (configuration,) = blocks("ini", "A primary with replicas")
    (accounts,) = blocks("sql", "From new servers to a store")
    (table,) = blocks("sh", "From new servers to a store")
    follow, lead = blocks("sql", "Make a server a replica")
    first, second = (
        stack.enter_context(NewServer(network(numbered(configuration, number))))
        for number in (1, 2)
    )
    first.told(network(accounts))
    second.told(network(follow))
    assert eventually(partial(replicates, second))
    first.told(network(lead))
    check_store(ran(network(table)))
    assert replicates(second)
    (semi_sync,) = first.told("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'")
    assert semi_sync["Value"] == "ON"


def test_galera(network: Network, stack: ExitStack) -> None:
    (configuration,) = blocks("ini", "Galera")
    (accounts,), (table,) = blocks("sql", "Galera"), blocks("sh", "Galera")
    for number in (1, 2, 3):
        new = ["--wsrep-new-cluster"] if number == 1 else []
        node = NewServer(network(numbered(configuration, number)), *new)
        stack.enter_context(node)
        assert eventually(partial(is_synced, node), seconds=60.0)
    node.told(network(accounts))
    check_store(ran(network(table)))


def is_synced(node: NewServer) -> bool:
    try:
        (state,) = node.told("SHOW STATUS LIKE 'wsrep_local_state'")
    except pymysql.MySQLError:
        return False
    return bool(state["Value"] == "4")
