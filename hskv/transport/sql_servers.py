"""Several SQL servers, of which one at a time is the one to write to, and which it is now.

Locks: none. Which server was found last is one reference; threads that find another at the same
time overwrite each other, which costs a look more.
"""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Final

from ..exceptions import (
    ConnectionError,
    OperationalError,
    PoolTimeoutError,
    RecoverableConnectionError,
)
from .pool import ChannelPool
from .pools import Pools
from .sql_channel import SqlChannel

_log = logging.getLogger("hskv")

SqlPool = ChannelPool[SqlChannel]

_LOOK_AGAIN_SECONDS: Final = 1.0


class NoneWritableError(RecoverableConnectionError):
    """A server is there, and read-only, and no other can be written to now."""


class SqlServers(Pools[SqlChannel]):
    """Pools of the servers of a replicated primary, or of a Galera cluster.

    All goes to one that can be written to: not read-only, and in Galera one that has a majority.
    A connection is asked again after a second, and its server at once when a write was refused or
    it cannot be reached; then the others are asked, in the order given. A server that stands alone
    is not asked: it refuses what it must.
    """

    def __init__(self, pools: Sequence[SqlPool]) -> None:
        super().__init__(pools)
        self._writer = self.pools[0]
        self._by_id = {id(pool): pool for pool in pools}

    def __repr__(self) -> str:
        return f"<SqlServers, {len(self.pools)}>"

    @property
    def writer(self) -> SqlPool:
        """The pool of the server that was last found to be the one to write to."""
        return self._writer

    def acquire(self) -> SqlChannel:
        """A connection to the server to write to.

        Raises ConnectionError when none can be reached; NoneWritableError when none may be written
        to now: promoted is one perhaps in a moment. OperationalError when all refuse.
        """
        return self._acquired(to_write=True)

    def acquire_any(self) -> SqlChannel:
        """A connection to the first server that answers, as `acquire`, read-only or not."""
        return self._acquired(to_write=False)

    def release(self, channel: SqlChannel) -> None:
        """As `ChannelPool.release`."""
        self._pool(channel).release(channel)

    def discard(self, channel: SqlChannel, error: BaseException | None = None) -> None:
        """As `ChannelPool.discard`."""
        self._pool(channel).discard(channel, error)

    def _acquired(self, *, to_write: bool) -> SqlChannel:
        if len(self.pools) == 1:
            return self._writer.acquire()
        errors: list[ConnectionError | OperationalError] = []
        for pool in self._candidates():
            try:
                channel = self._looked_at(pool, to_write=to_write)
            except PoolTimeoutError:
                raise
            except (ConnectionError, OperationalError) as error:
                errors.append(error)
                continue
            if not channel.state.read_only:
                self._found(pool, channel)
            return channel
        raise _none(errors, "written to" if to_write else "asked")

    def _candidates(self) -> list[SqlPool]:
        writer = self._writer
        return [writer, *(pool for pool in self.pools if pool is not writer)]

    def _pool(self, channel: SqlChannel) -> SqlPool:
        pool = self._by_id.get(id(channel.holder))
        if pool is None:
            raise RuntimeError(f"{channel!r} is not on loan from {self!r}")
        return pool

    def _looked_at(self, pool: SqlPool, *, to_write: bool) -> SqlChannel:
        """A connection to a server that is as it must be; else the error that says why not."""
        channel = pool.acquire()
        try:
            now = monotonic()
            if now - channel.looked >= _LOOK_AGAIN_SECONDS:
                channel.look(now + channel.timeout)
        except BaseException as error:
            pool.discard(channel, error)
            raise
        if channel.state.ready and not (to_write and channel.state.read_only):
            return channel
        channel.looked = 0.0
        pool.release(channel)
        if channel.state.ready:
            raise NoneWritableError(f"{channel.address} is read-only")
        raise RecoverableConnectionError(f"{channel.address} has no majority, or is joining")

    def _found(self, pool: SqlPool, channel: SqlChannel) -> None:
        if pool is not self._writer:
            self._writer = pool
            _log.warning("writes go to %s from now on", channel.address)


def _none(errors: Sequence[ConnectionError | OperationalError], what: str) -> Exception:
    """What to raise where each server was passed over by one of these.

    That one refuses, which no time mends, is raised where all do; else it is the cause of what
    is raised, since another may be promoted.
    """
    words = f"none of the servers of sql= can be {what} now: {'; '.join(map(str, errors))}"
    refusals = [error for error in errors if isinstance(error, OperationalError)]
    read_only = any(isinstance(error, NoneWritableError) for error in errors)
    none = (NoneWritableError if read_only else RecoverableConnectionError)(words)
    if not refusals:
        return none
    first = refusals[0]
    refused = type(first)(words, code=first.code, reason=first.reason)
    if len(refusals) == len(errors):
        return refused
    none.__cause__ = refused
    return none
