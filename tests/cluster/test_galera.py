"""PrivateGalera: what reaches the nodes, crashes, partitions, and starts of the whole."""

import os
import signal
import time

import pymysql
import pytest

import hskv
from hskv.mariadb import ClusterError, PrivateGalera, ServerStartError
from hskv.mariadb import galera as private_galera
from hskv.mariadb.galera import GaleraNode

from .traffic import Writer, arrives, eventually, keys, login, reader, write


def is_ready(node: GaleraNode) -> bool:
    return node.status["wsrep_ready"] == "ON" and node.status["wsrep_local_state"] == "4"


class TestRunning:
    def test_what_one_node_is_told_handlersocket_finds_on_all(self, galera: PrivateGalera) -> None:
        for number, node in enumerate(galera.nodes):
            write(node, f"from {number}")
            for other in galera.nodes:
                assert arrives(other, f"from {number}")

    def test_a_store_refuses_to_write_by_handlersocket(self, galera: PrivateGalera) -> None:
        node = galera.nodes[0]
        assert node.ask("SELECT NOT @@log_bin"), "which is another reason to refuse"
        with hskv.connect(f"{node.read_url}?sql={node.sql_url}") as store:
            with pytest.raises(hskv.UnsupportedError, match=r"is a node of Galera.*writes=sql"):
                store["a"] = 1
            with pytest.raises(hskv.UnsupportedError, match="is a node of Galera"):
                store.get("a")

    def test_sql_asks_for_a_password_and_knows_no_other_user(self, galera: PrivateGalera) -> None:
        for node in galera.nodes:
            for user in ("root", "hskv"):
                with pytest.raises(pymysql.MySQLError, match="denied"):
                    pymysql.connect(**{**login(node), "user": user, "password": ""})

    def test_no_secret_shows(self, galera: PrivateGalera) -> None:
        hidden = login(galera.nodes[0])["password"], galera.nodes[0].secret
        for node in galera.nodes:
            shown = repr(node) + repr(galera) + node.log
            assert not [secret for secret in hidden if secret in shown]


class TestCrashes:
    @pytest.mark.parametrize("number", range(3))
    def test_a_killed_node_loses_nothing_and_rejoins(
        self, galera: PrivateGalera, number: int
    ) -> None:
        killed = galera.nodes[number]
        others = [node for node in galera.nodes if node is not killed]
        with Writer([killed, *others], f"killed {number} ") as writer:
            writer.wait_for(100)
            killed.kill()
            writer.wait_for(100)
            killed.start()
            writer.wait_for(100)
        assert writer.longest_gap < 10.0
        for node in galera.nodes:
            assert arrives(node, writer.acknowledged[-1], b"x")
            assert set(writer.acknowledged) <= keys(node)
        writer.tell("Galera node killed, back")

    def test_handlersocket_goes_on_while_another_node_is_missed(
        self, galera: PrivateGalera
    ) -> None:
        first, second, killed = galera.nodes
        write(first, "there")
        assert arrives(second, "there")
        longest, ends = 0.0, time.monotonic() + 4.0
        with reader([second]) as client:
            index = client.open("kv", ["v"])
            killed.kill()
            while (began := time.monotonic()) < ends:
                assert client.find(index, "=", ["there"])
                longest = max(longest, time.monotonic() - began)
        killed.start()
        assert longest < 1.0
        print(f"HandlerSocket of a node while another is missed: longest find {longest:.3f} s")

    def test_a_node_that_stood_still_is_left_out_and_comes_back_by_itself(
        self, galera: PrivateGalera
    ) -> None:
        first, _, frozen = galera.nodes
        assert frozen.pid
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            with Writer([first], "frozen ") as writer:
                # The first may be let through by buffers.
                writer.wait_for(200)
            with pytest.raises(ClusterError, match="timed out"):
                frozen.query("SELECT 1", timeout=0.5)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert eventually(lambda: is_ready(frozen), 30.0)
        assert arrives(frozen, writer.acknowledged[-1], b"x")
        assert set(writer.acknowledged) <= keys(frozen)


