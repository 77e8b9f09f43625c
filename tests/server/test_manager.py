"""pyhs's manual, and what its programs do, through Manager on the real server."""

import io
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest

from hskv import Client, Manager, exceptions
from hskv.manager import ManagerPipeline
from hskv.mariadb import PrivateServer
from hskv.transport.address import Address, load_settings

Peer = Callable[[Callable[[socket.socket], None]], str]

SECRETS: dict[str, str | int | None] = {
    "handlersocket_plain_secret": "of reads",
    "handlersocket_plain_secret_wr": "of writes",
}

TABLES = (
    "CREATE DATABASE cars",
    (
        "CREATE TABLE cars.trucks (id INT PRIMARY KEY, company VARCHAR(20) NOT NULL,"
        " model VARCHAR(20), n BIGINT NOT NULL DEFAULT 0, KEY custom_index_name (id, company),"
        " KEY by_model (model, id))"
    ),
    "CREATE TABLE cars.items (k VARBINARY(255) PRIMARY KEY, v LONGBLOB NOT NULL)",
    "CREATE TABLE cars.orders (id INT AUTO_INCREMENT PRIMARY KEY, n INT NOT NULL)",
    (
        "CREATE TABLE cars.words (id INT PRIMARY KEY,"
        " word VARCHAR(20) CHARACTER SET latin1 NOT NULL, KEY word (word))"
    ),
)
TRUCKS = [(1, "Scania", "G400", 10), (2, "Scania", None, 20), (3, "Volvo", "FH", 30)]

AT = ("cars", "trucks")
ITEMS = ("cars", "items")
NAMED = ["id", "company", "model"]


def tuple_of(address: Address) -> tuple[Any, ...]:
    if address.path is not None:
        return ("unix", address.path)
    return ("inet", address.host, address.port)


def reads_of(*servers: PrivateServer) -> list[tuple[Any, ...]]:
    return [tuple_of(load_settings(server.url).readers[0]) for server in servers]


def writes_of(*servers: PrivateServer) -> list[tuple[Any, ...]]:
    return [tuple_of(load_settings(server.url).writers[0]) for server in servers]


def manager_of(server: PrivateServer, **options: Any) -> Manager:
    options = {"secret": server.secret, "write_secret": server.write_secret, **options}
    return Manager(reads_of(server), writes_of(server), **options)


def fill(server: PrivateServer, *statements: str) -> None:
    with (
        closing(pymysql.connect(**server.sql)) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
        for table in ("trucks", "items", "orders", "words"):
            cursor.execute(f"DELETE FROM cars.{table}")
        cursor.executemany("INSERT INTO cars.trucks VALUES (%s, %s, %s, %s)", TRUCKS)
        connection.commit()


@pytest.fixture(scope="module")
def server(hskv_server: PrivateServer) -> PrivateServer:
    fill(hskv_server, *TABLES)
    return hskv_server


@pytest.fixture
def trucks(server: PrivateServer) -> None:
    fill(server)


@pytest.fixture
def hs(server: PrivateServer, trucks: None) -> Iterator[Manager]:
    with manager_of(server) as manager:
        yield manager


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PrivateServer, PrivateServer]]:
    with (
        PrivateServer(tcp=True, options=SECRETS) as one,
        PrivateServer(tcp=True, options=SECRETS) as two,
    ):
        for each in (one, two):
            fill(each, *TABLES)
        yield one, two


def nowhere(directory: Path) -> Manager:
    there = [("unix", str(directory / "nothing"))]
    return Manager(there, there, timeout=0.2)


def stats(manager: Manager) -> dict[str, dict[str, int]]:
    return manager.read_socket.client.stats()


def numbers(manager: Manager) -> dict[int, int]:
    rows = manager.find(*AT, ">=", ["id", "n"], [0], limit=100)
    return {int(row[0][1]): int(row[1][1]) for row in rows}


class TestTheManual:
    def test_a_row_is_inserted_and_got_back(self, hs: Manager) -> None:
        inserted = hs.insert(
            "cars", "trucks", [("id", "9"), ("company", "Scania"), ("model", "G400")]
        )
        assert inserted is True
        data = hs.get("cars", "trucks", ["id", "company", "model"], "9")
        assert data == [("id", "9"), ("company", "Scania"), ("model", "G400")]
        assert dict(data) == {"id": "9", "company": "Scania", "model": "G400"}

    def test_a_find_on_a_composite_index_of_two_read_servers(
        self, pair: tuple[PrivateServer, PrivateServer]
    ) -> None:
        read_servers = reads_of(*pair)
        assert [protocol for protocol, *_ in read_servers] == ["inet", "inet"]
        with pytest.warns(RuntimeWarning, match="give one write server"):
            hs = Manager(
                read_servers, [writes_of(*pair)], secret="of reads", write_secret="of writes"
            )
        fields = ["id", "company", "model"]
        for _ in range(4):
            data = hs.find("cars", "trucks", ">=", fields, ["1", "Scania"], "custom_index_name", 10)
            assert [dict(row) for row in data] == [
                {"id": "1", "company": "Scania", "model": "G400"},
                {"id": "2", "company": "Scania", "model": None},
                {"id": "3", "company": "Volvo", "model": "FH"},
            ]
        assert stats(hs)["read"]["size"] == 2
        hs.close()

    def test_an_increment_gives_the_original(self, hs: Manager) -> None:
        original = hs.incr("cars", "trucks", "=", ["id"], ["3"], return_original=True)
        assert original == [[("id", "3")]]
        assert hs.get("cars", "trucks", ["id"], "3") == []
        assert hs.get("cars", "trucks", ["id", "company"], "4") == [
            ("id", "4"),
            ("company", "Volvo"),
        ]
        original = hs.decr("cars", "trucks", "=", ["id"], ["4"], ["1"], return_original=True)
        assert original == [[("id", "4")]]
        with pytest.raises(exceptions.DuplicateKeyError):
            hs.incr("cars", "trucks", "=", ["id"], ["1"])

    def test_errors_are_caught_as_in_the_manual(self, hs: Manager) -> None:
        with pytest.raises(exceptions.OperationalError, match="a row with this key exists"):
            hs.insert("cars", "trucks", [("id", "1"), ("company", "Scania"), ("model", "G400")])


class TestFind:
    def test_no_rows_are_an_empty_list(self, hs: Manager) -> None:
        assert hs.find(*AT, "=", NAMED, ["99"]) == []
        assert hs.get(*AT, NAMED, "99") == []

    def test_without_a_limit_or_with_0_there_is_one_row(self, hs: Manager) -> None:
        limits: list[dict[str, Any]] = [{}, {"limit": 0}, {"limit": 1}]
        for options in limits:
            assert hs.find(*AT, ">=", ["id"], ["1"], **options) == [[("id", "1")]]

    def test_limit_and_offset(self, hs: Manager) -> None:
        assert hs.find(*AT, ">=", ["id"], ["1"], None, 2, 1) == [[("id", "2")], [("id", "3")]]
        assert hs.find(*AT, "<=", ["id"], ["3"], "PRIMARY", 1, 2) == [[("id", "1")]]
        assert hs.find(*AT, ">=", ["id"], ["1"], limit=9, offset=3) == []

    def test_null_is_none(self, hs: Manager) -> None:
        assert hs.get(*AT, NAMED, "2") == [("id", "2"), ("company", "Scania"), ("model", None)]
        assert hs.find(*AT, "=", ["id"], [None], "by_model") == [[("id", "2")]]

    def test_get_looks_for_the_text_of_a_value(self, hs: Manager) -> None:
        hs.insert(*ITEMS, [("k", "1.5"), ("v", "a float")])
        hs.insert(*ITEMS, [("k", "True"), ("v", "a bool")])
        for value, v in ((1.5, "a float"), (True, "a bool"), (b"1.5", "a float")):
            assert dict(hs.get(*ITEMS, ["k", "v"], value))["v"] == v
        assert hs.get(*AT, ["id"], 3) == [("id", "3")]
        assert hs.get(*AT, ["id"], "3") == [("id", "3")]
        assert hs.get(*AT, ["id"], b"3") == [("id", "3")]

    def test_get_takes_none_for_null_and_not_for_the_word(self, hs: Manager) -> None:
        hs.insert(*ITEMS, [("k", "None"), ("v", "the word")])
        assert hs.get(*ITEMS, ["v"], None) == []
        hs.insert(*ITEMS, [("k", ""), ("v", "what the server makes of NULL in a key")])
        assert hs.get(*ITEMS, ["k"], None) == [("k", "")]

    def test_filters_while_and_in(self, hs: Manager) -> None:
        scania, cheap = ("company", "=", "Scania"), ("n", "<", 20)
        find = hs.find
        assert find(*AT, ">", ["id"], [0], limit=9, filters=[("model", "!=", None)]) == [
            [("id", "1")],
            [("id", "3")],
        ]
        assert find(*AT, ">", ["id"], [0], limit=9, while_=[cheap]) == [[("id", "1")]]
        assert find(*AT, ">", ["id"], [0], limit=9, filters=[("n", ">", 10)], while_=[scania]) == [
            [("id", "2")]
        ]
        assert find(*AT, "=", ["id"], [""], in_=(0, [3, "8", b"1"])) == [
            [("id", "3")],
            [("id", "1")],
        ]
        assert find(*AT, "=", ["id"], [""], limit=5, in_=(0, [3])) == [[("id", "3")]]

    def test_filters_that_can_be_gone_through_once_only_filter_a_find(self, hs: Manager) -> None:
        once: Any = iter([("company", "=", "Volvo")])
        assert hs.find(*AT, ">", ["id"], [0], limit=9, filters=once) == [[("id", "3")]]

    def test_filters_that_can_be_gone_through_once_only_filter_a_delete(self, hs: Manager) -> None:
        once: Any = iter([("company", "=", "Volvo")])
        assert hs.delete(*AT, ">", ["id"], [0], limit=9, filters=once) == 1

    def test_a_while_that_can_be_gone_through_once_only_ends_an_update(self, hs: Manager) -> None:
        once: Any = iter([("n", "<", 20)])
        assert hs.update(*AT, ">", ["n"], [0], [5], limit=9, while_=once) == 1

    def test_fields_are_a_list_of_any_kind(self, hs: Manager) -> None:
        fields: Any
        for fields in (("id", "n"), iter(["id", "n"]), {"id": 0, "n": 0}):
            assert hs.find(*AT, "=", fields, [1]) == [[("id", "1"), ("n", "10")]]

    def test_each_read_server_is_asked_in_turn(
        self, pair: tuple[PrivateServer, PrivateServer]
    ) -> None:
        one, two = (manager_of(each) for each in pair)
        for n, each in enumerate((one, two)):
            assert each.update(*AT, "=", ["n"], [1], [n]) == 1
            each.close()
        with Manager(reads_of(*pair), writes_of(pair[0]), secret="of reads") as hs:
            seen = [hs.get(*AT, ["n"], 1)[0][1] for _ in range(20)]
        assert sorted(seen) == ["0"] * 10 + ["1"] * 10


