"""TLS on a SQL connection: every call of the socket still ends by the one deadline."""

import ssl
from typing import Any, cast

from .fork import close_after_fork
from .sql_socket import DeadlineSocket
from .tls import Tls


class TlsSocket(DeadlineSocket, ssl.SSLSocket):
    """An encrypted socket whose reads and writes raise TimeoutError from `deadline` on."""

    def send(self, *arguments: Any, **named: Any) -> int:
        """A part of what `sendall` sends, until the deadline."""
        self.limit()
        return super().send(*arguments, **named)


class Encryption(ssl.SSLContext):
    """What PyMySQL encrypts one connection by, in its midst; `socket` is what it goes through."""

    sslsocket_class = TlsSocket
    socket: DeadlineSocket

    def wrap_socket(  # type: ignore[override]
        self, sock: DeadlineSocket, *, server_hostname: str
    ) -> TlsSocket:
        """The encrypted socket, once the server's certificate has been found to count."""
        # By itself the handshake would begin before it has a deadline.
        encrypted = cast(
            TlsSocket,
            super().wrap_socket(
                sock, server_hostname=server_hostname, do_handshake_on_connect=False
            ),
        )
        self.socket = encrypted
        close_after_fork(encrypted)
        encrypted.deadline = sock.deadline
        encrypted.limit()
        encrypted.do_handshake()
        return encrypted


def encryption(sock: DeadlineSocket, tls: Tls) -> Encryption:
    """What encrypts a socket, when both sides are ready for it. Raises ConnectionError."""
    made = Encryption(ssl.PROTOCOL_TLS_CLIENT)
    tls.configure(made)
    made.socket = sock
    return made
