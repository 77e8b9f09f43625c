"""What callers that can do without the table remember of a server that is away. Locks: none."""

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

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 10.0


class Outage:
    """Keeps a caller that can do without the server from waiting for it at each call.

    A request to a server that is away takes its whole timeout, as does a write where none may be
    written to now. So after one that failed none is made for a second, and, while it stays away,
    twice as long each time up to ten; after each pause one call looks, and waits, for all. A
    server that is read-only is away for what `writes` alone.
    """

    def __init__(self) -> None:
        self._reason: HandlerSocketError | None = None
        self._read_only = False
        self._pause = FIRST_PAUSE_SECONDS
        self._until = 0.0
        self._looks = False

    def reason(self, *, writes: bool = True) -> HandlerSocketError | None:
        """Why the server is not to be asked now; None where it is."""
        if self._reason is None or (self._read_only and not writes):
            return None
        now = monotonic()
        if now < self._until:
            return self._reason
        # Others go on without it while this one looks, which may take its timeout.
        self._until, self._looks = now + LONGEST_PAUSE_SECONDS, True
        return None

    def failed(self, error: HandlerSocketError, *, writes: bool = True) -> None:
        """Asking failed: an outage begins or goes on, unless the server has answered."""
        cause = error.__cause__ if isinstance(error, BatchError) else error
        read_only = isinstance(cause, ReadOnlyError)
        away = isinstance(cause, ConnectionError) and not isinstance(cause, OperationalError)
        another = self._reason is None or read_only is not self._read_only
        if not (away or read_only):
            self.ended(writes=writes)
        elif another and not isinstance(cause, PoolTimeoutError):
            self._read_only, self._pause = read_only, FIRST_PAUSE_SECONDS
            self._begin(error)
        elif self._looks:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._begin(error)

    def ended(self, *, writes: bool = True) -> None:
        """The server has answered."""
        if self._reason is not None and (writes or not self._read_only):
            self._reason, self._pause, self._looks = None, FIRST_PAUSE_SECONDS, False

    def _begin(self, error: HandlerSocketError) -> None:
        self._reason, self._until, self._looks = error, monotonic() + self._pause, False
