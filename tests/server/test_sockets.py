"""pyhs's low-level API on the real server: index ids, rows, and bare connections."""

import builtins
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from hskv import Manager, exceptions
from hskv.mariadb import PrivateServer
from hskv.sockets import Connection, HandlerSocket, ReadSocket, WriteSocket
from hskv.transport.address import load_settings

NAMES = ("hskv", "sockets_trucks")
COLUMNS = ["id", "company", "model"]

TRUCKS = [
    (1, "Scania", "G400", 10),
    (2, "Scania", "R500", 20),
    (3, "Volvo", None, 30),
    (4, "Żuk", "", 40),
]


def server_of(url: str, *, write: bool = False) -> tuple[Any, ...]:
    """Where a URL leads, as pyhs writes it."""
    settings = load_settings(url)
    address = (settings.writers if write else settings.readers)[0]
    if address.path is not None:
        return ("unix", address.path)
    return ("inet", address.host, address.port)


def reader_of(server: PrivateServer, **options: Any) -> ReadSocket:
    return ReadSocket([server_of(server.url)], secret=server.secret, **options)


def writer_of(server: PrivateServer, **options: Any) -> WriteSocket:
    servers = [server_of(server.url, write=True)]
    return WriteSocket(servers, secret=server.write_secret, **options)


@pytest.fixture(scope="module")
def table(run_sql: Callable[..., Any]) -> None:
    run_sql(
        "CREATE TABLE sockets_trucks (id INT PRIMARY KEY, company VARCHAR(20) NOT NULL,"
        " model VARCHAR(20), n BIGINT NOT NULL, KEY by_company (company, id))"
    )


