"""A socket for a SQL connection: every call of it ends by one deadline."""

import io
import socket
import weakref
from errno import EAGAIN
from time import monotonic
from typing import Any

from .dial import dial
from .endpoint import Address
from .interrupt import raise_interrupt


class OutOfTimeError(TimeoutError):
    """The deadline came: of a send, before all was sent."""

    def __init__(self) -> None:
        super().__init__("timed out")


class DeadlineSocket(socket.socket):
    """A socket whose reads and writes raise TimeoutError from `deadline` on, by `monotonic`.

    What PyMySQL knows is a timeout for each read, and a reply may take many.
    """

    deadline = 0.0
    _reads = True

    def settimeout(self, value: float | None) -> None:
        """Heeded by nobody: the deadline is."""

    def makefile(self, *arguments: Any, **named: Any) -> Any:
        """A buffered reader, which keeps nobody from closing the socket."""
        reader = io.BufferedReader(socket.SocketIO(self, "rb"), 1 << 16)
        # Weak, since it has the socket.
        self._reader = weakref.ref(reader)
        return reader

    def unread(self) -> bool:
        """Whether there is more in the reader than was taken from it, so that none is awaited."""
        reader = self._reader()
        self._reads = False
        try:
            return reader is not None and bool(reader.peek(1))
        finally:
            self._reads = True

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        """As of any socket, until the deadline."""
        if not self._reads:
            raise BlockingIOError(EAGAIN, "nothing is to be read now")
        self.limit()
        return super().recv_into(*arguments, **named)

    def sendall(self, *arguments: Any) -> None:
        """As of any socket, until the deadline."""
        self.limit()
        try:
            super().sendall(*arguments)
        except TimeoutError as error:
            raise_interrupt(error)
            if error.errno is None and monotonic() >= self.deadline:
                raise OutOfTimeError from error
            raise

    def limit(self) -> None:
        """Give the next call what is left of the time. Raises TimeoutError when none is."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise OutOfTimeError
        super().settimeout(left)


def open_sql_socket(address: Address, deadline: float) -> DeadlineSocket:
    """A connected socket. Raises ConnectionError."""

    def limit(sock: DeadlineSocket) -> None:
        sock.deadline = deadline
        sock.limit()

    return dial(address, DeadlineSocket, limit, "does MariaDB's SQL listen there?")
