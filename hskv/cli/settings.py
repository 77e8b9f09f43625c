"""The lines of my.cnf that load HandlerSocket, with fresh secrets, and the URL that they make."""

import secrets
from typing import Final

from ..mariadb.doctor.settings import listening
from ..mariadb.doctor.target import Target
from ..mariadb.doctor.urls import with_secrets
from ..transport.address import load_settings

_ANYWHERE: Final = "hskv://127.0.0.1:9998,9999/{}"
_SECRET_BYTES: Final = 16
_LINES: Final = """\
[mariadb]
plugin_maturity = beta             # HandlerSocket is beta; without this it is not loaded
plugin_load_add = handlersocket
{address:<34} # left out, it listens on every interface
{port:<34} # to read; left out, it does not listen
{port_wr:<34} # to write
handlersocket_plain_secret = {secret}
handlersocket_plain_secret_wr = {write_secret}
handlersocket_threads = 16
handlersocket_threads_wr = 1
innodb_flush_log_at_trx_commit = 1 # 2: a crash of the machine may lose a second
innodb_lock_wait_timeout = 1       # how long a write waits for a row that SQL has locked
lock_wait_timeout = 10             # ... for a table that SQL has locked; default: a day
# The URL of a store on it:
# {login.url}
"""
_FILE: Final = """\
# with this in {}:
# {}
"""


def my_cnf(url: str | None, database: str | None) -> str:
    """What makes a server listen where a URL says: on loopback without one, or one of SQL.

    The secrets are drawn anew each time.
    """
    if url is None or not load_settings(url).writers:
        url = _ANYWHERE.format(database or "DATABASE")
    lines = listening(Target(url, load_settings(url)))
    secret, write_secret = (secrets.token_hex(_SECRET_BYTES) for _ in range(2))
    login = with_secrets(url, secret, write_secret)
    settings = _LINES.format(
        address=lines["handlersocket_address"],
        port=lines["handlersocket_port"],
        port_wr=lines["handlersocket_port_wr"],
        secret=secret,
        write_secret=write_secret,
        login=login,
    )
    return settings + "".join(_FILE.format(*file) for file in login.files.items())
