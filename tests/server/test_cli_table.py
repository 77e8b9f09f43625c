"""hskv init, purge, stats, bench, drain."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .cli import Shell

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]


@pytest.fixture
def own_shell(shell: Shell) -> Iterator[tuple[Shell, PrivateServer]]:
    """A shell on a server of its own, which no other client is connected to."""
    with PrivateServer() as server:
        shell.export("HSKV_URL", server.url)
        shell.export("HSKV_SQL", f"mysql+unix://root@{server.sql['unix_socket']}")
        yield shell, server


def test_init_makes_the_table_once(shell: Shell, hskv_server: PrivateServer, run_sql: Sql) -> None:
    name = "made by init"
    options = ("init", "--database", "hskv_init", "--table", name)
    assert shell(*options).out == b"the table made by init in hskv_init was made\n"
    assert shell(*options, "--json").json["made"] is False
    with hskv.connect(hskv_server.url, hskv.Table(name, database="hskv_init")) as store:
        store["a"] = 1
        assert store["a"] == 1
        store.client.drain()
        run_sql("DROP DATABASE hskv_init")


def test_init_refuses_a_table_that_is_not_fit(shell: Shell, run_sql: Sql) -> None:
    run_sql("CREATE TABLE unfit (k VARCHAR(9) PRIMARY KEY, v BLOB NOT NULL)")
    said = shell("init", "--table", "unfit")
    assert (said.code, "unfit" in said.err) == (4, True)


def test_init_as_a_user_with_few_rights_says_which_are_missing(
    shell: Shell, hskv_server: PrivateServer, run_sql: Sql
) -> None:
    run_sql("CREATE USER maker@localhost IDENTIFIED BY 'm'")
    shell.export("HSKV_SQL", f"mysql+unix://maker:m@{hskv_server.sql['unix_socket']}")
    try:
        refused = shell("init", "--table", "made")
        assert (refused.code, "an administrator, or GRANT" in refused.err) == (4, True)
        run_sql("GRANT CREATE ON hskv.* TO maker@localhost")
        blind = shell("init", "--table", "made")
        assert (blind.code, "GRANT SELECT ON it" in blind.err) == (4, True)
        shell.export("HSKV_SQL", f"mysql+unix://maker:n@{hskv_server.sql['unix_socket']}")
        assert "are these its user and password?" in shell("init").err
    finally:
        run_sql("DROP USER maker@localhost")
        run_sql("DROP TABLE IF EXISTS made")


def test_init_without_sql_prints_what_to_do(shell: Shell, run_sql: Sql) -> None:
    shell.export("HSKV_SQL", None)
    said = shell("init", "--table", "printed")
    assert said.code == 0
    statement = re.search(rb"CREATE TABLE.*?;", said.out, re.DOTALL)
    assert statement
    run_sql(statement[0].decode())
    assert run_sql("SELECT COUNT(*) FROM printed") == ((0,),)
    assert b"plugin_load_add = handlersocket" in said.out
    assert set(shell("init", "--json").json) == {"sql", "my_cnf"}
    assert set(shell("init", "--json", "--settings").json) == {"my_cnf"}


@pytest.mark.parametrize(
    ("url", "lines", "theirs"),
    [
        ("hskv://:s@10.0.0.5:1,2/d/t", ["10.0.0.5", "1", "2"], "hskv://:S@10.0.0.5:1,2/d/t?"),
        ("hskv://localhost/d", ["127.0.0.1", "9998", "9999"], "hskv://:S@localhost/d?"),
        (
            "hskv+unix:///d?read=/a%20b&write=/w",
            ["/", "/a b", "/w"],
            "hskv+unix://:S@/d?read=/a%20b&write=/w&",
        ),
        (
            "hskv://h/d?reads=sql&writes=sql&sql=mysql://u:p@h/",
            ["127.0.0.1", "9998", "9999"],
            "hskv://:S@127.0.0.1:9998,9999/d?",
        ),
    ],
)
def test_init_prints_settings_for_the_url_with_fresh_secrets(
    shell: Shell, url: str, lines: list[str], theirs: str
) -> None:
    shell.export("HSKV_URL", url)
    printed = shell("init", "--settings").out.decode()
    found = re.findall(r"handlersocket_(?:address|port|port_wr) = (.*?) *#", printed)
    assert found == lines
    read, write = re.findall(
        r"^handlersocket_plain_secret(?:_wr)? = (\w{32})$", printed, re.MULTILINE
    )
    assert f"# {theirs.replace('S', read)}write_secret={write}\n" in printed
    again = shell("init", "--settings").out.decode()
    assert read != write
    assert read not in again


def test_init_prints_no_settings_to_write_with_for_a_url_that_writes_by_sql(shell: Shell) -> None:
    servers = "replica=10.0.0.6:1&writes=sql&sql=mysql://u:{}@10.0.0.5,10.0.0.6/"
    shell.export("HSKV_URL", f"hskv://:s@10.0.0.5:1/d?{servers.format('p')}")
    printed = shell("init", "--settings").out.decode()
    lines = dict(re.findall(r"^(\w+) = (\w\S*)", printed, re.MULTILINE))
    secret = lines["handlersocket_plain_secret"]
    assert (lines["handlersocket_address"], lines["handlersocket_port"]) == ("10.0.0.5", "1")
    assert not [name for name in lines if name.endswith("_wr")]
    assert len(secret) == 32
    assert printed.endswith(
        f"(put your secrets in for ***):\n# hskv://:{secret}@10.0.0.5:1/d?{servers.format('***')}\n"
    )


def test_init_prints_what_the_files_with_the_secrets_are_to_have(shell: Shell) -> None:
    shell.export("HSKV_URL", "hskv://localhost/d?secret_file=/s")
    printed = shell("init", "--settings").out.decode()
    read, write = re.findall(
        r"^handlersocket_plain_secret(?:_wr)? = (\w{32})$", printed, re.MULTILINE
    )
    assert printed.splitlines()[-5:] == [
        "# hskv://localhost/d?secret_file=/s&write_secret_file=/s-write",
        "# with this in /s:",
        f"# {read}",
        "# with this in /s-write:",
        f"# {write}",
    ]


def test_purge_and_stats(shell: Shell, hskv_store: Store, run_sql: Sql) -> None:
    hskv_store.set_many({"a": 1, "b": "x", "c": [1]})
    hskv_store.set_many({"old": 1, "older": 2}, ttl=9)
    run_sql("UPDATE kv SET expires = 5 WHERE k = 'older'")
    run_sql("UPDATE kv SET expires = %s WHERE k = 'old'", int(time.time() * 1000) - 1000)
    hskv_store.lease("l").acquire()
    found = shell("stats", "--json").json
    expected = {"rows": 6, "live": 4, "expired": 2, "purgeable": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["kinds"] == {"text": 1, "int": 1, "json": 1, "lease": 1}
    assert found["handlersocket_connections"] > 0
    text = shell("stats").out.decode()
    assert "2, of them 1 for hskv purge" in text
    shell.export("HSKV_SQL", None)
    assert "data_bytes" not in shell("stats", "--json").json
    assert shell("purge", "--json").json == {"removed": 1}
    assert shell("purge").out == b"0 expired rows removed\n"


def test_bench_measures_and_leaves_nothing(shell: Shell, hskv_store: Store) -> None:
    hskv_store["a"] = 1
    figures = shell("bench", "--calls", "20", "--json").json
    assert set(figures) == {"get", "set", "incr"}
    assert all(one["raw_us"] > 0 and one["store_us"] > 0 for one in figures.values())
    assert "nothing is left behind" in shell("bench", "--calls", "2").out.decode()
    assert list(hskv_store) == ["a"]


def test_drain_waits_for_the_clients(
    own_shell: tuple[Shell, PrivateServer], tmp_path: Path
) -> None:
    shell, server = own_shell
    gone = tmp_path / "gone"
    change = "ALTER TABLE kv COMMENT 'changed'"
    with hskv.connect(server.url) as store:
        store["a"] = 1
        said = shell("drain", "--timeout", "0.3")
        assert (said.code, "still open: 1;" in said.err) == (4, True)
        assert shell("drain", change, "--timeout", "0.3").code == 4
        assert shell("drain", "--before", "false").code == 4

        def let_go() -> None:
            while not gone.exists():
                time.sleep(0.01)
            store.client.drain()

        thread = threading.Thread(target=let_go)
        thread.start()
        said = shell("drain", change, "--before", f"touch {gone}", "--after", f"rm {gone}")
        thread.join()
        assert (said.code, "the statement was run" in said.out.decode()) == (0, True), said
        assert not gone.exists()
        assert shell("drain", "--json").json["ran"] is None
        store.client.resume()
        assert store["a"] == 1
    assert shell("drain", "ALTER TABLE nowhere COMMENT 'x'").code == 4
    shell.export("HSKV_SQL", None)
    assert shell("drain").code == 2
