"""A proxy in front of one port of a real server, that does one scripted fault at a time.

A thread accepts; each connection has a thread of its own, which carries bytes both ways. A fault
is armed with a direction and an offset, which counts the bytes of that direction from the arming
on, over all connections. Locks: `Proxy._lock` guards the counts, what was seen, and the list of
connections; never held across I/O.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, Self

_CHUNK: Final = 1 << 16
_SPLIT_SECONDS: Final = 0.002
_MERGE_SECONDS: Final = 0.005
_DELAY_SECONDS: Final = 0.02
_TRICKLE_SECONDS: Final = 0.0005
_TRICKLED_BYTES: Final = 24
_JOIN_SECONDS: Final = 10.0
# A server does not always hang up on a half-closed connection.
_HALF_CLOSED_SECONDS: Final = 0.8


class Direction(Enum):
    """Which way bytes go."""

    REQUEST = "request"
    REPLY = "reply"


class Kind(Enum):
    """What happens to the bytes from an offset on."""

    CUT = "cut"
    """The connection ends in order, both ways."""
    RESET = "reset"
    """It ends by a reset where TCP has one."""
    HALF_CLOSE = "half-close"
    """This direction ends in order; the other goes on."""
    SPLIT = "split"
    """The rest comes a little later."""
    TRICKLE = "trickle"
    """The rest comes byte by byte."""
    MERGE = "merge"
    """What comes within a few milliseconds is passed on in one piece."""
    DELAY = "delay"
    """The rest comes later, well within any deadline."""
    LATE = "late"
    """The rest comes when the caller has given up."""
    BLACK_HOLE = "black hole"
    """Nothing passes any more, either way, and the connection stays."""
    GARBLE = "garble"
    """One byte is another one."""
    LIE = "lie"
    """A line of what came is another one, as a server that is not in its right mind could say."""
    DUPLICATE = "duplicate"
    """The rest of what came in one piece comes twice, at once."""
    ECHO = "echo"
    """The rest of what came in one piece comes again, when the reply has long been read."""
    ENDLESS = "endless"
    """Bytes without end, and without an end of line; one each `seconds`, or as fast as can be."""


BENIGN: Final = frozenset({Kind.SPLIT, Kind.TRICKLE, Kind.MERGE, Kind.DELAY})
"""After these the bytes are those that were sent, in time."""


class Fault(NamedTuple):
    """One fault.

    `mask` is what a garbled byte is XORed with, `seconds` how late LATE comes, `line` what stands
    in the place of the line that the offset is in.
    """

    kind: Kind
    direction: Direction
    offset: int
    mask: int = 0x15
    seconds: float = 0.0
    line: bytes = b""

    def __str__(self) -> str:
        mask = f" ^{self.mask:#04x}" if self.kind is Kind.GARBLE else ""
        line = f" {self.line!r}" if self.kind is Kind.LIE else ""
        return f"{self.kind.value}{line} of the {self.direction.value} at {self.offset}{mask}"


class Proxy:
    """Stands in front of the unix socket `target`; listens on `path`, else on a port of TCP."""

    def __init__(self, target: str, path: str | None = None) -> None:
        self._target = target
        self._path = path
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._connections: list[_Connection] = []
        self.connections = 0
        """How many were accepted so far."""
        self.echoed = threading.Event()
        """An ECHO has been sent."""
        self.arm(None)
        self._listener = _listening(path)
        self._acceptor = threading.Thread(target=self._accept, name="proxy-accept")
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def place(self) -> str:
        """Its path, or the number of its port."""
        return self._path or str(self._listener.getsockname()[1])

    def arm(self, fault: Fault | None) -> None:
        """Count from here on, and do this fault once when its byte comes by."""
        with self._lock:
            self._fault = fault
            self.fired = False
            self.echoed.clear()
            self._faulted: _Connection | None = None
            self._seen = {direction: bytearray() for direction in Direction}

    def seen(self, direction: Direction) -> bytes:
        """What came since the arming, as it was sent."""
        with self._lock:
            return bytes(self._seen[direction])

    def settle(self) -> None:
        """Wait until a connection that was broken is gone at both ends.

        What it still had to carry to the server has been sent by then.
        """
        faulted = self._faulted
        if faulted is not None:
            faulted.join(_JOIN_SECONDS)
            assert not faulted.is_alive(), "a broken connection was not given up by its client"

    def close(self) -> None:
        """End every connection, and wait for every thread."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_JOIN_SECONDS)
        self._listener.close()
        for connection in self._alive():
            connection.stop()
            connection.join(_JOIN_SECONDS)
        assert not self._acceptor.is_alive()
        assert self._alive() == []
        if self._path:
            Path(self._path).unlink()

    def take(self, connection: "_Connection", direction: Direction, count: int) -> Fault | None:
        """The fault that is due within the next `count` bytes, its offset counted from them."""
        with self._lock:
            fault, start = self._fault, len(self._seen[direction]) - count
            if fault is None or fault.direction is not direction:
                return None
            offset = fault.offset - start
            # Behind the last byte of a piece a connection may end, but no byte is left to change,
            # and what is held back there would be the business of the next call.
            held = fault.kind in _HELD and direction is Direction.REPLY
            last = count - (held or fault.kind in BENIGN | _CHANGES)
            if not 0 <= offset <= last:
                return None
            self._fault, self.fired = None, True
            if fault.kind not in BENIGN | _CHANGES:
                self._faulted = connection
            return fault._replace(offset=offset)

    def note(self, direction: Direction, data: bytes) -> None:
        """Remember bytes as they came."""
        with self._lock:
            self._seen[direction] += data

    def pause(self, seconds: float) -> None:
        """Sleep, unless the proxy is being closed."""
        self._stopping.wait(seconds)

    def _alive(self) -> "list[_Connection]":
        with self._lock:
            self._connections = [one for one in self._connections if one.is_alive()]
            return list(self._connections)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._carry(client)

    def _carry(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._target)
        except OSError:
            server.close()
            client.close()
            return
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(self, client, server)
        self._alive()
        with self._lock:
            self.connections += 1
            self._connections.append(connection)
            connection.start()