class TestChanges:
    def test_an_update_sets_all_fields_and_counts_rows(self, hs: Manager) -> None:
        assert hs.update(*AT, "=", NAMED, [1], ["1", "MAN", None]) == 1
        assert hs.get(*AT, NAMED, 1) == [("id", "1"), ("company", "MAN"), ("model", None)]
        assert hs.update(*AT, "=", NAMED, [1], [5, "MAN", b"TGX"]) == 1
        assert hs.get(*AT, NAMED, 5) == [("id", "5"), ("company", "MAN"), ("model", "TGX")]
        assert hs.update(*AT, ">=", ["n"], [0], [7], limit=9) == 3
        assert hs.update(*AT, ">=", ["n"], [0], [7], limit=9) == 3
        assert hs.update(*AT, ">", ["n"], ["2"], ["8"], "custom_index_name", 1, 1) == 1
        assert numbers(hs) == {2: 7, 3: 7, 5: 8}

    def test_increments_and_decrements_by_1_or_by_a_step(self, hs: Manager) -> None:
        assert hs.incr(*AT, "=", ["n"], [1]) == 1
        assert hs.incr(*AT, "=", ["n"], [1], ["5"]) == 1
        assert hs.decr(*AT, "=", ["n"], [1]) == 1
        assert hs.decr(*AT, "=", ["n"], [1], [3]) == 1
        assert hs.incr(*AT, ">", ["n"], [1], limit=9) == 2
        assert hs.decr(*AT, ">", ["n"], [0], step=[2], limit=2, offset=1) == 2
        assert numbers(hs) == {1: 12, 2: 19, 3: 29}
        assert hs.incr(*AT, "=", ["n", "id"], [3], [1, 0]) == 1
        assert numbers(hs) == {1: 12, 2: 19, 3: 30}

    def test_a_decrement_that_would_cross_zero_is_not_done(self, hs: Manager) -> None:
        assert hs.decr(*AT, "=", ["n"], [1], [11]) == 0
        assert hs.decr(*AT, "=", ["n"], [1], [10]) == 1
        assert numbers(hs)[1] == 0

    def test_a_delete_counts_rows(self, hs: Manager) -> None:
        assert hs.delete(*AT, "=", ["id"], [1]) == 1
        assert hs.delete(*AT, ">", ["id"], [0], limit=9) == 2
        assert numbers(hs) == {}

    def test_no_rows_are_the_int_0_or_an_empty_list(self, hs: Manager) -> None:
        nothing: tuple[Any, ...] = (*AT, "=", ["n"], [99])
        update = partial(hs.update, update_values=[1])
        changes: list[Callable[..., Any]] = [update, hs.incr, hs.decr, hs.delete]
        for change in changes:
            count = change(*nothing)
            assert count == 0
            assert type(count) is int
            assert change(*nothing, return_original=True) == []

    def test_the_originals_are_rows_of_pairs(self, hs: Manager) -> None:
        options: dict[str, Any] = {"limit": 9, "return_original": True}
        before = [[("id", "1"), ("n", "10")], [("id", "2"), ("n", "20")]]
        fields = ["id", "n"]
        assert hs.incr(*AT, "<", ["n"], [2], **options) == [[("n", "10")]]
        assert hs.decr(*AT, "=", ["n"], [1], ["1"], None, 0, 0, True) == [[("n", "11")]]
        assert hs.delete(*AT, "=", fields, [1], None, 0, 0, True) == before[:1]
        assert hs.update(*AT, "=", fields, [2], [2, 21], None, 0, 0, True) == before[1:]
        assert hs.delete(*AT, ">", ["n"], [0], **options) == [[("n", "21")], [("n", "30")]]

    def test_filters_while_and_in_limit_each_change(self, hs: Manager) -> None:
        volvo, cheap = ("company", "=", "Volvo"), ("n", "<", 25)
        assert hs.incr(*AT, ">", ["n"], [0], limit=9, filters=[volvo]) == 1
        assert hs.incr(*AT, ">", ["n"], [0], limit=9, while_=[cheap]) == 2
        assert hs.decr(*AT, "=", ["n"], [""], in_=(0, [3, 1, 8])) == 2
        assert hs.decr(*AT, ">", ["n"], [0], limit=9, filters=[cheap], while_=[("n", ">", 9)]) == 2
        assert numbers(hs) == {1: 9, 2: 20, 3: 30}
        assert hs.update(*AT, ">", ["n"], [0], [1], limit=9, filters=[volvo, cheap]) == 0
        assert hs.update(*AT, ">", ["n"], [0], [1], limit=9, filters=[cheap]) == 2
        original = hs.delete(*AT, ">", ["id"], [0], limit=9, return_original=True, filters=[volvo])
        assert original == [[("id", "3")]]
        assert hs.delete(*AT, "=", ["id"], [""], in_=(0, [1, 3])) == 1
        assert numbers(hs) == {2: 1}

    def test_an_insert_takes_pairs_of_any_kind(self, hs: Manager) -> None:
        pairs = {"id": 8, "company": "MAN", "n": 1}.items()
        fields: Any
        for fields in ([["id", 6], ["company", "MAN"]], (("id", 7), ("company", "MAN")), pairs):
            assert hs.insert(*AT, fields) is True
        assert numbers(hs).keys() == {1, 2, 3, 6, 7, 8}

    def test_an_insert_takes_a_zip_of_names_and_values(self, hs: Manager) -> None:
        pairs: Any = zip(NAMED, [7, "MAN", None], strict=True)
        assert hs.insert(*AT, pairs) is True

    def test_an_insert_gives_true_where_the_server_makes_a_number_up_too(self, hs: Manager) -> None:
        assert hs.insert("cars", "orders", [("n", 5)]) is True
        assert hs.pipeline().insert("cars", "orders", [("n", 6)]).execute() == [True]
        rows = hs.find("cars", "orders", ">=", ["n"], [0], limit=9)
        assert rows == [[("n", "5")], [("n", "6")]]

    def test_an_insert_by_another_index(self, hs: Manager) -> None:
        pairs = [("id", "6"), ("company", "MAN")]
        assert hs.insert(*AT, pairs, "custom_index_name") is True
        assert hs.insert(*AT, [("model", "TGX"), ("id", "7")], index_name="by_model") is True
        assert numbers(hs).keys() == {1, 2, 3, 6, 7}


class TestLongLists:
    IDS = range(1, 1501)

    @pytest.fixture
    def many(self, server: PrivateServer, hs: Manager) -> Manager:
        pipeline = hs.pipeline()
        for number in self.IDS:
            if number > 3:
                pipeline.insert(*AT, [("id", number), ("company", "x"), ("n", number)])
        assert pipeline.execute() == [True] * 1497
        return hs

    def test_more_than_a_thousand_values_are_found_changed_and_deleted(self, many: Manager) -> None:
        in_ = (0, [*self.IDS, 9_999])
        rows = many.find(*AT, "=", ["id"], [""], in_=in_)
        assert [int(row[0][1]) for row in rows] == list(self.IDS)
        assert many.update(*AT, "=", ["n"], [""], [5], in_=in_) == 1500
        assert many.incr(*AT, "=", ["n"], [""], in_=in_, filters=[("company", "!=", "x")]) == 3
        assert many.decr(*AT, "=", ["n"], [""], in_=in_, filters=[("company", "=", "x")]) == 1497
        assert set(numbers(many).values()) == {4, 6}
        originals = many.delete(*AT, "=", ["id"], [""], in_=in_, return_original=True)
        assert [int(row[0][1]) for row in originals] == list(self.IDS)
        assert many.delete(*AT, "=", ["id"], [""], in_=in_) == 0
        assert numbers(many) == {}

    def test_a_pipeline_refuses_them(self, many: Manager) -> None:
        pipeline = many.pipeline()
        with pytest.raises(ValueError, match="at most 1000 values"):
            pipeline.find(*AT, "=", ["id"], [""], in_=(0, list(self.IDS)))
        assert len(pipeline) == 0


