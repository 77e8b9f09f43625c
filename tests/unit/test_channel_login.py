import errno
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from hskv.exceptions import (
    AuthenticationError,
    IndexedConnectionError,
    ProtocolError,
    RecoverableConnectionError,
    RequestTimeoutError,
)
from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.transport.address import Address, Secret
from hskv.transport.channel import MAX_OPENED_AT_CONNECT, Channel, Index

from .scripted import INDEX, OTHER, Connector, CooperativeSocket, ScriptedSocket, sockets

BODY = b"\t=\t1\tk\t1\t0\n"
LOGIN = b"A\t1\tsecret\n"
PROBE = b"256\t=\t1\t\t1\t0\n"
UNAUTH = b"3\t1\tunauth\n"
OK = b"0\t1\n"


def test_without_secret_and_indexes_nothing_is_sent(connect: Connector) -> None:
    sock = ScriptedSocket()
    connect(sock)
    assert sock.sent == []


def test_login_and_known_indexes_go_in_one_packet(connect: Connector) -> None:
    connect.indexes = {INDEX: None, OTHER: None}
    sock = ScriptedSocket(OK * 3, b"0\t2\n", b"0\t1\n")
    channel = connect(sock, Secret("secret"))
    opens = INDEX.open_line(0) + OTHER.open_line(1)
    assert sock.sent == [LOGIN + opens]
    assert channel.call(INDEX, BODY, monotonic() + 5) == []
    assert channel.call(OTHER, BODY, monotonic() + 5) == []
    assert sock.sent[1:] == [b"0" + BODY, b"1" + BODY]


def test_only_the_latest_indexes_are_opened_at_connect(connect: Connector) -> None:
    many = [Index("db", f"t{i}", "i", ("c",)) for i in range(MAX_OPENED_AT_CONNECT + 5)]
    connect.indexes = dict.fromkeys(many)
    sock = ScriptedSocket(OK * MAX_OPENED_AT_CONNECT)
    connect(sock)
    lines = sock.sent[0].splitlines(keepends=True)
    assert lines == [index.open_line(number) for number, index in enumerate(many[5:])]


def test_an_index_that_fails_at_connect_does_not_fail_the_channel(connect: Connector) -> None:
    connect.indexes = {INDEX: None, OTHER: None}
    sock = ScriptedSocket(b"1\t1\topen_table\n" + OK, OK + b"0\t2\n")
    channel = connect(sock)
    assert connect.indexes == {OTHER: None}
    assert channel.call(INDEX, BODY, monotonic() + 5) == []
    assert sock.sent[1] == INDEX.open_line(2) + b"2" + BODY


def test_a_server_without_a_secret_takes_any(connect: Connector) -> None:
    connect.indexes = {INDEX: None}
    sock = ScriptedSocket(UNAUTH + OK, b"2\t1\tstmtnum\n")
    channel = connect(sock, Secret("secret"))
    assert sock.sent == [LOGIN + INDEX.open_line(0), PROBE]
    assert not channel.closed
    assert connect.indexes == {INDEX: None}


def test_a_wrong_secret_is_an_authentication_error(connect: Connector) -> None:
    connect.indexes = {INDEX: None}
    sock = ScriptedSocket(UNAUTH + UNAUTH, UNAUTH)
    with pytest.raises(AuthenticationError, match="secret is missing or wrong") as caught:
        connect(sock, Secret("secret"))
    assert sock.closed
    assert "hunter" not in str(caught.value)
    assert connect.indexes == {INDEX: None}


@pytest.mark.parametrize(
    ("steps", "accepts", "cause"),
    [
        ((b"",), (), IndexedConnectionError),
        ((b"0\t",), (), RequestTimeoutError),
        ((UNAUTH, b""), (), IndexedConnectionError),
        ((), (BrokenPipeError(errno.EPIPE, "pipe"),), RecoverableConnectionError),
    ],
)
def test_a_login_that_breaks_off_is_a_connection_error(
    connect: Connector, steps: Any, accepts: Any, cause: type[Exception]
) -> None:
    sock = ScriptedSocket(*steps, accepts=accepts)
    with pytest.raises(HskvConnectionError, match="did not finish the login") as caught:
        connect(sock, Secret("secret"))
    assert type(caught.value) is HskvConnectionError
    assert type(caught.value.__cause__) is cause
    assert sock.closed


