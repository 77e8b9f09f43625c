"""What answers at the ports of the URL: asked without touching any table of the user's.

Requests go to `mysql.innodb_table_stats`, a base table that every MariaDB has: one that finds
nothing, and on the write port one that deletes what is not there.
"""

from enum import Enum
from time import monotonic, perf_counter
from typing import Final, NamedTuple

from ...exceptions import (
    AuthenticationError,
    ConnectionError,
    IndexedConnectionError,
    LockTimeoutError,
    OperationalError,
    ProtocolError,
    ReadOnlyError,
    RequestTimeoutError,
)
from ...transport.address import Address, Secret, Settings
from ...transport.channel import Channel, Index
from ...wire import requests
from ...wire.replies import Reply

_STATISTICS: Final = Index("mysql", "innodb_table_stats", "PRIMARY", ("n_rows",))
_NO_ROW: Final = [b"", b""]
ROUND_TRIPS: Final = 31
"""Of so many the quickest counts: a busy machine makes the others slow, and not a long way."""


class State(Enum):
    """What a port turned out to be."""

    REFUSED = "refused"
    SILENT = "silent"
    FOREIGN = "foreign"
    LOCKED_OUT = "locked out"
    UNREAD = "unread"
    """The file with the secret cannot be read; the port was not asked."""
    READS = "reads"
    WRITES = "writes"
    WRITES_REFUSED = "writes refused"


_WORKING: Final = (State.READS, State.WRITES, State.WRITES_REFUSED)


class Listener(NamedTuple):
    """One port of the URL, and what it is."""

    side: str
    address: Address
    state: State
    error: str = ""
    """What it said."""
    open: bool = False
    """It asks nobody for a secret."""
    seconds: float = 0.0
    """What a round trip takes at least."""
    secret: Secret = Secret(None)
    """What it let us in with."""
    other_secret: bool = False
    """That is the secret of the other port."""

    @property
    def works(self) -> bool:
        """Whether it let us in and answered."""
        return self.state in _WORKING

    @property
    def right(self) -> bool:
        """Whether it is what the URL takes it for."""
        return self.state is (State.READS if self.side == "read" else State.WRITES)


def probe_all(settings: Settings) -> tuple[Listener, ...]:
    """What answers at the ports to read from, and at those to write to."""
    own = settings.secret
    other = settings.write_secret or own
    return (
        *(_probe("read", address, (own, other), settings) for address in settings.readers),
        *(_probe("write", address, (other, own), settings) for address in settings.writers),
    )


def _probe(
    side: str, address: Address, secrets: tuple[Secret, Secret], settings: Settings
) -> Listener:
    """What answers at a port to its own secret, or else to the other port's."""
    listener = _probe_with(side, address, secrets[0], settings)
    if listener.state is State.LOCKED_OUT:
        second = _probe_with(side, address, secrets[1], settings)
        if second.works:
            return second._replace(other_secret=True)
    return listener


def _probe_with(side: str, address: Address, secret: Secret, settings: Settings) -> Listener:
    try:
        channel = _channel(address, secret, settings)
        try:
            return _ask(side, channel, settings)._replace(secret=secret)
        finally:
            channel.close()
    except (ConnectionError, ProtocolError, AuthenticationError) as error:
        return Listener(side, address, _state(error), str(error))


def _channel(address: Address, secret: Secret, settings: Settings) -> Channel:
    return Channel(
        address,
        secret,
        {},
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
    )


def _state(error: Exception) -> State:
    """What a port is that answered by an error."""
    if isinstance(error, AuthenticationError):
        return State.UNREAD if isinstance(error.__cause__, OSError) else State.LOCKED_OUT
    if isinstance(error, ProtocolError):
        return State.FOREIGN
    cause = error if isinstance(error, IndexedConnectionError) else error.__cause__
    if isinstance(error, RequestTimeoutError) or isinstance(cause, RequestTimeoutError):
        return State.SILENT
    return State.FOREIGN if isinstance(cause, IndexedConnectionError) else State.REFUSED


def _ask(side: str, channel: Channel, settings: Settings) -> Listener:
    _call(channel, requests.find("=", _NO_ROW))
    reply = _call(channel, requests.find_modify("=", _NO_ROW, "D"))
    state = State.WRITES
    if isinstance(reply, ReadOnlyError):
        state = State.READS
    elif isinstance(reply, LockTimeoutError):
        state = State.WRITES_REFUSED
    said = str(reply) if isinstance(reply, OperationalError) else ""
    seconds = _round_trip(channel)
    is_open = _is_open(channel.address, settings)
    return Listener(side, channel.address, state, said, is_open, seconds)


def _call(channel: Channel, body: bytes) -> Reply:
    reply = channel.call(_STATISTICS, body, monotonic() + channel.timeout)
    if isinstance(reply, AuthenticationError):
        raise reply
    return reply


def _round_trip(channel: Channel) -> float:
    seconds = []
    for _ in range(ROUND_TRIPS):
        began = perf_counter()
        _call(channel, requests.find("=", _NO_ROW))
        seconds.append(perf_counter() - began)
    return min(seconds)


def _is_open(address: Address, settings: Settings) -> bool:
    """Whether a port serves who does not log in."""
    channel = _channel(address, Secret(None), settings)
    try:
        _call(channel, requests.find("=", _NO_ROW))
    except AuthenticationError:
        return False
    finally:
        channel.close()
    return True
