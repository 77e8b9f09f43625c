import errno
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from hskv.exceptions import (
    HandlerSocketError,
    IndexedConnectionError,
    OperationalError,
    ProtocolError,
    RecoverableConnectionError,
    RequestTimeoutError,
    TableNotFoundError,
)
from hskv.transport import channel as channel_module
from hskv.transport.channel import MAX_INDEXES, Channel, Index

from .scripted import INDEX, OTHER, Connector, CooperativeSocket, ScriptedSocket, sockets

BODY = b"\t=\t1\tk\t1\t0\n"
OPEN = b"P\t0\tdb\tt\tPRIMARY\tk,v\n"
OK = b"0\t1\n"
ROW = b"0\t2\tk\tv\n"
ROWS = [(b"k", b"v")]


def soon() -> float:
    return monotonic() + 5.0


def opened(connect: Connector, *steps: bytes | BaseException) -> tuple[Channel, ScriptedSocket]:
    """A channel on which INDEX is open under 0, and its socket, which sent nothing since."""
    connect.indexes = {}
    sock = ScriptedSocket(OK + b"0\t2\n", *steps)
    channel = connect(sock)
    assert channel.call(INDEX, BODY, soon()) == []
    sock.sent.clear()
    return channel, sock


def test_the_first_call_opens_the_index_in_the_same_write(connect: Connector) -> None:
    sock = ScriptedSocket(OK + ROW, ROW)
    channel = connect(sock)
    assert sock.sent == []
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert sock.sent == [OPEN + b"0" + BODY]
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert sock.sent[1:] == [b"0" + BODY]
    assert repr(channel) == "<Channel to /run/scripted, 1 indexes>"


def test_several_calls_are_one_write_and_their_replies_are_in_order(connect: Connector) -> None:
    sock = ScriptedSocket(OK + OK + b"0\t1\ta\n", b"1\t1\t121\n0\t", b"1\tc\n")
    channel = connect(sock)
    calls = [(INDEX, b"\tone\n"), (OTHER, b"\ttwo\n"), (INDEX, b"\tthree\n")]
    first, second, third = channel.call_many(calls, soon())
    assert (first, third) == ([(b"a",)], [(b"c",)])
    assert isinstance(second, OperationalError)
    other = b"P\t1\tdb\tother\tPRIMARY\tk\tf\n"
    assert sock.sent == [OPEN + other + b"0\tone\n1\ttwo\n0\tthree\n"]
    assert not channel.closed


def test_an_error_of_the_server_is_returned_and_the_channel_stays(connect: Connector) -> None:
    channel, _ = opened(connect, b"2\t1\top\n", ROW)
    refused = channel.call(INDEX, BODY, soon())
    assert isinstance(refused, OperationalError)
    assert refused.reason == "op"
    assert channel.call(INDEX, BODY, soon()) == ROWS


@pytest.mark.parametrize("cut", range(1, len(ROW)))
def test_a_reply_in_two_parts_is_one_reply(connect: Connector, cut: int) -> None:
    channel, _ = opened(connect, ROW[:cut], ROW[cut:], ROW)
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert channel.call(INDEX, BODY, soon()) == ROWS


def test_a_reply_larger_than_any_buffer_is_one_reply(connect: Connector) -> None:
    value = b"x" * 1_000_000
    channel, sock = opened(connect, b"0\t1\t" + value + b"\n")
    assert channel.call(INDEX, BODY, soon()) == [(value,)]
    assert not sock.steps


EXCHANGES: list[Callable[[Channel], object]] = [
    lambda channel: channel.call(INDEX, BODY, soon()),
    lambda channel: channel.call_many([(INDEX, BODY)], soon()),
]
BREAKS: list[tuple[Callable[[], bytes | BaseException], type[BaseException]]] = [
    (lambda: b"", IndexedConnectionError),
    (lambda: ConnectionResetError(errno.ECONNRESET, "reset"), IndexedConnectionError),
    (lambda: TimeoutError("timed out"), RequestTimeoutError),
    (KeyboardInterrupt, KeyboardInterrupt),
    (MemoryError, MemoryError),
]


