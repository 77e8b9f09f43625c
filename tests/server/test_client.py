"""Client, Index and Pipeline on the real server, and what a connection must survive."""

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import Client, exceptions
from hskv.mariadb import PrivateServer
from hskv.transport.address import Address
from hskv.transport.retry import Effect


@pytest.fixture(scope="module")
def cars(hskv_server: PrivateServer, run_sql: Callable[..., Any]) -> Iterator[Callable[[], Client]]:
    run_sql("DROP TABLE IF EXISTS cars")
    run_sql(
        "CREATE TABLE cars (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
        " brand VARBINARY(40) NOT NULL, year INT NOT NULL, price INT, UNIQUE KEY b (brand, year))"
    )
    opened: list[Client] = []

    def connect() -> Client:
        opened.append(Client(hskv_server.url))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def garage(cars: Callable[[], Client]) -> Client:
    client = cars()
    everything = client.open("cars", ["id"])
    client.modify(everything, ">=", [0], "D", limit=1_000)
    insert = client.open("cars", ["brand", "year", "price"])
    for brand, year, price in (
        ("a", 2001, 10),
        ("a", 2002, 20),
        ("b", 2001, None),
        ("c", 1999, 40),
    ):
        client.insert(insert, [brand, year, price])
    return client


BY_BRAND = {"index_name": "b", "filter_columns": ["price", "year"]}


def names(rows: list[hskv.client.Row]) -> list[tuple[bytes | None, ...]]:
    return [row[:2] for row in rows]


