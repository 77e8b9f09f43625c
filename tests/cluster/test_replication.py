"""PrivateReplication: what reaches the replicas, crashes, promotions, and who may write."""

import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pymysql
import pytest

from hskv.mariadb import ClusterError, PrivateReplication, ServerStartError
from hskv.mariadb.replication import ReplicationServer

from .traffic import Writer, arrives, eventually, keys, login, read, reader, write


def waiting_writes(primary: ReplicationServer) -> int:
    """How many writes wait for the acknowledgement of a replica."""
    row = primary.query("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_wait_sessions'")[0]
    return int(row["Value"])


def try_to_write(server: ReplicationServer, key: str) -> threading.Thread:
    """A write in a thread of its own, whose fate may be an error."""

    def run() -> None:
        with pytest.raises(pymysql.MySQLError):
            write(server, key)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def three() -> Iterator[PrivateReplication]:
    with PrivateReplication(2) as cluster:
        yield cluster


class TestRunning:
    def test_what_the_primary_is_told_handlersocket_finds_on_the_replica(
        self, replication: PrivateReplication
    ) -> None:
        write(replication.primary, "a", "1")
        for server in replication.servers:
            assert arrives(server, "a", b"1")

    def test_nobody_who_writes_as_a_store_can_write_to_a_replica(
        self, replication: PrivateReplication
    ) -> None:
        (replica,) = replication.replicas
        with pytest.raises(pymysql.MySQLError, match="read-only"):
            write(replica, "stray")
        assert "stray" not in keys(replica)

    def test_sql_sees_the_table_on_every_server(self, replication: PrivateReplication) -> None:
        for server in replication.servers:
            with (
                closing(pymysql.connect(**login(server))) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute("SHOW TABLES")
                assert cursor.fetchall() == (("kv",),)
                cursor.execute("SHOW SLAVE STATUS")
                assert bool(cursor.fetchall()) == (not server.is_primary)

    def test_sql_asks_for_a_password_and_knows_no_other_user(
        self, replication: PrivateReplication
    ) -> None:
        for server in replication.servers:
            for user in ("root", "hskv", "replicator"):
                with pytest.raises(pymysql.MySQLError, match="denied"):
                    pymysql.connect(**{**login(server), "user": user, "password": ""})

    def test_a_write_waits_until_a_replica_has_it(self, replication: PrivateReplication) -> None:
        (replica,) = replication.replicas
        replica.query("STOP SLAVE IO_THREAD")
        thread = threading.Thread(target=write, args=(replication.primary, "waits"))
        thread.start()
        assert eventually(lambda: waiting_writes(replication.primary) == 1)
        assert read(replication.primary, "waits") is None
        replica.query("START SLAVE IO_THREAD")
        thread.join(10.0)
        assert not thread.is_alive()
        assert read(replication.primary, "waits") == b""

    def test_no_secret_shows(self, replication: PrivateReplication) -> None:
        hidden = login(replication.primary)["password"], replication.primary.secret
        for server in replication.servers:
            with pytest.raises(ClusterError) as caught:
                server.query("SELECT wrong")
            shown = repr(server) + repr(replication) + server.log + str(caught.value)
            assert not [secret for secret in hidden if secret in shown]


class TestCrashes:
    def test_a_replica_that_was_killed_catches_up(self, replication: PrivateReplication) -> None:
        (replica,) = replication.replicas
        replica.kill()
        threading.Thread(target=write, args=(replication.primary, "meanwhile")).start()
        assert eventually(lambda: waiting_writes(replication.primary) == 1)
        replica.start()
        assert arrives(replica, "meanwhile")

    def test_a_primary_that_is_started_again_goes_on(self, replication: PrivateReplication) -> None:
        primary = replication.primary
        for end in (primary.kill, primary.stop):
            with Writer([primary], f"{end.__name__} ") as writer:
                writer.wait_for(50)
                end()
                primary.start()
                writer.wait_for(50)
            (replica,) = replication.replicas
            for server in replication.servers:
                assert arrives(server, writer.acknowledged[-1], b"x")
                assert set(writer.acknowledged) <= keys(server)
            assert keys(primary) == keys(replica)

    @pytest.mark.parametrize("round_", range(3))
    def test_a_promotion_after_a_crash_loses_nothing_acknowledged(
        self, replication: PrivateReplication, round_: int
    ) -> None:
        old = replication.primary
        with Writer(replication.servers, f"crash {round_} ") as writer:
            writer.wait_for(100)
            old.kill()
            new = replication.promote()
            writer.wait_for(100)
            old.start()
            writer.wait_for(100)
        assert new is replication.primary is not old
        assert set(writer.acknowledged) <= keys(new)
        assert eventually(lambda: keys(old) == keys(new))
        with pytest.raises(pymysql.MySQLError, match="read-only"):
            write(old, "stray")
        writer.tell("primary killed, replica promoted, old one back")

    def test_a_planned_promotion_loses_nothing_though_clients_are_connected(
        self, replication: PrivateReplication
    ) -> None:
        old = replication.primary
        with reader(replication.servers) as client:
            index = client.open("kv", ["v"])
            for _ in replication.servers:
                client.find(index, "=", ["a"])
            with Writer(replication.servers, "planned ") as writer:
                writer.wait_for(100)
                new = replication.promote(replication.replicas[0])
                writer.wait_for(100)
        assert set(writer.acknowledged) <= keys(new)
        assert eventually(lambda: keys(old) == keys(new))
        writer.tell("planned promotion")

    def test_what_no_replica_received_is_gone_from_the_old_primary_too(
        self, replication: PrivateReplication
    ) -> None:
        old = replication.primary
        (replica,) = replication.replicas
        replica.query("STOP SLAVE IO_THREAD")
        thread = try_to_write(old, "never acknowledged")
        assert eventually(lambda: waiting_writes(old) == 1)
        old.kill()
        thread.join()
        replication.promote()
        write(replica, "after")
        old.start()
        assert "Successfully truncated" in old.log
        for server in replication.servers:
            assert arrives(server, "after")
            assert "never acknowledged" not in keys(server)


class TestThree:
    def test_the_replica_with_the_most_is_promoted_and_the_other_follows_it(
        self, three: PrivateReplication
    ) -> None:
        old = three.primary
        behind, ahead = three.replicas
        behind.query("STOP SLAVE IO_THREAD")
        write(old, "acknowledged by one")
        old.kill()
        with pytest.raises(ClusterError, match="received less"):
            three.promote(behind)
        assert three.primary is old
        assert three.promote() is ahead
        assert arrives(behind, "acknowledged by one")
        # The other replica acknowledges, though the old primary is gone.
        write(ahead, "goes on")
        assert arrives(behind, "goes on")
        old.start()
        assert keys(old) == keys(ahead)

    def test_only_a_replica_that_runs_can_be_promoted(self, three: PrivateReplication) -> None:
        for server in (three.primary, PrivateReplication().primary):
            with pytest.raises(ClusterError, match="no running replica"):
                three.promote(server)
        replicas = three.replicas
        for replica in replicas:
            replica.stop()
        with pytest.raises(ClusterError, match="no replica runs"):
            three.promote()
        # A primary that is alone starts all the same; its writes wait.
        three.primary.kill()
        three.primary.start()
        thread = threading.Thread(target=write, args=(three.primary, "with nobody"))
        thread.start()
        assert eventually(lambda: waiting_writes(three.primary) == 1)
        three.start()
        thread.join(10.0)
        assert not thread.is_alive()


class TestAsynchronous:
    def test_it_waits_for_no_replica_and_says_when_an_old_primary_has_more(self) -> None:
        with PrivateReplication(semi_sync=False) as cluster:
            old, (replica,) = cluster.primary, cluster.replicas
            write(old, "both")
            assert arrives(replica, "both")
            replica.query("STOP SLAVE IO_THREAD")
            write(old, "lost")
            old.kill()
            cluster.promote()
            assert keys(replica) == {"both"}
            write(replica, "after")
            with pytest.raises(ClusterError, match="transactions that the primary has not"):
                old.start()
            assert old.pid is None
            write(replica, "goes on")

    def test_a_primary_that_cannot_be_followed_stays_the_primary(self) -> None:
        with PrivateReplication(semi_sync=False, start_timeout=15.0) as cluster:
            (replica,) = cluster.replicas
            replica.query("STOP SLAVE")
            write(cluster.primary, "a")
            cluster._start_timeout = 1.0
            with pytest.raises(ClusterError, match="did not reach"):
                cluster.promote()
            write(cluster.primary, "b")
            replica.query("RESET SLAVE ALL")
            cluster.primary.kill()
            with pytest.raises(ClusterError, match="is no replica"):
                cluster.promote()


class TestMistakes:
    def test_a_failed_start_quotes_the_log_and_leaves_nothing(self) -> None:
        cluster = PrivateReplication(options={"no_such_setting": 1})
        with pytest.raises(ServerStartError, match="unknown variable 'no_such_setting"):
            cluster.start()
        assert cluster.running == []
        with pytest.raises(ServerStartError, match="never started"):
            _ = cluster.primary.directory

    def test_a_number_of_replicas_that_makes_no_sense_is_refused(self) -> None:
        with pytest.raises(ValueError, match="replicas is 1 or more"):
            PrivateReplication(0)

    def test_missing_pymysql_says_how_to_install_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pymysql", None)
        with pytest.raises(ImportError, match="pip install PyMySQL"):
            PrivateReplication()
