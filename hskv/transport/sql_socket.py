"""A socket for a SQL connection: every call of it ends by one deadline."""

import io
import socket
from time import monotonic
from typing import Any

from ..exceptions import ConnectionError
from .endpoint import Address
from .fork import close_after_fork


class DeadlineSocket(socket.socket):
    """A socket whose reads and writes raise TimeoutError from `deadline` on, by `monotonic`.

    What PyMySQL knows is a timeout for each read, and a reply may take many.
    """

    deadline = 0.0

    def settimeout(self, value: float | None) -> None:
        """Heeded by nobody: the deadline is."""

    def makefile(self, *arguments: Any, **named: Any) -> Any:
        """A buffered reader, which keeps nobody from closing the socket."""
        return io.BufferedReader(socket.SocketIO(self, "rb"), 1 << 16)

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        """As of any socket, until the deadline."""
        self.limit()
        return super().recv_into(*arguments, **named)

    def sendall(self, *arguments: Any) -> None:
        """As of any socket, until the deadline."""
        self.limit()
        super().sendall(*arguments)

    def limit(self) -> None:
        """Give the next call what is left of the time. Raises TimeoutError when none is."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        super().settimeout(left)


def open_sql_socket(address: Address, deadline: float) -> DeadlineSocket:
    """A connected socket. Raises ConnectionError."""
    try:
        return _connected(address, deadline)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConnectionError(
            f"cannot connect to {address}: {why}; does MariaDB's SQL listen there?"
        ) from error


def _connected(address: Address, deadline: float) -> DeadlineSocket:
    if address.path is not None:
        return _connect(socket.AF_UNIX, address.path, deadline)
    error = OSError("the name has no address")
    found = socket.getaddrinfo(address.host, address.port, 0, socket.SOCK_STREAM)
    for family, _, _, _, place in found:
        try:
            sock = _connect(family, place, deadline)
        except OSError as failed:
            error = failed
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    raise error


def _connect(family: int, place: Any, deadline: float) -> DeadlineSocket:
    sock = DeadlineSocket(family, socket.SOCK_STREAM)
    close_after_fork(sock)
    sock.deadline = deadline
    try:
        sock.limit()
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock
