"""What is wrong with the settings of the server."""

import secrets
import shlex
from collections.abc import Iterator, Mapping
from typing import Final

from ...transport.address import Secret
from . import urls
from .findings import Finding, Mend, Where
from .server import Server
from .target import Target

PORTS: Final = ("handlersocket_port", "handlersocket_port_wr")
"""The variables of the read and the write port."""

_SECRETS: Final = ("handlersocket_plain_secret", "handlersocket_plain_secret_wr")
_SECRET_BYTES: Final = 16
_SHORT_SECRET: Final = 12
_LONGEST_TABLE_LOCK_SECONDS: Final = 60
_LONGEST_IDLE_SECONDS: Final = 900
# An operation of a store may wait for a row in each of its requests.
_WAITS_OF_AN_OPERATION: Final = 3
_AT_START: Final = ("lock_wait_timeout", "innodb_lock_wait_timeout", "autocommit")
_PLACEHOLDERS: Final = ("change", "secret", "password", "example")


def plugin_findings(server: Server, target: Target) -> Iterator[Finding]:
    """Whether HandlerSocket is there and told to listen."""
    lines = listening(target)
    if not server.plugin:
        strict = server["plugin_maturity"] in ("gamma", "stable")
        if strict:
            what = f"plugin_maturity is {server['plugin_maturity']}"
            yield _set("plugin-maturity", what, "plugin_maturity = beta")
        what = "the plugin HandlerSocket is not loaded"
        yield _set("plugin-missing", what, "plugin_load_add = handlersocket", *lines.values())
        return
    for name in PORTS:
        if name in lines and not server[name]:
            yield _set("port-unset", f"{name} is not set: nothing listens", lines[name])
    if server[PORTS[0]] and server[PORTS[0]] == server[PORTS[1]]:
        yield _set(
            "ports-equal",
            f"both ports are {server[PORTS[0]]}",
            *(lines[name] for name in PORTS if name in lines),
        )


def listening(target: Target) -> dict[str, str]:
    """What makes the server listen where the URL says; the lines by their variables."""
    reader = target.settings.readers[0]
    host = "127.0.0.1" if reader.host == "localhost" else reader.host
    values = {"handlersocket_address": "/" if reader.path else host}
    for name, address in zip(PORTS, (reader, *target.settings.writers[:1]), strict=False):
        values[name] = str(address.path or address.port)
    known = (target.settings.secret, target.settings.write_secret)
    for name, secret in zip(secret_options(target), known, strict=False):
        if secret:
            values[name] = urls.HIDDEN
    return {name: f"{name} = {value}" for name, value in values.items()}


def setting_findings(server: Server, target: Target) -> Iterator[Finding]:
    """What the promises of a store do not hold under."""
    if server["innodb_flush_log_at_trx_commit"] == "0":
        what = "innodb_flush_log_at_trx_commit is 0"
        yield _set("flush-log", what, "innodb_flush_log_at_trx_commit = 1")
    if not server.is_on("autocommit") and (target.reads or target.writes):
        yield _set("autocommit", "autocommit is off", "autocommit = 1")
    if target.writes:
        yield from _promises(server)
        yield from _row_lock(server, target.settings.timeout)
    if target.reads:
        yield from _threads(server)
        yield from _timeouts(server)


def _promises(server: Server) -> Iterator[Finding]:
    if server.is_on("innodb_rollback_on_timeout"):
        what = "innodb_rollback_on_timeout is on"
        yield _set("rollback-on-timeout", what, "innodb_rollback_on_timeout = 0")


def _row_lock(server: Server, timeout: float) -> Iterator[Finding]:
    waits = server.number("innodb_lock_wait_timeout")
    if waits * _WAITS_OF_AN_OPERATION > timeout:
        fitting = max(1, int(timeout / _WAITS_OF_AN_OPERATION))
        what = f"innodb_lock_wait_timeout is {waits} s, the client's timeout {timeout:g} s"
        yield _set("timeout-row-lock", what, f"innodb_lock_wait_timeout = {fitting}")


def _threads(server: Server) -> Iterator[Finding]:
    if server.number("handlersocket_threads_wr") > 1:
        what = f"handlersocket_threads_wr is {server['handlersocket_threads_wr']}"
        yield _set("threads-write", what, "handlersocket_threads_wr = 1")
    if server["handlersocket_threads"] == "1":
        what = "handlersocket_threads is 1"
        yield _set("threads-read", what, "handlersocket_threads = 16")


def _timeouts(server: Server) -> Iterator[Finding]:
    if server.number("handlersocket_timeout") > _LONGEST_IDLE_SECONDS:
        what = f"handlersocket_timeout is {server['handlersocket_timeout']} s"
        yield _set("timeout-idle", what, "handlersocket_timeout = 300")
    if server.number("lock_wait_timeout") > _LONGEST_TABLE_LOCK_SECONDS:
        what = f"lock_wait_timeout is {server['lock_wait_timeout']} s"
        yield _set("timeout-table-lock", what, "lock_wait_timeout = 10")
    for name in _AT_START:
        if server.origin(name) == "SQL":
            what = f"{name} was changed to {server[name]} by SET GLOBAL"
            yield _set("timeout-not-in-effect", what, f"{name} = {server[name]}")


def random_secrets(server: Server, target: Target) -> Iterator[Finding]:
    """Whether the server made up its secrets. Those that are empty show at the ports."""
    option = "handlersocket_plain_secret"
    if server[option] and server.origin(option) == "COMPILE-TIME":
        yield new_secrets("secret-random", f"{option} is not set: the server made one up", target)


def weak_secrets(secrets_in_use: Mapping[str, Secret], target: Target) -> Iterator[Finding]:
    """Whether the secrets that let us in can be guessed; by side, "read" and "write"."""
    texts = {
        side: (secret.read() or b"").decode("latin-1") for side, secret in secrets_in_use.items()
    }
    weak = [side for side, text in texts.items() if text and _is_weak(text)]
    if weak:
        what = f"the secret of the {' and the '.join(weak)} port can be guessed"
        yield new_secrets("secret-weak", what, target)


def _is_weak(secret: str) -> bool:
    placeholder = any(word in secret.lower() for word in _PLACEHOLDERS)
    return len(secret) < _SHORT_SECRET or placeholder


def new_secrets(name: str, what: str, target: Target) -> Finding:
    """A finding that new secrets mend, which are made up here."""
    new = [secrets.token_hex(_SECRET_BYTES) for _ in secret_options(target)]
    lines = map("{} = {}".format, secret_options(target), new)
    configured = (Mend(Where.CONFIGURATION, line) for line in lines)
    return Finding(name, what, (*configured, *log_in(target, *new)))


def secret_options(target: Target) -> tuple[str, ...]:
    """The variables of the secrets that it logs in with: to read, and to write."""
    return _SECRETS[: 1 + target.writes]


def log_in(target: Target, secret: str, write_secret: str | None = None) -> tuple[Mend, ...]:
    """What has the clients log in with other secrets; one where they write by SQL."""
    login = urls.with_secrets(target.url, secret, write_secret)
    filled = (
        # Nobody else may read one that is new.
        Mend(Where.SHELL, f"(umask 077; printf %s '{text}' >{shlex.quote(file)})")
        for file, text in login.files.items()
    )
    changed = (Mend(Where.URL, login.url),) if login.url != urls.hidden(target.url) else ()
    return (*filled, *changed)


def _set(name: str, what: str, *lines: str) -> Finding:
    return Finding(name, what, tuple(Mend(Where.CONFIGURATION, line) for line in lines))