@pytest.fixture
def trucks(hskv_server: PrivateServer, table: None) -> None:
    with (
        closing(pymysql.connect(**hskv_server.sql)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DELETE FROM sockets_trucks")
        cursor.executemany("INSERT INTO sockets_trucks VALUES (%s, %s, %s, %s)", TRUCKS)
        connection.commit()


@pytest.fixture
def reader(hskv_server: PrivateServer, trucks: None) -> Iterator[ReadSocket]:
    with reader_of(hskv_server) as reader:
        yield reader


@pytest.fixture
def writer(hskv_server: PrivateServer, trucks: None) -> Iterator[WriteSocket]:
    with writer_of(hskv_server) as writer:
        yield writer


@pytest.fixture(scope="module")
def fresh_writer(hskv_server: PrivateServer, table: None) -> Iterator[WriteSocket]:
    """For what is refused: the rows are never looked at."""
    with writer_of(hskv_server) as writer:
        yield writer


@pytest.fixture
def manager(hskv_server: PrivateServer, trucks: None) -> Iterator[Manager]:
    with Manager(
        [server_of(hskv_server.url)],
        [server_of(hskv_server.url, write=True)],
        secret=hskv_server.secret,
        write_secret=hskv_server.write_secret,
    ) as manager:
        yield manager


@pytest.fixture(scope="module")
def own_server() -> Iterator[PrivateServer]:
    with PrivateServer() as server:
        yield server


class TestIndexIds:
    def test_the_same_names_have_the_same_id(self, reader: ReadSocket) -> None:
        index_id = reader.get_index_id(*NAMES, COLUMNS)
        assert type(index_id) is int
        assert reader.get_index_id(*NAMES, tuple(COLUMNS)) == index_id
        assert reader.get_index_id(*NAMES, iter(COLUMNS)) == index_id
        assert reader.get_index_id(*NAMES, COLUMNS, "PRIMARY") == index_id
        assert reader.get_index_id(*NAMES, COLUMNS, filter_fields=[]) == index_id

    def test_other_names_another_order_and_other_filters_have_ids_of_their_own(
        self, reader: ReadSocket
    ) -> None:
        ids = [
            reader.get_index_id(*NAMES, COLUMNS),
            reader.get_index_id(*NAMES, COLUMNS[::-1]),
            reader.get_index_id(*NAMES, COLUMNS[:2]),
            reader.get_index_id(*NAMES, COLUMNS, "by_company"),
            reader.get_index_id(*NAMES, COLUMNS, filter_fields=["n"]),
            reader.get_index_id(*NAMES, COLUMNS, filter_fields=["n", "id"]),
            reader.get_index_id(*NAMES, COLUMNS, filter_fields=["id", "n"]),
            reader.get_index_id("hskv", "kv", ["k"]),
        ]
        assert len(set(ids)) == len(ids)
        for index_id in ids[:2]:
            assert reader.find(index_id, "=", [1])
        assert reader.find(ids[1], "=", [1]) == [["G400", "Scania", "1"]]

    def test_they_are_good_after_a_restart_of_the_server(self, own_server: PrivateServer) -> None:
        with reader_of(own_server) as reader, writer_of(own_server) as writer:
            found = reader.get_index_id("hskv", "kv", ["k", "n"])
            changed = writer.get_index_id("hskv", "kv", ["n"])
            inserted = writer.get_index_id("hskv", "kv", ["k", "v", "n"])
            for number, restart in enumerate((lambda: None, own_server.kill)):
                restart()
                own_server.start()
                key = f"restart {number}"
                assert writer.insert(inserted, [key, "", number])
                assert writer.find_modify(changed, "=", [key], "+", [1]) == [["1"]]
                assert reader.find(found, "=", [key]) == [[key, str(number + 1)]]
                assert reader.get_index_id("hskv", "kv", ["k", "n"]) == found

    def test_they_are_good_after_the_purge_of_the_other_socket(self, manager: Manager) -> None:
        found = manager.read_socket.get_index_id(*NAMES, ["n"])
        changed = manager.write_socket.get_index_id(*NAMES, ["n"])
        manager.write_socket.purge()
        assert manager.read_socket.find(found, "=", [1]) == [["10"]]
        with pytest.raises(exceptions.OperationalError):
            manager.write_socket.find_modify(changed, "=", [1], "+", [1])
        changed = manager.write_socket.get_index_id(*NAMES, ["n"])
        manager.read_socket.purge()
        assert manager.write_socket.find_modify(changed, "=", [1], "+", [1]) == [["1"]]
        with pytest.raises(exceptions.OperationalError):
            manager.read_socket.find(found, "=", [1])

    @pytest.mark.parametrize("index_id", [0, 1, -1, 10**9, None, "0"])
    def test_an_unknown_one_is_an_operational_error(
        self, reader: ReadSocket, writer: WriteSocket, index_id: Any
    ) -> None:
        for use in (
            lambda: reader.find(index_id, "=", [1]),
            lambda: reader.purge_index(index_id),
            lambda: writer.insert(index_id, [9, "x", "y"]),
            lambda: writer.find_modify(index_id, "=", [1], "D"),
        ):
            with pytest.raises(exceptions.OperationalError, match="get one from get_index_id"):
                use()

    def test_one_is_purged_and_the_others_stay(self, reader: ReadSocket) -> None:
        gone, stays = (reader.get_index_id(*NAMES, [name]) for name in ("n", "id"))
        reader.purge_index(gone)
        with pytest.raises(exceptions.OperationalError):
            reader.find(gone, "=", [1])
        with pytest.raises(exceptions.OperationalError):
            reader.purge_index(gone)
        assert reader.find(stays, "=", [1]) == [["1"]]
        anew = reader.get_index_id(*NAMES, ["n"])
        assert anew not in (gone, stays)
        assert reader.find(anew, "=", [1]) == [["10"]]

    @pytest.mark.parametrize("purge", [HandlerSocket.purge, HandlerSocket.purge_indexes])
    def test_after_a_purge_none_is_ever_used_for_another_index(
        self, writer: WriteSocket, purge: Callable[[HandlerSocket], None]
    ) -> None:
        seen = set()
        for name in ("n", "model", "company", "n"):
            index_id = writer.get_index_id(*NAMES, [name])
            assert index_id not in seen
            seen.add(index_id)
            purge(writer)
            for old in seen:
                with pytest.raises(exceptions.OperationalError):
                    writer.find_modify(old, "=", [1], "D")
        assert writer.client.stats()["write"]["size"] == 0

    @pytest.mark.parametrize("make", [reader_of, writer_of])
    def test_what_does_not_exist_is_said_when_the_id_is_asked_for(
        self, make: Callable[..., HandlerSocket], hskv_server: PrivateServer, table: None
    ) -> None:
        with make(hskv_server) as handler_socket:
            for error, names in (
                (exceptions.TableNotFoundError, ("hskv", "sockets_nix", ["id"])),
                (exceptions.TableNotFoundError, ("sockets_nix", "kv", ["k"])),
                (exceptions.IndexNotFoundError, (*NAMES, ["id"], "nix")),
                (exceptions.ColumnNotFoundError, (*NAMES, ["id", "nix"])),
            ):
                with pytest.raises(error):
                    handler_socket.get_index_id(*names)
            with pytest.raises(exceptions.ColumnNotFoundError):
                handler_socket.get_index_id(*NAMES, ["id"], filter_fields=["nix"])
            assert "0 indexes" in repr(handler_socket)
            handler_socket.get_index_id(*NAMES, ["id"])
            assert "1 indexes" in repr(handler_socket)

    @pytest.mark.parametrize(
        ("names", "error"),
        [
            (("hskv", "kv", []), ValueError),
            (("hskv", "kv", ["a,b"]), ValueError),
            (("hskv", "k\tv", ["k"]), ValueError),
            (("", "kv", ["k"]), ValueError),
            (("hskv", "", ["k"]), ValueError),
            (("hskv", "kv", ["k"], "0"), ValueError),
            (("hskv", "kv", "k"), TypeError),
            (("hskv", "kv", 5), TypeError),
            (("hskv", "kv", [5]), TypeError),
            (("hskv", "kv", [b"k"]), TypeError),
            (("hskv", b"kv", ["k"]), TypeError),
            (("hskv", None, ["k"]), TypeError),
        ],
        ids=repr,
    )
    def test_names_that_cannot_be_meant_are_refused_before_anything_is_sent(
        self, hskv_server: PrivateServer, names: tuple[Any, ...], error: type[Exception]
    ) -> None:
        with reader_of(hskv_server) as reader:
            with pytest.raises(error):
                reader.get_index_id(*names)
            assert reader.client.stats()["read"]["connects"] == 0

    def test_that_of_a_write_socket_needs_no_read_server(
        self, hskv_server: PrivateServer, table: None, tmp_path: Path
    ) -> None:
        nowhere, writers = (
            [("unix", str(tmp_path / "nothing"))],
            [server_of(hskv_server.url, write=True)],
        )
        with Manager(nowhere, writers, secret=hskv_server.write_secret, timeout=0.5) as manager:
            changed = manager.write_socket.get_index_id(*NAMES, ["n"])
            assert manager.write_socket.find_modify(changed, "=", [99], "D") == [["0"]]
            with pytest.raises(exceptions.ColumnNotFoundError):
                manager.write_socket.get_index_id(*NAMES, ["nix"])
            with pytest.raises(exceptions.ConnectionError):
                manager.read_socket.get_index_id(*NAMES, ["n"])

    def test_one_string_is_no_list_of_filter_fields(self, reader: ReadSocket) -> None:
        with pytest.raises(TypeError, match="lists of names"):
            reader.get_index_id(*NAMES, ["id"], filter_fields="n")

    def test_two_threads_that_ask_at_once_are_given_the_same(
        self, reader: ReadSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = threading.Barrier(2)
        verify = reader.client.verify

        def verify_together(*arguments: Any) -> None:
            both.wait(10)
            verify(*arguments)

        monkeypatch.setattr(reader.client, "verify", verify_together)
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(reader.get_index_id, *NAMES, ["n"]) for _ in range(2)]
            assert len({one.result(10) for one in asked}) == 1
        assert "1 indexes" in repr(reader)

    def test_a_plain_handler_socket_gives_them_too(
        self, hskv_server: PrivateServer, table: None
    ) -> None:
        servers = [server_of(hskv_server.url)]
        with HandlerSocket(servers, secret=hskv_server.secret) as plain:
            index_id = plain.get_index_id(*NAMES, ["id"])
            plain.purge_index(index_id)
            assert plain.get_index_id(*NAMES, ["id"]) != index_id


class TestReads:
    def test_the_low_level_find_of_the_manual(self, tcp_server: PrivateServer) -> None:
        _, host, port = server_of(tcp_server.url)
        hs = ReadSocket([("inet", host, port)], secret=tcp_server.secret)
        with hs, writer_of(tcp_server) as writer:
            written = writer.get_index_id("hskv", "kv", ["k", "v", "n"])
            assert writer.insert(written, ["manual", "", 7]) is True
            index_id = hs.get_index_id("hskv", "kv", ["k", "n", "v"])
            assert hs.find(index_id, "=", ["manual"]) == [["manual", "7", ""]]
            assert writer.find_modify(written, "=", ["manual"], "D") == [["1"]]

    def test_rows_are_lists_of_text_and_none(self, reader: ReadSocket) -> None:
        index_id = reader.get_index_id(*NAMES, COLUMNS)
        assert reader.find(index_id, ">=", ["1"], 10) == [
            [str(number), company, model] for number, company, model, _ in TRUCKS
        ]
        assert reader.find(index_id, "=", [99]) == []
        assert reader.find(index_id, "=", ["3"]) == [["3", "Volvo", None]]

    def test_limit_and_offset_are_those_of_pyhs(self, reader: ReadSocket) -> None:
        index_id = reader.get_index_id(*NAMES, ["id"])
        assert reader.find(index_id, ">=", [1]) == [["1"]]
        assert reader.find(index_id, ">=", [1], 0) == [["1"]]
        assert reader.find(index_id, ">=", [1], 2, 1) == [["2"], ["3"]]
        assert reader.find(index_id, "<", [3], limit=9, offset=1) == [["1"]]
        for arguments in ((-1,), (1, -1), (2**32,)):
            with pytest.raises(ValueError, match="outside 1 to"):
                reader.find(index_id, ">=", [1], *arguments)

    def test_every_operation_of_the_list_works_and_no_other(self, reader: ReadSocket) -> None:
        index_id = reader.get_index_id(*NAMES, ["id"])
        found = {one: reader.find(index_id, one, [2], 9) for one in HandlerSocket.FIND_OPERATIONS}
        assert found == {
            "=": [["2"]],
            ">": [["3"], ["4"]],
            ">=": [["2"], ["3"], ["4"]],
            "<": [["1"]],
            "<=": [["2"], ["1"]],
        }
        for operation in ("==", "!=", "<>", "like", "", None):
            with pytest.raises(ValueError, match="is not one of = > >= < <="):
                reader.find(index_id, operation, [2])  # type: ignore[arg-type]

    def test_filters_while_and_in(self, reader: ReadSocket) -> None:
        index_id = reader.get_index_id(*NAMES, ["id"], filter_fields=["n", "company"])
        scania = ("company", "=", "Scania")
        assert reader.find(index_id, ">", [1], 9, filters=[scania]) == [["2"]]
        assert reader.find(index_id, ">=", [1], 9, while_=[("n", "<", 30)]) == [["1"], ["2"]]
        assert reader.find(index_id, "=", [""], in_=(0, [4, "9", b"1"])) == [["4"], ["1"]]
        both = {"filters": iter([scania]), "while_": iter([("n", "<", 20)])}
        assert reader.find(index_id, ">=", [1], 9, **both) == [["1"]]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="open it with filter_columns"):
            reader.find(index_id, ">=", [1], filters=[("model", "=", "x")])

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", None])
    @pytest.mark.parametrize(
        ("columns", "error"),
        [
            ([], ValueError),
            ("1", TypeError),
            (b"1", TypeError),
            (bytearray(b"1"), TypeError),
            (None, TypeError),
            ([1.5], TypeError),
            ([True], TypeError),
            ([[1]], TypeError),
            ([2**63], ValueError),
            (["\ud800"], ValueError),
        ],
        ids=repr,
    )
    def test_values_that_cannot_be_meant_are_refused_before_anything_is_sent(
        self,
        hskv_server: PrivateServer,
        table: None,
        encoding: str | None,
        columns: Any,
        error: type[Exception],
    ) -> None:
        with reader_of(hskv_server, encoding=encoding) as reader:
            index_id = reader.get_index_id(*NAMES, COLUMNS)
            reader.client.purge()
            before = reader.client.stats()
            with pytest.raises(error):
                reader.find(index_id, "=", columns)
            assert reader.client.stats() == before

    def test_without_an_encoding_values_are_bytes(
        self, hskv_server: PrivateServer, trucks: None
    ) -> None:
        with reader_of(hskv_server, encoding=None) as reader:
            index_id = reader.get_index_id(*NAMES, COLUMNS, "by_company")
            assert reader.find(index_id, "=", ["Żuk"]) == [[b"4", "Żuk".encode(), b""]]
            assert reader.find(index_id, "=", [b"Volvo"]) == [[b"3", b"Volvo", None]]


class TestWrites:
    def test_an_insert_gives_true(self, writer: WriteSocket, reader: ReadSocket) -> None:
        index_id = writer.get_index_id(*NAMES, [*COLUMNS, "n"])
        assert writer.insert(index_id, ["5", "MAN", None, 50]) is True
        assert reader.find(reader.get_index_id(*NAMES, COLUMNS), "=", [5]) == [["5", "MAN", None]]
        with pytest.raises(exceptions.DuplicateKeyError) as caught:
            writer.insert(index_id, ["5", "MAN", None, 50])
        assert (caught.value.code, caught.value.reason) == (1, "121")

    def test_each_operation_gives_the_number_of_rows_or_the_rows_before(
        self, writer: WriteSocket, reader: ReadSocket
    ) -> None:
        index_id = writer.get_index_id(*NAMES, ["n"])
        now = reader.get_index_id(*NAMES, ["n"])
        for operation, modified, gives, after in (
            ("U", ["11"], [["1"]], [["11"]]),
            ("+", ["4"], [["1"]], [["15"]]),
            ("-", ["5"], [["1"]], [["10"]]),
            ("U?", ["12"], [["10"]], [["12"]]),
            ("+?", ["3"], [["12"]], [["15"]]),
            ("-?", ["5"], [["15"]], [["10"]]),
            ("-", ["99"], [["0"]], [["10"]]),
            ("D?", [], [["10"]], []),
            ("D", [], [["0"]], []),
            ("D?", [], [], []),
        ):
            assert writer.find_modify(index_id, "=", [1], operation, modified) == gives
            assert reader.find(now, "=", [1]) == after
        assert writer.find_modify(index_id, "=", [2], "D") == [["1"]]

    def test_limit_offset_filters_while_and_in(
        self, writer: WriteSocket, reader: ReadSocket
    ) -> None:
        index_id = writer.get_index_id(*NAMES, ["n"], filter_fields=["company", "n"])
        scania = ("company", "=", "Scania")
        change = writer.find_modify
        assert change(index_id, ">=", [1], "+", [1]) == [["1"]]
        assert change(index_id, ">=", [1], "+", [1], 2, 1) == [["2"]]
        assert change(index_id, ">=", [1], "+", [1], 9, filters=[scania]) == [["2"]]
        assert change(index_id, ">=", [1], "+", [1], 9, while_=[("n", "<", 31)]) == [["2"]]
        assert change(index_id, "=", [""], "+", [1], in_=(0, [4, 99, 1])) == [["2"]]
        found = reader.find(reader.get_index_id(*NAMES, ["n"]), ">=", [0], 9)
        assert found == [["14"], ["23"], ["31"], ["41"]]

    def test_without_an_encoding_the_count_is_bytes_too(
        self, hskv_server: PrivateServer, trucks: None
    ) -> None:
        with writer_of(hskv_server, encoding=None) as writer:
            index_id = writer.get_index_id(*NAMES, ["n"])
            assert writer.find_modify(index_id, "=", [1], "U", [b"5"]) == [[b"1"]]
            assert writer.find_modify(index_id, "=", [1], "D?") == [[b"5"]]

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (("like", [1], "D"), ValueError),
            (("<>", [1], "D"), ValueError),
            (("=", [1], "X", ["1"]), ValueError),
            (("=", [1], "Delete"), ValueError),
            (("=", [1], "d"), ValueError),
            (("=", [1], ""), ValueError),
            (("=", [1], "?"), ValueError),
            (("=", [1], None), ValueError),
            (("=", [], "D"), ValueError),
            (("=", [1], "U"), ValueError),
            (("=", [1], "+"), ValueError),
            (("=", [1], "-?", []), ValueError),
            (("=", [1], "U", [1, 2]), ValueError),
            (("=", [1], "D", [1]), ValueError),
            (("=", [1], "U", "5"), TypeError),
            (("=", [1], "U", [1.5]), TypeError),
            (("=", "1", "D"), TypeError),
            (("=", [1], "D", [], -1), ValueError),
            (("=", [1], "D", [], 1, -1), ValueError),
            (("=", [1], "D", [], "1"), TypeError),
        ],
        ids=repr,
    )
    def test_a_change_that_cannot_be_meant_is_refused_before_anything_is_sent(
        self, fresh_writer: WriteSocket, arguments: tuple[Any, ...], error: type[Exception]
    ) -> None:
        writer = fresh_writer
        index_id = writer.get_index_id(*NAMES, ["n"])
        writer.client.purge()
        before = writer.client.stats()
        with pytest.raises(error):
            writer.find_modify(index_id, *arguments)
        assert writer.client.stats() == before

    @pytest.mark.parametrize(
        ("columns", "error"),
        [([], ValueError), ([1, 2], ValueError), ("1", TypeError), ([1.5], TypeError)],
        ids=repr,
    )
    def test_an_insert_that_cannot_be_meant_is_refused_before_anything_is_sent(
        self, fresh_writer: WriteSocket, columns: Any, error: type[Exception]
    ) -> None:
        writer = fresh_writer
        index_id = writer.get_index_id(*NAMES, ["id"])
        writer.client.purge()
        before = writer.client.stats()
        with pytest.raises(error):
            writer.insert(index_id, columns)
        assert writer.client.stats() == before


