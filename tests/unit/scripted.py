"""A socket that follows a script, and a channel on it."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from hskv.transport import channel as channel_module
from hskv.transport.address import Address, Secret
from hskv.transport.channel import Channel, Index
from hskv.transport.interrupt import raise_interrupt

ADDRESS = Address(path="/run/scripted")
INDEX = Index("db", "t", "PRIMARY", ("k", "v"))
OTHER = Index("db", "other", "PRIMARY", ("k",), ("f",))

Step = bytes | BaseException
Sock = Any


class ScriptedSocket:
    """Gives its steps to `recv`, one each, raising those that are exceptions.

    Past the last step every `recv` times out: to wait for such a socket ends at once.
    `send` takes as many bytes as `accepts` says, one item a call, then all; or raises it.
    """

    def __init__(self, *steps: Step, accepts: tuple[int | BaseException, ...] = ()) -> None:
        self.steps = list(steps)
        self.accepts = list(accepts)
        self.sent: list[bytes] = []
        self.options: list[tuple[Any, ...]] = []
        self.timeouts: list[float] = []
        self.closed = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        step = self.steps.pop(0) if self.steps else BlockingIOError(11, "would block")
        if isinstance(step, BaseException):
            raise step
        if len(step) > size:
            self.steps.insert(0, step[size:])
        return step[:size]

    def recv_into(self, room: memoryview) -> int:
        data = self.recv(len(room))
        room[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        step = self.accepts.pop(0) if self.accepts else len(data)
        if isinstance(step, BaseException):
            raise step
        self.sent.append(bytes(data[:step]))
        return len(self.sent[-1])

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def settimeout(self, seconds: float | None) -> None:
        self.timeouts.append(seconds or 0.0)

    def fileno(self) -> int:
        return -1 if self.closed else 99

    def close(self) -> None:
        self.closed = True


class CooperativeSocket(ScriptedSocket):
    """Stands for a socket of gevent."""


CooperativeSocket.__module__ = "gevent._socket3"


class Connector:
    """Makes channels on given sockets; `indexes` is what they share."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.indexes: dict[Index, None] = {}
        self._monkeypatch = monkeypatch

    def _wait(self, blocked: BlockingIOError, *_: Any) -> None:
        raise_interrupt(blocked)
        raise channel_module.NoTimeLeftError

    def __call__(
        self, sock: Sock, secret: Secret | None = None, *, timeout: float = 5.0, **options: Any
    ) -> Channel:
        connect: Callable[..., Sock] = lambda address, seconds: sock  # noqa: E731
        self._monkeypatch.setattr(channel_module, "open_socket", connect)
        if isinstance(sock, ScriptedSocket):
            self._monkeypatch.setattr(Channel, "_wait", self._wait)
        options.setdefault("connect_timeout", timeout)
        return Channel(ADDRESS, secret or Secret(), self.indexes, timeout=timeout, **options)


def sockets() -> tuple[socket.socket, socket.socket]:
    """A connected pair: what a channel gets, and its server's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
