"""Connects a socket, of whatever kind, to an address. Locks: none."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ..exceptions import ConnectionError
from .endpoint import Address
from .fork import close_after_fork
from .interrupt import raise_interrupt

SocketT = TypeVar("SocketT", bound=socket.socket)


def dial(
    address: Address,
    make: Callable[[int, int], SocketT],
    limit: Callable[[SocketT], object],
    question: str,
    *,
    family: int = 0,
) -> SocketT:
    """A connected socket made by `make` (of family and type), its time limited by `limit`.

    A host is looked up in `family`, any unless given. Raises ConnectionError, whose message ends
    with `question`: what to look for. What a signal handler raises is raised as it is.
    """
    try:
        return _dialled(address, family, lambda found, place: _connect(make, limit, found, place))
    except (OSError, UnicodeError) as error:
        raise_interrupt(error)
        # A host name that cannot be encoded is a UnicodeError.
        why = getattr(error, "strerror", None) or error
        raise ConnectionError(f"cannot connect to {address}: {why}; {question}") from error


def _dialled(address: Address, family: int, connect: Callable[[int, Any], SocketT]) -> SocketT:
    if address.path is not None:
        return connect(socket.AF_UNIX, address.path)
    error = OSError("the name has no address")
    for found, _, _, _, place in socket.getaddrinfo(
        address.host, address.port, family, socket.SOCK_STREAM
    ):
        try:
            sock = connect(found, place)
        except OSError as failed:
            raise_interrupt(failed)
            error = failed
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    raise error


def _connect(
    make: Callable[[int, int], SocketT],
    limit: Callable[[SocketT], object],
    family: int,
    place: Any,
) -> SocketT:
    sock = make(family, socket.SOCK_STREAM)
    close_after_fork(sock)
    try:
        limit(sock)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock
