"""The two sides of a server, and the one place that sends a request again."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Final, TypeVar

from .exceptions import (
    AuthenticationError,
    ConnectionError,
    HandlerSocketError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    ProtocolError,
    TableNotFoundError,
    TransactionAbortedError,
)
from .lookups import rows_of
from .observed import RequestInfo, tell
from .sql import SqlClient, SqlSide
from .transport.address import Address, Secret, Settings
from .transport.channel import Channel, Index
from .transport.health import Health, health_of
from .transport.pool import ChannelPool
from .transport.primary import NotByHandlerSocketError, PrimaryServer
from .transport.retry import Effect, failure, pauses, repeatable
from .transport.servers import NoServers, Servers
from .wire.replies import CHANGED_ONE, Reply, Row, checked_columns

_log = logging.getLogger("hskv")

T = TypeVar("T")

_Side = ChannelPool[Channel] | Servers[Channel] | NoServers | PrimaryServer
_CHANNEL_LIFETIME_SECONDS: Final = 3600.0
_PEEK_BEFORE_READS_AFTER_SECONDS: Final = 1.0
# To look up a member of an Enum is a call of Python, up to 3.11.
_READ: Final = Effect.READ


class Exchange:
    """Sends bodies of requests to the side that they are for, and reads the replies."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._on_request = settings.on_request
        self._health = health_of(settings)
        self._reader = _side(settings, Effect.READ, self._health)
        self._writer = _side(settings, Effect.WRITE)
        self.sql = SqlClient(settings, settings.sql, self._health) if settings.sql else None

    def close(self) -> None:
        """Close all channels; requests after it are ConnectionError. Idempotent."""
        for side in self._sides:
            side.close()

    @property
    def _sides(self) -> tuple[_Side | SqlSide, ...]:
        # Of replicas by SQL the side leads the same pools, and more.
        sql = (self.sql.replicas.side,) if self.sql else ()
        return (self._reader, self._writer, *sql)

    def drain(self, timeout: float = 10.0, *, refuse: bool = False) -> bool:
        """Close every channel, and open none until `resume`: so that DDL need not wait.

        Requests under way are finished first, for up to `timeout` seconds; False when some are
        not by then. Requests meanwhile wait up to `pool_timeout`, or with `refuse` raise
        PoolTimeoutError at once. The server lets go of a table when the last connection of the
        same server thread has ended: other clients must be drained too.
        """
        drained = [side.drain(timeout, refuse=refuse) for side in self._sides]
        return all(drained)

    def resume(self) -> None:
        """End what `drain` began: requests open channels again."""
        for side in self._sides:
            side.resume()

    def purge(self) -> None:
        """Close every channel, those in use after their exchange; requests to come connect anew."""
        for side in self._sides:
            side.purge()

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts of the channels to the "read" and the "write" side: see `ChannelPool.stats`.

        A side that goes by SQL has the connections to SQL, which both may share.
        """
        by_sql = self.sql.servers.stats() if self.sql else {}
        return {
            "read": by_sql if self.settings.reads == "sql" else self._reader.stats(),
            "write": by_sql if self.settings.writes == "sql" else self._writer.stats(),
        }

    def call(self, index: Index, body: bytes, effect: Effect) -> list[Row]:
        """Send a body built by `hskv.wire.requests`; the layer under `find` and the rest.

        `effect` says to which port it goes and when it may be sent again.
        """
        if self._on_request is not None:
            return rows_of(self.call_many([(index, body)], effect)[0])
        pool = self._reader if effect is _READ else self._writer
        try:
            channel = pool.acquire()
        except ConnectionError as error:
            return rows_of(self._repeat([(index, body)], effect, error)[0])
        began = channel.last_used
        deadline = began + channel.timeout
        try:
            reply = channel.call(index, body, deadline)
            # Rows, as mostly, or the number that answers many a write; the rest is rarer.
            columns = len(reply[0]) if type(reply) is list else 0
            if columns != len(index.columns) and (columns != 1 or effect is _READ):
                checked_columns(reply, len(index.columns), or_one=effect is not _READ)
        except BaseException as error:
            reported = _lost(pool, channel, error, effect)
            if not isinstance(reported, ConnectionError):
                raise
            return rows_of(self._repeat([(index, body)], effect, reported, began, deadline)[0])
        if isinstance(reply, list):
            pool.release(channel)
            return reply
        _give_back(pool, channel, [reply])
        if isinstance(reply, LockTimeoutError):
            return rows_of(self._repeat([(index, body)], effect, reply, began, deadline)[0])
        return rows_of(reply)

    def call_many(self, calls: Sequence[tuple[Index, bytes]], effect: Effect) -> list[Reply]:
        """Send several bodies in one write; the replies in order, errors among them as values.

        Not a transaction: a request that fails does not undo the others, except that a
        deadlock undoes all of them: then TransactionAbortedError is raised for the whole.
        """
        if self._on_request is None:
            return self._call_many(calls, effect)
        return self._observed(self._on_request, calls, effect)

    def _observed(
        self,
        on_request: Callable[[RequestInfo], object],
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
    ) -> list[Reply]:
        began = monotonic()
        replies: list[Reply] = []
        error: BaseException | None = None
        try:
            replies = self._call_many(calls, effect)
        except BaseException as failed:
            error = failed
            raise
        finally:
            # Where no listener was known nobody was asked: SQL will be, and that is told.
            if not isinstance(error, NotByHandlerSocketError):
                tell(on_request, _info(calls, effect, replies, monotonic() - began, error))
        return replies

    def _call_many(self, calls: Sequence[tuple[Index, bytes]], effect: Effect) -> list[Reply]:
        pool = self._reader if effect is Effect.READ else self._writer
        began, deadline = 0.0, None
        try:
            channel = pool.acquire()
            began = monotonic()
            deadline = began + channel.timeout
            replies = self._exchange(pool, channel, calls, effect, deadline)
        except ConnectionError as error:
            return self._repeat(calls, effect, error, began, deadline)
        refused = replies[0]
        if len(replies) == 1 and isinstance(refused, LockTimeoutError):
            return self._repeat(calls, effect, refused, began, deadline)
        return replies

    def _exchange(
        self,
        pool: _Side,
        channel: Channel,
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
        deadline: float,
    ) -> list[Reply]:
        """One attempt on a channel, which goes back to its pool; errors as `failure` gives them."""
        try:
            replies = channel.call_many(calls, deadline)
            or_one = effect is not Effect.READ
            refused = []
            plain = or_one and replies.count(CHANGED_ONE) == len(calls)
            for (index, _), reply in () if plain else zip(calls, replies, strict=True):
                checked_columns(reply, len(index.columns), or_one=or_one)
                if isinstance(reply, OperationalError):
                    refused.append(reply)
        except BaseException as error:
            reported = _lost(pool, channel, error, effect)
            if reported is error:
                raise
            raise reported from error
        _give_back(pool, channel, refused)
        for refusal in refused:
            if isinstance(refusal, TransactionAbortedError):
                raise refusal
        return replies

    def _longest_timeout(self, effect: Effect) -> float:
        settings = self.settings
        addresses = settings.readers if effect is Effect.READ else settings.writers
        return max(address.timeout or settings.timeout for address in addresses)

    def _repeat(
        self,
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
        error: HandlerSocketError,
        began: float = 0.0,
        deadline: float | None = None,
    ) -> list[Reply]:
        """Send again what failed with `error`, where that is harmless; else raise it.

        `began` and `deadline` are those of the attempt that failed, if it got a channel.
        What the server gave up for want of a lock is sent again only where as much time is left
        as it took: cut off by the deadline, it would be done later, and nobody would know.
        """
        pool = self._reader if effect is Effect.READ else self._writer
        if deadline is None:
            deadline = monotonic() + self._longest_timeout(effect)
        for pause in pauses(deadline):
            if pool.closed or not repeatable(error, effect):
                break
            took = monotonic() - began
            if isinstance(error, LockTimeoutError) and monotonic() + pause + took >= deadline:
                break
            sleep(pause)
            _log.info("sending again after: %s", error)
            began = monotonic()
            try:
                replies = self._exchange(pool, pool.acquire(), calls, effect, deadline)
            except (ConnectionError, ProtocolError) as again:
                error = again
                continue
            refused = replies[0]
            if len(calls) > 1 or not isinstance(refused, LockTimeoutError):
                return replies
            error = refused
        raise error


def understood(exchange: Exchange, shape: Callable[[list[Row]], T], rows: list[Row]) -> T:
    """What a reply to a write means, where its shape is that of one."""
    try:
        return shape(rows)
    except OutcomeUnknownError:
        # What was damaged looked like a reply: there may be more of the kind.
        exchange.purge()
        raise


def _side(settings: Settings, effect: Effect, health: Health | None = None) -> _Side:
    reads = effect is Effect.READ
    addresses = settings.readers if reads else settings.writers
    if not addresses:
        return NoServers("reads" if reads else "writes")
    secret = settings.secret if reads else settings.write_secret or settings.secret
    # A read is simply sent again; a write on a channel whose server went away would be lost.
    peek_after = _PEEK_BEFORE_READS_AFTER_SECONDS if reads else 0.0
    pools = [_pool(settings, address, secret, peek_after) for address in addresses]
    return pools[0] if len(pools) == 1 and health is None else Servers(pools, health)


def _pool(
    settings: Settings, address: Address, secret: Secret, peek_after: float
) -> ChannelPool[Channel]:
    connect = partial(
        Channel,
        address,
        secret,
        {},
        connect_timeout=address.timeout or settings.connect_timeout,
        timeout=address.timeout or settings.timeout,
        lifetime=_CHANNEL_LIFETIME_SECONDS,
    )
    return ChannelPool(
        connect, size=settings.pool_size, timeout=settings.pool_timeout, peek_after=peek_after
    )


def _lost(pool: _Side, channel: Channel, error: BaseException, effect: Effect) -> BaseException:
    """Drop the channel of a failed exchange; the error to report for it."""
    pool.discard(channel, error)
    reported = failure(error, effect)
    if reported is not error:
        reported.__cause__ = error
    return reported


def _info(
    calls: Sequence[tuple[Index, bytes]],
    effect: Effect,
    replies: list[Reply],
    seconds: float,
    error: BaseException | None,
) -> RequestInfo:
    operation = "pipeline"
    if len(calls) == 1:
        inserts = calls[0][1].startswith(b"\t+")
        operation = "find" if effect is Effect.READ else "insert" if inserts else "modify"
    received = 0
    for reply in replies:
        if isinstance(reply, OperationalError):
            error = error or reply
        else:
            received += sum(len(value or b"") for row in reply for value in row)
    return RequestInfo(
        operation=operation,
        table=calls[0][0].table,
        seconds=seconds,
        bytes_sent=sum(len(body) for _, body in calls),
        bytes_received=received,
        requests=len(calls),
        error=error,
    )


def _give_back(pool: _Side, channel: Channel, replies: Sequence[Reply]) -> None:
    # A channel that is not logged in is of no use; one that asked for a missing table keeps
    # the name locked on the server, and CREATE TABLE would wait for it.
    if any(isinstance(reply, (AuthenticationError, TableNotFoundError)) for reply in replies):
        pool.discard(channel)
    else:
        pool.release(channel)
