"""Finds the programs of MariaDB and the HandlerSocket plugin on this machine."""

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from ..exceptions import HandlerSocketError

_INSTALL: Final = "on Debian: apt-get install mariadb-server"
_DIRECTORIES: Final = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/mysql/bin")
_PLUGIN_DIRECTORIES: Final = (
    "lib/mysql/plugin",
    "lib/*/mysql/plugin",
    "lib*/mariadb/plugin",
    "lib/*/mariadb*/plugin",
    "lib/plugin",
)


class ServerStartError(HandlerSocketError):
    """A private MariaDB could not be started; the message quotes its log where there is one."""


class Programs(NamedTuple):
    """Paths of what a private server is made of."""

    mariadbd: str
    install_db: str
    setpriv: str
    plugin_directory: str


def find_programs() -> Programs:
    """The programs, `HSKV_MARIADBD` naming another mariadbd than the first on the PATH.

    Raises ServerStartError that names what is missing and how to install it.
    """
    mariadbd = _program("mariadbd", os.environ.get("HSKV_MARIADBD"))
    return Programs(
        mariadbd,
        _program("mariadb-install-db"),
        _program("setpriv"),
        _plugin_directory(mariadbd),
    )


def _program(name: str, given: str | None = None) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_DIRECTORIES])
    found = shutil.which(given or name, path=path)
    if found is None:
        advice = "on Debian: apt-get install util-linux" if name == "setpriv" else _INSTALL
        raise ServerStartError(f"{given or name} was not found; install it ({advice})")
    return found


def _plugin_directory(mariadbd: str) -> str:
    root = Path(mariadbd).resolve().parent.parent
    for pattern in _PLUGIN_DIRECTORIES:
        for plugin in root.glob(f"{pattern}/handlersocket.so"):
            return str(plugin.parent)
    raise ServerStartError(
        f"the plugin handlersocket.so was not found below {root}/lib: install a MariaDB that "
        f"has it ({_INSTALL})"
    )