class TestValues:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\t",
            "\n",
            "\0",
            "\0\0",
            "\x01",
            "\x01@",
            "a\tb\nc\0d\re\x0f",
            "\r",
            "Żółć 𝄞 \u2028 \x85",
            "'\"\\%,;",
        ],
        ids=ascii,
    )
    def test_text_comes_back_as_it_was(self, hs: Manager, text: str) -> None:
        assert hs.insert(*ITEMS, [("k", text), ("v", text)])
        assert hs.get(*ITEMS, ["k", "v"], text) == [("k", text), ("v", text)]
        assert hs.update(*ITEMS, "=", ["v"], [text], [text * 2], return_original=True) == [
            [("v", text)]
        ]
        assert hs.find(*ITEMS, "=", ["v"], [""], in_=(0, [text])) == [[("v", text * 2)]]
        assert hs.delete(*ITEMS, ">=", ["k"], [""], limit=9, filters=[("k", "=", text)]) == 1

    def test_every_byte_is_a_key_and_a_value(self, server: PrivateServer, hs: Manager) -> None:
        with manager_of(server, encoding=None) as raw:
            pipeline = raw.pipeline()
            for byte in range(256):
                pipeline.insert(*ITEMS, [("k", bytes([byte])), ("v", bytes([byte]) * 2)])
            assert pipeline.execute() == [True] * 256
            rows = raw.find(*ITEMS, ">=", ["k", "v"], [b""], limit=999)
            one = [bytes([byte]) for byte in range(256)]
            assert rows == [[("k", byte), ("v", byte * 2)] for byte in one]
            whole = bytes(range(256))
            assert raw.update(*ITEMS, "=", ["v"], [b"\xff"], [whole]) == 1
            assert raw.get(*ITEMS, ["k", "v"], b"\xff") == [("k", b"\xff"), ("v", whole)]
        with manager_of(server, encoding="latin-1") as text:
            assert text.get(*ITEMS, ["v"], "ÿ") == [("v", whole.decode("latin-1"))]

    def test_three_megabytes(self, hs: Manager) -> None:
        value = "Żółć\0\t\n" * 300_000
        assert len(value.encode()) > 3 << 20
        assert hs.insert(*ITEMS, [("k", "large"), ("v", value)])
        assert hs.get(*ITEMS, ["v"], "large") == [("v", value)]
        assert hs.delete(*ITEMS, "=", ["v"], ["large"], return_original=True) == [[("v", value)]]

    def test_text_is_right_wherever_the_network_cuts_it(
        self, server: PrivateServer, hs: Manager, peer: Peer
    ) -> None:
        value = "Żółć𝄞\0é"
        assert hs.insert(*ITEMS, [("k", "cut"), ("v", value)])
        reply = len(b"0\t1\t\n" + value.encode()) + 1
        cuts = iter(range(10_000))
        to = reads_of(server)[0][1]

        def behave(near: socket.socket) -> None:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(to)
                while asked := near.recv(1 << 16):
                    far.sendall(asked)
                    answer = far.recv(1 << 16)
                    cut = next(cuts) % reply
                    near.sendall(answer[:cut])
                    time.sleep(0.002)
                    near.sendall(answer[cut:])

        _, host, port = tuple_of(load_settings(peer(behave)).readers[0])
        with Manager([("inet", host, port)], secret=server.secret) as slow:
            for _ in range(2 * reply):
                assert slow.get(*ITEMS, ["v"], "cut") == [("v", value)]

    def test_an_encoding_is_that_of_every_text(self, server: PrivateServer, hs: Manager) -> None:
        with manager_of(server, encoding="latin-1") as latin:
            assert latin.insert("cars", "words", [("id", 1), ("word", "été")])
            assert latin.get("cars", "words", ["word"], 1) == [("word", "été")]
            assert latin.find("cars", "words", "=", ["id"], ["été"], "word") == [[("id", "1")]]
            found = latin.find("cars", "words", "=", ["id"], [""], "word", in_=(0, ["né", "été"]))
            assert found == [[("id", "1")]]
            for kind, word, count in (
                ("filters", "né", 0),
                ("while_", "né", 0),
                ("while_", "été", 1),
            ):
                options: dict[str, Any] = {kind: [("word", "=", word)]}
                assert latin.update("cars", "words", "=", ["word"], [1], ["né"], **options) == count
            found = latin.find("cars", "words", "=", ["id"], [1], filters=[("word", "=", "né")])
            assert found == [[("id", "1")]]
            with pytest.raises(UnicodeEncodeError):
                latin.insert("cars", "words", [("id", 2), ("word", "€")])
        with closing(pymysql.connect(**server.sql)) as sql, sql.cursor() as cursor:
            cursor.execute("SELECT id, word FROM cars.words")
            assert cursor.fetchall() == ((1, "né"),)

    def test_without_an_encoding_values_are_bytes(self, server: PrivateServer, hs: Manager) -> None:
        with manager_of(server, encoding=None) as raw:
            assert raw.get(*AT, NAMED, 2) == [("id", b"2"), ("company", b"Scania"), ("model", None)]
            assert raw.find(*AT, "=", ["id"], ["FH"], "by_model") == [[("id", b"3")]]
            assert raw.incr(*AT, "=", ["n"], [b"1"]) == 1
            assert raw.delete(*AT, "=", ["n"], [1], return_original=True) == [[("n", b"11")]]

    def test_a_value_that_is_no_such_text_is_an_error_and_the_next_request_is_right(
        self, hs: Manager
    ) -> None:
        hs.insert(*ITEMS, [("k", "bad"), ("v", b"\xff\xfe")])
        connects = stats(hs)["read"]["connects"]
        for find in (
            lambda: hs.get(*ITEMS, ["v"], "bad"),
            lambda: hs.find(*ITEMS, "=", ["v"], ["bad"]),
            lambda: hs.pipeline().find(*ITEMS, "=", ["v"], ["bad"]).execute(),
        ):
            with pytest.raises(exceptions.SerializationError, match="encoding=None"):
                find()
        assert hs.get(*ITEMS, ["k"], "bad") == [("k", "bad")]
        assert stats(hs)["read"]["connects"] <= connects + 1


def refused(error: type[Exception], method: str, *arguments: Any, **options: Any) -> Any:
    shown = f"{method} {arguments[2 if arguments[:2] == AT else 0 :]!r} {options or ''}"

    def call(on: Any) -> None:
        getattr(on, method)(*arguments, **options)

    return pytest.param(call, error, id=shown if len(shown) < 99 else shown[:99])


BEFORE_SENDING = [
    refused(ValueError, "find", *AT, "==", ["id"], [1]),
    refused(ValueError, "find", *AT, "!=", ["id"], [1]),
    refused(ValueError, "find", *AT, "<>", ["id"], [1]),
    refused(ValueError, "find", *AT, "", ["id"], [1]),
    refused(ValueError, "delete", *AT, "<>", ["id"], [1]),
    refused(ValueError, "delete", *AT, "like", ["id"], [1]),
    refused(ValueError, "update", *AT, "=>", ["n"], [1], [1]),
    refused(ValueError, "incr", *AT, "==", ["n"], [1]),
    refused(ValueError, "find", *AT, "=", ["id"], []),
    refused(ValueError, "find", *AT, "=", [], [1]),
    refused(ValueError, "get", *AT, [], 1),
    refused(ValueError, "insert", *AT, []),
    refused(ValueError, "delete", *AT, "=", ["id"], []),
    refused(ValueError, "delete", *AT, "=", [], [1]),
    refused(ValueError, "update", *AT, "=", ["n"], [1], []),
    refused(ValueError, "update", *AT, "=", ["n", "model"], [1], [1]),
    refused(ValueError, "update", *AT, "=", ["n"], [1], [1, 2]),
    refused(ValueError, "incr", *AT, "=", ["id", "n"], [1]),
    refused(ValueError, "decr", *AT, "=", ["n"], [1], []),
    refused(TypeError, "find", *AT, "=", ["id"], [1.5]),
    refused(TypeError, "find", *AT, "=", ["id"], [True]),
    refused(TypeError, "find", *AT, "=", ["id"], [[1]]),
    refused(TypeError, "find", *AT, "=", ["id"], "1"),
    refused(TypeError, "find", *AT, "=", ["id"], b"1"),
    refused(TypeError, "find", *AT, "=", ["id"], 1),
    refused(TypeError, "find", *AT, "=", ["id"], None),
    refused(TypeError, "find", *AT, "=", "id", [1]),
    refused(TypeError, "find", *AT, "=", None, [1]),
    refused(TypeError, "get", *AT, "id", 1),
    refused(TypeError, "find", *AT, "=", ["id"], [1], 5),
    refused(TypeError, "insert", *AT, [("id", 1.5)]),
    refused(TypeError, "insert", *AT, [("id", False)]),
    refused(ValueError, "insert", *AT, [("id", 2**63)]),
    refused(ValueError, "insert", *AT, [(f"c{number}", 1) for number in range(33)]),
    refused(ValueError, "insert", *AT, "id"),
    refused(TypeError, "update", *AT, "=", ["n"], [1], "5"),
    refused(TypeError, "update", *AT, "=", ["n"], [1], [0.5]),
    refused(TypeError, "incr", *AT, "=", ["n"], [1], "1"),
    refused(TypeError, "incr", *AT, "=", ["n"], [1], 1),
    refused(ValueError, "incr", *AT, "=", ["n"], [1], [-(2**63) - 1]),
    refused(ValueError, "find", *AT, "=", ["id"], [1], limit=-1),
    refused(TypeError, "find", *AT, "=", ["id"], [1], limit="1"),
    refused(ValueError, "find", *AT, "=", ["id"], [1], limit=1, offset=-1),
    refused(ValueError, "find", *AT, "=", ["id"], [1], limit=2**32),
    refused(TypeError, "find", *AT, "=", ["id"], [1], offset=1.0),
    refused(ValueError, "find", *AT, "=", ["id"], [1], filters=[("n", "<>", 1)]),
    refused(ValueError, "find", *AT, "=", ["id"], [1], filters=[("n", "=")]),
    refused(TypeError, "find", *AT, "=", ["id"], [1], filters=[("n", "=", 1.5)]),
    refused(TypeError, "find", *AT, "=", ["id"], [1], filters=("n", "=", 1)),
    refused(ValueError, "find", *AT, "=", ["id"], [1], while_=[("n", "!", 1)]),
    refused(ValueError, "find", *AT, "=", ["id"], [1], in_=(0, [])),
    refused(ValueError, "find", *AT, "=", ["id"], [1], in_=(1, [1])),
    refused(ValueError, "find", *AT, "=", ["id"], [1], in_=(0, [None])),
    refused(TypeError, "find", *AT, "=", ["id"], [1], in_=(0, "12")),
    refused(TypeError, "find", *AT, "=", ["id"], [1], in_=(0, [1.5])),
    refused(ValueError, "find", *AT, "=", ["id"], [1], limit=1, in_=(0, [1, 2])),
    refused(ValueError, "find", "", "trucks", "=", ["id"], [1]),
    refused(ValueError, "find", "cars", "", "=", ["id"], [1]),
    refused(ValueError, "find", "cars", "tru\tcks", "=", ["id"], [1]),
    refused(ValueError, "find", "cars", "trucks", "=", ["id,n"], [1]),
]


class TestBeforeSending:
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    @pytest.mark.parametrize(("call", "error"), BEFORE_SENDING)
    def test_what_cannot_be_meant_is_refused_and_nothing_is_sent(
        self,
        tmp_path: Path,
        call: Callable[[Manager], object],
        error: type[Exception],
        encoding: str,
    ) -> None:
        there = ("unix", str(tmp_path / "nothing"))
        manager = Manager([there], [there], encoding=encoding)
        with pytest.raises(error):
            call(manager)
        assert [side["connects"] for side in stats(manager).values()] == [0, 0]

    @pytest.mark.parametrize(("call", "error"), BEFORE_SENDING)
    def test_and_nothing_is_put_in_a_pipeline(
        self, tmp_path: Path, call: Callable[[Any], object], error: type[Exception]
    ) -> None:
        pipeline = nowhere(tmp_path).pipeline()
        with pytest.raises(error):
            call(pipeline)
        assert len(pipeline) == 0
        assert pipeline.execute() == []

    def test_a_manager_connects_to_nothing_until_it_is_asked(self, tmp_path: Path) -> None:
        with nowhere(tmp_path) as manager:
            manager.pipeline().find(*AT, "=", ["id"], [1])
            assert [side["connects"] for side in stats(manager).values()] == [0, 0]
            with pytest.raises(exceptions.ConnectionError, match="cannot connect to"):
                manager.get(*AT, ["id"], 1)


