"""Where SQL is and how to log in there: what the option `sql` of a URL says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from .endpoint import Address, Secret, SecretBytes, percent_decoded
from .tls import TLS_OPTIONS, Tls, tls_of

DEFAULT_SQL_PORT: Final = 3306

URL_OPTIONS: Final = ("sql", "sql_password_file", *TLS_OPTIONS)
"""The options of a URL that say how to log in to SQL."""
BESIDE_SQL: Final = ("sql_password", *URL_OPTIONS[1:])
"""The keyword arguments that say the rest of what `sql` begins."""

_FORM: Final = (
    "sql is mysql://USER:PASSWORD@HOST[:PORT][,HOST2[:PORT]...]/ or "
    "mysql+unix://USER:PASSWORD@/PATH; a password with / ? # @ & or % in it is percent-encoded"
)
_HOST: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:,\[\]/]+)(:(?P<port>\d+))?")


class Password(Secret):
    """A secret of SQL, which may hold any byte."""

    __slots__ = ()

    def read(self) -> SecretBytes | None:
        """The password now. Raises ValueError for text that is no valid Unicode."""
        encoded = self._encoded()
        if encoded is False:
            raise ValueError("the password is no valid Unicode text: give it as bytes")
        return encoded

    def __reduce__(self) -> tuple[Any, ...]:
        return Password, (self._source,)


@dataclass(frozen=True)
class SqlLogin:
    """The SQL servers that may be, or become, the one to write to; and who logs in."""

    hosts: tuple[Address, ...]
    user: str
    password: Password
    tls: Tls | None = None
    """How connections are encrypted, None where they are not."""


def parse_sql_url(url: str) -> SqlLogin:
    """What the option `sql` says, its parts percent-decoded. Raises ValueError for a mistake."""
    if "://" not in url:
        # Encoded as a whole, as urllib.parse.quote does.
        url = _decoded(url)
    scheme, _, rest = url.partition("://")
    scheme = _decoded(scheme)
    userinfo, at, place = rest.rpartition("@")
    user, colon, password = userinfo.partition(":")
    # No message quotes a part: where a password broke the URL it would show.
    if not at or not user or "/" in userinfo or scheme not in ("mysql", "mysql+unix"):
        raise ValueError(_FORM)
    hosts = _hosts(place) if scheme == "mysql" else _socket(place)
    secret = SecretBytes(percent_decoded(password)) if colon else None
    return SqlLogin(hosts, _decoded(user), Password(secret))


def sql_login(given: Mapping[str, Any], login: SqlLogin | None) -> SqlLogin | None:
    """The login that `sql` and the options for it give, which beat those before. ValueError."""
    url, file = given.get("sql"), given.get("sql_password_file")
    tls = tls_of(given, login.tls if login else None)
    if url is not None:
        login = url if isinstance(url, SqlLogin) else parse_sql_url(url)
    for name in BESIDE_SQL:
        if login is None and given.get(name) is not None:
            raise ValueError(f"{name} is for the servers that sql= names: give sql= too")
    if login is None:
        return None
    if tls is not None and any(host.path for host in login.hosts):
        raise ValueError("mysql+unix:// goes through no network: leave sql_ssl and the like out")
    if "sql_password" in given or file is not None:
        login = replace(login, password=Password(given.get("sql_password"), file))
    return replace(login, tls=tls)


def pymysql_logins(login: SqlLogin, database: str | None = None) -> list[dict[str, Any]]:
    """Keyword arguments for `pymysql.connect`, for each host.

    Raises ValueError for a bad password, ConnectionError for certificates that cannot be read.
    """
    password = bytes(login.password.read() or b"")
    who: dict[str, Any] = {"user": login.user, "password": password, "database": database}
    if login.tls is not None:
        who["ssl"] = login.tls.context()
    return [{**who, **_pymysql_place(host)} for host in login.hosts]


def _pymysql_place(host: Address) -> dict[str, Any]:
    return {"unix_socket": host.path} if host.path else {"host": host.host, "port": host.port}


def _hosts(place: str) -> tuple[Address, ...]:
    hosts = []
    for text in place.removesuffix("/").split(","):
        match = _HOST.fullmatch(text)
        port = int(match["port"] or DEFAULT_SQL_PORT) if match else 0
        if not match or not 1 <= port <= 65535:
            raise ValueError(_FORM)
        hosts.append(Address(_decoded(match["host"].strip("[]")), port))
    if len(set(hosts)) < len(hosts):
        raise ValueError("sql names a server twice")
    return tuple(hosts)


def _socket(place: str) -> tuple[Address, ...]:
    if not place.startswith("/"):
        raise ValueError(_FORM)
    return (Address(path=_decoded(place)),)


def _decoded(text: str) -> str:
    try:
        return percent_decoded(text).decode()
    except UnicodeDecodeError:
        # Without its cause, which would quote the text.
        raise ValueError("sql is not UTF-8 once it is percent-decoded") from None