@pytest.mark.parametrize("cut", range(len(ROW)))
@pytest.mark.parametrize(("step", "kind"), BREAKS, ids=["eof", "reset", "late", "^C", "mem"])
def test_a_reply_cut_off_anywhere_closes_the_channel(
    connect: Connector,
    cut: int,
    step: Callable[[], bytes | BaseException],
    kind: type[BaseException],
) -> None:
    for exchange in EXCHANGES:
        begun = [ROW[:cut]] if cut else []
        channel, sock = opened(connect, *begun, step(), ROW)
        with pytest.raises(kind) as caught:
            exchange(channel)
        assert type(caught.value) is kind
        assert channel.closed
        assert sock.closed
        assert repr(channel) == "<Channel to /run/scripted, closed>"


@pytest.mark.parametrize("accepted", range(1, len(b"0" + BODY)))
def test_a_packet_sent_in_parts_arrives_whole(connect: Connector, accepted: int) -> None:
    channel, sock = opened(connect, ROW)
    sock.accepts = [accepted, 1]
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert b"".join(sock.sent) == b"0" + BODY


@pytest.mark.parametrize(
    ("accepts", "kind"),
    [
        ((BrokenPipeError(errno.EPIPE, "pipe"),), RecoverableConnectionError),
        ((BlockingIOError(errno.EAGAIN, "full"),), RecoverableConnectionError),
        ((KeyboardInterrupt(),), KeyboardInterrupt),
        ((3, BrokenPipeError(errno.EPIPE, "pipe")), IndexedConnectionError),
        ((3, BlockingIOError(errno.EAGAIN, "full")), RequestTimeoutError),
        ((3, KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_a_send_that_fails_says_whether_anything_left(
    connect: Connector, accepts: tuple[int | BaseException, ...], kind: type[BaseException]
) -> None:
    for exchange in EXCHANGES:
        channel, sock = opened(connect, ROW)
        sock.accepts = list(accepts)
        with pytest.raises(kind) as caught:
            exchange(channel)
        assert type(caught.value) is kind
        assert channel.closed


class Interrupted(ScriptedSocket):
    """A signal arrives when all is sent, before the program learns of it."""

    armed = False

    def send(self, data: bytes | memoryview) -> int:
        count = super().send(data)
        if self.armed:
            signal.raise_signal(signal.SIGUSR1)
        return count


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: TimeoutError("the alarm"), TimeoutError),
        (lambda: TimeoutError(errno.ETIMEDOUT, "the alarm"), TimeoutError),
        (lambda: BrokenPipeError(errno.EPIPE, "of a terminal"), BrokenPipeError),
        (lambda: BlockingIOError(errno.EAGAIN, "a pipe is full"), BlockingIOError),
        (lambda: ValueError("the alarm"), ValueError),
        # Of another request, it must not have this one sent again.
        (lambda: RecoverableConnectionError("another server is away"), ProtocolError),
    ],
)
def test_what_a_signal_handler_raises_is_not_taken_for_an_error_of_the_socket(
    connect: Connector,
    on_signal: Callable[[BaseException], None],
    exchange: Callable[[Channel], object],
    make: Callable[[], Exception],
    kind: type[Exception],
) -> None:
    raised = make()
    on_signal(raised)
    sock = Interrupted(OK + ROW, ROW)
    channel = connect(sock)
    assert channel.call(INDEX, BODY, soon()) == ROWS
    sock.armed = True
    with pytest.raises(kind) as caught:
        exchange(channel)
    assert caught.value is raised or caught.value.__cause__ is raised
    assert channel.closed


def test_a_timeout_without_a_number_may_have_come_after_all_was_sent(connect: Connector) -> None:
    for exchange in EXCHANGES:
        channel, sock = opened(connect, ROW)
        sock.accepts = [TimeoutError()]
        with pytest.raises(RequestTimeoutError):
            exchange(channel)


@pytest.fixture
def on_signal() -> Iterator[Callable[[BaseException], None]]:
    """Sets what SIGUSR1 raises."""
    before = signal.getsignal(signal.SIGUSR1)

    def set_(error: BaseException) -> None:
        def handler(number: int, frame: object) -> None:
            raise error

        signal.signal(signal.SIGUSR1, handler)

    yield set_
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "steps",
    [
        (ROW + ROW,),
        (ROW + b"0",),
        (ROW[:3], ROW[3:] + ROW),
        (ROW[:3], ROW[3:] + b"0\t"),
        (b"\n",),
        (b"nonsense\n",),
        (b"J",),
        (b"\x00\x01\x02\x03",),
        (b"0\t2\tk\n",),
        (b"0\t1", b"x\n"),
    ],
)
def test_surplus_or_senseless_bytes_are_a_protocol_error(
    connect: Connector, steps: tuple[bytes, ...]
) -> None:
    channel, _ = opened(connect, *steps)
    with pytest.raises(ProtocolError):
        channel.call(INDEX, BODY, soon())
    assert channel.closed


