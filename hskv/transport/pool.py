"""A bounded pool of channels to one listener: fair, thread-safe, fork-safe.

Locks: `ChannelPool._lock` guards the places that are taken and the queue of waiters. It is never
held while connecting, closing or waiting. The idle channels are a deque, whose `append` and `pop`
are atomic, so that an uncontended acquire and release take no lock.

An interrupt (KeyboardInterrupt, or what another thread throws) may strike between any two steps,
even between the loan of a channel and the `try` of the borrower. So nothing counts what it lent:
a place is taken as long as there is somebody who has it, and what an interrupt left behind is free
when Python has deleted it.

A signal handler, or the `__del__` of what Python deletes, may call the pool while its own thread
has the lock: so that can be taken again by whoever has it, and `_serve` knows when it is called
from within itself.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from ..exceptions import ConnectionError, IndexedConnectionError, PoolTimeoutError
from .fork import renew_after_fork

_POLL_SECONDS: Final = 0.005
# What an interrupt left behind gives no sign when it is deleted: those who wait look for it.
_LOOK_SECONDS: Final = 1.0


class Pooled(Protocol):
    """What a pool holds: a connection for one exchange at a time."""

    holder: object
    last_used: float
    expires: float

    @property
    def address(self) -> object: ...  # noqa: D102 of its server

    def close(self) -> None: ...  # noqa: D102 as its name says

    def gone(self) -> bool: ...  # noqa: D102 has the server closed its end?


ChannelT = TypeVar("ChannelT", bound=Pooled)


class _Waiter(Generic[ChannelT]):
    """A thread in the queue: given a channel, or (None) the right to connect one."""

    def __init__(self) -> None:
        self.channel: ChannelT | None = None
        self.orphaned = False
        self.served = False
        # A bare lock, since to release it takes no other lock that a fork may have left held.
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, channel: ChannelT | None) -> None:
        self.channel = channel
        self.served = True
        self._given.release()

    def orphan(self) -> None:
        """In a forked child: what it waits for, or was given, was the parent's."""
        self.orphaned = True
        if not self.served:
            self.give(None)

    def wait(self, seconds: float) -> bool:
        return self._given.acquire(timeout=max(seconds, 0.0))


