"""One socket to one listener: login, opened indexes, exchanges with a deadline.

A channel serves one exchange at a time; its pool sees to that, so it has no lock. Any
exception between the first byte out and the last byte in closes it, whatever the exception:
a late reply must never answer another request.
"""

import contextlib
import logging
import math
import random
import re
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from ..exceptions import (
    AuthenticationError,
    ConnectionError,
    HandlerSocketError,
    IndexedConnectionError,
    OperationalError,
    ProtocolError,
    RecoverableConnectionError,
    RequestTimeoutError,
)
from ..wire import requests
from ..wire.codec import decode_rows
from ..wire.replies import Reply, ReplyReader
from .address import Address, Secret, SecretBytes
from .dial import dial
from .interrupt import raise_interrupt

MAX_INDEXES: Final = 256
"""A channel that has opened more than this is closed: the server keeps memory for each."""
MAX_OPENED_AT_CONNECT: Final = 64
"""Of the indexes in use, so many (the latest) are opened with the login."""

_traffic = logging.getLogger("hskv.traffic")

_RECV_BYTES: Final = 1 << 14
_LOGIN: Final = re.compile(rb"^A\t[^\n]*", re.MULTILINE)
# Sending a body of this size may wait for the server to read.
_LARGE_BYTES: Final = 1 << 15
# How long a call of the kernel may wait: one tick of its clock. Python begins it anew, with its
# whole time, when a signal was handled meanwhile; only `poll` goes on with what is left. Nearly
# every reply is there earlier, and spares the poll, which is 10 % of a small read.
_TICK: Final = struct.pack("ll", 0, 4000)


@dataclass(frozen=True, eq=False, slots=True)
class Index:
    """What to open: columns of a table, reached through one of its indexes.

    `columns` are read and written, in this order; `filter_columns` may be compared with.
    Compared by identity, which is cheap to hash: `Client.open` gives the same one each time.

    >>> store.client.open("kv", ["n"]) is store.client.open("kv", ["n"])
    True
    """

    database: str
    table: str
    name: str
    columns: tuple[str, ...]
    filter_columns: tuple[str, ...] = ()

    def open_line(self, index_id: int) -> bytes:
        """The request that opens it under a number. Raises ValueError for a bad name."""
        return requests.open_index(
            index_id, self.database, self.table, self.name, self.columns, self.filter_columns
        )