class TestPipeline:
    def test_each_method_gives_what_the_manager_would(self, hs: Manager) -> None:
        def work(on: Any) -> list[Any]:
            fields = [("id", 9), ("company", "MAN"), ("model", "TGX"), ("n", 1)]
            return [
                on.insert(*AT, fields),
                on.get(*AT, NAMED, 9),
                on.find(*AT, ">", ["id"], [1], limit=2),
                on.incr(*AT, "=", ["n"], [9]),
                on.incr(*AT, "=", ["n"], [9], [5], return_original=True),
                on.decr(*AT, "=", ["n"], [9], return_original=True),
                on.decr(*AT, "=", ["n"], [9]),
                on.update(*AT, "=", ["n"], [9], [3]),
                on.update(*AT, "=", ["n"], [9], [4], return_original=True),
                on.get(*AT, ["n"], 9),
                on.delete(*AT, "=", ["id"], [9], return_original=True),
                on.delete(*AT, "=", ["id"], [9]),
                on.get(*AT, ["n"], 9),
            ]

        one_by_one = work(hs)
        pipeline = hs.pipeline()
        assert all(one is pipeline for one in work(pipeline))
        assert isinstance(pipeline, ManagerPipeline)
        assert len(pipeline) == 13
        assert pipeline.execute() == one_by_one
        assert one_by_one == [
            True,
            [("id", "9"), ("company", "MAN"), ("model", "TGX")],
            [[("id", "2")], [("id", "3")]],
            1,
            [[("n", "2")]],
            [[("n", "7")]],
            1,
            1,
            [[("n", "3")]],
            [("n", "4")],
            [[("id", "9")]],
            0,
            [],
        ]

    def test_it_is_empty_afterwards_and_can_be_used_again(self, hs: Manager) -> None:
        pipeline = hs.pipeline()
        assert pipeline.execute() == []
        for number in (1, 2):
            assert pipeline.get(*AT, ["id"], number).execute() == [[("id", str(number))]]
            assert len(pipeline) == 0

    def test_errors_are_values_or_are_raised(self, hs: Manager) -> None:
        pipeline = hs.pipeline()

        def collect() -> ManagerPipeline:
            pipeline.insert(*AT, [("id", 1), ("company", "x")]).get(*AT, ["id"], 1)
            return pipeline.get(*AT, ["nix"], 1).incr(*AT, "=", ["n"], [1], return_original=True)

        duplicate, found, no_column, before = collect().execute(raise_on_error=False)
        assert isinstance(duplicate, exceptions.DuplicateKeyError)
        assert isinstance(no_column, exceptions.ColumnNotFoundError)
        assert (found, before) == ([("id", "1")], [[("n", "10")]])
        with pytest.raises(exceptions.DuplicateKeyError):
            collect().execute()
        assert len(pipeline) == 0
        assert numbers(hs)[1] == 12
        assert pipeline.get(*AT, ["id"], 2).execute() == [[("id", "2")]]

    def test_reads_alone_need_no_write_server(
        self, server: PrivateServer, trucks: None, tmp_path: Path
    ) -> None:
        writers = [("unix", str(tmp_path / "nothing"))]
        with Manager(reads_of(server), writers, secret=server.secret, timeout=0.5) as hs:
            pipeline = hs.pipeline().get(*AT, ["id"], 1).find(*AT, "=", ["n"], [2])
            assert pipeline.execute() == [[("id", "1")], [[("n", "20")]]]
            with pytest.raises(exceptions.ConnectionError):
                pipeline.get(*AT, ["id"], 1).delete(*AT, "=", ["id"], [1]).execute()
            assert pipeline.get(*AT, ["id"], 1).execute() == [[("id", "1")]]

    def test_values_are_in_the_encoding_of_the_manager(
        self, server: PrivateServer, trucks: None
    ) -> None:
        with manager_of(server, encoding="latin-1") as latin:
            pipeline = latin.pipeline().insert("cars", "words", [("id", 1), ("word", "é")])
            pipeline.find("cars", "words", "=", ["word"], ["é"], "word")
            assert pipeline.execute() == [True, [[("word", "é")]]]


class TestErrors:
    def test_what_does_not_exist_is_an_operational_error(self, hs: Manager) -> None:
        for error, call in (
            (exceptions.TableNotFoundError, lambda: hs.get("cars", "nix", ["id"], 1)),
            (exceptions.TableNotFoundError, lambda: hs.delete("nix", "trucks", "=", ["id"], [1])),
            (exceptions.IndexNotFoundError, lambda: hs.find(*AT, "=", ["id"], [1], "nix")),
            (exceptions.ColumnNotFoundError, lambda: hs.insert(*AT, [("nix", 1)])),
            (exceptions.OperationalError, lambda: hs.find(*AT, "=", ["id"], [1, 2])),
        ):
            with pytest.raises(error) as caught:
                call()
            assert isinstance(caught.value, exceptions.OperationalError)
            assert caught.value.code in (1, 2)
        assert hs.get(*AT, ["id"], 1) == [("id", "1")]

    def test_a_taken_key_is_a_duplicate_key_error(self, hs: Manager) -> None:
        with pytest.raises(exceptions.DuplicateKeyError) as caught:
            hs.insert(*AT, [("id", 1), ("company", "x")])
        assert (caught.value.code, caught.value.reason) == (1, "121")
        assert hs.get(*AT, NAMED, 1)[1] == ("company", "Scania")

    def test_a_secret_may_be_a_function_that_is_asked_at_each_login(
        self, server: PrivateServer, trucks: None
    ) -> None:
        secrets = ["wrong", server.secret, server.secret]
        asked: list[str] = []

        def secret() -> str:
            asked.append(secrets[len(asked)])
            return asked[-1]

        with manager_of(server, secret=secret, write_secret=lambda: server.write_secret) as hs:
            with pytest.raises(exceptions.AuthenticationError):
                hs.get(*AT, ["id"], 1)
            assert hs.get(*AT, ["id"], 1) == [("id", "1")]
            assert hs.get(*AT, ["id"], 2) == [("id", "2")]
            assert len(asked) == 2
            hs.purge()
            assert hs.get(*AT, ["id"], 2) == [("id", "2")]
            assert len(asked) == 3
            assert hs.incr(*AT, "=", ["n"], [1]) == 1

    def test_one_secret_may_serve_both_ports(self, server: PrivateServer, trucks: None) -> None:
        with manager_of(server, write_secret=None) as hs:
            assert hs.get(*AT, ["id"], 1)
            with pytest.raises(exceptions.AuthenticationError) as caught:
                hs.incr(*AT, "=", ["n"], [1])
        assert server.secret not in str(caught.value)

    def test_after_close_every_request_is_a_connection_error(self, hs: Manager) -> None:
        pipeline = hs.pipeline().get(*AT, ["id"], 1)
        hs.close()
        hs.close()
        for call in (
            lambda: hs.get(*AT, ["id"], 1),
            lambda: hs.insert(*AT, [("id", 9)]),
            lambda: hs.delete(*AT, "=", ["id"], [1]),
            lambda: hs.read_socket.get_index_id(*AT, ["id"]),
            pipeline.execute,
        ):
            with pytest.raises(exceptions.ConnectionError, match="closed"):
                call()

    def test_a_reply_that_is_lost_says_so_and_the_change_is_done_once(
        self, server: PrivateServer, hs: Manager, peer: Peer
    ) -> None:
        to = writes_of(server)[0][1]

        def behave(near: socket.socket) -> None:
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(to)
                for answers in (True, False):
                    far.sendall(near.recv(1 << 16))
                    answer = far.recv(1 << 16)
                    if answers:
                        near.sendall(answer)

        _, host, port = tuple_of(load_settings(peer(behave)).readers[0])
        with Manager([], [("inet", host, port)], secret=server.write_secret) as lossy:
            for change in (
                lambda: lossy.incr(*AT, "=", ["n"], [1]),
                lambda: lossy.insert(*AT, [("id", 9), ("company", "x"), ("n", 5)]),
                lambda: lossy.pipeline().incr(*AT, "=", ["n"], [9]).execute(),
            ):
                with pytest.raises(exceptions.OutcomeUnknownError) as caught:
                    change()
                assert isinstance(caught.value, exceptions.IndexedConnectionError)
        assert numbers(hs) == {1: 11, 2: 20, 3: 30, 9: 6}


