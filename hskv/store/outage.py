"""What callers that can do without the table remember of a server that is away. Locks: none."""

from enum import IntEnum
from time import monotonic
from typing import Final

from ..exceptions import (
    BatchError,
    ConnectionError,
    HandlerSocketError,
    OperationalError,
    PoolTimeoutError,
    ReadOnlyError,
)
from ..transport.sql_servers import NoneWritableError

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 10.0


class Need(IntEnum):
    """What a call needs; whoever can do one of these can do those before it."""

    VALUES = 0
    """Values by key: where a store reads from replicas, any that is well has them."""
    PRIMARY = 1
    """To read from the server that is written to: versions, leases, limits."""
    WRITE = 2


class Outage:
    """Keeps a caller that can do without the server from waiting for it at each call.

    A request to a server that is away takes its whole timeout, as does a write where none may be
    written to now. So after one that failed none is made for a second, and, while it stays away,
    twice as long each time up to ten; after each pause one call looks, and waits, for all. What
    needs less than cannot be had goes on: of a server that is read-only all but writes, and of
    several of which none can be written to what is read from any.
    """

    def __init__(self) -> None:
        self._reason: HandlerSocketError | None = None
        # What the error says cannot be had, and the least that was seen to fail with it.
        self._refused = self._least = Need.VALUES
        self._pause = FIRST_PAUSE_SECONDS
        self._until = 0.0
        self._looks = False

    def reason(self, need: Need = Need.WRITE) -> HandlerSocketError | None:
        """Why the server is not to be asked now; None where it is."""
        if self._reason is None or need < self._least:
            return None
        now = monotonic()
        if now < self._until:
            return self._reason
        # Others go on without it while this one looks, which may take its timeout.
        self._until, self._looks = now + LONGEST_PAUSE_SECONDS, True
        return None

    def failed(self, error: HandlerSocketError, need: Need = Need.WRITE) -> None:
        """Asking failed: an outage begins or goes on, unless the server has answered."""
        cause = error.__cause__ if isinstance(error, BatchError) else error
        refused = _refused(cause)
        busy = isinstance(cause, PoolTimeoutError)
        if refused is None:
            self.ended(need)
        elif self._looks or not (busy or self._expects(refused, need)):
            if self._looks:
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            if not busy:
                again = self._reason is not None and refused is self._refused
                self._least = min(need, self._least if again else refused)
                self._refused = refused
            self._reason, self._until, self._looks = error, monotonic() + self._pause, False

    def ended(self, need: Need = Need.WRITE) -> None:
        """The server has answered a call that needs so much."""
        if self._reason is None or need < self._least:
            return
        if need >= self._refused:
            self._reason, self._pause, self._looks = None, FIRST_PAUSE_SECONDS, False
        else:
            # It says nothing of what needs more, which may look at once.
            self._least, self._until, self._looks = Need(need + 1), 0.0, False

    def _expects(self, refused: Need, need: Need) -> bool:
        """Whether it is known already that what needs so much fails so."""
        return self._reason is not None and refused is self._refused and need >= self._least


def _refused(error: BaseException | None) -> Need | None:
    """The least that cannot be had for this error; None where the server has answered."""
    if isinstance(error, ReadOnlyError):
        return Need.WRITE
    if isinstance(error, NoneWritableError):
        return Need.PRIMARY
    away = isinstance(error, ConnectionError) and not isinstance(error, OperationalError)
    return Need.VALUES if away else None