class TestFind:
    def test_one_row_by_a_composite_key(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year", "price"], index_name="b")
        assert garage.find(index, "=", ["a", 2002]) == [(b"a", b"2002", b"20")]
        assert garage.find(index, "=", ["a", 1970]) == []

    def test_null_is_none_and_empty_is_empty(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year", "price"], index_name="b")
        assert garage.find(index, "=", ["b"]) == [(b"b", b"2001", None)]
        garage.insert(garage.open("cars", ["brand", "year", "price"]), ["", 1, 0])
        assert garage.find(index, "=", [""]) == [(b"", b"1", b"0")]

    def test_limit_offset_and_order(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year"], index_name="b")
        ascending = garage.find(index, ">=", ["a"], limit=10)
        assert names(ascending) == [
            (b"a", b"2001"),
            (b"a", b"2002"),
            (b"b", b"2001"),
            (b"c", b"1999"),
        ]
        assert garage.find(index, "<=", ["c", 3000], limit=10) == ascending[::-1]
        assert garage.find(index, ">=", ["a"], limit=2, offset=1) == ascending[1:3]
        assert garage.find(index, ">", ["a", 2001], limit=1) == ascending[1:2]

    def test_filters_skip_and_while_stops(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year"], **BY_BRAND)  # type: ignore[arg-type]
        dear = garage.find(index, ">=", ["a"], limit=10, filters=[("price", ">", 10)])
        assert names(dear) == [(b"a", b"2002"), (b"c", b"1999")]
        recent = garage.find(index, ">=", ["a"], limit=10, while_=[("year", ">", 2000)])
        assert len(recent) == 3
        null = garage.find(index, ">=", ["a"], limit=10, filters=[("price", "=", None)])
        assert names(null) == [(b"b", b"2001")]

    def test_in_gives_a_row_for_each_value(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year"], index_name="b")
        rows = garage.find(index, "=", ["", 2001], in_=(0, ["b", "x", "a"]), limit=3)
        assert names(rows) == [(b"b", b"2001"), (b"a", b"2001")]
        with pytest.raises(ValueError, match="IN values"):
            garage.find(index, "=", ["", 2001], in_=(0, ["b", "a"]))


class TestModify:
    def test_insert_gives_the_generated_number(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year", "price"])
        first = garage.insert(index, ["x", 1, 1])
        second = garage.insert(index, ["x", 2, 1])
        assert first
        assert second == first + 1

    def test_insert_of_a_taken_key_is_an_error(self, garage: Client) -> None:
        index = garage.open("cars", ["brand", "year", "price"])
        with pytest.raises(hskv.DuplicateKeyError) as caught:
            garage.insert(index, ["a", 2001, 1])
        assert (caught.value.code, caught.value.reason) == (1, "121")

    def test_update_add_and_delete_count_rows(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], **BY_BRAND)  # type: ignore[arg-type]
        assert garage.modify(index, "=", ["a", 2001], "U", [11]) == 1
        assert garage.modify(index, "=", ["a", 2001], "+", [5]) == 1
        assert garage.modify(index, "=", ["a", 2001], "-", [6]) == 1
        assert garage.find(index, "=", ["a", 2001]) == [(b"10",)]
        assert garage.modify(index, "=", ["zz"], "U", [11]) == 0
        assert garage.modify(index, "=", ["a"], "D", limit=10) == 2
        assert garage.find(index, "=", ["a"]) == []

    def test_the_rows_before_the_change_come_back(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], index_name="b")
        assert garage.modify_returning(index, "=", ["a", 2001], "+", [5]) == [(b"10",)]
        assert garage.modify_returning(index, "=", ["a", 2001], "U", [1]) == [(b"15",)]
        assert garage.modify_returning(index, "=", ["a"], "D", limit=9) == [(b"1",), (b"20",)]
        assert garage.modify_returning(index, "=", ["a"], "D", limit=9) == []

    def test_a_filter_makes_an_update_conditional(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], **BY_BRAND)  # type: ignore[arg-type]
        for seen, changed in ((11, 0), (10, 1)):
            filters = [("price", "=", seen)]
            assert garage.modify(index, "=", ["a", 2001], "U", [99], filters=filters) == changed


class TestPipeline:
    def test_results_come_in_order(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], index_name="b")
        insert = garage.open("cars", ["brand", "year", "price"])
        pipeline = garage.pipeline()
        pipeline.find(index, "=", ["a", 2001]).insert(insert, ["n", 1, 5])
        pipeline.modify(index, "=", ["n", 1], "+", [1])
        pipeline.modify_returning(index, "=", ["n", 1], "U", [9]).find(index, "=", ["n", 1])
        assert len(pipeline) == 5
        found, number, count, before, after = pipeline.execute()
        assert (found, count, before, after) == ([(b"10",)], 1, [(b"6",)], [(b"9",)])
        assert isinstance(number, int)
        assert pipeline.execute() == []

    def test_an_error_stands_in_its_place_or_is_raised(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], index_name="b")
        insert = garage.open("cars", ["brand", "year", "price"])
        pipeline = garage.pipeline().insert(insert, ["a", 2001, 1]).find(index, "=", ["c"])
        duplicate, found = pipeline.execute(raise_on_error=False)
        assert isinstance(duplicate, hskv.DuplicateKeyError)
        assert found == [(b"40",)]
        pipeline.insert(insert, ["a", 2001, 1]).insert(insert, ["p", 1, 1])
        with pytest.raises(hskv.DuplicateKeyError):
            pipeline.execute()
        assert garage.find(index, "=", ["p"]) == [(b"1",)], "the other request was done"

    def test_reads_alone_go_to_the_read_port(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], index_name="b")
        nowhere = replace(garage.settings, writers=(Address(path="/nowhere"),))
        with Client.from_settings(nowhere) as reader:
            index = reader.open("cars", ["price"], index_name="b")
            rows = reader.pipeline().find(index, "=", ["c"]).find(index, "=", ["c"]).execute()
            assert rows == [[(b"40",)], [(b"40",)]]
            with pytest.raises(exceptions.ConnectionError):
                reader.pipeline().find(index, "=", ["c"]).modify(index, "=", ["c"], "D").execute()

    def test_a_thousand_requests_in_one_write(self, garage: Client) -> None:
        index = garage.open("cars", ["price"], index_name="b")
        pipeline = garage.pipeline()
        for _ in range(1_000):
            pipeline.modify(index, "=", ["a", 2001], "+", [1])
        assert pipeline.execute() == [1] * 1_000
        assert garage.find(index, "=", ["a", 2001]) == [(b"1010",)]