class TestServers:
    def test_where_the_server_hangs_up_a_read_is_tried_again_and_a_write_is_not(
        self, peer: Peer
    ) -> None:
        comers: list[bytes] = []
        url = peer(lambda sock: comers.append(sock.recv(1 << 16)))
        _, host, port = tuple_of(load_settings(url).readers[0])
        with Manager([("inet", host, port)], [("inet", host, port)], timeout=0.5) as hs:
            with pytest.raises(exceptions.IndexedConnectionError) as caught:
                hs.get(*AT, ["id"], 1)
            assert not isinstance(caught.value, exceptions.OutcomeUnknownError)
            assert len(comers) > 2
            comers.clear()
            with pytest.raises(exceptions.OutcomeUnknownError):
                hs.insert(*AT, [("id", 1)])
            assert len(comers) == 1

    def test_one_of_two_read_servers_that_dies_costs_no_error(
        self, pair: tuple[PrivateServer, PrivateServer]
    ) -> None:
        with Manager(reads_of(*pair), writes_of(pair[0]), secret="of reads") as hs:
            for _ in range(4):
                assert hs.get(*AT, ["id"], 2) == [("id", "2")]
            for dead in pair:
                dead.kill()
                for _ in range(20):
                    assert hs.get(*AT, ["id"], 2) == [("id", "2")]
                assert stats(hs)["read"]["aside"] == 1
                dead.start()
            hs.purge()
            assert hs.get(*AT, ["id"], 2) == [("id", "2")]

    def test_a_write_server_that_is_down_is_a_connection_error(
        self, pair: tuple[PrivateServer, PrivateServer]
    ) -> None:
        one, _ = pair
        secrets: dict[str, Any] = {"secret": "of reads", "write_secret": "of writes"}
        with Manager(reads_of(*pair), writes_of(one), **secrets) as hs:
            assert hs.incr(*AT, "=", ["n"], [2]) == 1
            one.kill()
            with Manager(reads_of(one), writes_of(one), timeout=0.2, **secrets) as hasty:
                for call in (
                    lambda: hasty.incr(*AT, "=", ["n"], [2]),
                    lambda: hasty.insert(*AT, [("id", 9)]),
                    lambda: hasty.pipeline().delete(*AT, "=", ["id"], [2]).execute(),
                    lambda: hasty.get(*AT, ["id"], 2),
                ):
                    with pytest.raises(exceptions.ConnectionError, match="cannot connect"):
                        call()
            assert hs.get(*AT, ["id"], 2) == [("id", "2")]
            one.start()
            assert hs.incr(*AT, "=", ["n"], [2]) == 1

    def test_one_of_two_write_servers_that_is_down_costs_no_error(
        self, server: PrivateServer, hs: Manager, tmp_path: Path
    ) -> None:
        servers = [("unix", str(tmp_path / "nothing")), *writes_of(server)]
        with pytest.warns(RuntimeWarning, match="drift apart"):
            writer = Manager([], servers, secret=server.write_secret)
        for _ in range(20):
            assert writer.incr(*AT, "=", ["n"], [1]) == 1
        writer.close()
        assert numbers(hs)[1] == 30

    def test_after_a_purge_everything_works_again(self, hs: Manager) -> None:
        hs.get(*AT, ["id"], 1)
        hs.incr(*AT, "=", ["n"], [1])
        hs.purge()
        assert [side["size"] for side in stats(hs).values()] == [0, 0]
        assert hs.get(*AT, ["id"], 1) == [("id", "1")]
        assert hs.incr(*AT, "=", ["n"], [1], return_original=True) == [[("n", "11")]]
        assert hs.insert(*AT, [("id", 9), ("company", "x")]) is True
        assert [side["connects"] for side in stats(hs).values()] == [2, 2]

    def test_a_purge_makes_both_sockets_forget_their_index_ids(self, hs: Manager) -> None:
        found, changed = (one.get_index_id(*AT, ["n"]) for one in (hs.read_socket, hs.write_socket))
        hs.purge()
        with pytest.raises(exceptions.OperationalError, match="no index has the id"):
            hs.read_socket.find(found, "=", [1])
        with pytest.raises(exceptions.OperationalError, match="no index has the id"):
            hs.write_socket.find_modify(changed, "=", [1], "D")

    def test_a_purge_costs_those_who_are_at_work_nothing(self, hs: Manager) -> None:
        over = threading.Event()

        def work(number: int) -> int:
            done = 0
            while not over.is_set():
                assert hs.get(*AT, ["id"], 2) == [("id", "2")]
                done += hs.incr(*AT, "=", ["n"], [number])
            return done

        with ThreadPoolExecutor(2) as threads:
            futures = [threads.submit(work, number) for number in (1, 3)]
            for _ in range(20):
                hs.purge()
                time.sleep(0.005)
            over.set()
            done = [future.result(10) for future in futures]
        assert numbers(hs) == {1: 10 + done[0], 2: 20, 3: 30 + done[1]}

    def test_eight_threads_share_one_manager(self, server: PrivateServer, hs: Manager) -> None:
        start = threading.Barrier(8)

        def work(number: int) -> None:
            start.wait(10)
            key = 10 + number
            assert hs.insert(*AT, [("id", key), ("company", f"number {number}"), ("n", 0)])
            for turn in range(40):
                assert hs.incr(*AT, "=", ["n"], [1]) == 1
                assert hs.incr(*AT, "=", ["n"], [key], return_original=True) == [[("n", str(turn))]]
                assert hs.get(*AT, ["company"], key) == [("company", f"number {number}")]
                found, count = (
                    hs.pipeline().get(*AT, ["id"], key).incr(*AT, "=", ["n"], [2]).execute()
                )
                assert (found, count) == ([("id", str(key))], 1)

        with ThreadPoolExecutor(8) as threads:
            for future in [threads.submit(work, number) for number in range(8)]:
                future.result(30)
        assert numbers(hs) == {1: 330, 2: 340, 3: 30, **{10 + number: 40 for number in range(8)}}

    def test_a_manager_may_use_a_client_that_is_there(
        self, server: PrivateServer, trucks: None
    ) -> None:
        with Client(server.url) as client:
            hs = Manager.over(client, encoding=None)
            assert hs.get(*AT, ["id"], 1) == [("id", b"1")]
            assert hs.read_socket.client is hs.write_socket.client is client

    @pytest.mark.parametrize("of_its_own", [False, True], ids=["manager's", "server's"])
    @pytest.mark.parametrize("secret", [None, "secret"], ids=["no login", "login"])
    def test_a_server_that_never_answers_takes_no_longer_than_to_connect_and_to_ask(
        self, peer: Peer, secret: str | None, of_its_own: bool
    ) -> None:
        done = threading.Event()
        _, host, port = tuple_of(load_settings(peer(lambda sock: _wait(done))).readers[0])
        server = ("inet", host, port, 0.4 if of_its_own else None)
        options: dict[str, Any] = (
            {"secret": secret} if of_its_own else {"secret": secret, "timeout": 0.4}
        )
        with Manager([server], [server], **options) as hs:
            for call in (
                lambda: hs.get(*AT, ["id"], 1),
                lambda: hs.incr(*AT, "=", ["n"], [1]),
            ):
                began = time.monotonic()
                with pytest.raises(exceptions.ConnectionError):
                    call()
                assert 0.3 < time.monotonic() - began < 2 * 0.4 + 0.9
        done.set()