_CHANGES: Final = frozenset({Kind.GARBLE, Kind.LIE, Kind.DUPLICATE, Kind.ECHO})
_HELD: Final = frozenset({Kind.BLACK_HOLE, Kind.LATE})


class _Connection(threading.Thread):
    """Carries the bytes of one connection until either end closes it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        super().__init__(name="proxy-connection")
        self._proxy = proxy
        self._client, self._server = client, server
        self._swallows = False

    def stop(self) -> None:
        """Make `run` end, from another thread."""
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._carry()
        finally:
            self._client.close()
            self._server.close()

    def _carry(self) -> None:
        poll = select.poll()
        ends = {end.fileno(): end for end in (self._client, self._server)}
        for number in ends:
            poll.register(number, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if not self._pass_on(ends[number]):
                    return

    def _pass_on(self, end: socket.socket) -> bool:
        """Carry what came from one end; False when the connection is over."""
        data = end.recv(_CHUNK)
        if not data:
            return False
        direction = Direction.REQUEST if end is self._client else Direction.REPLY
        other = self._server if end is self._client else self._client
        self._proxy.note(direction, data)
        fault = self._proxy.take(self, direction, len(data))
        if fault is not None:
            return self._do(fault, data, end, other)
        if not self._swallows:
            other.sendall(data)
        return True

    def _do(self, fault: Fault, data: bytes, end: socket.socket, other: socket.socket) -> bool:
        head, rest = data[: fault.offset], data[fault.offset :]
        if fault.kind in _CHANGES:
            return self._change(fault, head, rest, other)
        if fault.kind is Kind.MERGE:
            other.sendall(data + self._more(end))
            return True
        other.sendall(head)
        if fault.kind in BENIGN or fault.kind is Kind.LATE:
            return self._hold_back(fault, rest, other)
        if fault.kind is Kind.ENDLESS:
            self._talk_on(fault, other)
        if fault.kind is Kind.HALF_CLOSE:
            return self._half_close(end, other)
        self._swallows = fault.kind is Kind.BLACK_HOLE
        if fault.kind is Kind.RESET and self._client.family == socket.AF_INET:
            linger = struct.pack("ii", 1, 0)
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return self._swallows

    def _change(self, fault: Fault, head: bytes, rest: bytes, other: socket.socket) -> bool:
        if fault.kind is Kind.GARBLE:
            other.sendall(head + bytes([rest[0] ^ fault.mask]) + rest[1:])
        elif fault.kind is Kind.LIE:
            other.sendall(head[: head.rfind(b"\n") + 1] + fault.line + rest[rest.index(b"\n") :])
        elif fault.kind is Kind.DUPLICATE:
            other.sendall(head + rest + rest)
        else:
            other.sendall(head + rest)
            self._proxy.pause(_DELAY_SECONDS)
            other.sendall(rest)
            self._proxy.echoed.set()
        return True

    def _hold_back(self, fault: Fault, rest: bytes, other: socket.socket) -> bool:
        if fault.kind is Kind.TRICKLE:
            trickled, rest = rest[:_TRICKLED_BYTES], rest[_TRICKLED_BYTES:]
            for byte in trickled:
                self._proxy.pause(_TRICKLE_SECONDS)
                other.sendall(bytes([byte]))
        elif fault.kind is Kind.SPLIT:
            self._proxy.pause(_SPLIT_SECONDS)
        else:
            self._proxy.pause(fault.seconds or _DELAY_SECONDS)
        other.sendall(rest)
        return True

    def _talk_on(self, fault: Fault, other: socket.socket) -> NoReturn:
        """Until the other end hangs up, which is an OSError."""
        while True:
            other.sendall(b"x" * (1 if fault.seconds else _CHUNK))
            self._proxy.pause(fault.seconds)

    def _half_close(self, end: socket.socket, other: socket.socket) -> bool:
        other.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _HALF_CLOSED_SECONDS
        poll = select.poll()
        poll.register(other, select.POLLIN)
        poll.register(end, select.POLLRDHUP)
        while (left := until - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                data = other.recv(_CHUNK) if number == other.fileno() else b""
                if not data:
                    return False
                direction = Direction.REPLY if other is self._server else Direction.REQUEST
                self._proxy.note(direction, data)
                end.sendall(data)
        return False

    def _more(self, end: socket.socket) -> bytes:
        """What else comes soon."""
        poll = select.poll()
        poll.register(end, select.POLLIN)
        more, until = b"", time.monotonic() + _MERGE_SECONDS
        while (left := until - time.monotonic()) > 0 and poll.poll(left * 1000):
            data = end.recv(_CHUNK)
            if not data:
                break
            direction = Direction.REQUEST if end is self._client else Direction.REPLY
            self._proxy.note(direction, data)
            more += data
        return more


def _listening(path: str | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
