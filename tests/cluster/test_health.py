"""Which servers a store reads from: those whose SQL says that they are well.

Each server has a row of its own that tells who answered.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest

import hskv
from hskv import KeyValueStore
from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node, PrivateCluster

from .traffic import arrives, eventually, read, write

Store = KeyValueStore[str, Any]
NOTICED_SECONDS = 5.0
# So that each of the servers in turn is asked.
TIMES = 30


def sign(server: Node) -> None:
    """Write a row that only this server has."""
    alone = "sql_log_bin = 0" if server.ask("SELECT NOT @@wsrep_on") else "wsrep_on = OFF"
    with (
        closing(pymysql.connect(**server.sql, autocommit=True)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SET SESSION {alone}")
        cursor.execute("REPLACE kv (k, v, kind) VALUES ('who', %s, 1)", (server.listener,))


def who(store: Store, times: int = TIMES) -> set[str]:
    """The servers that answer."""
    return {store["who"] for _ in range(times)}


def listeners(*servers: Node) -> set[str]:
    return {server.listener for server in servers}


def reads_only(store: Store, *servers: Node, seconds: float = NOTICED_SECONDS) -> bool:
    """Whether a store comes to read from these, and no other."""
    return eventually(lambda: who(store) == listeners(*servers), seconds)


@pytest.fixture(scope="module")
def pair() -> Iterator[PrivateReplication]:
    with PrivateReplication(2) as cluster:
        for server in cluster.servers:
            sign(server)
        yield cluster


@pytest.fixture
def store(pair: PrivateReplication) -> Iterator[Store]:
    with hskv.connect(pair.url, read="replica", max_lag=2.0) as store:
        yield store


class TestReplication:
    def test_reads_go_to_all_servers_or_to_the_primary_alone(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        assert reads_only(store, *pair.servers)
        with hskv.connect(pair.url) as other:
            assert who(other) == listeners(pair.primary)

    def test_a_replica_that_applies_nothing_is_not_read_from(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        first, second = pair.replicas
        for thread in ("SQL", "IO"):
            first.query(f"STOP SLAVE {thread}_THREAD")
            assert reads_only(store, pair.primary, second)
            first.query(f"START SLAVE {thread}_THREAD")
            assert reads_only(store, *pair.servers)

    def test_a_replica_that_is_too_far_behind_is_not_read_from(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        first, second = pair.replicas
        assert reads_only(store, *pair.servers)
        delay(first, 8)
        try:
            write(pair.primary, "late")
            assert reads_only(store, pair.primary, second)
            assert read(first, "late") is None
        finally:
            delay(first, 0)
        assert reads_only(store, *pair.servers, seconds=15.0)

    def test_where_no_replica_is_well_the_primary_is_read_from(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        for replica in pair.replicas:
            replica.query("STOP SLAVE SQL_THREAD")
        try:
            assert reads_only(store, pair.primary)
        finally:
            for replica in pair.replicas:
                replica.query("START SLAVE SQL_THREAD")
        assert reads_only(store, *pair.servers)

    def test_a_new_primary_and_the_old_one_are_read_from(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        old = pair.primary
        new = pair.promote()
        assert reads_only(store, *pair.servers)
        with hskv.connect(pair.url) as other:
            assert who(other) == listeners(new)
        pair.promote(old)
        with hskv.connect(pair.url) as other:
            assert who(other) == listeners(old)

    def test_replicas_that_lost_their_primary_are_read_from_while_they_are_new_enough(
        self, pair: PrivateReplication, store: Store
    ) -> None:
        old = pair.primary
        assert reads_only(store, *pair.servers)
        old.kill()
        try:
            assert reads_only(store, *pair.replicas)
            assert eventually(lambda: not answers(store))
            with pytest.raises(HskvConnectionError, match="lost its primary more than 2 s ago"):
                _ = store["who"]
        finally:
            old.start()
        assert reads_only(store, *pair.servers)

    def test_a_user_who_may_not_see_how_replication_is_is_told_what_it_needs(
        self, pair: PrivateReplication
    ) -> None:
        pair.primary.query("REVOKE SLAVE MONITOR ON *.* FROM hskv@'127.0.0.1'")
        try:
            assert eventually(lambda: not any(map(may_see_replication, pair.servers)))
            with (
                hskv.connect(pair.url, read="replica", timeout=1.0) as store,
                pytest.raises(HskvConnectionError, match="SLAVE MONITOR"),
            ):
                _ = store["who"]
        finally:
            pair.primary.query("GRANT SLAVE MONITOR ON *.* TO hskv@'127.0.0.1'")

    @pytest.mark.parametrize("reads", ["handlersocket", "sql"])
    def test_what_must_not_be_old_comes_from_the_primary(
        self, pair: PrivateReplication, reads: str
    ) -> None:
        url = pair.url if reads == "handlersocket" else "hskv:///hskv?reads=sql"
        sql: dict[str, Any] = {"writes": "sql", "sql": pair.sql_url} if reads == "sql" else {}
        with hskv.connect(url, read="replica", max_lag=100.0, **sql) as store:
            store.delete_many(["new", "count"])
            store["a"] = 1
            store["ready"] = reads
            for server in pair.servers:
                assert arrives(server, "ready", reads.encode())
            assert reads_only(store, *pair.servers)
            for replica in pair.replicas:
                delay(replica, 30)
            try:
                assert reads_only(store, *pair.servers)
                store["a"] = 2
                store.set("new", 0, ttl=100)
                shows_the_newest(store)
                assert {store.get("a") for _ in range(TIMES)} == {1, 2}, "no replica was behind"
                assert {store.get("new") for _ in range(TIMES)} == {None, 0}
            finally:
                for replica in pair.replicas:
                    delay(replica, 0)
            assert reads_only(store, *pair.servers)

    def test_reads_by_sql_go_to_the_same_servers(self, pair: PrivateReplication) -> None:
        first, second = pair.replicas
        options: dict[str, Any] = {"reads": "sql", "writes": "sql", "sql": pair.sql_url}
        with hskv.connect("hskv:///hskv", read="replica", **options) as store:
            assert reads_only(store, *pair.servers)
            assert store.get_many(["who"]).keys() == {"who"}
            assert who(store.reading("primary")) == listeners(pair.primary)
            assert store.incr("n") + 1 == store.incr("n"), "where it is written, it is read"
            first.query("STOP SLAVE SQL_THREAD")
            try:
                assert reads_only(store, pair.primary, second)
            finally:
                first.query("START SLAVE SQL_THREAD")
            assert reads_only(store, *pair.servers)
            second.kill()
            try:
                for _ in range(100):
                    assert store["who"] != second.listener
            finally:
                second.start()
            assert reads_only(store, *pair.servers)
        with hskv.connect("hskv:///hskv", **options) as store:
            assert who(store) == listeners(pair.primary)

    def test_a_process_that_starts_while_nobody_can_be_written_to_reads(
        self, pair: PrivateReplication
    ) -> None:
        pair.primary.query("SET GLOBAL read_only = 1")
        try:
            with hskv.connect(pair.url, read="replica", timeout=1.0) as store:
                assert who(store) <= listeners(*pair.replicas)
                with pytest.raises(HskvConnectionError, match="can be written to now"):
                    store["a"] = 1
        finally:
            pair.primary.query("SET GLOBAL read_only = 0")

    def test_a_server_that_lets_nobody_in_is_passed_over(self, pair: PrivateReplication) -> None:
        broken = pair.replicas[0]
        hosts = [broken.sql_listener, pair.primary.sql_listener]
        login = pair.sql_url.rpartition("@")[0]
        with closing(pymysql.connect(**broken.sql, autocommit=True)) as connection:
            connection.query("SET SESSION sql_log_bin = 0")
            connection.query("ALTER USER hskv@127.0.0.1 ACCOUNT LOCK")
            options: dict[str, Any] = {"reads": "sql", "writes": "sql", "timeout": 1.0}
            try:
                sql = f"{login}@{','.join(hosts)}/"
                with hskv.connect("hskv:///hskv", sql=sql, **options) as store:
                    store["a"] = 1
                    pair.primary.query("SET GLOBAL read_only = 1")
                with (
                    hskv.connect("hskv:///hskv", sql=sql, **options) as store,
                    pytest.raises(hskv.AuthenticationError, match=f"{hosts[0]} said 4151"),
                ):
                    store["a"] = 1
            finally:
                pair.primary.query("SET GLOBAL read_only = 0")
                connection.query("ALTER USER hskv@127.0.0.1 ACCOUNT UNLOCK")


def shows_the_newest(store: Store) -> None:
    """What does not come from replicas, by a store that reads from them; of the rows a and new."""
    lease, other = store.lease("job", ttl=60), store.lease("job", ttl=60)
    limiter = store.limiter("api", 1_000, 3600)
    assert lease.acquire(wait=False)
    for number in range(TIMES):
        value, version = store.get_versioned("a")
        assert value == 2 + number
        assert store.compare_and_set("a", value + 1, version)
        assert 0 < (store.ttl("new") or 0) <= 100
        assert store.incr("count") == number + 1
        assert other.locked()
        assert not other.acquire(wait=False)
        assert limiter.hit("user").remaining == limiter.peek("user").remaining
    store["a"] = 2
    lease.release()


def delay(replica: Node, seconds: int) -> None:
    """Have a replica apply everything so much later."""
    replica.query("STOP SLAVE")
    replica.query(f"CHANGE MASTER TO master_delay = {seconds}")
    replica.query("START SLAVE")


def may_see_replication(server: Node) -> bool:
    return "SLAVE MONITOR" in str(server.query("SHOW GRANTS FOR hskv@'127.0.0.1'"))


def answers(store: Store) -> bool:
    try:
        return bool(store["who"])
    except HskvConnectionError:
        return False


class TestGalera:
    @pytest.fixture(autouse=True)
    def signed(self, galera: PrivateGalera) -> None:
        for node in galera.nodes:
            sign(node)

    def test_a_node_without_a_majority_is_not_read_from_though_it_answers(
        self, galera: PrivateGalera
    ) -> None:
        first, second, isolated = galera.nodes
        with (
            hskv.connect(galera.url, read="replica") as store,
            hskv.connect(isolated.read_url) as alone,
        ):
            assert reads_only(store, *galera.nodes)
            isolated.isolate()
            began = time.monotonic()
            try:
                assert eventually(lambda: isolated.status["wsrep_ready"] == "OFF")
                seen = time.monotonic()
                assert reads_only(store, first, second)
                seconds = time.monotonic() - seen
                store["changes"] = "after"
                for _ in range(100):
                    assert store["who"] != isolated.listener
                index = alone.client.open("kv", ["v"])
                assert alone.client.find(index, "=", ["who"]) == [(isolated.listener.encode(),)]
            finally:
                isolated.reunite()
            assert reads_only(store, *galera.nodes)
        print(
            f"an isolated Galera node: SQL said so after {seen - began:.1f} s, and it was read "
            f"from for {seconds:.2f} s more"
        )

    def test_a_node_that_copies_its_data_to_another_is_not_read_from(
        self, galera: PrivateGalera
    ) -> None:
        donor = galera.nodes[1]
        with hskv.connect(galera.url, read="replica") as store:
            assert reads_only(store, *galera.nodes)
            donor.query("SET GLOBAL wsrep_desync = ON")
            try:
                assert donor.status["wsrep_local_state"] == "2"
                assert reads_only(store, galera.nodes[0], galera.nodes[2])
            finally:
                donor.query("SET GLOBAL wsrep_desync = OFF")
            assert reads_only(store, *galera.nodes)


PROGRAM = """
import json, os, sys, threading
import hskv
store = hskv.connect(sys.argv[1], read="replica")
servers = int(sys.argv[2])

