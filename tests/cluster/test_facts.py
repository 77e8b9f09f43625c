"""What MariaDB does that the design of replicated stores rests on, on real clusters."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from hskv import Client
from hskv.exceptions import LockTimeoutError, OperationalError
from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node
from hskv.mariadb.files import free_ports

from .traffic import arrives, eventually, keys, read, reader, write

COLUMNS = ["k", "v", "n", "kind", "version", "expires"]


def with_write_port() -> dict[str, str]:
    """Options for HandlerSocket writes to the first server, which gets the port before others."""
    return {"handlersocket_port_wr": free_ports(1)[0]}


def writer(server: Node) -> Client:
    """A client that writes by HandlerSocket, as one must not in a cluster."""
    port = server._options["handlersocket_port_wr"]
    url = server.read_url.replace(f"{server.listener}/", f"{server.listener},{port}/")
    return Client(url)


def insert(client: Client, key: str) -> None:
    client.insert(client.open("kv", COLUMNS), [key, "", 0, 0, 0, 2**63 - 1])


def listening_ports(pid: int) -> set[int]:
    inodes = {
        link.readlink().name.removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {
        int(line[1].partition(":")[2], 16)
        for line in lines
        if line[3] == "0A" and line[9] in inodes
    }


@pytest.fixture(scope="module")
def written_to() -> Iterator[PrivateReplication]:
    with PrivateReplication(options=with_write_port()) as cluster:
        yield cluster


class TestReplication:
    def test_a_handlersocket_write_reaches_no_binary_log_and_no_replica(
        self, written_to: PrivateReplication
    ) -> None:
        primary, (replica,) = written_to.primary, written_to.replicas
        write(primary, "by SQL")
        before = primary.ask("SELECT @@gtid_binlog_pos")
        with writer(primary) as client:
            insert(client, "by HandlerSocket")
        assert primary.ask("SELECT @@gtid_binlog_pos") == before
        write(primary, "by SQL again")
        assert arrives(replica, "by SQL again")
        assert keys(primary) - keys(replica) == {"by HandlerSocket"}

    def test_a_handlersocket_write_waits_for_no_replica(
        self, written_to: PrivateReplication
    ) -> None:
        (replica,) = written_to.replicas
        replica.query("STOP SLAVE IO_THREAD")
        try:
            began = time.monotonic()
            with writer(written_to.primary) as client:
                insert(client, "at once")
            assert time.monotonic() - began < 1.0
        finally:
            replica.query("START SLAVE IO_THREAD")

    def test_read_only_waits_for_writers_of_handlersocket_and_then_refuses_them(
        self, written_to: PrivateReplication
    ) -> None:
        primary = written_to.primary
        with writer(primary) as client:
            insert(client, "before")
            with (
                closing(pymysql.connect(**primary.sql)) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute("SET SESSION lock_wait_timeout = 1")
                with pytest.raises(pymysql.MySQLError, match="Lock wait timeout"):
                    cursor.execute("SET GLOBAL read_only = ON")
            client.purge()
            primary.query("SET GLOBAL read_only = ON")
            with pytest.raises((LockTimeoutError, OperationalError), match="lock_tables"):
                insert(client, "after")
            primary.query("SET GLOBAL read_only = OFF")
        assert {"before", "after"} & keys(primary) == {"before"}

    def test_no_server_of_a_cluster_listens_for_handlersocket_writes(
        self, replication: PrivateReplication
    ) -> None:
        for server in replication.servers:
            assert server.pid
            clients = {int(server._ports[name]) for name in ("read", "sql")}
            assert listening_ports(server.pid) == clients

    def test_a_row_that_was_not_acknowledged_is_not_seen_on_the_primary(
        self, replication: PrivateReplication
    ) -> None:
        primary, (replica,) = replication.primary, replication.replicas
        replica.query("STOP SLAVE IO_THREAD")
        connection = pymysql.connect(**primary.sql, autocommit=True, read_timeout=1)
        with (
            closing(connection),
            connection.cursor() as cursor,
            pytest.raises(pymysql.MySQLError),
        ):
            cursor.execute("INSERT kv (k, v) VALUES ('not yet', '')")
        assert read(primary, "not yet") is None
        replica.query("START SLAVE IO_THREAD")
        assert arrives(primary, "not yet")

    def test_an_acknowledged_row_may_come_late_to_the_replica(
        self, replication: PrivateReplication
    ) -> None:
        primary, (replica,) = replication.primary, replication.replicas
        replica.query("STOP SLAVE SQL_THREAD")
        write(primary, "acknowledged")
        assert read(primary, "acknowledged") == b""
        assert read(replica, "acknowledged") is None
        replica.query("START SLAVE SQL_THREAD")
        assert arrives(replica, "acknowledged")


class TestGalera:
    def test_a_handlersocket_write_reaches_no_other_node(self) -> None:
        with PrivateGalera(options=with_write_port()) as cluster:
            first, *others = cluster.nodes
            before = first.status["wsrep_replicated"]
            with writer(first) as client:
                insert(client, "by HandlerSocket")
            assert first.status["wsrep_replicated"] == before
            write(first, "by SQL")
            for node in others:
                assert arrives(node, "by SQL")
                assert keys(node) == {"by SQL"}
            # Whoever changes the row by SQL later makes the nodes disagree; it is expelled.
            first.query("UPDATE hskv.kv SET n = 1 WHERE k = 'by HandlerSocket'")
            assert eventually(lambda: first.status["wsrep_ready"] == "OFF")
            assert all(node.status["wsrep_ready"] == "ON" for node in others)

    def test_wsrep_sync_wait_is_not_heeded_by_handlersocket(self, galera: PrivateGalera) -> None:
        first, _, last = galera.nodes
        last.query("SET GLOBAL wsrep_sync_wait = 7")
        try:
            with reader([last]) as client:
                index = client.open("kv", ["v"])
                client.find(index, "=", ["-"])
                with (
                    closing(pymysql.connect(**first.sql, autocommit=True)) as connection,
                    connection.cursor() as cursor,
                ):
                    missed = 0
                    for number in range(300):
                        cursor.execute("INSERT kv (k, v) VALUES (%s, '')", (f"sync {number}",))
                        missed += not client.find(index, "=", [f"sync {number}"])
            assert missed > 0
        finally:
            last.query("SET GLOBAL wsrep_sync_wait = 0")
