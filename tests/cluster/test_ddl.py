"""ALTER TABLE under HandlerSocket: what it stops, and the procedure of docs/replication.md."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import Client
from hskv.exceptions import RequestTimeoutError
from hskv.mariadb import (
    ClusterError,
    PrivateGalera,
    PrivateReplication,
    PrivateServer,
    change_table,
)
from hskv.mariadb.cluster import Node, PrivateCluster
from hskv.mariadb.galera import GaleraNode

from .traffic import Writer, arrives, eventually, reader, write

PAGE = (Path(__file__).parents[2] / "docs" / "replication.md").read_text()
SECTION = PAGE.partition("## Changing the table\n")[2].partition("\n## ")[0]
IN_EVERY_PROCESS, BY_THE_OPERATOR = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)

WORKER = """
import json, sys, time
import hskv

store = hskv.connect(sys.argv[1], read="replica")
client = store.client
exec(sys.stdin.read())
name = sys.argv[2]
reads, writes, longest, errors, last = 0, 0, 0.0, [], time.monotonic()
print("ready", flush=True)
end = last + 60
while sys.stdout is not None and time.monotonic() < end:
    try:
        if store["there"] != b"yes":
            errors.append("not found")
        if reads % 20 == 0:
            store[name] = writes = writes + 1
    except Exception as error:
        errors.append(repr(error))
    reads, now = reads + 1, time.monotonic()
    longest, last = max(longest, now - last), now
    if stopping:
        break
