"""What a store refuses to do by HandlerSocket, since SQL says that it would be lost or crash."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

import hskv
from hskv import KeyValueStore, Table
from hskv.mariadb import PrivateServer
from hskv.transport.checkup import Examiner
from hskv.transport.sql_address import parse_sql_url
from hskv.transport.sql_channel import SqlChannel

from ..conftest import sql_on
from .sql_stores import Sql, Store, by_sql, path_of

pytestmark = pytest.mark.handlersocket("it says itself how a store goes")


@pytest.fixture
def store(hskv_server: PrivateServer, hskv_store: Store) -> Iterator[Store]:
    """A store that goes by SQL alone, on an empty table."""
    with hskv.connect(by_sql(path_of(hskv_server)), cull=False) as store:
        yield store


class TestWhatIsRefused:
    """HandlerSocket beside SQL, where it would lose writes or crash the server."""

    @pytest.mark.parametrize("create", ["VIEW", "TABLE"])
    @pytest.mark.parametrize("writes", ["sql", "handlersocket"])
    def test_a_view_and_a_partitioned_table(
        self, hskv_server: PrivateServer, run_sql: Sql, create: str, writes: str
    ) -> None:
        run_sql("DROP VIEW IF EXISTS odd")
        run_sql("DROP TABLE IF EXISTS odd")
        run_sql("DELETE FROM kv")
        statement = Table("odd").create_sql() + " PARTITION BY KEY (k) PARTITIONS 2"
        run_sql("CREATE VIEW odd AS SELECT * FROM kv" if create == "VIEW" else statement)
        sql = f"sql=mysql+unix://root@{quote(path_of(hskv_server))}"
        with KeyValueStore(f"{hskv_server.url}&{sql}&writes={writes}", "odd") as store:
            for call in (
                lambda: store.get("a"),
                lambda: list(store),
                lambda: store.incr("a"),
                lambda: store.find(">=", ["a"], limit=3),
                lambda: store.modify("=", ["a"], "D"),
                lambda: store.manager,
            ):
                with pytest.raises(hskv.UnsupportedError, match="crash"):
                    call()
        with KeyValueStore(by_sql(path_of(hskv_server)), "odd") as store:
            assert store.incr("only by SQL") == 1
            assert store["only by SQL"] == 1
            assert list(store.scan()) == [("only by SQL", 1)]

    @pytest.mark.parametrize(
        ("options", "says"),
        [({"autocommit": 0}, "autocommit=0"), ({"log_bin": "bin", "server_id": 1}, "binary log")],
    )
    def test_servers_on_which_writes_would_be_lost(
        self, options: dict[str, Any], says: str
    ) -> None:
        with PrivateServer(options=options) as server:
            sql = f"sql=mysql+unix://root@{quote(path_of(server))}"
            with hskv.connect(f"{server.url}&{sql}") as store:
                with pytest.raises(hskv.UnsupportedError, match=says):
                    store["a"] = 1
                with pytest.raises(hskv.UnsupportedError, match=says):
                    store.get("a")
                with pytest.raises(hskv.UnsupportedError, match=says):
                    store.modify("=", ["a"], "U", {"n": 4})
            with hskv.connect(f"{server.url}&{sql}&writes=sql") as store:
                if "log_bin" in options:
                    store["a"] = 1
                    assert store["a"] == 1
                else:
                    with pytest.raises(hskv.UnsupportedError, match=says):
                        store.get("a")
                    assert "autocommit=0" in str(trouble_of(server))
                    shows_a_row_for_ever_as_it_was(server)

    def test_writes_where_sql_names_several_servers(self) -> None:
        with pytest.raises(hskv.UnsupportedError, match="has one server"):
            hskv.connect("hskv://h/db?sql=mysql://u@h,i/")

    def test_it_is_looked_at_once(self, hskv_server: PrivateServer, hskv_store: Store) -> None:
        told: list[hskv.RequestInfo] = []
        sql = f"sql=mysql+unix://root@{quote(path_of(hskv_server))}&writes=sql"
        with hskv.connect(f"{hskv_server.url}&{sql}", on_request=told.append) as store:
            store["a"] = 1
            told.clear()
            for one in (store, store.namespace("x:"), store.reading("replica")):
                one["a"] = 1
                assert one["a"] == 1
            assert [info.operation for info in told].count("find") == 3

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.find("=", ["a"]),
            lambda store: store.modify("=", ["a"], "D"),
            lambda store: store.manager.get("hskv", "kv", ["k"], "a"),
            lambda store: (
                store.client.pipeline().insert(store.client.open("kv", ["k"]), ["a"]).execute()
            ),
        ],
    )
    def test_the_raw_calls_say_that_they_need_handlersocket(
        self, store: Store, call: Callable[[Store], Any]
    ) -> None:
        with pytest.raises(hskv.UnsupportedError, match="no HandlerSocket listener"):
            call(store)


def trouble_of(server: PrivateServer) -> str | None:
    """Why a store that reads from several servers does not read from this one."""
    login = parse_sql_url(f"mysql+unix://root@{quote(path_of(server))}")
    times = {"connect_timeout": 2.0, "timeout": 2.0, "lifetime": 60.0}
    with closing(Examiner(partial(SqlChannel, login.hosts[0], login, **times), 10.0)) as examiner:
        return examiner().trouble


def shows_a_row_for_ever_as_it_was(server: PrivateServer) -> None:
    """Whatever SET GLOBAL says."""
    sql_on(server, "CREATE TABLE other LIKE kv")
    sql_on(server, "INSERT other (k, v) VALUES ('a', 'old')")
    with hskv.Client(server.url) as client:
        index = client.open("other", ["v"])
        assert client.find(index, "=", ["a"]) == [(b"old",)]
        sql_on(server, "UPDATE other SET v = 'new'")
        sql_on(server, "SET GLOBAL autocommit = 1")
        assert client.find(index, "=", ["a"]) == [(b"old",)]
