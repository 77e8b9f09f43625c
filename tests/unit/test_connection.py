"""Connection at one end of a socket pair, and lists of servers; no network."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hskv import Manager
from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.exceptions import RequestTimeoutError, SerializationError
from hskv.sockets import Connection, HandlerSocket, ReadSocket, WriteSocket

from .scripted import ScriptedSocket, sockets

LINE = "0\t1\tŻółć 𝄞"


class Ends:
    """A connection, and what is at its other end."""

    def __init__(self, **options: Any) -> None:
        self.connection = Connection("inet", "localhost", 9998, **options)
        self.connection.socket, self.far = sockets()
        self.far.settimeout(10)

    def say(self, data: str | bytes) -> None:
        self.far.sendall(data.encode() if isinstance(data, str) else data)

    def close(self) -> None:
        self.connection.disconnect()
        self.far.close()


class Ready(ScriptedSocket):
    """Has bytes at once each time, and moves a clock by a second."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)
        self.now = 1_000.0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.now += 1
        return super().recv(size, flags)


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends(timeout=0.2)
    yield made
    made.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """What debug=True does to the logger of the traffic is undone."""
    traffic = logging.getLogger("hskv.traffic")
    before = list(traffic.handlers), traffic.level
    yield
    traffic.handlers[:], level = before
    traffic.setLevel(level)