class TestSharing:
    def test_eight_threads_share_one_socket(self, reader: ReadSocket, writer: WriteSocket) -> None:
        start = threading.Barrier(8)

        def work(number: int) -> list[list[list[Any]]]:
            start.wait(10)
            changed = writer.get_index_id(*NAMES, ["n"])
            found = reader.get_index_id(*NAMES, ["company", "id"])
            rows = []
            for _ in range(50):
                assert writer.find_modify(changed, "=", [4], "+", [1]) == [["1"]]
                rows.append(reader.find(found, "=", [number % 4 + 1]))
            return rows

        with ThreadPoolExecutor(8) as threads:
            futures = [threads.submit(work, number) for number in range(8)]
            for number, future in enumerate(futures):
                truck, company, *_ = TRUCKS[number % 4]
                assert future.result(30) == [[[company, str(truck)]]] * 50
        assert reader.find(reader.get_index_id(*NAMES, ["n"]), "=", [4]) == [["440"]]
        assert "1 indexes" in repr(writer)

    # Of Python 3.12 and later: the thread that keeps the server makes every fork here suspect.
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
    def test_ids_are_good_on_both_sides_of_a_fork(
        self, reader: ReadSocket, writer: WriteSocket
    ) -> None:
        found = reader.get_index_id(*NAMES, ["n"])
        changed = writer.get_index_id(*NAMES, ["n"])
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            try:
                for _ in range(100):
                    assert writer.find_modify(changed, "=", [1], "+", [1]) == [["1"]]
                    assert reader.find(found, "=", [2]) == [["20"]]
                os._exit(0)
            finally:
                os._exit(1)
        for _ in range(100):
            assert writer.find_modify(changed, "=", [1], "+", [1]) == [["1"]]
            assert reader.find(found, "=", [3]) == [["30"]]
        assert os.waitpid(child, 0)[1] == 0
        assert reader.find(found, "=", [1]) == [["210"]]

    def test_after_close_every_request_is_a_connection_error(
        self, reader: ReadSocket, writer: WriteSocket
    ) -> None:
        found, changed = (one.get_index_id(*NAMES, ["n"]) for one in (reader, writer))
        for one in (reader, writer):
            one.close()
            one.close()
        for use in (
            lambda: reader.find(found, "=", [1]),
            lambda: reader.get_index_id(*NAMES, ["id"]),
            lambda: writer.find_modify(changed, "=", [1], "D"),
        ):
            with pytest.raises(exceptions.ConnectionError, match="closed"):
                use()


