"""Channels without sockets, and threads that borrow them from a pool."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.transport.pool import ChannelPool


class FakeChannel:
    def __init__(self) -> None:
        self.address = "fake"
        self.holder: object = None
        self.last_used = monotonic()
        self.expires = float("inf")
        self.closed = False
        self.server_went = False

    def close(self) -> None:
        self.closed = True

    def gone(self) -> bool:
        return self.server_went


class Server:
    """Makes fake channels; refuses while `down`."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.down = False

    def connect(self) -> Any:
        if self.down:
            raise HskvConnectionError("refused")
        channel = FakeChannel()
        self.made.append(channel)
        return channel


def consistent(pool: ChannelPool[Any], on_loan: int) -> None:
    """The counters agree with each other and with the channels."""
    idle = list(pool._idle)
    assert len(pool._taken) == len(idle) + on_loan
    assert len(set(map(id, idle))) == len(idle)
    assert not pool._waiters
    for channel in idle:
        assert channel.holder is None
        assert not channel.closed


def waiting(pool: ChannelPool[Any], count: int) -> None:
    deadline = monotonic() + 5
    while len(pool._waiters) < count:
        assert monotonic() < deadline
        threading.Event().wait(0.001)


class Borrower(threading.Thread):
    """Acquires in a thread of its own; what came of it is in `outcome`."""

    def __init__(
        self,
        pool: ChannelPool[Any],
        then: Callable[[Any], None] = lambda _: None,
        queue: int | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.outcome: Any = None
        self._pool, self._then = pool, then
        queue = len(pool._waiters) + 1 if queue is None else queue
        self.start()
        waiting(pool, queue)

    def run(self) -> None:
        try:
            self.outcome = self._pool.acquire()
        except BaseException as error:  # noqa: BLE001 any of them is the outcome
            self.outcome = error
        self._then(self.outcome)

    def result(self) -> Any:
        self.join(5)
        assert not self.is_alive()
        return self.outcome


def age(seconds: float, *channels: Any) -> None:
    for channel in channels:
        channel.last_used -= seconds


def two_of(pool: ChannelPool[Any]) -> list[Any]:
    return [pool.acquire(), pool.acquire()]
