"""hskv init and hskv drain where not every server takes writes: root may write to a replica too."""

from collections.abc import Iterator, Sequence

import pytest

from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node

from ..server.cli import Shell
from .traffic import eventually


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(monkeypatch, capsysbinary)


@pytest.fixture(scope="module")
def promoted() -> Iterator[PrivateReplication]:
    """A primary with a replica, where the first of the URL is the replica."""
    with PrivateReplication() as cluster:
        cluster.promote()
        # Whom read_only does not stop.
        cluster.primary.query("CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'a'")
        cluster.primary.query("GRANT ALL ON *.* TO admin@'127.0.0.1'")
        yield cluster


def by_tcp(servers: Sequence[Node]) -> str:
    return f"mysql://admin:a@{','.join(server.sql_listener for server in servers)}/"


def by_socket(server: Node) -> str:
    return f"mysql+unix://root@{server.sql['unix_socket']}"


def tables(server: Node) -> set[str]:
    return {next(iter(row.values())) for row in server.query("SHOW TABLES IN hskv")}


def columns(server: Node) -> set[str]:
    return {row["Field"] for row in server.query("SHOW COLUMNS FROM hskv.kv")}


def replicates(server: Node) -> bool:
    status = server.query("SHOW SLAVE STATUS")[0]
    return bool(status["Slave_IO_Running"] == status["Slave_SQL_Running"] == "Yes")


def test_init_makes_the_table_on_the_primary(shell: Shell, promoted: PrivateReplication) -> None:
    shell.export("HSKV_URL", promoted.url)
    shell.export("HSKV_SQL", by_tcp(promoted.servers))
    assert shell("init", "--table", "made").out == b"the table made in hskv was made\n"
    (replica,) = promoted.replicas
    assert "made" in tables(promoted.primary)
    assert eventually(lambda: "made" in tables(replica))
    assert replicates(replica)


def test_init_makes_no_table_on_a_replica_alone(shell: Shell, promoted: PrivateReplication) -> None:
    (replica,) = promoted.replicas
    shell.export("HSKV_URL", promoted.url)
    shell.export("HSKV_SQL", by_socket(replica))
    said = shell("init", "--table", "stray")
    assert (said.code, said.out) == (4, b"")
    assert f"{replica.sql['unix_socket']}: it is read-only" in said.err
    assert "Name the one that is written to" in said.err
    assert all("stray" not in tables(server) for server in promoted.servers)


def test_drain_runs_the_statement_on_the_primary(
    shell: Shell, promoted: PrivateReplication
) -> None:
    shell.export("HSKV_URL", promoted.url)
    shell.export("HSKV_SQL", by_tcp(promoted.servers))
    said = shell("drain", "ALTER TABLE hskv.kv ADD COLUMN drained INT")
    assert (said.code, "the statement was run" in said.out.decode()) == (0, True), said
    assert all("drained" in columns(server) for server in promoted.servers)
    assert replicates(promoted.replicas[0])


def test_init_passes_over_a_server_that_is_away(shell: Shell, promoted: PrivateReplication) -> None:
    shell.export("HSKV_URL", promoted.url)
    shell.export("HSKV_SQL", by_tcp(promoted.servers))
    first, second = promoted.servers
    first.stop()
    try:
        assert shell("init", "--table", "kv").code == 0
        second.query("SET GLOBAL read_only = ON")
        said = shell("init", "--table", "kv")
        assert (said.code, first.sql_listener in said.err) == (4, True)
        assert f"{second.sql_listener}: it is read-only" in said.err
        second.query("SET GLOBAL read_only = OFF")
    finally:
        first.start()


def test_init_passes_over_a_node_without_a_majority(shell: Shell, galera: PrivateGalera) -> None:
    first, second, _ = galera.nodes
    shell.export("HSKV_URL", galera.url)
    first.isolate()
    try:
        assert eventually(lambda: first.status["wsrep_ready"] == "OFF")
        said = shell("init", "--table", "made")
        assert (said.code, said.out) == (0, b"the table made in hskv was made\n"), said
        assert "made" in tables(second)
        shell.export("HSKV_SQL", by_socket(first))
        said = shell("init", "--table", "made")
        assert (said.code, "no majority" in said.err) == (4, True), said
    finally:
        first.reunite()