def converse(server: PrivateServer, address: tuple[Any, ...]) -> None:
    connection = Connection(*address)
    connection.connect()
    first = connection.socket
    connection.connect()
    assert connection.socket is first
    connection.send(f"A\t1\t{server.secret}\n")
    assert connection.readline() == "0\t1"
    connection.send("P\t0\thskv\tkv\tPRIMARY\tk,n\n0\t=\t1\tconversation\n0\t!\t1\tx\n")
    assert [connection.readline() for _ in range(3)] == ["0\t1", "0\t2", "2\t1\top"]
    connection.disconnect()
    assert connection.socket is None
    assert connection.is_ready()
    connection.connect()
    connection.send("0\t=\t1\tconversation\n")
    assert connection.readline() == "3\t1\tunauth"
    connection.disconnect()


class TestConnections:
    def test_a_conversation_over_unix_and_inet(
        self, hskv_server: PrivateServer, tcp_server: PrivateServer
    ) -> None:
        for server in (hskv_server, tcp_server):
            converse(server, server_of(server.url))

    def test_it_does_not_come_back_before_the_retry_interval_is_over(
        self, own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr("hskv.sockets.time", lambda: now)
        own_server.start()
        connection = Connection(*server_of(own_server.url))
        connection.connect()
        own_server.kill()
        with pytest.raises(exceptions.ConnectionError):
            connection.readline()
        assert connection.retry_time == now + Connection.RETRY_INTERVAL
        assert not connection.is_ready()
        with pytest.raises(exceptions.ConnectionError):
            connection.connect()
        own_server.start()
        now += Connection.RETRY_INTERVAL
        assert connection.is_ready()
        assert connection.retry_time == 0
        connection.connect()
        connection.send("P\n")
        assert connection.readline() == "3\t1\tunauth"
        connection.disconnect()

    def test_lines_arrive_whole_however_the_network_cuts_them(
        self, peer: Callable[[Callable[[socket.socket], None]], str]
    ) -> None:
        line = "0\t1\tŻuk 𝄞"

        def behave(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(f"{line}\n{line}\n\n".encode())
            for byte in f"{line}\n".encode():
                time.sleep(0.002)
                sock.sendall(bytes([byte]))

        connection = Connection(*server_of(peer(behave)))
        connection.connect()
        assert [connection.readline() for _ in range(4)] == [line, line, "", line]
        with pytest.raises(exceptions.ConnectionError, match="closed by the server"):
            connection.readline()
        assert connection.socket is None
        assert not connection.is_ready()

    def test_a_peer_that_never_answers_is_a_timeout(
        self, peer: Callable[[Callable[[socket.socket], None]], str]
    ) -> None:
        done = threading.Event()

        def behave(sock: socket.socket) -> None:
            done.wait(10)

        protocol, host, port = server_of(peer(behave))
        connection = Connection(protocol, host, port, 0.2)
        connection.connect()
        connection.send("P\n")
        began = time.monotonic()
        with pytest.raises(exceptions.RequestTimeoutError) as caught:
            connection.readline()
        done.set()
        assert time.monotonic() - began < 1.5
        assert isinstance(caught.value, TimeoutError)
        assert not connection.is_ready()

    def test_a_port_that_nobody_listens_on_is_a_connection_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        connection = Connection("inet", "127.0.0.1", port)
        with pytest.raises(builtins.ConnectionError, match="cannot connect") as caught:
            connection.connect()
        assert isinstance(caught.value, exceptions.ConnectionError)
