"""What `on_request` is told, and what the logger `hskv` says, on the real server."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import Client, KeyValueStore, Manager, RequestInfo, exceptions
from hskv.mariadb import PrivateServer
from hskv.sockets import ReadSocket
from hskv.transport.address import load_settings

Infos = list[RequestInfo]

FIELDS = ["k", "v", "n"]


@pytest.fixture
def infos() -> Infos:
    return []


@pytest.fixture
def told(hskv_server: PrivateServer, hskv_store: Any, infos: Infos) -> Iterator[Client]:
    """A client on an empty table that keeps what it tells."""
    with Client(hskv_server.url, on_request=infos.append) as client:
        yield client


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestRequests:
    def test_a_find(self, told: Client, infos: Infos) -> None:
        index = told.open("kv", FIELDS)
        told.insert(index, ["a", "value", 7])
        infos.clear()
        told.find(index, "=", ["a"])
        (info,) = infos
        assert isinstance(info, RequestInfo)
        assert (info.operation, info.table, info.requests) == ("find", "kv", 1)
        assert info.bytes_received == len("avalue7")
        assert info.bytes_sent == len("\t=\t1\ta\t1\t0\n")
        assert info.error is None
        assert 0 < info.seconds < 5

    def test_a_find_of_nothing_and_of_null_receives_no_bytes(
        self, told: Client, infos: Infos
    ) -> None:
        told.find(told.open("kv", FIELDS), "=", ["none"])
        assert (infos[0].bytes_received, infos[0].error) == (0, None)

    def test_an_insert(self, told: Client, infos: Infos) -> None:
        told.insert(told.open("kv", FIELDS), ["a", b"\x00", None])
        (info,) = infos
        assert (info.operation, info.table, info.requests) == ("insert", "kv", 1)
        assert info.bytes_sent == len(b"\t+\t3\ta\t\x01\x40\t\x00\n")
        assert info.bytes_received == 0
        assert info.error is None
        assert info.seconds > 0

    def test_changes(self, told: Client, infos: Infos) -> None:
        index = told.open("kv", ["n"])
        told.insert(told.open("kv", FIELDS), ["a", "", 10])
        told.modify(index, "=", ["a"], "U", [11])
        told.modify(index, "=", ["a"], "+", [1])
        told.modify_returning(index, "=", ["a"], "-", [1])
        told.modify(index, "=", ["a"], "D")
        told.modify(index, "=", ["a"], "D")
        assert [one.operation for one in infos] == ["insert"] + ["modify"] * 5
        assert [one.error for one in infos] == [None] * 6
        assert [one.bytes_received for one in infos[1:]] == [1, 1, 2, 1, 1]
        assert all(one.seconds > 0 for one in infos)

    def test_a_pipeline_is_one(self, told: Client, infos: Infos) -> None:
        index = told.open("kv", FIELDS)
        pipeline = told.pipeline().insert(index, ["a", "value", 1])
        pipeline.insert(index, ["b", "", 2]).find(index, ">=", [""], limit=9)
        pipeline.execute()
        (info,) = infos
        assert (info.operation, info.table, info.requests) == ("pipeline", "kv", 3)
        assert info.bytes_received == len("avalue1b2")
        assert info.error is None
        told.pipeline().execute()
        assert len(infos) == 1

    def test_a_pipeline_tells_its_first_error_and_the_bytes_of_the_others(
        self, told: Client, infos: Infos
    ) -> None:
        index, missing = told.open("kv", FIELDS), told.open("kv", ["nix"])
        told.insert(index, ["a", "value", 1])
        infos.clear()
        pipeline = told.pipeline().find(index, "=", ["a"]).insert(index, ["a", "", 1])
        pipeline.find(missing, "=", ["a"]).execute(raise_on_error=False)
        (info,) = infos
        assert isinstance(info.error, hskv.DuplicateKeyError)
        assert info.bytes_received == len("avalue1")
        assert info.requests == 3

    def test_a_long_in_list_is_told_request_by_request(self, told: Client, infos: Infos) -> None:
        told.find(told.open("kv", ["k"]), "=", [""], in_=(0, list(range(2_500))), limit=2_500)
        assert [one.operation for one in infos] == ["find"] * 3

    def test_errors_of_the_server_are_told_and_raised(self, told: Client, infos: Infos) -> None:
        index = told.open("kv", FIELDS)
        told.insert(index, ["a", "", 1])
        infos.clear()
        for error, call in (
            (hskv.DuplicateKeyError, lambda: told.insert(index, ["a", "", 1])),
            (hskv.ColumnNotFoundError, lambda: told.find(told.open("kv", ["nix"]), "=", ["a"])),
            (
                hskv.TableNotFoundError,
                lambda: told.modify(told.open("nix", ["k"]), "=", ["a"], "D"),
            ),
        ):
            with pytest.raises(error) as caught:
                call()
            assert infos[-1].error is caught.value
            assert infos[-1].bytes_received == 0
        assert [one.operation for one in infos] == ["insert", "find", "modify"]
        assert [one.table for one in infos] == ["kv", "kv", "nix"]

    def test_a_server_that_is_not_there_is_told_and_raised(
        self, tmp_path: Path, infos: Infos
    ) -> None:
        there = ("unix", str(tmp_path / "nothing"))
        with Manager([there], [there], timeout=0.2, on_request=infos.append) as manager:
            for call, operation in (
                (lambda: manager.get("db", "t", ["k"], "a"), "find"),
                (lambda: manager.insert("db", "t", [("k", "a")]), "insert"),
                (lambda: manager.delete("db", "t", "=", ["k"], ["a"]), "modify"),
            ):
                with pytest.raises(exceptions.ConnectionError) as caught:
                    call()
                assert infos[-1].error is caught.value
                assert (infos[-1].operation, infos[-1].table) == (operation, "t")
                assert infos[-1].seconds > 0
        assert len(infos) == 3

    def test_what_is_refused_before_it_is_sent_is_not_told(
        self, told: Client, infos: Infos
    ) -> None:
        with pytest.raises(ValueError, match="is not one of"):
            told.find(told.open("kv", ["k"]), "<>", ["a"])
        assert infos == []

    def test_the_seconds_include_waiting_for_a_channel(
        self, hskv_server: PrivateServer, peer: Callable[..., str], infos: Infos
    ) -> None:
        slow = threading.Event()

        def behave(sock: socket.socket) -> None:
            for _ in range(2):
                asked = sock.recv(1 << 16)
                slow.wait(0.3)
                sock.sendall(b"0\t1\n" * asked.count(b"\n"))

        with Client(peer(behave), secret="", pool_size=1, on_request=infos.append) as client:
            index = client.open("kv", ["k"])
            threads = [
                threading.Thread(target=client.find, args=(index, "=", ["a"])) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        assert len(infos) == 2
        assert max(one.seconds for one in infos) >= 0.5


class TestWhoTells:
    def test_a_store(self, hskv_server: PrivateServer, hskv_store: Any, infos: Infos) -> None:
        with KeyValueStore(hskv_server.url, on_request=infos.append) as store:
            store["a"] = "value"
            assert store["a"] == "value"
            assert store.get("none") is None
            assert store.incr("n") == 1
            store.set_many({"b": 1, "c": 2})
            del store["a"]
        assert {one.table for one in infos} == {"kv"}
        assert {one.operation for one in infos} >= {"find", "insert", "modify", "pipeline"}
        assert all(one.error is None and one.seconds > 0 for one in infos)

    def test_connect_takes_it_too(
        self, hskv_server: PrivateServer, hskv_store: Any, infos: Infos
    ) -> None:
        with hskv.connect(hskv_server.url, on_request=infos.append) as store:
            store.get("none")
        assert len(infos) == 1

    def test_a_manager_and_its_pipeline(
        self, hskv_server: PrivateServer, hskv_store: Any, infos: Infos
    ) -> None:
        settings = load_settings(hskv_server.url)
        with Manager(
            [("unix", settings.readers[0].path)],
            [("unix", settings.writers[0].path)],
            secret=hskv_server.secret,
            write_secret=hskv_server.write_secret,
            on_request=infos.append,
        ) as manager:
            manager.insert("hskv", "kv", [("k", "a"), ("v", ""), ("n", 1)])
            assert manager.get("hskv", "kv", ["n"], "a") == [("n", "1")]
            assert manager.incr("hskv", "kv", "=", ["n"], ["a"]) == 1
            manager.pipeline().get("hskv", "kv", ["n"], "a").execute()
            pipeline = manager.pipeline().get("hskv", "kv", ["n"], "a")
            pipeline.delete("hskv", "kv", "=", ["k"], ["a"]).execute()
        assert [one.operation for one in infos] == ["insert", "find", "modify", "find", "pipeline"]
        assert [one.bytes_received for one in infos] == [0, 1, 1, 1, 2]

    def test_a_low_level_socket(self, hskv_server: PrivateServer, infos: Infos) -> None:
        path = load_settings(hskv_server.url).readers[0].path
        servers = [("unix", path)]
        with ReadSocket(servers, secret=hskv_server.secret, on_request=infos.append) as reader:
            index_id = reader.get_index_id("hskv", "kv", ["k"])
            reader.find(index_id, "=", ["none"])
        assert [one.operation for one in infos] == ["find"]


class TestACallbackThatRaises:
    def test_the_request_is_done_and_its_exception_is_logged(
        self, hskv_server: PrivateServer, hskv_store: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(info: RequestInfo) -> None:
            raise RuntimeError(f"no room for {info.operation}")

        with KeyValueStore(hskv_server.url, on_request=fail) as store:
            store["a"] = 1
            assert store["a"] == 1
            caplog.clear()
            assert store.incr("a") == 2
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("hskv", "ERROR")
        assert record.getMessage() == "on_request raised an exception"
        assert record.exc_info
        assert str(record.exc_info[1]) == "no room for modify"

    def test_the_error_of_the_request_is_raised_and_not_its_own(
        self, hskv_server: PrivateServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(info: RequestInfo) -> None:
            raise RuntimeError

        with (
            Client(hskv_server.url, on_request=fail) as client,
            pytest.raises(hskv.ColumnNotFoundError),
        ):
            client.find(client.open("kv", ["nix"]), "=", ["a"])
        assert "on_request raised an exception" in caplog.text

    def test_no_channel_is_lost(self, hskv_server: PrivateServer) -> None:
        def fail(info: RequestInfo) -> None:
            raise RuntimeError

        with Client(hskv_server.url, on_request=fail, pool_size=1, pool_timeout=1) as client:
            for _ in range(5):
                client.find(client.open("kv", ["k"]), "=", ["a"])
            assert client.stats()["read"]["connects"] == 1


class TestLog:
    def test_a_server_set_aside_is_a_warning_and_its_return_an_info(
        self,
        hskv_server: PrivateServer,
        tmp_path_factory: pytest.TempPathFactory,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG, "hskv")
        path = load_settings(hskv_server.url).readers[0].path
        assert path
        door = tmp_path_factory.mktemp("door") / "read.sock"
        servers = [("unix", path), ("unix", str(door))]
        with ReadSocket(servers, secret=hskv_server.secret) as reader:
            index_id = reader.get_index_id("hskv", "kv", ["k"])

            def ask() -> None:
                assert reader.find(index_id, "=", ["none"]) == []

            for _ in range(4):
                ask()
            (aside,) = (one for one in caplog.records if one.levelno > logging.DEBUG)
            assert (aside.name, aside.levelname) == ("hskv", "WARNING")
            assert "set aside for 0." in aside.getMessage()
            assert str(door) in aside.getMessage()
            caplog.clear()
            door.symlink_to(path)

            def is_back() -> bool:
                ask()
                return any(one.levelno > logging.DEBUG for one in caplog.records)

            eventually(is_back)
            (back,) = (one for one in caplog.records if one.levelno > logging.DEBUG)
            assert (back.name, back.levelname) == ("hskv", "INFO")
            assert back.getMessage() == f"{door} is back"
        assert hskv_server.secret not in caplog.text

    def test_a_repeated_request_is_an_info_and_told_once(
        self,
        hskv_server: PrivateServer,
        peer: Callable[..., str],
        infos: Infos,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG, "hskv")
        path = load_settings(hskv_server.url).readers[0].path
        assert path
        comers = iter(range(100))

        def behave(near: socket.socket) -> None:
            hangs_up = next(comers) == 0
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(path)
                while (asked := near.recv(1 << 16)) and not (hangs_up and b"\t=\t" in asked):
                    far.sendall(asked)
                    near.sendall(far.recv(1 << 16))

        url = peer(behave).replace(":secret@", f":{hskv_server.secret}@")
        with Client(url, on_request=infos.append) as client:
            assert client.find(client.open("kv", ["k"]), "=", ["none"]) == []
            assert client.find(client.open("kv", ["k"]), "=", ["none"]) == []
            assert client.stats()["read"]["connects"] == 2
        assert [(one.operation, one.error) for one in infos] == [("find", None)] * 2
        (again,) = (one for one in caplog.records if one.levelno > logging.DEBUG)
        assert (again.name, again.levelname) == ("hskv", "INFO")
        assert again.getMessage().startswith("sending again after: ")
        assert "closed the connection" in again.getMessage()
        assert hskv_server.secret not in caplog.text

    def test_no_record_holds_a_secret_whatever_goes_wrong(
        self, hskv_server: PrivateServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "hskv")
        settings = load_settings(hskv_server.url)
        read, write = settings.readers[0].path, settings.writers[0].path
        nowhere = ("unix", str(tmp_path / "nothing"))

        def fail(info: RequestInfo) -> None:
            raise RuntimeError

        for secret, write_secret in (
            ("hunter2", "hunter3"),
            (hskv_server.secret, hskv_server.write_secret),
        ):
            with Manager(
                [("unix", read), nowhere],
                [("unix", write)],
                secret=secret,
                write_secret=partial(str, write_secret),
                on_request=fail,
                debug=False,
            ) as manager:
                for call in (
                    lambda: manager.get("hskv", "kv", ["k"], "a"),
                    lambda: manager.get("hskv", "kv", ["nix"], "a"),
                    lambda: manager.delete("hskv", "nix", "=", ["k"], ["a"]),
                ):
                    try:
                        call()
                    except exceptions.OperationalError as error:
                        logging.getLogger("hskv").exception("%r of %r", error, manager)
        assert "A\\t1\\t***" in caplog.text
        assert "on_request raised" in caplog.text
        for secret in (hskv_server.secret, hskv_server.write_secret, "hunter"):
            assert secret not in caplog.text
