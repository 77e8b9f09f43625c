"""Whether the server has copies, and whether what is written reaches them."""

from collections.abc import Iterator
from contextlib import closing

from ...transport.health import examiners
from . import urls
from .findings import Finding, Mend, Where
from .server import Server
from .settings import PORTS
from .target import Target


def copy_findings(server: Server | None, target: Target) -> Iterator[Finding]:
    """What is wrong with the way of writing, for a server with copies."""
    if target.writes:
        yield from _by_handlersocket(server, target)
    elif server is not None:
        yield from _by_sql(server, target)
    yield from _not_read_from(target)


def _by_handlersocket(server: Server | None, target: Target) -> Iterator[Finding]:
    mend = (Mend(Where.URL, _writing_by_sql(server, target)),)
    if _several(target):
        what = "the URL names several servers, and writes by HandlerSocket"
        yield Finding("several-servers", what, mend)
    if server is not None and server.is_on("wsrep_on"):
        yield Finding("galera", "wsrep_on is on, and the URL writes by HandlerSocket", mend)
    elif server is not None and server.is_on("log_bin"):
        yield Finding("binary-log", "log_bin is on, and the URL writes by HandlerSocket", mend)


def _writing_by_sql(server: Server | None, target: Target) -> str:
    """The URL that writes by SQL, to the same servers; 3306 where no other port is known."""
    user = "USER" if server is None else server.connection.user.decode()
    login = f"{user}:{urls.HIDDEN}@"
    if server is not None and server.connection.unix_socket and not _several(target):
        return _with_sql(target, f"mysql+unix://{login}{server.connection.unix_socket}")
    first, *others = dict.fromkeys(target.settings.readers)
    port = 3306 if server is None or server.connection.unix_socket else server.connection.port
    places = [f"{first.host}:{port}", *(f"{one.host}:3306" for one in others)]
    return _with_sql(target, f"mysql://{login}{','.join(places)}/")


def _with_sql(target: Target, sql: str) -> str:
    return urls.with_options(target.url, writes="sql", sql=sql)


def _several(target: Target) -> bool:
    return len(set(target.settings.readers)) > 1


def _by_sql(server: Server, target: Target) -> Iterator[Finding]:
    is_logged = server.is_on("log_bin") or server.is_on("wsrep_on")
    if _several(target) and not is_logged:
        what = "log_bin is off, and the URL reads from several servers"
        yield _set("binary-log-missing", what, "log_bin = mariadb-bin")
    if target.reads and server[PORTS[1]]:
        what = f"{PORTS[1]} is {server[PORTS[1]]}, and the URL writes by SQL"
        yield _set("write-port-open", what, f"{PORTS[1]} =")


def _not_read_from(target: Target) -> Iterator[Finding]:
    """As stores ask; what is wrong says what to do."""
    for name, make in examiners(target.settings):
        with closing(make()) as examiner:
            trouble = examiner().trouble
        if trouble is not None:
            yield Finding("server-not-read-from", f"{name}: {trouble}", ())


def _set(name: str, what: str, line: str) -> Finding:
    return Finding(name, what, (Mend(Where.CONFIGURATION, line),))