print(json.dumps({"reads": reads, "writes": writes, "longest": longest, "errors": errors[:3]}))
"""
# What a worker reads besides: how it is told to end.
STOP = """
import signal
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
"""


class Workers:
    """Processes with a store each, which drain as the documentation has it.

    They read from all servers, and write.
    """

    def __init__(self, cluster: PrivateCluster[Any], number: int) -> None:
        command = [sys.executable, "-c", WORKER, cluster.url]
        self.processes = [
            subprocess.Popen(
                [*command, f"worker {one}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in range(number)
        ]
        for process in self.processes:
            assert process.stdin
            process.stdin.write(STOP + IN_EVERY_PROCESS)
            process.stdin.close()
        for process in self.processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def end(self) -> list[dict[str, Any]]:
        """What each of them saw."""
        results = []
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert process.stdout
            with process.stdout as output:
                results.append(json.loads(output.read()))
            process.wait(10)
        return results


@contextmanager
def idle_reader(server: Node) -> Iterator[Client]:
    """A client that has read once, and does nothing more."""
    with reader([server]) as client:
        client.find(client.open("kv", ["v"]), "=", ["there"])
        yield client


def columns(server: Node) -> list[str]:
    return [row["Field"] for row in server.query("SHOW COLUMNS FROM hskv.kv")]


def logins(cluster: PrivateCluster[Any]) -> list[dict[str, Any]]:
    return [server.sql for server in cluster.servers]


def nothing() -> None:
    """For who has no clients."""


class TestWithoutIt:
    def test_an_idle_reader_of_the_primary_makes_the_statement_wait(
        self, replication: PrivateReplication
    ) -> None:
        with (
            idle_reader(replication.primary),
            closing(pymysql.connect(**replication.primary.sql)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET SESSION lock_wait_timeout = 1")
            with pytest.raises(pymysql.MySQLError, match="Lock wait timeout"):
                cursor.execute("ALTER TABLE kv ADD COLUMN waited INT")
        assert "waited" not in columns(replication.primary)

    def test_an_idle_reader_of_a_replica_stops_its_replication(
        self, replication: PrivateReplication
    ) -> None:
        (replica,) = replication.replicas
        with idle_reader(replica) as idle:
            replication.primary.query("ALTER TABLE hskv.kv ADD COLUMN stopped INT")
            write(replication.primary, "behind the statement")
            time.sleep(3.0)
            states = [row["State"] for row in replica.query("SHOW PROCESSLIST")]
            assert "Waiting for table metadata lock" in states
            assert idle.find(idle.open("kv", ["v"]), "=", ["behind the statement"]) == []
            # Who comes now waits behind the statement.
            with (
                hskv.Client(replica.read_url, timeout=1.0) as late,
                pytest.raises(RequestTimeoutError),
            ):
                late.find(late.open("kv", ["v"]), "=", ["there"])
        assert arrives(replica, "behind the statement")
        assert "stopped" in columns(replica)

    def test_an_idle_reader_of_one_node_stops_the_writes_of_the_whole_cluster(
        self, galera: PrivateGalera
    ) -> None:
        first, _, last = galera.nodes
        with Writer([first], "stopped ") as writer:
            writer.wait_for(200)
            with idle_reader(last):
                first.query("ALTER TABLE hskv.kv ADD COLUMN stopped INT")
                assert eventually(lambda: last.status["wsrep_flow_control_active"] == "true")
                # Those on their way.
                time.sleep(1.0)
                before = len(writer.acknowledged)
                time.sleep(3.0)
                assert len(writer.acknowledged) == before
            writer.wait_for(200)


@pytest.fixture(params=[PrivateReplication, PrivateGalera])
def cluster(request: pytest.FixtureRequest) -> PrivateCluster[Any]:
    name = "replication" if request.param is PrivateReplication else "galera"
    chosen: PrivateCluster[Any] = request.getfixturevalue(name)
    write(chosen.servers[0], "there", "yes")
    for server in chosen.servers:
        assert arrives(server, "there", b"yes")
    return chosen


class TestChangeTable:
    def test_readers_and_writers_go_on_while_the_table_is_changed(
        self, cluster: PrivateCluster[Any]
    ) -> None:
        workers = Workers(cluster, 3)
        with Writer([cluster.servers[0]], "changed ") as writer:
            writer.wait_for(100)
            began = time.monotonic()
            exec(BY_THE_OPERATOR, {"processes": workers.pids, "servers": logins(cluster)})
            seconds = time.monotonic() - began
            writer.wait_for(100)
        assert all("note" in columns(server) for server in cluster.servers)
        for server in cluster.servers:
            assert arrives(server, writer.acknowledged[-1], b"x")
        for result in workers.end():
            assert result["errors"] == []
            assert result["reads"] > 100
            assert result["writes"] > 5
            # They waited, but for less than `pool_timeout`.
            assert result["longest"] < seconds + 1.0 < 5.0
        assert writer.longest_gap < 5.0
        writer.tell(f"table changed on {cluster!r} in {seconds:.2f} s")

    def test_a_client_that_does_not_drain_is_an_error_and_nothing_is_changed(
        self, cluster: PrivateCluster[Any]
    ) -> None:
        calls: list[str] = []
        with ExitStack() as stack:
            stack.enter_context(idle_reader(cluster.servers[-1]))
            with pytest.raises(ClusterError, match="1 HandlerSocket connections are still open"):
                change_table(
                    "ALTER TABLE hskv.kv ADD COLUMN wrong INT",
                    logins(cluster),
                    drain=lambda: calls.append("drain"),
                    resume=lambda: calls.append("resume"),
                    timeout=0.5,
                )
        assert calls == ["drain", "resume"]
        assert all("wrong" not in columns(server) for server in cluster.servers)

    def test_a_statement_that_fails_resumes_the_clients(self, cluster: PrivateCluster[Any]) -> None:
        with idle_reader(cluster.servers[0]) as client:
            with pytest.raises(pymysql.MySQLError, match="no_such_table"):
                change_table(
                    "ALTER TABLE hskv.no_such_table ADD COLUMN a INT",
                    logins(cluster),
                    drain=client.drain,
                    resume=client.resume,
                )
            assert client.find(client.open("kv", ["v"]), "=", ["there"]) == [(b"yes",)]

    def test_a_server_that_is_late_is_named(self, cluster: PrivateCluster[Any]) -> None:
        late = cluster.servers[-1]
        stop, go_on = stops(late)
        stop()
        with pytest.raises(ClusterError, match=f"run, but {re.escape(late.sql['unix_socket'])}"):
            change_table(
                "ALTER TABLE hskv.kv ADD COLUMN late INT",
                logins(cluster),
                drain=nothing,
                resume=nothing,
                timeout=3.0,
            )
        assert "late" in columns(cluster.servers[0])
        go_on()
        assert eventually(lambda: "late" in columns(late))

    def test_the_statement_is_run_where_writes_go_whichever_is_named_first(
        self, replication: PrivateReplication
    ) -> None:
        (replica,) = replication.replicas
        # As root, who may write to the replica.
        change_table(
            "ALTER TABLE hskv.kv ADD COLUMN first INT",
            [replica.sql, replication.primary.sql],
            drain=nothing,
            resume=nothing,
        )
        assert all("first" in columns(server) for server in replication.servers)
        write(replication.primary, "after it")
        assert arrives(replica, "after it")

    def test_it_is_refused_where_none_takes_writes(self, replication: PrivateReplication) -> None:
        (replica,) = replication.replicas
        calls: list[str] = []
        with pytest.raises(ClusterError, match=r"nothing was changed: .*sql.sock: it is read-only"):
            change_table(
                "ALTER TABLE hskv.kv ADD COLUMN stray INT",
                [replica.sql],
                drain=lambda: calls.append("drain"),
                resume=lambda: calls.append("resume"),
            )
        assert calls == ["drain", "resume"]
        assert all("stray" not in columns(server) for server in replication.servers)

    def test_one_server_alone_with_its_writers(self) -> None:
        with PrivateServer(tcp=True) as server, hskv.connect(server.url) as store:
            store["a"] = 1
            change_table(
                "ALTER TABLE kv ADD COLUMN note INT",
                [server.sql],
                drain=store.client.drain,
                resume=store.client.resume,
            )
            store["b"] = 2
            assert dict(store) == {"a": 1, "b": 2}


def stops(server: Node) -> tuple[Callable[[], object], Callable[[], object]]:
    """What makes a server stop to do what others did, and what makes it go on."""
    if not isinstance(server, GaleraNode):
        return (
            lambda: server.query("STOP SLAVE SQL_THREAD"),
            lambda: server.query("START SLAVE SQL_THREAD"),
        )
    connection = pymysql.connect(**server.sql)
    return lambda: connection.query("FLUSH TABLES WITH READ LOCK"), connection.close