class ChannelPool(Generic[ChannelT]):
    """At most `size` channels, made by `connect` when needed; the last one used is reused first.

    `timeout` is how long `acquire` waits for a channel, `max_idle` how long an unused one is
    kept; one that was idle for `peek_after` is reused only when the kernel says that the server
    is still there. All in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], ChannelT],
        *,
        size: int,
        timeout: float,
        max_idle: float = 20.0,
        peek_after: float = 1.0,
    ) -> None:
        self._connect = connect
        self._max_size = size
        self._timeout = timeout
        self._max_idle = max_idle
        self._peek_after = peek_after
        self.closed = False
        self._places = size
        self._refuses = False
        self._serving = False
        self._connects = self._timeouts = 0
        self._reset()
        renew_after_fork(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._taken)} of {self._max_size} channels"
        return f"<ChannelPool, {state}, {len(self._idle)} idle, {len(self._waiters)} waiting>"

    def acquire(self) -> ChannelT:
        """A channel for one exchange, its `last_used` now; goes back by `release` or `discard`.

        Raises PoolTimeoutError when none comes free in time, and whatever connecting raises.
        """
        if not self._waiters:
            try:
                channel = self._idle.pop()
            except IndexError:
                pass
            else:
                now = monotonic()
                if now - channel.last_used < self._peek_after or self._usable(channel, now):
                    channel.holder = self
                    channel.last_used = now
                    return channel
        # Not in the handler: what is raised there would show the IndexError as its context.
        return self._acquire_slowly()

    def release(self, channel: ChannelT) -> None:
        """Give back a channel that owes no byte either way.

        Raises RuntimeError for a channel that this pool has not lent out.
        """
        if channel.holder is not self:
            raise RuntimeError(f"{channel!r} is not on loan from {self!r}")
        channel.holder = None
        channel.last_used = now = monotonic()
        if now >= channel.expires:
            self._remove(channel)
            return
        self._idle.append(channel)
        try:
            if now - self._idle[0].last_used >= self._max_idle:
                self._shed(now)
        except IndexError:
            pass  # others took all in between
        # Whoever began to wait, drain or close since the append sees the idle channel, or is seen.
        if self._waiters:
            self._serve()
        elif self.closed or not self._places:
            self.drop_idle()

    def _shed(self, now: float) -> None:
        """Close the channel that was idle longest, unless another took it in between."""
        oldest = self._idle.popleft()
        if now - oldest.last_used < self._max_idle:
            self._idle.appendleft(oldest)
        else:
            self._remove(oldest)

    def discard(self, channel: ChannelT, error: BaseException | None = None) -> None:
        """Give back a channel whose exchange failed with `error`: it is closed.

        Where the connection broke the server went away, and with it the other ends of all idle
        channels: they are closed too. Raises RuntimeError for a channel that this pool has not
        lent out.
        """
        if channel.holder is not self:
            raise RuntimeError(f"{channel!r} is not on loan from {self!r}")
        channel.holder = None
        self._remove(channel)
        if isinstance(error, IndexedConnectionError):
            self.drop_idle()

    def drop_idle(self) -> None:
        """Close every idle channel: the server they lead to went away."""
        while True:
            try:
                channel = self._idle.pop()
            except IndexError:
                return
            self._remove(channel)

    def purge(self) -> None:
        """Close every channel, those in use when they come back; later requests connect anew."""
        with self._lock:
            while not self._all_expire():
                pass
        self.drop_idle()

    def _all_expire(self) -> bool:
        """Mark the channels, to be closed when they come back; False where one came meanwhile."""
        try:
            for one in self._taken:
                if not isinstance(one, _Waiter):
                    one.expires = 0.0
        except RuntimeError:
            return False
        return True

    def drain(self, timeout: float, *, refuse: bool = False) -> bool:
        """Close all channels, those in use when they come back, and open none until `resume`.

        `acquire` waits meanwhile, with `refuse` it raises at once. Waits up to `timeout` seconds
        for the channels in use; False when some still are.
        """
        deadline = monotonic() + timeout
        with self._lock:
            self._places, self._refuses = 0, refuse
        self.purge()
        while self._taken and monotonic() < deadline:
            sleep(_POLL_SECONDS)
        return not self._taken

    def resume(self) -> None:
        """End what `drain` began."""
        self._places, self._refuses = self._max_size, False
        self._serve()

    def stats(self) -> dict[str, int]:
        """Counts, by name.

        Now: channels (`size`, of them `idle`), threads `waiting`. So far: `connects` tried, and
        `timeouts` of acquire.
        """
        return {
            "size": len(self._taken),
            "idle": len(self._idle),
            "waiting": len(self._waiters),
            "connects": self._connects,
            "timeouts": self._timeouts,
        }

    def close(self) -> None:
        """Close all channels; those in use are closed when they come back. Idempotent."""
        with self._lock:
            self.closed = True
        self.purge()
        self._serve()

    def _acquire_slowly(self) -> ChannelT:
        deadline = monotonic() + self._timeout
        while True:
            waiter = self._next(deadline)
            if waiter.orphaned:
                continue
            channel = waiter.channel or self._connected(waiter)
            now = monotonic()
            if channel and (channel.holder is self or self._usable(channel, now)):
                channel.holder = self
                channel.last_used = now
                return channel

    def _next(self, deadline: float) -> _Waiter[ChannelT]:
        """Has an idle channel, or None for the right to connect one; waits in turn for either."""
        waiter: _Waiter[ChannelT] = _Waiter()
        with self._lock:
            if self._refuses:
                raise PoolTimeoutError("the client is drained for maintenance: try again later")
            self._waiters.append(waiter)
        try:
            self._serve(waiter)
            while not waiter.wait(min(deadline - monotonic(), self._look_after())):
                self._serve(waiter)
                if monotonic() >= deadline:
                    break
            if not self._leave(waiter):
                return waiter
        except BaseException:
            if not self._leave(waiter):
                self._give_up(waiter)
            raise
        self._timeouts += 1
        if not self._places:
            raise PoolTimeoutError(
                f"the client stayed drained for {self._timeout} s: try again later"
            )
        raise PoolTimeoutError(
            f"all {self._max_size} channels stayed in use for {self._timeout} s: raise pool_size "
            "or pool_timeout, or look for slow requests"
        )

    def _look_after(self) -> float:
        # Who is called from within `_serve` is told by nobody.
        return _POLL_SECONDS if self._serving else _LOOK_SECONDS

    def _serve(self, caller: _Waiter[ChannelT] | None = None) -> None:
        """Hand what is free to those who wait, first come first served."""
        with self._lock:
            if self._serving:
                self._serve_within(caller)
                return
            try:
                self._serving = True
                while self._waiters:
                    waiter = self._waiters[0]
                    if not waiter.served and not self._given(waiter):
                        return
                    self._waiters.popleft()
            finally:
                self._serving = False

    def _serve_within(self, caller: _Waiter[ChannelT] | None) -> None:
        """What interrupted `_serve` in this thread cannot wait for it to go on: it comes first.

        One place is left to what was interrupted, which may have found it free.
        """
        if caller is not None and not caller.served and self._given(caller, spared=1):
            self._waiters.remove(caller)

    def _given(self, waiter: _Waiter[ChannelT], spared: int = 0) -> bool:
        """Give an idle channel, or the place for a new one; False when there is neither."""
        channel = None
        try:
            channel = self._idle.pop()
        except IndexError:
            if len(self._taken) + spared >= self._places and not self.closed:
                return False
            self._taken.add(waiter)
        waiter.give(channel)
        return True

    def _leave(self, waiter: _Waiter[ChannelT]) -> bool:
        """Take a waiter out of the queue; False when it has been served already."""
        with self._lock:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            return not waiter.served

    def _give_up(self, waiter: _Waiter[ChannelT]) -> None:
        if waiter.channel is None:
            self._free_place(waiter)
        elif not waiter.orphaned:
            waiter.channel.holder = self
            self.release(waiter.channel)

    def _connected(self, waiter: _Waiter[ChannelT]) -> ChannelT | None:
        """A new channel; None in a child that was forked meanwhile, where it has no place."""
        waiters = self._waiters
        try:
            if self.closed:
                raise ConnectionError("this client is closed: make a new one")
            self._connects += 1
            channel = self._connect()
        except BaseException:
            self._free_place(waiter)
            raise
        if waiters is not self._waiters:
            channel.close()
            return None
        channel.holder = self
        with self._lock:
            self._taken.add(channel)
            self._taken.discard(waiter)
            self._end_if_closed(channel)
        return channel

    def _end_if_closed(self, channel: ChannelT) -> None:
        if self.closed or not self._places:
            channel.expires = 0.0

    def _usable(self, channel: ChannelT, now: float) -> bool:
        """False for an idle channel that has ended; closes it, and its kin if the server went."""
        unused = now - channel.last_used
        if now >= channel.expires or unused >= self._max_idle:
            self._remove(channel)
            return False
        if unused >= self._peek_after and channel.gone():
            self._remove(channel)
            self.drop_idle()
            return False
        return True

    def _remove(self, channel: ChannelT) -> None:
        channel.close()
        self._free_place(channel)

    def _free_place(self, holder: ChannelT | _Waiter[ChannelT]) -> None:
        with self._lock:
            self._taken.discard(holder)
        self._serve()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._serving = False
        # Who has a place: channels, and those of the waiters that are to connect one.
        self._taken: WeakSet[ChannelT | _Waiter[ChannelT]] = WeakSet()
        self._idle: deque[ChannelT] = deque()
        self._waiters: deque[_Waiter[ChannelT]] = deque()

    def after_fork(self) -> None:
        """In a child: forget the parent's channels, which are closed; greenlets queue up anew."""
        waiters = list(self._waiters)
        self._reset()
        for waiter in waiters:
            waiter.orphan()