class TestPartition:
    def test_an_isolated_node_refuses_sql_and_answers_handlersocket_with_what_was(
        self, galera: PrivateGalera
    ) -> None:
        first, _, isolated = galera.nodes
        write(first, "changes", "before")
        assert arrives(isolated, "changes", b"before")
        isolated.isolate()
        try:
            assert eventually(lambda: isolated.status["wsrep_ready"] == "OFF")
            assert isolated.status["wsrep_cluster_status"] == "non-Primary"
            write(first, "changes", "after")
            with pytest.raises(pymysql.MySQLError, match="WSREP has not yet prepared node"):
                write(isolated, "changes", "wrong")
            with reader([isolated]) as client:
                index = client.open("kv", ["v"])
                for _ in range(2):
                    assert client.find(index, "=", ["changes"]) == [(b"before",)]
                    client.purge()
        finally:
            isolated.reunite()
        assert arrives(isolated, "changes", b"after")

    def test_one_that_cannot_rejoin_says_so_in_time(self, galera: PrivateGalera) -> None:
        isolated = galera.nodes[1]
        isolated.isolate()
        assert eventually(lambda: isolated.status["wsrep_ready"] == "OFF")
        isolated._start_timeout = 0.1
        with pytest.raises(ClusterError, match="does not rejoin"):
            isolated.reunite()
        isolated._start_timeout = 60.0
        isolated.reunite()
        assert is_ready(isolated)


class TestWhole:
    def test_it_starts_again_after_all_were_stopped(self, galera: PrivateGalera) -> None:
        write(galera.nodes[0], "stopped")
        galera.stop()
        assert galera.running == []
        with pytest.raises(ClusterError, match="no node runs that this one could join"):
            galera.nodes[0].start()
        url = galera.url
        galera.start()
        assert galera.url == url
        for node in galera.nodes:
            assert arrives(node, "stopped")

    def test_after_all_were_killed_it_begins_with_the_node_that_has_the_most(
        self, galera: PrivateGalera
    ) -> None:
        first, second, third = galera.nodes
        first.kill()
        with Writer([third], "killed one by one ") as writer:
            writer.wait_for(100)
            second.stop()
            writer.wait_for(100)
            third.kill()
        galera.start()
        for node in galera.nodes:
            assert set(writer.acknowledged) <= keys(node)
        write(first, "goes on")
        assert arrives(third, "goes on")


class TestMistakes:
    def test_a_failed_start_quotes_the_log_and_leaves_nothing(self) -> None:
        cluster = PrivateGalera(options={"no_such_setting": 1})
        with pytest.raises(ServerStartError, match="unknown variable 'no_such_setting"):
            cluster.start()
        assert cluster.running == []
        with pytest.raises(ServerStartError, match="never started"):
            _ = cluster.nodes[0].directory

    def test_a_node_that_ends_while_it_joins_says_what_it_said(self, galera: PrivateGalera) -> None:
        node = galera.nodes[2]
        node.stop()
        node._options["no_such_setting"] = 1
        with pytest.raises(ServerStartError, match="unknown variable 'no_such_setting"):
            node.start()
        del node._options["no_such_setting"]
        node.start()
        assert is_ready(node)

    def test_data_whose_position_is_not_found_in_time_is_an_error(
        self, galera: PrivateGalera
    ) -> None:
        galera.stop()
        seconds, galera._start_timeout = galera._start_timeout, 0.0
        with pytest.raises(ServerStartError, match=r"no position was found .* did not end within"):
            galera.start()
        galera._start_timeout = seconds
        galera.start()
        assert all(is_ready(node) for node in galera.nodes)

    def test_a_number_of_nodes_that_makes_no_sense_is_refused(self) -> None:
        with pytest.raises(ValueError, match="nodes is 2 or more"):
            PrivateGalera(1)

    def test_a_missing_provider_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(private_galera, "_PROVIDERS", ("/nonexistent",))
        with pytest.raises(ServerStartError, match="apt-get install galera-4 rsync"):
            PrivateGalera()