def test_surplus_bytes_after_many_replies_are_a_protocol_error(connect: Connector) -> None:
    channel, _ = opened(connect, ROW * 3)
    with pytest.raises(ProtocolError, match="more replies"):
        channel.call_many([(INDEX, BODY)] * 2, soon())
    assert channel.closed


def test_the_id_of_an_index_that_failed_to_open_is_never_used_again(connect: Connector) -> None:
    failed = b"1\t1\topen_table\n2\t1\tstmtnum\n"
    sock = ScriptedSocket(failed, failed, OK + ROW, OK + OK)
    channel = connect(sock)
    for _ in range(2):
        reply = channel.call(INDEX, BODY, soon())
        assert isinstance(reply, TableNotFoundError)  # the reason, not stmtnum
    assert connect.indexes == {}
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert connect.indexes == {INDEX: None}
    channel.call(OTHER, BODY, soon())
    assert [packet.split(b"\t")[1] for packet in sock.sent] == [b"0", b"1", b"2", b"3"]
    assert [packet.splitlines()[1].split(b"\t")[0] for packet in sock.sent] == [
        b"0",
        b"1",
        b"2",
        b"3",
    ]


def test_one_index_that_fails_does_not_hurt_its_neighbours(connect: Connector) -> None:
    sock = ScriptedSocket(OK + b"2\t1\tfld\n" + ROW + b"2\t1\tstmtnum\n")
    first, second = connect(sock).call_many([(INDEX, BODY), (OTHER, BODY)], soon())
    assert first == ROWS
    assert isinstance(second, OperationalError)
    assert second.reason == "fld"
    assert connect.indexes == {INDEX: None}


def test_a_bad_name_is_refused_before_anything_is_sent(connect: Connector) -> None:
    sock = ScriptedSocket()
    channel = connect(sock)
    with pytest.raises(ValueError, match="comma"):
        channel.call(Index("db", "a,b", "i", ("c",)), BODY, soon())
    assert sock.sent == []


def test_a_channel_that_opened_too_many_indexes_ends_after_use(connect: Connector) -> None:
    sock = ScriptedSocket()
    channel = connect(sock)
    calls = [(Index("db", f"t{i}", "i", ("c",)), BODY) for i in range(MAX_INDEXES)]
    sock.steps = [OK * 2 * MAX_INDEXES]
    channel.call_many(calls, soon())
    assert channel.expires > monotonic()
    sock.steps = [OK * 2]
    channel.call(INDEX, BODY, soon())
    assert channel.expires == 0.0


def test_a_deadline_already_past_sends_nothing(connect: Connector) -> None:
    channel, sock = opened(connect, ROW)
    with pytest.raises(RecoverableConnectionError, match="no time was left"):
        channel.call_many([(INDEX, BODY)], monotonic())
    assert sock.sent == []
    assert channel.closed


