"""docs/replication.md against what the private clusters run with and are told."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest

from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node
from hskv.mariadb.replication import ReplicationServer

PAGE = (Path(__file__).parents[2] / "docs" / "replication.md").read_text()
DIRECTORIES = {"datadir", "tmpdir", "socket", "pid_file", "plugin_dir"}
OWN = {
    "handlersocket_address",
    "handlersocket_port",
    "handlersocket_plain_secret",
    "bind_address",
    "port",
    "wsrep_cluster_address",
    "wsrep_node_name",
    "wsrep_node_address",
    "wsrep_node_incoming_address",
    "wsrep_sst_receive_address",
}
OWN_OF_PROVIDER = {"gmcast.listen_addr", "ist.recv_addr"}


def section(title: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    heading = re.search(rf"^(#+) {title}$", PAGE, flags=re.MULTILINE)
    assert heading
    level = heading[1]
    below = PAGE.partition(f"{level} {title}\n")[2]
    return re.split(rf"^#{{2,{len(level)}}} ", below, flags=re.MULTILINE)[0]


def blocks(language: str, title: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(title), flags=re.DOTALL)


def settings(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",), interpolation=None)
    parser.read_string(text)
    return dict(parser["mariadbd"])


def comparable(found: dict[str, str]) -> dict[str, Any]:
    """Settings with what each machine has of its own left blank."""
    kept: dict[str, Any] = {name: value for name, value in found.items() if name not in DIRECTORIES}
    kept |= dict.fromkeys(OWN & set(kept), "")
    if options := kept.get("wsrep_provider_options"):
        pairs = dict(pair.split("=", 1) for pair in options.strip('"').split(";"))
        kept["wsrep_provider_options"] = pairs | dict.fromkeys(OWN_OF_PROVIDER & set(pairs), "")
    return kept


def running(server: Node) -> dict[str, Any]:
    return comparable(settings((server.directory / "my.cnf").read_text()))


def test_the_configuration_of_a_primary_with_replicas_is_the_one_that_runs(
    replication: PrivateReplication,
) -> None:
    (written,) = blocks("ini", "A primary with replicas")
    first, second = (running(server) for server in replication.servers)
    assert comparable(settings(written)) == first
    assert second == {**first, "server_id": "2"}


def test_the_configuration_of_galera_is_the_one_that_runs(galera: PrivateGalera) -> None:
    (written,) = blocks("ini", "Galera")
    for node in galera.nodes:
        assert comparable(settings(written)) == running(node)


Told = list[tuple[ReplicationServer, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """The statements that change something, in order, with the servers that were told."""
    statements: Told = []
    query = ReplicationServer.query

    def record(self: ReplicationServer, statement: str, *arguments: Any, **options: Any) -> Any:
        if not statement.startswith(("SHOW", "SELECT @@")):
            statements.append((self, bare(statement)))
        return query(self, statement, *arguments, **options)

    monkeypatch.setattr(ReplicationServer, "query", record)
    return statements


def bare(statement: str) -> str:
    """A statement without its values and line breaks."""
    statement = re.sub(r"'[^']*'|%s|\b\d+\b", "?", statement)
    statement = re.sub(r" AS \w+$", "", statement)
    return " ".join(statement.replace("master_demote_to_slave = ?", "demote").split())


def statements(block: str) -> list[str]:
    return [bare(part) for part in block.split(";") if part.strip()]


def test_a_promotion_tells_the_servers_what_the_page_says(told: Told) -> None:
    follow, lead = (statements(block) for block in blocks("sql", "Make a server a replica"))
    change, open_ = (statements(block) for block in blocks("sql", "Promotion, step by step"))
    assert open_ == lead
    with PrivateReplication(2) as cluster:
        old, other = cluster.primary, cluster.replicas[1]
        old.kill()
        told.clear()
        new = cluster.promote(cluster.replicas[0])
        assert [one for server, one in told if server is new] == change + open_
        assert [one for server, one in told if server is other][: len(follow)] == follow
        assert told.index((new, change[-1])) < told.index((other, follow[0]))
        assert told.index((other, follow[-1])) < told.index((new, open_[0]))
        told.clear()
        old.start()
        assert [one for server, one in told if server is old][: len(follow)] == follow
        assert [one for server, one in told if server is new] == lead


def test_a_planned_promotion_stops_the_old_primary_first(told: Told) -> None:
    with PrivateReplication() as cluster:
        old = cluster.primary
        told.clear()
        new = cluster.promote()
        assert told[0] == (old, "SET GLOBAL read_only = ON")
        assert told[-1] == (new, "SET GLOBAL read_only = OFF")


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_run(number: int) -> None:
    exec(blocks("python", "Try it: private clusters")[number], {})