class TestServers:
    @pytest.mark.parametrize(
        ("server", "words"),
        [
            (("tcp", "h", 9998), "'tcp' is neither 'inet' nor 'unix'"),
            (("inet", "h"), "None is no port"),
            (("inet", "h", 0), "0 is no port"),
            (("inet", "h", 65536), "65536 is no port"),
            (("inet", "h", "9998"), "'9998' is no port"),
            (("inet", None, 9998), "a server is"),
            (("inet", b"h", 9998), "a server is"),
            (("unix", None), "a server is"),
        ],
    )
    def test_a_server_that_cannot_be_meant_is_refused(
        self, server: tuple[Any, ...], words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            Connection(*server)
        for kind in (ReadSocket, WriteSocket):
            with pytest.raises(ValueError, match=words):
                kind([server])
        with pytest.raises(ValueError, match=words):
            Manager([("inet", "localhost", 9998), server])

    @pytest.mark.parametrize(
        "servers",
        [
            [()],
            [[]],
            [("inet",)],
            [("inet", "h", 9998, 3, "more")],
            [("inet", "h", 9998, -1)],
            "localhost",
            ("inet", "h", 9998),
            [[("inet", "h", 9998)], ("inet", "h", 9999)],
        ],
        ids=repr,
    )
    def test_a_list_of_servers_with_a_mistake_in_it_is_a_value_error(self, servers: Any) -> None:
        with pytest.raises(ValueError, match=r"server|port|timeout|protocol"):
            ReadSocket(servers)

    @pytest.mark.parametrize("servers", [[5], [None], [(None, "h", 9998)]], ids=repr)
    def test_servers_that_are_no_tuples_are_refused(self, servers: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            ReadSocket(servers)

    def test_sockets_need_a_server(self) -> None:
        with pytest.raises(ValueError, match="no server is given"):
            HandlerSocket([])

    def test_a_list_of_servers_may_be_nested_once_more(self) -> None:
        servers = [("inet", "a", 1), ("unix", "/b")]
        assert repr(ReadSocket([servers]).client) == repr(ReadSocket(servers).client)
        assert repr(ReadSocket([[servers[0]], [servers[1]]]).client) == repr(
            ReadSocket(servers).client
        )
        assert repr(ReadSocket(iter([servers])).client) == repr(ReadSocket(servers).client)

    def test_a_server_may_have_a_timeout_of_its_own(self) -> None:
        reader = ReadSocket([("inet", "a", 1, None), ("inet", "b", 2, 7), ("unix", "/c", None, 8)])
        assert [one.timeout for one in reader.client.settings.readers] == [None, 7, 8]

    def test_one_of_several_write_servers_is_warned_of_where_they_are_named(self) -> None:
        two = [("inet", "a", 1), ("inet", "b", 2)]
        for make in (lambda: WriteSocket(two), lambda: Manager(two, two)):
            with pytest.warns(RuntimeWarning, match="give one write server") as warned:
                make()
            assert [Path(one.filename) for one in warned] == [Path(__file__)]

    def test_several_read_servers_are_no_matter_of_a_warning(self) -> None:
        two = [("inet", "a", 1), ("inet", "b", 2)]
        ReadSocket(two)
        Manager(two)

    def test_times_and_sizes_reach_the_client(self) -> None:
        def told(info: Any) -> None:
            pass

        options: dict[str, Any] = {"timeout": 7, "pool_size": 2, "pool_timeout": 0.5}
        servers = [("inet", "a", 1)]
        for one in (
            Manager(on_request=told, **options).read_socket,
            Manager(on_request=told, **options).write_socket,
            ReadSocket(servers, on_request=told, **options),
            WriteSocket(servers, on_request=told, **options),
        ):
            settings = one.client.settings
            assert (settings.timeout, settings.connect_timeout) == (7, 7)
            assert (settings.pool_size, settings.pool_timeout) == (2, 0.5)
            assert settings.on_request is told

    @pytest.mark.parametrize(
        "options",
        [{"timeout": 0}, {"timeout": -1}, {"pool_size": 0}, {"pool_timeout": 0}],
        ids=repr,
    )
    def test_times_and_sizes_that_cannot_be_meant_are_refused(
        self, options: dict[str, Any]
    ) -> None:
        for make in (Manager, partial(ReadSocket, [("inet", "a", 1)])):
            with pytest.raises(ValueError, match=r"timeout|pool_size"):
                make(**options)

    @pytest.mark.parametrize("encoding", ["no-such", "hex", "rot13"])
    def test_what_is_no_encoding_of_text_is_refused(self, encoding: str) -> None:
        for make in (
            lambda: Connection("inet", "localhost", 1, encoding=encoding),
            lambda: ReadSocket([("inet", "localhost", 1)], encoding=encoding),
            lambda: Manager(encoding=encoding),
        ):
            with pytest.raises(ValueError, match=encoding):
                make()

    def test_no_repr_shows_a_secret(self) -> None:
        manager = Manager(secret="hunter2", write_secret="hunter3")
        shown = f"{manager!r} {manager.read_socket!r} {manager.write_socket!r}"
        assert "hunter" not in shown
        assert shown.count("localhost:9998") == 3


class TestLines:
    def test_what_is_sent_arrives_as_it_is(self, ends: Ends) -> None:
        ends.connection.send("P\t0\tDépôt\n")
        ends.connection.send(b"\xff\x00\n")
        assert ends.far.recv(100) == "P\t0\tDépôt\n".encode() + b"\xff\x00\n"

    def test_lines_that_arrive_at_once_are_read_one_by_one(self, ends: Ends) -> None:
        ends.say("0\t1\n\n0\t2\tb\nand a ha")
        assert [ends.connection.readline() for _ in range(3)] == ["0\t1", "", "0\t2\tb"]
        ends.say("lf\n")
        assert ends.connection.readline() == "and a half"

    def test_a_line_may_be_cut_anywhere_even_within_a_character(self) -> None:
        data = f"{LINE}\n".encode()
        for cut in range(1, len(data)):
            connection = Connection("inet", "localhost", 9998)
            script: Any = ScriptedSocket(data[:cut], data[cut:])
            connection.socket = script
            assert connection.readline() == LINE

    def test_a_line_may_come_byte_by_byte(self) -> None:
        connection = Connection("inet", "localhost", 9998)
        script: Any = ScriptedSocket(*(bytes([byte]) for byte in f"{LINE}\n".encode()))
        connection.socket = script
        assert connection.readline() == LINE

    def test_only_lf_ends_a_line(self, ends: Ends) -> None:
        ends.say("a\rb\x1c\x85\u2028c\x0c\n")
        assert ends.connection.readline() == "a\rb\x1c\x85\u2028c\x0c"

    def test_lines_are_in_the_encoding_that_was_given(self) -> None:
        for encoding in ("latin-1", "UTF8", "utf-16-le"):
            ends = Ends(encoding=encoding)
            ends.connection.send("é")
            assert ends.far.recv(9) == "é".encode(encoding)
            ends.say("é".encode(encoding) + b"\n")
            assert ends.connection.readline() == "é"
            ends.close()

    def test_without_an_encoding_lines_are_bytes(self) -> None:
        ends = Ends(encoding=None)
        ends.connection.send("é")
        assert ends.far.recv(9) == "é".encode()
        ends.say(b"\xff\xfe\n")
        assert ends.connection.readline() == b"\xff\xfe"
        ends.close()

    def test_a_line_that_is_no_text_is_said_so_and_the_next_one_is_right(self, ends: Ends) -> None:
        ends.say(b"\xff\nnext\n")
        with pytest.raises(SerializationError, match="no utf-8 text"):
            ends.connection.readline()
        assert ends.connection.readline() == "next"

    def test_a_new_connection_begins_with_an_empty_buffer(self, ends: Ends) -> None:
        ends.say("first\nleft over\n")
        assert ends.connection.readline() == "first"
        ends.connection.disconnect()
        ends.connection.socket, far = sockets()
        far.sendall(b"new\n")
        assert ends.connection.readline() == "new"
        far.close()


class TestFailures:
    def test_nothing_goes_over_a_connection_that_was_not_connected(self) -> None:
        connection = Connection("inet", "localhost", 9998)
        with pytest.raises(HskvConnectionError, match="call connect first"):
            connection.send("x\n")
        with pytest.raises(HskvConnectionError, match="call connect first"):
            connection.readline()
        connection.disconnect()
        assert connection.is_ready()
        assert repr(connection) == "<Connection to localhost:9998, closed>"

    def test_a_server_that_cannot_be_reached_is_left_alone_for_the_retry_interval(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1_000.0
        monkeypatch.setattr("hskv.sockets.time", lambda: now)
        connection = Connection("unix", str(tmp_path / "nothing"))
        assert connection.is_ready()
        with pytest.raises(HskvConnectionError, match="cannot connect to"):
            connection.connect()
        assert connection.socket is None
        assert connection.retry_time == now + Connection.RETRY_INTERVAL
        now += Connection.RETRY_INTERVAL - 1
        assert not connection.is_ready()
        now += 1
        assert connection.is_ready()
        assert connection.retry_time == 0

    def test_the_end_of_the_server_is_an_error_and_the_end_of_the_connection(
        self, ends: Ends
    ) -> None:
        ends.say("whole\nand a ha")
        ends.far.close()
        assert ends.connection.readline() == "whole"
        with pytest.raises(HskvConnectionError, match="closed by the server"):
            ends.connection.readline()
        assert ends.connection.socket is None
        assert not ends.connection.is_ready()
        assert ends.connection.retry_time == pytest.approx(time.time() + 30, abs=5)

    def test_sending_to_a_server_that_went_away_is_an_error(self, ends: Ends) -> None:
        ends.far.close()
        with pytest.raises(HskvConnectionError, match="broke"):
            ends.connection.send("x\n")
        assert ends.connection.socket is None
        assert not ends.connection.is_ready()

    def test_a_server_that_does_not_answer_is_a_timeout(self, ends: Ends) -> None:
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError, match=r"did not answer within 0\.2 s"):
            ends.connection.readline()
        assert 0.15 < time.monotonic() - began < 2
        assert ends.connection.socket is None
        assert not ends.connection.is_ready()

    def test_a_server_that_takes_nothing_is_a_timeout(self, ends: Ends) -> None:
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            ends.connection.send(b"x" * (8 << 20))
        assert time.monotonic() - began < 2

    def test_the_pieces_of_a_line_share_one_timeout(self, ends: Ends) -> None:
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                try:
                    ends.far.send(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(RequestTimeoutError):
                ends.connection.readline()
        finally:
            stop.set()
            thread.join(10)
        assert time.monotonic() - began < 2

    def test_a_line_without_end_is_a_timeout_too_though_bytes_never_run_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script: Any = Ready(*[b"x"] * 20, b"\n")
        monkeypatch.setattr("hskv.sockets.monotonic", lambda: script.now)
        connection = Connection("inet", "localhost", 9998, timeout=3)
        connection.socket = script
        with pytest.raises(RequestTimeoutError):
            connection.readline()
        assert script.now <= 1_005

    def test_an_interrupt_in_mid_line_does_not_make_half_of_it_pass_for_a_line(self) -> None:
        connection = Connection("inet", "localhost", 9998)
        script: Any = ScriptedSocket(b"0\t1\tab", KeyboardInterrupt(), b"cd\n")
        connection.socket = script
        with pytest.raises(KeyboardInterrupt):
            connection.readline()
        try:
            line = connection.readline()
        except HskvConnectionError:
            return
        assert line == "0\t1\tabcd"

    def test_disconnecting_twice_is_no_error(self, ends: Ends) -> None:
        ends.connection.disconnect()
        ends.connection.disconnect()
        assert ends.far.recv(1) == b""


@pytest.mark.usefixtures("quiet")
class TestDebug:
    def test_lines_are_shown_on_stdout_in_debug_mode_alone(
        self, ends: Ends, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ends.say("one\ntwo\nthree\n" * 2)
        ends.connection.send("before\n")
        ends.connection.set_debug_mode(True)
        ends.connection.send("asked\n")
        assert ends.connection.readline() == "one"
        ends.connection.set_debug_mode(False)
        ends.connection.send("after\n")
        shown = capsys.readouterr().out
        assert "localhost:9998 > b'asked\\n'" in shown
        assert "localhost:9998 < b'one\\n" in shown
        assert "before" not in shown
        assert "after" not in shown

    def test_each_line_is_shown_once_however_many_are_in_debug_mode(
        self, ends: Ends, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(3):
            ends.connection.set_debug_mode(True)
            Manager(debug=True)
        ends.connection.send("asked\n")
        assert capsys.readouterr().out.count("asked") == 1

    @pytest.mark.parametrize(
        "sent",
        ["A\t1\thunter2\n", "A\t1\thunter2\nP\t0\td\tt\n", "P\t0\td\tt\nA\t1\thunter2\n"],
        ids=["alone", "first", "last"],
    )
    def test_a_login_is_masked(
        self, ends: Ends, sent: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ends.connection.set_debug_mode(True)
        ends.connection.send(sent)
        shown = capsys.readouterr().out
        assert "hunter2" not in shown
        assert "***" in shown
        assert ("P\\t0\\td\\tt" in shown) == ("P\t0" in sent)
        assert ends.far.recv(100) == sent.encode()


def test_an_open_connection_says_so(ends: Ends) -> None:
    assert repr(ends.connection) == "<Connection to localhost:9998, open>"
    assert isinstance(ends.connection.socket, socket.socket)
