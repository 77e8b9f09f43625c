"""Which SQL port is that of the server behind a HandlerSocket listener."""

from collections import defaultdict
from collections.abc import Sequence

from .endpoint import Address


def sql_ports(listeners: Sequence[Address], hosts: Sequence[Address]) -> tuple[Address | None, ...]:
    """For each listener its server's SQL port, None where `hosts` name none.

    It is the one on the same host, written the same way in both lists. Where a host has several
    servers, its first listener goes with its first SQL port, the second with the second. One
    listener and one SQL port are the same server's also where one of them is on this machine: it
    may be a tunnel's.
    """
    if len(listeners) == len(hosts) == 1 and (_is_here(listeners[0]) or _is_here(hosts[0])):
        return tuple(hosts)
    on_host: defaultdict[str, list[Address]] = defaultdict(list)
    for host in reversed(hosts):
        on_host[host.host.lower()].append(host)
    left = [on_host[listener.host.lower()] for listener in listeners]
    return tuple(ports.pop() if ports else None for ports in left)


def _is_here(address: Address) -> bool:
    host = address.host.lower()
    return bool(address.path) or host in ("localhost", "::1") or host.startswith("127.")
