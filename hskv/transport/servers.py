"""Several listeners of one kind: which is asked next, and which is set aside for a while.

Locks: `Servers._lock` guards the failure marks of the members; never held across I/O.
"""

import itertools
import logging
import random
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Final, Generic

from ..exceptions import (
    ConnectionError,
    OperationalError,
    PoolTimeoutError,
    UnsupportedError,
)
from .channel import Channel
from .fork import renew_after_fork
from .health import Health
from .pool import ChannelPool, ChannelT
from .pools import Pools

_log = logging.getLogger("hskv")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0


class _Member(Generic[ChannelT]):
    """A pool, and until when its server is set aside."""

    def __init__(self, pool: ChannelPool[ChannelT]) -> None:
        self.pool = pool
        self.failures = 0
        self.retry_time = 0.0
        self.probed = False

    def failed(self) -> float:
        """Count a failure; the seconds of the pause that begins, 0 where it has begun already."""
        if self.failures and not self.probed:
            # Every channel to a server that went away breaks: that is one failure.
            return 0.0
        self.probed = False
        longest: float = min(_FIRST_PAUSE_SECONDS * 2**self.failures, _LONGEST_PAUSE_SECONDS)
        pause = longest * random.uniform(0.75, 1.25)
        self.failures += 1
        self.retry_time = monotonic() + pause
        return pause

    def told_nothing(self) -> bool:
        """If this was a probe, it ended before it was known how the server is: another follows."""
        was_probe = self.probed
        if was_probe:
            # Not at once: where its channels are all on loan each would wait for one in vain.
            self.retry_time, self.probed = monotonic() + _FIRST_PAUSE_SECONDS, False
        return was_probe


