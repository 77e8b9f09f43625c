"""Which request may be sent again after a failure, and when."""

import random
from collections.abc import Iterator
from enum import Enum
from time import monotonic
from typing import Final

from ..exceptions import (
    ConnectionError,
    HandlerSocketError,
    IndexedConnectionError,
    LockTimeoutError,
    OutcomeUnknownError,
    PoolTimeoutError,
    ProtocolError,
    RecoverableConnectionError,
    RequestTimeoutError,
)

ATTEMPTS: Final = 10
_FIRST_PAUSE_SECONDS: Final = 0.05
# In all about as long as a server takes to be restarted, and the default timeout.
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Effect(Enum):
    """What a request does to the table, and so when it may be sent twice."""

    READ = "read"
    """Changes nothing: may be repeated after any failure."""
    WRITE_ROW = "write of one row"
    """May be repeated where nothing was sent, or where the server got no lock."""
    WRITE = "write"
    """May be repeated only where nothing was sent: a failed lock may leave it half done."""


def failure(error: BaseException, effect: Effect) -> BaseException:
    """The error to report for a failed exchange: OutcomeUnknownError for a write that was sent."""
    # Where connecting failed, or no channel came free, nothing was sent either.
    if effect is Effect.READ or isinstance(
        error, (RecoverableConnectionError, OutcomeUnknownError)
    ):
        return error
    if isinstance(error, (IndexedConnectionError, RequestTimeoutError, ProtocolError)):
        return OutcomeUnknownError(
            f"a {effect.value} was sent and its reply was lost, so it may or may not have been "
            f"done: read the row before you write again ({error})"
        )
    return error


def repeatable(error: HandlerSocketError, effect: Effect) -> bool:
    """True when the request may be sent again after an error given by `failure`."""
    if isinstance(error, LockTimeoutError):
        return effect is not Effect.WRITE
    return isinstance(error, ConnectionError) and not isinstance(
        error, (OutcomeUnknownError, PoolTimeoutError)
    )


def pauses(deadline: float) -> Iterator[float]:
    """Seconds to sleep before each further attempt: none, then growing, with jitter.

    Ends after `ATTEMPTS` in all, or when the next pause would pass the deadline.
    """
    pause = 0.0
    for attempt in range(ATTEMPTS - 1):
        if monotonic() + pause >= deadline:
            return
        yield pause
        longest: float = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        pause = longest * random.uniform(0.5, 1.5)