def test_no_call_of_the_kernel_waits_longer_than_a_tick(connect: Connector) -> None:
    _, sock = opened(connect)
    assert [option[1] for option in sock.options] == [socket.SO_RCVTIMEO, socket.SO_SNDTIMEO]
    assert [struct.unpack("ll", option[2]) for option in sock.options] == 2 * [(0, 4000)]


@pytest.fixture
def pair(connect: Connector) -> Iterator[tuple[Channel, socket.socket]]:
    """A channel on a real socket, and the server's end of it."""
    ours, theirs = sockets()
    channel = connect(ours)
    theirs.sendall(OK + ROW)
    assert channel.call(INDEX, BODY, soon()) == ROWS
    assert theirs.recv(1000) == OPEN + b"0" + BODY
    with theirs:
        yield channel, theirs
    channel.close()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=["call", "call_many"])
def test_a_reply_that_takes_many_ticks_is_waited_for(
    pair: tuple[Channel, socket.socket], exchange: Callable[[Channel], Any]
) -> None:
    channel, server = pair
    late = threading.Timer(0.05, server.sendall, (ROW,))
    late.start()
    assert exchange(channel) in (ROWS, [ROWS])
    late.join()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_the_deadline_holds_while_nobody_reads_or_answers(
    pair: tuple[Channel, socket.socket], size: int
) -> None:
    channel, _ = pair
    began = monotonic()
    with pytest.raises(RequestTimeoutError):
        channel.call(INDEX, b"\t" + b"x" * size + b"\n", began + 0.05)
    assert 0.05 <= monotonic() - began < 0.5


def test_a_large_request_is_sent_as_it_is_read(pair: tuple[Channel, socket.socket]) -> None:
    channel, server = pair
    body = b"\t" + b"x" * 3_000_000 + b"\n"

    def read_slowly() -> None:
        left = 1 + len(body)
        while left:
            left -= len(server.recv(500_000))
            time.sleep(0.01)
        server.sendall(ROW)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    assert channel.call(INDEX, body, soon()) == ROWS
    reader.join()


def test_a_cooperative_socket_gets_what_is_left_as_its_timeout(connect: Connector) -> None:
    sock = CooperativeSocket(OK + ROW, ROW)
    channel = connect(sock)
    deadline = monotonic() + 0.5
    assert channel.call_many([(INDEX, BODY)], deadline) == [ROWS]
    assert channel.call(INDEX, BODY, deadline) == ROWS
    assert all(0 < timeout <= 0.5 for timeout in sock.timeouts)
    assert sock.timeouts == sorted(sock.timeouts, reverse=True)
    assert sock.options == []


def test_a_dripping_server_does_not_stretch_the_deadline(
    connect: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [monotonic()]

    class Dripping(ScriptedSocket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            now[0] += 0.01
            return super().recv(1, flags)

    sock = Dripping(OK + b"0\t1\t" + b"x" * 10_000)
    monkeypatch.setattr(channel_module, "monotonic", lambda: now[0])
    channel = connect(sock)
    start = now[0]
    with pytest.raises(RequestTimeoutError):
        channel.call(INDEX, BODY, start + 5.0)
    assert 5.0 <= now[0] - start < 5.1
    assert channel.closed


def test_close_never_raises(connect: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    sock = ScriptedSocket()
    channel = connect(sock)

    def fail() -> None:
        raise OSError(errno.EIO, "io")

    monkeypatch.setattr(sock, "close", fail)
    channel.close()


def test_errors_name_the_server_and_what_to_do(connect: Connector) -> None:
    for step, words in ((b"", "closed the connection"), (TimeoutError(), "raise timeout")):
        channel, _ = opened(connect, step)
        with pytest.raises(HandlerSocketError, match=words) as caught:
            channel.call(INDEX, BODY, soon())
        assert "/run/scripted" in str(caught.value)