def seen():
    found = set()
    while len(found) < servers:
        found.add(store["who"])
    return len(found)

def named():
    return sorted(one.name for one in threading.enumerate() if "health" in one.name)
"""
FORKS = """
before = seen(), len(named())
read, write = os.pipe()
if os.fork() == 0:
    begins = len(named())
    os.write(write, json.dumps([begins, seen(), len(named())]).encode())
    os._exit(0)
os.wait()
print(json.dumps([before, json.loads(os.read(read, 100)), seen()]))
"""
GREENLETS = """
import gevent
longest = []
def beat():
    import time
    last = time.monotonic()
    for _ in range(200):
        gevent.sleep(0.01)
        now = time.monotonic()
        longest.append(now - last)
        last = now
beating = gevent.spawn(beat)
numbers = [one.get() for one in [gevent.spawn(seen) for _ in range(20)]]
beating.join()
print(json.dumps([numbers == [servers] * 20, max(longest), store["who"] != ""]))
"""


def run(program: str, cluster: PrivateCluster[Any]) -> Any:
    """What a program prints; it must end by itself at once, and complain of nothing."""
    arguments = [cluster.url, str(len(cluster.servers))]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


class TestProcesses:
    def test_a_process_that_ends_does_not_wait_for_its_threads(
        self, pair: PrivateReplication
    ) -> None:
        program = PROGRAM + "seen()\nprint(len(named()))"
        assert run(program, pair) == 3

    def test_a_child_asks_by_itself(self, pair: PrivateReplication) -> None:
        assert run(PROGRAM + FORKS, pair) == [[3, 3], [0, 3, 3], 3]

    def test_greenlets_ask_and_hold_up_no_other(self, pair: PrivateReplication) -> None:
        program = "from gevent import monkey; monkey.patch_all()\n" + PROGRAM + GREENLETS
        same, longest, answered = run(program, pair)
        assert same
        assert answered
        assert longest < 0.5

    def test_a_store_that_is_closed_leaves_no_thread(self, pair: PrivateReplication) -> None:
        def asking() -> int:
            return sum("hskv health" in one.name for one in threading.enumerate())

        before = asking()
        with hskv.connect(pair.url, read="replica") as store:
            assert store["who"]
            assert asking() > before
        assert eventually(lambda: asking() == before)