@pytest.mark.parametrize(
    ("step", "kind"), [(b"J\0\0\0", ProtocolError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_any_other_end_of_a_login_closes_the_socket(
    connect: Connector, step: Any, kind: type[BaseException]
) -> None:
    sock = ScriptedSocket(step)
    with pytest.raises(kind):
        connect(sock, Secret("secret"))
    assert sock.closed


def test_a_secret_that_cannot_be_read_closes_the_socket(connect: Connector) -> None:
    sock = ScriptedSocket()
    with pytest.raises(AuthenticationError, match="/nonexistent/secret cannot be read"):
        connect(sock, Secret(file="/nonexistent/secret"))
    assert sock.closed
    assert sock.sent == []


def test_a_login_obeys_the_connect_timeout_on_a_real_socket(connect: Connector) -> None:
    ours, theirs = sockets()
    with theirs:
        start = monotonic()
        with pytest.raises(HskvConnectionError, match="did not finish the login"):
            connect(ours, Secret("secret"), connect_timeout=0.05)
        assert 0.04 <= monotonic() - start < 1.0
        assert theirs.recv(100) == LOGIN


def test_a_real_socket_times_out_and_is_closed(connect: Connector) -> None:
    ours, theirs = sockets()
    with theirs:
        theirs.sendall(OK + b"0\t1\n")
        channel = connect(ours, timeout=0.05)
        assert channel.call(INDEX, BODY, monotonic() + 0.05) == []
        with pytest.raises(RequestTimeoutError):
            channel.call(INDEX, BODY, monotonic() + 0.05)
        assert channel.closed


def test_a_dripping_peer_is_cut_off_at_the_deadline(connect: Connector) -> None:
    ours, theirs = sockets()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.01):
            try:
                theirs.send(b"0")
            except OSError:
                return

    channel = connect(ours, timeout=5.0)
    dripper = threading.Thread(target=drip)
    dripper.start()
    start = monotonic()
    with pytest.raises(RequestTimeoutError):
        channel.call_many([(INDEX, BODY)], start + 0.15)
    assert 0.15 <= monotonic() - start < 1.0
    stop.set()
    dripper.join(5)
    theirs.close()


def test_a_real_peek_finds_a_closed_end_and_unasked_bytes(connect: Connector) -> None:
    ours, theirs = sockets()
    channel = connect(ours)
    assert not channel.gone()
    theirs.sendall(b"x")
    assert channel.gone()
    channel.close()
    assert channel.gone()
    theirs.close()
    ours, theirs = sockets()
    channel = connect(ours)
    theirs.close()
    assert channel.gone()
    channel.close()


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Address]]:
    if request.param == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server, Address("127.0.0.1", server.getsockname()[1])
    else:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(path)
            server.listen()
            yield server, Address(path=path)


def test_a_channel_connects_to_a_listener(listener: tuple[socket.socket, Address]) -> None:
    server, address = listener
    channel = Channel(address, Secret(), {}, connect_timeout=2.0, timeout=2.0)
    peer, _ = server.accept()
    with peer:
        assert channel._sock.gettimeout() is None
        peer.sendall(OK + b"0\t1\tv\n")
        assert channel.call(INDEX, BODY, monotonic() + 2.0) == [(b"v",)]
    channel.close()


def test_no_listener_is_a_connection_error_that_says_so(
    listener: tuple[socket.socket, Address],
) -> None:
    server, address = listener
    server.close()
    with pytest.raises(HskvConnectionError, match="is MariaDB running") as caught:
        Channel(address, Secret(), {}, connect_timeout=2.0, timeout=2.0)
    assert type(caught.value) is HskvConnectionError
    assert str(address) in str(caught.value)


def test_the_indexes_to_open_at_connect_are_bounded(connect: Connector) -> None:
    connect.indexes = {
        Index("db", "t", "PRIMARY", (str(number),)): None for number in range(MAX_OPENED_AT_CONNECT)
    }
    oldest = next(iter(connect.indexes))
    sock = ScriptedSocket(OK * MAX_OPENED_AT_CONNECT, OK + b"0\t1\ta\n")
    assert connect(sock).call(INDEX, BODY, monotonic() + 5) == [(b"a",)]
    assert INDEX in connect.indexes
    assert oldest not in connect.indexes
    assert len(connect.indexes) == MAX_OPENED_AT_CONNECT


def test_traffic_is_logged_with_the_secret_masked(
    connect: Connector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "hskv.traffic"):
        sock = ScriptedSocket(OK, OK + b"0\t1\ta\n")
        channel = connect(sock, Secret("secret"))
        assert channel.call(INDEX, BODY, monotonic() + 5) == [(b"a",)]
    assert "secret" not in caplog.text
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == r"/run/scripted > b'A\t1\t***\n'"
    assert lines[1] == r"/run/scripted < b'0\t1\n'"
    assert lines[-1] == r"/run/scripted < b'0\t1\n0\t1\ta\n'"


@pytest.mark.parametrize(
    ("step", "gone"),
    [
        (BlockingIOError(errno.EAGAIN, "again"), False),
        (b"", True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
    ],
)
def test_a_cooperative_socket_is_peeked_at_without_waiting(
    connect: Connector, step: bytes | BaseException, gone: bool
) -> None:
    sock = CooperativeSocket(step)
    channel = connect(sock)
    assert channel.gone() is gone
    assert sock.timeouts[-1] == 0.0
