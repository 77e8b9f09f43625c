"""What the exit code of `hskv` says, and which error gives which."""

from enum import IntEnum
from typing import Final

import click


class Exit(IntEnum):
    """Exit codes. They are public: docs/cli.md lists them."""

    OK = 0
    NO = 1
    """The answer is no: the key is missing, nothing was stored, a check found something."""
    USAGE = 2
    """What was asked cannot be meant; nothing was sent."""
    AWAY = 3
    """The server cannot be reached, does not answer in time, or does not start."""
    REFUSED = 4
    """The server, or the value that is there, refused it."""
    UNKNOWN = 5
    """A write was sent and its answer was lost: it may have been done."""
    DAMAGED = 6
    """A file, or a value in the table, cannot be read."""
    INTERRUPTED = 130
    """Ctrl-C."""
    NOBODY_READS = 141
    """Who read the output has ended, as `head` does."""


class Failure(click.ClickException):
    """Ends the command with a message on stderr and an exit code. Say what to do next."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def failure_of(error: Exception) -> Failure | None:
    """What a user is told of an error, None for one that is not theirs but a fault of hskv."""
    from ..exceptions import HandlerSocketError

    if isinstance(error, HandlerSocketError):
        return Failure(str(error), _code(error))
    if type(error).__module__.partition(".")[0] == "pymysql":
        return Failure(f"SQL: {_mysql_text(error)}", _mysql_code(error))
    if isinstance(error, OSError):
        return Failure(str(error), Exit.DAMAGED)
    return None


def _code(error: Exception) -> Exit:
    from .. import exceptions as known
    from ..mariadb.programs import ServerStartError

    codes: tuple[tuple[type[Exception], Exit], ...] = (
        (known.OutcomeUnknownError, Exit.UNKNOWN),
        (known.ConnectionError, Exit.AWAY),
        (ServerStartError, Exit.AWAY),
        (known.SerializationError, Exit.DAMAGED),
        # KeyTooLongError, ValueTooLargeError.
        (ValueError, Exit.USAGE),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), Exit.REFUSED)


# Of the client: no connection, and a connection that broke.
_MYSQL_AWAY: Final = range(2000, 2100)


def _mysql_code(error: Exception) -> Exit:
    number = error.args[0] if error.args else 0
    return Exit.AWAY if number in _MYSQL_AWAY else Exit.REFUSED


_MYSQL_ADVICE: Final = {
    **dict.fromkeys(
        (1045, 1698),
        "are these its user and password? Debian's root has none: as root of that machine, by "
        "mysql+unix://root@/run/mysqld/mysqld.sock",
    ),
    **dict.fromkeys((1044, 1142, 1227), "do it as an administrator, or GRANT the right"),
    **dict.fromkeys((2002, 2003), "is MariaDB running, and listening there?"),
}


def _mysql_text(error: Exception) -> str:
    """What the server said, or PyMySQL, and what to do about it."""
    if len(error.args) < 2:
        return str(error)
    number, text = error.args[:2]
    return "; ".join(filter(None, (str(text), _MYSQL_ADVICE.get(number))))
