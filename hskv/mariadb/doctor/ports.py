"""What is wrong with the ports, by what answered there and by what SQL says of them."""

import shlex
from collections.abc import Iterator
from typing import Final

from ...exceptions import ConnectionError
from ...store.schema import query
from ...transport.address import Address
from ...transport.channel import open_socket
from . import urls
from .findings import Finding, Mend, Where
from .listeners import ROUND_TRIPS, Listener, State
from .server import Server
from .settings import PORTS, listening, log_in, new_secrets, secret_options
from .target import Target

_SLOW_SECONDS: Final = 0.005
# Of loopback, and nobody listens there who was told another address than all.
_ELSEWHERE_ON_LOOPBACK: Final = "127.83.75.86"
_EVERYWHERE: Final = ("", "0.0.0.0")  # noqa: S104 what is warned of
_ASK_PORTS: Final = Mend(Where.SQL, f"SELECT {', '.join(f'@@{name}' for name in PORTS)}")
_RESTART: Final = Mend(Where.SHELL, "systemctl restart mariadb")

Listeners = tuple[Listener, ...]


def listener_findings(
    listeners: Listeners, server: Server | None, target: Target
) -> Iterator[Finding]:
    """What is wrong with the ports."""
    for state, name in _DEAD.items():
        dead = [one for one in listeners if one.state is state]
        if dead and not (state is State.REFUSED and _is_known_why(server, target)):
            what = "; ".join(f"{_names([one])}: {_said(one)}" for one in dead)
            yield Finding(name, what, _revive(state, server, target))
    yield from _crossed(listeners, server, target)
    yield from _unread(listeners, target)
    yield from _locked_out(listeners, target)
    opened = [listener for listener in listeners if listener.open]
    if opened:
        what = f"{_names(opened)} {'serve' if len(opened) > 1 else 'serves'} who has no secret"
        yield new_secrets("secret-empty", what, target)
    yield from _refusing(listeners, server)
    yield from _slow(listeners, server, target)


def _names(listeners: list[Listener]) -> str:
    return " and ".join(f"the {one.side} port" for one in listeners)


def _said(listener: Listener) -> str:
    """What a dead port said, without the question that follows; here it is answered."""
    said, address = listener.error.partition(";")[0], str(listener.address)
    return said if address in said else f"{address}: {said}"


def _is_known_why(server: Server | None, target: Target) -> bool:
    """Whether SQL has told already why nobody listens."""
    if server is None:
        return False
    return not server.plugin or not all(server[name] for name in PORTS[: 1 + target.writes])


_DEAD: Final = {
    State.REFUSED: "port-refused",
    State.SILENT: "port-silent",
    State.FOREIGN: "port-foreign",
}


def _revive(state: State, server: Server | None, target: Target) -> tuple[Mend, ...]:
    """What makes HandlerSocket answer where it does not."""
    if state is State.SILENT:
        return (_RESTART,)
    if state is State.FOREIGN:
        return elsewhere(server, target) or (_ASK_PORTS,)
    if server is None:
        return _start(target)
    # Where it is told to listen there, the port was taken when it started.
    return elsewhere(server, target) or (_RESTART,)


def _start(target: Target) -> tuple[Mend, ...]:
    """The configuration of a server that listens where the URL says."""
    lines = ("plugin_maturity = beta", "plugin_load_add = handlersocket")
    return tuple(Mend(Where.CONFIGURATION, line) for line in (*lines, *listening(target).values()))


def elsewhere(server: Server | None, target: Target) -> tuple[Mend, ...]:
    """The URL with the ports that SQL names, where those are others."""
    if server is None or len(target.settings.readers) != 1:
        return ()
    addresses = [_address(server, name) for name in PORTS[: 1 + target.writes]]
    read, write = (*addresses, None)[:2]
    if read is None or (target.writes and write is None):
        return ()
    changed = urls.with_ports(target.url, read, write)
    return (Mend(Where.URL, changed),) if changed != urls.hidden(target.url) else ()