class TestIndexes:
    def test_the_same_description_is_the_same_index(self, client: Client) -> None:
        assert client.open("kv", ["n"]) is client.open("kv", ("n",))
        assert client.open("kv", ["n"]) is not client.open("kv", ["n"], filter_columns=["n"])

    def test_one_string_is_no_list_of_columns(self, client: Client) -> None:
        with pytest.raises(TypeError, match="lists of names"):
            client.open("kv", "n")

    def test_a_database_must_be_named(self) -> None:
        client = Client("hskv://127.0.0.1/d")
        assert client.open("kv", ["n"], database="other").database == "other"
        assert client.open("kv", ["n"]).database == "d"

    def test_a_channel_that_opened_many_indexes_is_replaced(self, client: Client) -> None:
        columns = ["k", "v", "n", "kind", "version", "expires"]
        for number in range(400):
            wanted = [columns[number // 6**place % 6] for place in range(4)]
            index = client.open("kv", wanted)
            client.find(index, "=", [b"x"])
        assert client.find(index, "=", [b"x"]) == []

    def test_a_client_pickles(self, client: Client) -> None:
        with pickle.loads(pickle.dumps(client)) as copy:
            index = copy.open("kv", ["n"])
            assert copy.find(index, "=", [b"none"]) == []


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    tasks = Path(f"/proc/{pid}/task")
    while {(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks.iterdir()} != {"T"}:
        assert time.monotonic() < deadline
        time.sleep(0.001)


class TestTrouble:
    @pytest.fixture
    def own_server(self) -> Iterator[PrivateServer]:
        with PrivateServer() as server:
            yield server

    def test_a_killed_and_restarted_server_costs_a_reader_nothing(
        self, own_server: PrivateServer
    ) -> None:
        with hskv.connect(own_server.url) as store:
            store["a"] = 1
            own_server.kill()
            own_server.start()
            assert store["a"] == 1
            own_server.stop()
            with pytest.raises(exceptions.ConnectionError):
                store.get("a")
            own_server.start()
            assert store["a"] == 1
            store["a"] = 2
            assert store["a"] == 2

    def test_a_stopped_server_is_a_timeout_and_the_next_call_is_right(
        self, own_server: PrivateServer
    ) -> None:
        assert own_server.pid
        with hskv.connect(own_server.url, timeout=0.4) as store:
            store.set_many({"a": "a", "b": "b"})
            assert store["a"] == "a"
            freeze(own_server.pid)
            started = time.monotonic()
            try:
                with pytest.raises(exceptions.RequestTimeoutError):
                    store.get("a")
                with pytest.raises(hskv.OutcomeUnknownError):
                    store.incr("n")
            finally:
                os.kill(own_server.pid, signal.SIGCONT)
            assert time.monotonic() - started < 3
            # The late replies to what timed out answer nothing else.
            assert store["b"] == "b"
            assert store.incr("m") == 1

    def test_an_interrupt_in_mid_exchange_drops_the_channel(
        self, own_server: PrivateServer
    ) -> None:
        assert own_server.pid
        with hskv.connect(own_server.url) as store:
            store.set_many({"a": "a", "b": "b"})
            assert store["a"] == "a"
            freeze(own_server.pid)
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                with pytest.raises(KeyboardInterrupt):
                    store.get("a")
            finally:
                timer.join()
                os.kill(own_server.pid, signal.SIGCONT)
            assert store["b"] == "b"

    def test_idle_channels_end_with_the_server_and_not_in_a_request(
        self, own_server: PrivateServer
    ) -> None:
        with hskv.connect(own_server.url) as store:
            store["n"] = 0
            assert store.incr("n") == 1
            own_server.stop()
            own_server.start()
            # Idle for more than a second: the peek sees the end, and even a write is safe.
            time.sleep(1.1)
            assert store.incr("n") == 2

    def test_waiting_for_a_channel_does_not_eat_the_time_of_the_request(
        self, own_server: PrivateServer
    ) -> None:
        with hskv.connect(own_server.url, pool_size=1, timeout=0.3) as store:
            assert store.add("a", 1)
            pool = store.client._writer
            channel = pool.acquire()
            timer = threading.Timer(0.6, pool.release, (channel,))
            timer.start()
            assert store.add("b", 1)
            timer.join()

    def test_a_quick_restart_under_many_channels_costs_a_reader_nothing(
        self, own_server: PrivateServer
    ) -> None:
        with hskv.connect(own_server.url) as store:
            store["a"] = 1
            pool = store.client._reader
            channels = [pool.acquire() for _ in range(16)]
            own_server.kill()
            own_server.start()
            for channel in channels:
                pool.release(channel)
            assert store["a"] == 1

    def test_a_large_request_and_its_reply_share_one_timeout(
        self, own_server: PrivateServer
    ) -> None:
        assert own_server.pid
        with hskv.connect(own_server.url, timeout=3.0) as store:
            store["a"] = 1
            large = b"x" * (64 << 20)
            freeze(own_server.pid)
            timer = threading.Timer(2.1, os.kill, (own_server.pid, signal.SIGCONT))
            timer.start()
            started = time.monotonic()
            try:
                store["a"] = large
            except hskv.OutcomeUnknownError:
                assert time.monotonic() - started < 4.8
            timer.join()

    def test_an_error_keeps_its_cause(self, own_server: PrivateServer) -> None:
        assert own_server.pid
        with hskv.connect(own_server.url, timeout=0.2) as store:
            store["a"] = 1
            freeze(own_server.pid)
            try:
                with pytest.raises(hskv.OutcomeUnknownError) as caught:
                    store["a"] = 2
            finally:
                os.kill(own_server.pid, signal.SIGCONT)
            assert isinstance(caught.value.__cause__, exceptions.RequestTimeoutError)


def test_a_secret_is_read_from_its_file(hskv_server: PrivateServer, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    url = hskv_server.url.replace(f":{hskv_server.secret}@", "")
    with hskv.connect(url, secret_file=str(file)) as store:
        with pytest.raises(hskv.AuthenticationError, match="cannot be read"):
            store.get("a")
        file.write_text(hskv_server.secret + "\n")
        assert store.get("none") is None


@pytest.mark.parametrize("by", ["keyword", "url"])
def test_the_write_secret_is_read_from_its_file(
    hskv_server: PrivateServer, tmp_path: Path, by: str
) -> None:
    files = {"secret_file": tmp_path / "read", "write_secret_file": tmp_path / "write"}
    files["secret_file"].write_text(hskv_server.secret)
    files["write_secret_file"].write_text("another")
    url = hskv_server.url.replace(f":{hskv_server.secret}@", "")
    url = url.replace(f"&write_secret={hskv_server.write_secret}", "")
    options: dict[str, Any] = {name: str(file) for name, file in files.items()}
    if by == "url":
        url += "".join(f"&{name}={path}" for name, path in options.items())
        options = {}
    with hskv.connect(url, **options) as store:
        assert store.get("none") is None
        with pytest.raises(hskv.AuthenticationError):
            store["a"] = 1
        files["write_secret_file"].write_text(hskv_server.write_secret)
        store["a"] = 1
        assert store.pop("a") == 1


class TestMaintenance:
    def test_alter_table_goes_through_once_the_client_is_drained(self) -> None:
        # A server of its own: any other connection to its threads would keep the table open.
        with (
            PrivateServer() as server,
            Client(server.url) as client,
            closing(pymysql.connect(autocommit=True, **server.sql)) as connection,
            connection.cursor() as sql,
        ):
            sql.execute("CREATE TABLE altered (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB")
            index = client.open("altered", ["id", "n"])
            client.insert(index, [1, 5])
            assert client.find(index, "=", [1]) == [(b"1", b"5")]
            assert client.drain()
            waiter = threading.Thread(target=client.find, args=(index, "=", [1]))
            waiter.start()
            started = time.monotonic()
            sql.execute("ALTER TABLE altered ADD COLUMN more INT NOT NULL DEFAULT 7")
            assert time.monotonic() - started < 3
            client.resume()
            waiter.join(5)
            assert not waiter.is_alive()
            wider = client.open("altered", ["id", "n", "more"])
            assert client.find(wider, "=", [1]) == [(b"1", b"5", b"7")]
            assert client.stats()["read"]["size"] >= 1
            assert client.drain(refuse=True)
            with pytest.raises(hskv.PoolTimeoutError, match="drained"):
                client.find(wider, "=", [1])

    def test_traffic_is_logged_without_the_secret(
        self, hskv_server: PrivateServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG, "hskv.traffic"), Client(hskv_server.url) as client:
            client.find(client.open("kv", ["n"]), "=", [b"shown"])
        assert "A\\t1\\t***" in caplog.text
        assert "shown" in caplog.text
        assert hskv_server.secret not in caplog.text


def test_a_long_in_list_is_looked_up_in_parts(garage: Client) -> None:
    cars = garage.open("cars", ["brand"])
    ids = [int(row[0] or 0) for row in garage.find(garage.open("cars", ["id"]), ">=", [0], limit=9)]
    wanted = [*range(10**6, 10**6 + 1500), *ids[::-1]]
    found = garage.find(cars, "=", [0], limit=len(wanted), in_=(0, wanted))
    assert found == [(b"c",), (b"b",), (b"a",), (b"a",)]


def test_a_long_in_list_is_changed_in_parts(garage: Client) -> None:
    prices = garage.open("cars", ["price"])
    ids = [int(row[0] or 0) for row in garage.find(garage.open("cars", ["id"]), ">=", [0], limit=9)]
    wanted = [ids[0], *range(10**6, 10**6 + 1500), ids[3]]
    size = len(wanted)
    assert garage.modify(prices, "=", [0], "+", [1], limit=size, in_=(0, wanted)) == 2
    old = garage.modify_returning(prices, "=", [0], "U", [7], limit=size, in_=(0, wanted))
    assert old == [(b"11",), (b"41",)]


def test_what_a_long_in_list_cannot_have_is_refused_before_anything_is_sent(
    garage: Client,
) -> None:
    index = garage.open("cars", ["price"], filter_columns=["price"])
    ids = list(range(1500))
    connects = garage.stats()
    bad: list[tuple[dict[str, Any], str]] = [
        ({"limit": 1499}, "limit 1499 is less than the 1500 values"),
        ({"limit": 1500, "offset": 1}, "offset and while_ need"),
        ({"limit": 1500, "while_": [("price", "<", 5)]}, "offset and while_ need"),
    ]
    for options, words in bad:
        with pytest.raises(ValueError, match=words):
            garage.find(index, "=", [0], in_=(0, ids), **options)
    with pytest.raises(ValueError, match="NULL"):
        garage.modify(index, "=", [0], "D", limit=1501, in_=(0, [*ids, None]))
    with pytest.raises(ValueError, match="a pipeline takes IN lists of at most 1000"):
        garage.pipeline().find(index, "=", [0], limit=1500, in_=(0, ids))
    assert garage.stats() == connects


def test_verify_asks_either_port_whether_an_index_can_be_opened(garage: Client) -> None:
    garage.verify(garage.open("cars", ["id"]))
    garage.verify(garage.open("cars", ["id"]), Effect.WRITE)
    for effect in (Effect.READ, Effect.WRITE):
        with pytest.raises(exceptions.ColumnNotFoundError):
            garage.verify(garage.open("cars", ["nix"]), effect)


def test_after_a_purge_requests_connect_anew(garage: Client) -> None:
    index = garage.open("cars", ["brand"])
    garage.find(index, ">=", [0])
    before = garage.stats()["read"]
    garage.purge()
    assert garage.stats()["read"]["size"] == 0
    garage.find(index, ">=", [0])
    assert garage.stats()["read"]["connects"] == before["connects"] + 1
