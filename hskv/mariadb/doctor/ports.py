"""What is wrong with the ports, by what answered there and by what SQL says of them."""

from collections.abc import Iterator
from typing import Final

from ...exceptions import ConnectionError
from ...transport.address import Address
from ...transport.channel import open_socket
from . import urls
from .findings import Finding, Mend, Where
from .listeners import ROUND_TRIPS, Listener, State
from .server import Server
from .settings import PORTS, new_secrets

_SLOW_SECONDS: Final = 0.005
# Of loopback, and nobody listens there who was told another address than all.
_ELSEWHERE_ON_LOOPBACK: Final = "127.83.75.86"
_EVERYWHERE: Final = ("", "0.0.0.0")  # noqa: S104 what is warned of
_ASK_PORTS: Final = Mend(Where.SQL, f"SELECT {', '.join(f'@@{name}' for name in PORTS)}")
_RESTART: Final = Mend(Where.SHELL, "systemctl restart mariadb")

Listeners = tuple[Listener, Listener]


def listener_findings(listeners: Listeners, server: Server | None, url: str) -> Iterator[Finding]:
    """What is wrong with the ports."""
    for state, name in _DEAD.items():
        dead = [one for one in listeners if one.state is state]
        if dead:
            what = "; ".join(f"the {one.side} port, {one.address}: {one.error}" for one in dead)
            yield Finding(name, what, _revive(state, dead, server, url))
    yield from _crossed(listeners, server, url)
    yield from _locked_out(listeners, url)
    sides = [listener.side for listener in listeners if listener.open]
    if sides:
        what = f"the {' and the '.join(sides)} port serves who has no secret"
        yield new_secrets("secret-empty", what, url)
    refused = [one for one in listeners if one.state is State.WRITES_REFUSED]
    if refused:
        what = f"the write port refuses writes: {refused[0].error}"
        yield Finding("writes-refused", what, _allow_writes(server))
    yield from _slow(listeners, server, url)


_DEAD: Final = {
    State.REFUSED: "port-refused",
    State.SILENT: "port-silent",
    State.FOREIGN: "port-foreign",
}


def _revive(
    state: State, dead: list[Listener], server: Server | None, url: str
) -> tuple[Mend, ...]:
    """What makes HandlerSocket answer where it does not."""
    if state is State.SILENT:
        return (_RESTART,)
    if state is State.FOREIGN:
        return elsewhere(server, url) or (_ASK_PORTS,)
    if server is None:
        return _start(dead)
    # Where it is told to listen there, the port was taken when it started.
    return elsewhere(server, url) or (_RESTART,)


def _start(dead: list[Listener]) -> tuple[Mend, ...]:
    """The configuration of a server that listens there."""
    options = {"read": PORTS[0], "write": PORTS[1]}
    ports = [f"{options[one.side]} = {one.address.path or one.address.port}" for one in dead]
    lines = (
        "plugin_maturity = beta",
        "plugin_load_add = handlersocket",
        f"handlersocket_address = {'/' if dead[0].address.path else '127.0.0.1'}",
        *ports,
    )
    return tuple(Mend(Where.CONFIGURATION, line) for line in lines)


def elsewhere(server: Server | None, url: str) -> tuple[Mend, ...]:
    """The URL with the ports that SQL names, where those are others."""
    addresses = server_addresses(server)
    if addresses is None or not all(server[name] for name in PORTS if server is not None):
        return ()
    changed = urls.with_ports(url, *addresses)
    return (Mend(Where.URL, changed),) if changed != urls.hidden(url) else ()


def server_addresses(server: Server | None) -> tuple[Address, Address] | None:
    """Where SQL says that HandlerSocket listens; None where it does not say so."""
    if server is None or not all(server[name] for name in PORTS):
        return None
    ports = [server[name] for name in PORTS]
    if server["handlersocket_address"] == "/":
        return Address(path=ports[0]), Address(path=ports[1])
    host = server["handlersocket_address"]
    if host in _EVERYWHERE:
        host = getattr(server.connection, "host", None) or "127.0.0.1"
    return Address(host, int(ports[0])), Address(host, int(ports[1]))


def _crossed(listeners: Listeners, server: Server | None, url: str) -> Iterator[Finding]:
    reader, writer = listeners
    reads, writes = writer.state is State.READS, reader.works and reader.state is not State.READS
    whats = [f"the read port {reader.address} is one for writing"] * writes
    whats += [f"the write port {writer.address} is one for reading"] * reads
    if reads and writes:
        swapped = Mend(Where.URL, urls.with_ports(url, writer.address, reader.address))
        yield Finding("ports-crossed", ", ".join(whats), (swapped,))
    elif whats:
        yield Finding("ports-crossed", whats[0], elsewhere(server, url) or (_ASK_PORTS,))


def _locked_out(listeners: Listeners, url: str) -> Iterator[Finding]:
    out = [one for one in listeners if one.state is State.LOCKED_OUT or _has_others(one)]
    if not out:
        return
    what = (
        f"the {' and the '.join(one.side for one in out)} port does not let in who has this secret"
    )
    ask = "SELECT @@handlersocket_plain_secret, @@handlersocket_plain_secret_wr"
    changed = urls.with_secrets(url, "FIRST", "SECOND")
    yield Finding("secret-wrong", what, (Mend(Where.SQL, ask), Mend(Where.URL, changed)))


def _has_others(listener: Listener) -> bool:
    """Whether a port that is the right one has the secret of the other one."""
    return listener.other_secret and (listener.side == "read") == (listener.state is State.READS)


def _allow_writes(server: Server | None) -> tuple[Mend, ...]:
    if server is None or server.is_on("read_only"):
        return (Mend(Where.SQL, "SET GLOBAL read_only = 0"),)
    return (Mend(Where.SQL, "SELECT CONCAT('KILL ', IS_USED_LOCK('handlersocket_wr'))"),)


def _slow(listeners: Listeners, server: Server | None, url: str) -> Iterator[Finding]:
    slowest = max(listeners, key=lambda one: one.seconds)
    if slowest.seconds > _SLOW_SECONDS:
        what = (
            f"a round trip to {slowest.address} takes {slowest.seconds * 1000:.1f} ms "
            f"(the median of {ROUND_TRIPS})"
        )
        ping = Mend(Where.SHELL, f"ping -c 10 {slowest.address.host}")
        yield Finding("latency", what, elsewhere(server, url) or (ping,))


def bind_findings(listeners: Listeners, server: Server | None) -> Iterator[Finding]:
    """Whether everybody on the network reaches the ports."""
    mend = (Mend(Where.CONFIGURATION, "handlersocket_address = 127.0.0.1"),)
    if server is not None and server.plugin:
        ports = any(server[name] for name in PORTS)
        if ports and server["handlersocket_address"] in _EVERYWHERE:
            seen = server["handlersocket_address"] or "not set"
            what = f"handlersocket_address is {seen}: it listens on every interface"
            yield Finding("bind-address", what, mend)
        return
    for listener in listeners:
        if listener.works and _listens_everywhere(listener.address):
            what = f"{listener.address} listens on other addresses too, so perhaps on all"
            yield Finding("bind-address", what, mend)
            return


def _listens_everywhere(address: Address) -> bool:
    """Whether a listener on loopback can be reached by an address that nobody gives one."""
    if address.path or not (address.host == "localhost" or address.host.startswith("127.")):
        return False
    try:
        open_socket(Address(_ELSEWHERE_ON_LOOPBACK, address.port), 0.5).close()
    except ConnectionError:
        return False
    return True