class Servers(Pools[ChannelT]):
    """Pools of several servers that hold the same data, used in turn.

    A server that cannot be reached, refuses the login, or breaks a connection, is set aside: for
    half a second at first, twice as long each time it fails again, up to 30 s. When its pause is
    over, one request tries it, while the others still pass it by; with that it is back. Where all
    are set aside, the one that may come back soonest is tried. With `health` only those are used
    that SQL says are well.
    """

    def __init__(
        self, pools: Sequence[ChannelPool[ChannelT]], health: Health | None = None
    ) -> None:
        super().__init__(pools)
        self._members = [_Member(pool) for pool in pools]
        self._health = health
        self._well: tuple[tuple[int, ...], list[_Member[ChannelT]]] = ((), [])
        self._by_pool = {id(member.pool): member for member in self._members}
        self._turn = itertools.count(random.randrange(len(pools)))
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        aside = sum(member.failures > 0 for member in self._members)
        return f"<Servers, {len(self._members)}, {aside} set aside>"

    def acquire(self) -> ChannelT:
        """A channel to the next server that can be reached.

        Raises what the last of them raises when none can; ConnectionError where none is well.
        """
        error: BaseException = ConnectionError("no server is configured")
        for member in self._candidates():
            try:
                channel = member.pool.acquire()
            except BaseException as failed:
                if not self._blamed(member, failed, ConnectionError, OperationalError):
                    raise
                error = failed
                continue
            return channel
        raise error

    def acquire_from(self, place: int) -> ChannelT:
        """A channel to one of them. Raises ConnectionError, at once while it is set aside.

        PoolTimeoutError only where it is not.
        """
        member = self._members[place]
        with self._lock:
            if member.failures and self._probed([member], monotonic()) is None:
                raise ConnectionError("the server is set aside")
        try:
            return member.pool.acquire()
        except BaseException as error:
            if self._blamed(member, error, ConnectionError) and isinstance(error, PoolTimeoutError):
                raise ConnectionError("the server is set aside") from error
            raise

    def release(self, channel: ChannelT) -> None:
        """As `ChannelPool.release`; a server that was set aside is back."""
        member = self._member(channel)
        if member.failures:
            with self._lock:
                member.failures, member.probed = 0, False
            _log.info("%s is back", channel.address)
        member.pool.release(channel)

    def discard(self, channel: ChannelT, error: BaseException | None = None) -> None:
        """As `ChannelPool.discard`; a connection error sets its server aside."""
        member = self._member(channel)
        self._blamed(member, error, ConnectionError)
        member.pool.discard(channel, error)

    def stats(self) -> dict[str, int]:
        """As `ChannelPool.stats`, summed; and how many servers are set `aside`."""
        return {**super().stats(), "aside": sum(member.failures > 0 for member in self._members)}

    def close(self) -> None:
        """Close all pools."""
        super().close()
        if self._health is not None:
            self._health.close()

    def after_fork(self) -> None:
        """In a child: another thread may have held the lock."""
        self._lock = threading.RLock()

    def _member(self, channel: ChannelT) -> _Member[ChannelT]:
        member = self._by_pool.get(id(channel.holder))
        if member is None:
            raise RuntimeError(f"{channel!r} is not on loan from {self!r}")
        return member

    def _candidates(self) -> list[_Member[ChannelT]]:
        """Whom to try, in this order: the healthy in turn, or one whose pause is over."""
        now = monotonic()
        members = self._members
        if self._health is not None:
            members = self._those_well(self._health.well(now))
        first = next(self._turn) % len(members)
        members = members[first:] + members[:first]
        with self._lock:
            probed = self._probed(members, now)
            healthy = [member for member in members if not member.failures]
        if probed is not None:
            return [probed, *healthy]
        if healthy:
            return healthy
        # None is left: the next failure of each counts, as after a probe.
        for member in members:
            member.probed = True
        return sorted(members, key=lambda member: member.retry_time)

    def _those_well(self, places: tuple[int, ...]) -> list[_Member[ChannelT]]:
        """The members in these places, which are mostly those of the request before."""
        known, members = self._well
        if known is not places:
            members = [self._members[place] for place in places]
            self._well = places, members
        return members

    @staticmethod
    def _probed(members: Sequence[_Member[ChannelT]], now: float) -> _Member[ChannelT] | None:
        """One whose pause is over, to be tried by the caller; the lock is held."""
        probed = next((m for m in members if m.failures and m.retry_time <= now), None)
        if probed is not None:
            # For the others it stays aside until the probe has come back.
            probed.retry_time, probed.probed = now + _LONGEST_PAUSE_SECONDS, True
        return probed

    def _blamed(
        self, member: _Member[ChannelT], error: BaseException | None, *faults: type[Exception]
    ) -> bool:
        """Set a server aside for an error that is a fault of it; True: ask another.

        That is so too where it was set aside already, and has no channel left for a probe.
        """
        busy = isinstance(error, PoolTimeoutError)
        if busy or not isinstance(error, faults):
            with self._lock:
                return member.told_nothing() and busy
        with self._lock:
            pause = member.failed()
        if pause:
            _log.warning("a server is set aside for %.1f s: %s", pause, error)
        return True


class NoServers:
    """The side of a client that has no HandlerSocket listener, since it goes by SQL."""

    closed = False

    def __init__(self, what: str) -> None:
        self._what = what

    def acquire(self) -> Channel:
        """There is none: UnsupportedError."""
        raise UnsupportedError(
            f"with {self._what}=sql there is no HandlerSocket listener for {self._what}: use the "
            "methods of the store, or SQL, or a Client of a URL without it"
        )

    def release(self, channel: Channel) -> None:
        """Nothing was lent: RuntimeError."""
        raise RuntimeError(f"{channel!r} is not on loan from {self!r}")

    def discard(self, channel: Channel, error: BaseException | None = None) -> None:
        """Nothing was lent: RuntimeError."""
        self.release(channel)

    def purge(self) -> None:
        """Nothing to close, as for the rest."""

    close = resume = purge

    def drain(self, timeout: float, *, refuse: bool = False) -> bool:
        """Nothing to wait for."""
        return True

    def stats(self) -> dict[str, int]:
        """No channels."""
        return {}
