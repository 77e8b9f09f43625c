"""What callers that can do without the table remember of a server that is away. Locks: none."""

from time import monotonic
from typing import Final

from ..exceptions import (
    BatchError,
    ConnectionError,
    HandlerSocketError,
    OperationalError,
    PoolTimeoutError,
)

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 10.0


class Outage:
    """Keeps a caller that can do without the server from waiting for it at each call.

    A request to a server that is away takes its whole timeout. So after one that failed none is
    made for a second, and, while it stays away, twice as long each time up to ten; after each
    pause one call looks, and waits, for all.
    """

    def __init__(self) -> None:
        self._reason: HandlerSocketError | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._until = 0.0
        self._looks = False

    def reason(self) -> HandlerSocketError | None:
        """Why the server is not to be asked now; None where it is."""
        if self._reason is None:
            return None
        now = monotonic()
        if now < self._until:
            return self._reason
        # Others go on without it while this one looks, which may take its timeout.
        self._until, self._looks = now + LONGEST_PAUSE_SECONDS, True
        return None

    def failed(self, error: HandlerSocketError) -> None:
        """Asking failed: an outage begins or goes on, unless the server has answered."""
        cause = error.__cause__ if isinstance(error, BatchError) else error
        if isinstance(cause, OperationalError) or not isinstance(cause, ConnectionError):
            self.ended()
        elif self._reason is None and not isinstance(cause, PoolTimeoutError):
            self._begin(error)
        elif self._looks:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._begin(error)

    def ended(self) -> None:
        """The server has answered."""
        if self._reason is not None:
            self._reason, self._pause, self._looks = None, FIRST_PAUSE_SECONDS, False

    def _begin(self, error: HandlerSocketError) -> None:
        self._reason, self._until, self._looks = error, monotonic() + self._pause, False