class Channel:
    """A connected, logged-in socket and the indexes opened on it."""

    def __init__(
        self,
        address: Address,
        secret: Secret,
        indexes: dict[Index, None],
        *,
        connect_timeout: float,
        timeout: float,
        lifetime: float = math.inf,
    ) -> None:
        """Connects, logs in and opens the indexes in one packet; times in seconds.

        `indexes` is shared by the channels of a listener: those that one of them opened are
        opened at once by the next. An index that cannot be opened does not fail the channel:
        its requests will say why. Raises ConnectionError, AuthenticationError, ProtocolError.
        """
        self.address = address
        self.holder: object = None
        self.last_used = monotonic()
        # Jitter: channels made together need not end together.
        self.expires = self.last_used + lifetime * random.uniform(0.9, 1.0)
        self._traced = _traffic.isEnabledFor(logging.DEBUG)
        self._indexes = indexes
        self._ids: dict[Index, bytes] = {}
        self._next_id = 0
        self.timeout = timeout
        self._reader = ReplyReader()
        deadline = self.last_used + connect_timeout
        self._sock = open_socket(address, connect_timeout)
        try:
            self._cooperative = _is_cooperative(self._sock)
            # Greenlets, and who traces, take the longer way with every request.
            self._at_once = -1 if self._cooperative or self._traced else _LARGE_BYTES
            self._poll = select.poll()
            self._poll.register(self._sock, select.POLLIN)
            if not self._cooperative:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TICK)
            self._greet(secret.read(), deadline)
        except (IndexedConnectionError, RequestTimeoutError) as error:
            raise ConnectionError(
                f"{address} accepted the connection but did not finish the login: {error}"
            ) from error
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._ids)} indexes"
        return f"<Channel to {self.address}, {state}>"

    @property
    def closed(self) -> bool:
        """True once no request can be sent on this channel any more."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Close the socket; never raises."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def gone(self) -> bool:
        """True when the server has closed its end, or sent bytes that nobody asked for."""
        if self._cooperative:
            return self._cooperatively_gone()
        # A quarter of the cost of a recv that raises.
        return bool(self._poll.poll(0))

    def _cooperatively_gone(self) -> bool:
        # gevent waits in spite of MSG_DONTWAIT.
        self._sock.settimeout(0.0)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return True

    def call(self, index: Index, body: bytes, deadline: float) -> Reply:
        """Send one request on an index and wait for its reply.

        `deadline` is that of `time.monotonic`. Errors of the server are returned, not raised.
        Raises RecoverableConnectionError when nothing was sent, IndexedConnectionError,
        RequestTimeoutError or ProtocolError when something was; each of them closes the channel.
        """
        index_id = self._ids.get(index)
        if index_id is None or len(body) > self._at_once:
            return self.call_many([(index, body)], deadline)[0]
        sent = False
        try:
            packet = index_id + body
            count = self._sock.send(packet)
            sent = True
            if count != len(packet):
                return self._send_rest(packet, count, 1, deadline)[0]
            try:
                data = self._sock.recv(_RECV_BYTES)
            except BlockingIOError as error:
                self._wait(error, select.POLLIN, deadline)
                data = self._recv(deadline)
            # Nearly every reply comes whole and alone; only the others need the reader.
            return decode_rows(data) or self._receive(1, deadline, data)[0]
        except BaseException as error:
            self._break(error, sent)
            raise

    def call_many(self, calls: Sequence[tuple[Index, bytes]], deadline: float) -> list[Reply]:
        """Send several requests in one write and wait for all replies, in order.

        Indexes not yet opened here are opened in the same write. Errors as in `call`.
        """
        indexes, bodies = zip(*calls, strict=True)
        index_id = self._ids.get(indexes[0])
        if index_id is not None and len(set(indexes)) == 1:
            return self._exchange(index_id + index_id.join(bodies), len(calls), deadline)
        opened: dict[Index, bytes] = {}
        lines = [self._request(index, body, opened) for index, body in calls]
        lines[:0] = [index.open_line(int(number)) for index, number in opened.items()]
        replies = self._exchange(b"".join(lines), len(lines), deadline)
        if not opened:
            return replies
        failed = self._opened(opened, replies[: len(opened)])
        replies = replies[len(opened) :]
        # A request on an index that could not be opened did nothing: it gets the real reason.
        return [failed.get(call[0], reply) for call, reply in zip(calls, replies, strict=True)]

    def _request(self, index: Index, body: bytes, opened: dict[Index, bytes]) -> bytes:
        index_id = self._ids.get(index) or opened.get(index)
        if index_id is None:
            # An id is never used twice on a channel, not even after a failure: the server
            # keeps the old index open under it, and a delete would hit the old table.
            index_id = opened[index] = b"%d" % self._next_id
            self._next_id += 1
            if self._next_id > MAX_INDEXES:
                self.expires = 0.0
        return index_id + body

    def _opened(
        self, opened: dict[Index, bytes], replies: list[Reply]
    ) -> dict[Index, OperationalError]:
        failed = {}
        for (index, number), reply in zip(opened.items(), replies, strict=True):
            if isinstance(reply, OperationalError):
                failed[index] = reply
                self._indexes.pop(index, None)
            else:
                self._ids[index] = number
                self._remember(index)
        return failed

    def _remember(self, index: Index) -> None:
        """To be opened at connect by the channels to come; the oldest are forgotten."""
        self._indexes[index] = None
        if len(self._indexes) > MAX_OPENED_AT_CONNECT:
            # Another thread may forget the same one, or change the dict meanwhile.
            with contextlib.suppress(RuntimeError, StopIteration):
                self._indexes.pop(next(iter(self._indexes)), None)

    def _greet(self, secret: bytes | None, deadline: float) -> None:
        opened: dict[Index, bytes] = {}
        for index in list(self._indexes)[-MAX_OPENED_AT_CONNECT:]:
            self._request(index, b"", opened)
        lines = [index.open_line(int(number)) for index, number in opened.items()]
        if secret is not None:
            lines.insert(0, SecretBytes(requests.auth(secret)))
        if not lines:
            return
        replies = self._exchange(SecretBytes(b"".join(lines)), len(lines), deadline)
        if secret is not None:
            login = replies.pop(0)
            if isinstance(login, OperationalError) and self._locked_out(deadline):
                raise login
        self._opened(opened, replies)

    def _locked_out(self, deadline: float) -> bool:
        # A server without a secret refuses every login, and serves every request: only
        # another request, on an index that cannot be open, tells it from a wrong secret.
        probe = b"%d" % MAX_INDEXES + requests.find("=", [b""])
        return isinstance(self._exchange(probe, 1, deadline)[0], AuthenticationError)

    def _exchange(self, packet: bytes, count: int, deadline: float) -> list[Reply]:
        sent = 0
        if self._traced:
            self._trace(">", packet)
        try:
            sent = self._send(packet, deadline)
            return self._send_rest(packet, sent, count, deadline)
        except BaseException as error:
            self._break(error, sent > 0)
            raise

    def _send_rest(self, packet: bytes, sent: int, count: int, deadline: float) -> list[Reply]:
        with memoryview(packet) as view:
            while sent < len(view):
                sent += self._send(view[sent:], deadline)
        return self._receive(count, deadline, self._recv(deadline))

    def _receive(self, count: int, deadline: float, data: bytes) -> list[Reply]:
        reader = self._reader
        self._received(data)
        replies = reader.feed(data)
        while len(replies) < count:
            with reader.get_buffer() as room:
                size = self._recv_into(room, deadline)
                self._received(room[:size])
            replies += reader.buffer_updated(size)
        if len(replies) > count or not reader.empty:
            raise ProtocolError(f"{self.address} sent more replies than it was asked for")
        return replies

    def _received(self, data: bytes | memoryview) -> None:
        if not data:
            raise IndexedConnectionError(f"{self.address} closed the connection")
        if self._traced:
            self._trace("<", bytes(data))

    def _trace(self, direction: str, data: bytes) -> None:
        _traffic.debug("%s %s %r", self.address, direction, masked(data))

    def _send(self, data: bytes | memoryview, deadline: float) -> int:
        while True:
            self._check(deadline)
            try:
                return self._sock.send(data)
            except BlockingIOError as error:
                self._wait(error, select.POLLOUT, deadline)

    def _recv(self, deadline: float) -> bytes:
        while True:
            self._check(deadline)
            try:
                return self._sock.recv(_RECV_BYTES)
            except BlockingIOError as error:
                self._wait(error, select.POLLIN, deadline)

    def _recv_into(self, room: memoryview, deadline: float) -> int:
        while True:
            self._check(deadline)
            try:
                return self._sock.recv_into(room)
            except BlockingIOError as error:
                self._wait(error, select.POLLIN, deadline)

    def _check(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise NoTimeLeftError
        if self._cooperative:
            # The kernel must not block the thread of all greenlets.
            self._sock.settimeout(left)

    def _wait(self, blocked: BlockingIOError, event: int, deadline: float) -> None:
        raise_interrupt(blocked)
        poll = select.poll()
        poll.register(self._sock, event)
        # What is left may be less than nothing: that would mean for ever.
        if not poll.poll(max(math.ceil((deadline - monotonic()) * 1000), 0)):
            raise NoTimeLeftError

    def _break(self, error: BaseException, sent: bool) -> None:
        """Close the channel; raises hskv's exception for one of the socket."""
        self.close()
        raise_interrupt(error)
        if isinstance(error, HandlerSocketError) or not isinstance(error, OSError):
            return
        # An error of the kernel's has a number, and is of a call that did nothing. Any other may
        # have come between a call that sent and the note of it.
        sent = sent or not (error.errno or isinstance(error, NoTimeLeftError))
        if isinstance(error, TimeoutError) and sent:
            raise RequestTimeoutError(
                f"{self.address} did not answer in time; if it is only slow, raise timeout"
            ) from error
        kind = IndexedConnectionError if sent else RecoverableConnectionError
        what = error.strerror or str(error) or "no time was left to send the request"
        raise kind(f"the connection to {self.address} broke: {what}") from error


class NoTimeLeftError(TimeoutError):
    """The deadline passed while the socket did nothing."""


def masked(data: bytes) -> bytes:
    """What is sent, with the secret of a login made unreadable."""
    return _LOGIN.sub(b"A\t1\t***", data)


def open_socket(address: Address, timeout: float) -> socket.socket:
    """A connected socket without a timeout of its own. Raises ConnectionError."""
    sock = dial(
        address,
        socket.socket,
        lambda made: made.settimeout(timeout),
        "is MariaDB running with the HandlerSocket plugin listening there? hskv doctor finds out",
        # The server has no IPv6.
        family=socket.AF_INET,
    )
    if not _is_cooperative(sock):
        sock.settimeout(None)
    return sock


def _is_cooperative(sock: socket.socket) -> bool:
    """True for the sockets of gevent and eventlet, whose timeouts the kernel does not see."""
    return type(sock).__module__.partition(".")[0] in ("gevent", "eventlet")