def _address(server: Server, name: str) -> Address | None:
    """Where SQL says that a listener is; None where it does not say so."""
    port, host = server[name], server["handlersocket_address"]
    if not port:
        return None
    if host == "/":
        return Address(path=port)
    if host in _EVERYWHERE:
        host = getattr(server.connection, "host", None) or "127.0.0.1"
    return Address(host, int(port))


def _crossed(listeners: Listeners, server: Server | None, target: Target) -> Iterator[Finding]:
    wrong = [one for one in listeners if one.works and _is_crossed(one)]
    if not wrong:
        return
    other = {"read": "writing", "write": "reading"}
    what = ", ".join(
        f"the {one.side} port {one.address} is one for {other[one.side]}" for one in wrong
    )
    mend = elsewhere(server, target) or (_ASK_PORTS,)
    if [one.side for one in wrong] == ["read", "write"]:
        swapped = urls.with_ports(target.url, wrong[1].address, wrong[0].address)
        mend = (Mend(Where.URL, swapped),)
    yield Finding("ports-crossed", what, mend)


def _is_crossed(listener: Listener) -> bool:
    return (listener.side == "read") != (listener.state is State.READS)


def _unread(listeners: Listeners, target: Target) -> Iterator[Finding]:
    """That the file with the secret cannot be read."""
    unread = next((one for one in listeners if one.state is State.UNREAD), None)
    if unread is not None:
        look = f"namei -l {shlex.quote(urls.secret_file(target.url, unread.side))}"
        yield Finding("secret-wrong", unread.error, (Mend(Where.SHELL, look),))


def _locked_out(listeners: Listeners, target: Target) -> Iterator[Finding]:
    out = [
        one
        for one in listeners
        if one.state is State.LOCKED_OUT
        or (one.other_secret and one.works and not _is_crossed(one))
    ]
    if not out:
        return
    what = f"{_names(out)} {'do' if len(out) > 1 else 'does'} not let in who has this secret"
    asked = secret_options(target)
    ask = f"SELECT {', '.join(f'@@{option}' for option in asked)}"
    changed = log_in(target, *("FIRST", "SECOND")[: len(asked)])
    yield Finding("secret-wrong", what, (Mend(Where.SQL, ask), *changed))


def _refusing(listeners: Listeners, server: Server | None) -> Iterator[Finding]:
    refused = [one for one in listeners if one.state is State.WRITES_REFUSED]
    silent = any(one.state is State.SILENT and one.side == "write" for one in listeners)
    holder = _holder(server) if server is not None and (refused or silent) else None
    if holder:
        what = f"connection {holder} of SQL holds the lock handlersocket_wr, and all writers wait"
        yield Finding("writes-refused", what, (Mend(Where.SQL, f"KILL {holder}"),))
    elif refused:
        what = f"the write port refuses writes: {refused[0].error}"
        yield Finding("writes-refused", what, (Mend(Where.SQL, "SET GLOBAL read_only = 0"),))


def _holder(server: Server) -> int | None:
    """The connection of SQL that holds HandlerSocket's lock for writes."""
    rows = query(
        server.connection,
        "SELECT id FROM information_schema.processlist "
        "WHERE id = IS_USED_LOCK('handlersocket_wr') AND user <> 'system user'",
    )
    return int(rows[0][0]) if rows else None


def _slow(listeners: Listeners, server: Server | None, target: Target) -> Iterator[Finding]:
    slowest = max(listeners, key=lambda one: one.seconds, default=None)
    if slowest is not None and slowest.seconds > _SLOW_SECONDS:
        what = (
            f"a round trip to {slowest.address} takes {slowest.seconds * 1000:.1f} ms at least "
            f"(the quickest of {ROUND_TRIPS})"
        )
        ping = Mend(Where.SHELL, f"ping -c 10 {slowest.address.host}")
        yield Finding("latency", what, elsewhere(server, target) or (ping,))


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