def _wait(done: threading.Event) -> None:
    done.wait(10)


@pytest.fixture(scope="class")
def debugging(server: PrivateServer) -> Iterator[Manager]:
    """Made while stdout is not what it is in a test; the logger is as before afterwards."""
    traffic = logging.getLogger("hskv.traffic")
    handlers, level = list(traffic.handlers), traffic.level
    fill(server)
    with manager_of(server, debug=True) as manager:
        yield manager
    traffic.handlers[:] = handlers
    traffic.setLevel(level)


class TestDebug:
    def test_the_traffic_is_on_stdout_and_no_secret_in_it(
        self, debugging: Manager, server: PrivateServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        debugging.purge()
        debugging.get(*AT, ["company"], 1)
        debugging.update(*AT, "=", ["company"], [1], ["DAF"])
        out, err = capsys.readouterr()
        assert err == ""
        assert out.count("A\\t1\\t***") == 2
        assert server.secret not in out
        assert server.write_secret not in out
        assert re.search(r"> .*P\\t\d+\\tcars\\ttrucks\\tPRIMARY\\tcompany\\n", out)
        assert re.search(r"< .*0\\t1\\tScania\\n'\n", out)
        assert re.search(r"> .*\\t=\\t1\\t1\\t1\\t0\\tU\\tDAF\\n", out)
        for path in (reads_of(server)[0][1], writes_of(server)[0][1]):
            assert f"{path} > " in out
            assert f"{path} < " in out

    def test_each_line_is_there_once_with_several_managers_in_debug_mode(
        self, debugging: Manager, server: PrivateServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with manager_of(server, debug=True) as another:
            another.get(*AT, ["company"], 3)
        assert capsys.readouterr().out.count("Volvo") == 1

    def test_a_stdout_that_was_closed_meanwhile_is_not_written_to(
        self,
        debugging: Manager,
        server: PrivateServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        other = io.StringIO()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", other)
            with manager_of(server, debug=True) as hs:
                hs.get(*AT, ["company"], 3)
                assert "Volvo" in other.getvalue()
                other.close()
                patched.undo()
                hs.get(*AT, ["company"], 3)
        out, err = capsys.readouterr()
        assert "Volvo" in out
        assert err == ""


def test_a_pipeline_gives_an_undecodable_row_as_an_error_in_its_place(hs: Manager) -> None:
    text = Manager.over(hs.read_socket.client, encoding="ascii")
    hs.insert(*AT, [("id", "70"), ("company", "Ölwerk"), ("model", "")])
    queued = text.pipeline().get(*AT, ["id", "company"], 70).delete(*AT, "=", ["id"], [70])
    broken, count = queued.execute(raise_on_error=False)
    assert isinstance(broken, exceptions.SerializationError)
    assert count == 1
    hs.insert(*AT, [("id", "70"), ("company", "Ölwerk"), ("model", "")])
    with pytest.raises(exceptions.SerializationError, match="ascii"):
        text.pipeline().get(*AT, ["id", "company"], 70).execute()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_get_looks_for_bytes_of_any_kind_as_they_are(hs: Manager, kind: type) -> None:
    assert dict(hs.get(*AT, ["id"], kind(b"1"))) == {"id": "1"}


def test_a_host_name_that_cannot_be_one_is_a_connection_error() -> None:
    hs = Manager([("inet", "x" * 70, 9998)], timeout=0.2)
    with hs, pytest.raises(exceptions.ConnectionError, match="cannot connect"):
        hs.get(*AT, ["id"], 1)
