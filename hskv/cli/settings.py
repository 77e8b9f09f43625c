"""The lines of my.cnf that load HandlerSocket, with fresh secrets, and the URL that they make."""

import secrets
from collections.abc import Mapping
from typing import Final

from ..mariadb.doctor.settings import listening, secret_options
from ..mariadb.doctor.target import Target
from ..mariadb.doctor.urls import HIDDEN, with_secrets
from ..transport.address import load_settings

_ANYWHERE: Final = "hskv://127.0.0.1:9998,9999/{}"
_SECRET_BYTES: Final = 16
_LOAD: Final = """\
[mariadb]
plugin_maturity = beta             # HandlerSocket is beta; without this it is not loaded
plugin_load_add = handlersocket
"""
_COMMENTS: Final[Mapping[str, str]] = {
    "handlersocket_address": "left out, it listens on every interface",
    "handlersocket_port": "to read; left out, it does not listen",
    "handlersocket_port_wr": "to write",
}
_USE: Final = """\
handlersocket_threads = 16
innodb_flush_log_at_trx_commit = 1 # 2: a crash of the machine may lose a second
lock_wait_timeout = 10             # how long it waits for a table that SQL locks; default: a day
"""
_WRITE: Final = """\
handlersocket_threads_wr = 1
innodb_lock_wait_timeout = 1       # ... a write for a row that SQL locks
"""
_URL: Final = """\
# The URL of a store on it{}:
# {}
"""
_FILE: Final = """\
# with this in {}:
# {}
"""


def my_cnf(url: str | None, database: str | None) -> str:
    """What makes a server listen where a URL says: on loopback without one, or one of SQL alone.

    The secrets are drawn anew each time; one, and no port to write, where the URL writes by SQL.
    Of several listeners it is the first.
    """
    if url is None or not load_settings(url).readers:
        url = _ANYWHERE.format(database or "DATABASE")
    target = Target(url, load_settings(url))
    options = secret_options(target)
    new = {option: secrets.token_hex(_SECRET_BYTES) for option in options}
    lines = listening(target) | {option: f"{option} = {text}" for option, text in new.items()}
    login = with_secrets(url, *new.values())
    hidden = f" (put your secrets in for {HIDDEN})" * (HIDDEN in login.url)
    return "".join(
        [
            _LOAD,
            *(_commented(line, _COMMENTS.get(name)) for name, line in lines.items()),
            _USE,
            _WRITE * target.writes,
            _URL.format(hidden, login.url),
            *(_FILE.format(*file) for file in login.files.items()),
        ]
    )


def _commented(line: str, comment: str | None) -> str:
    return f"{line:<34} # {comment}\n" if comment else f"{line}\n"
