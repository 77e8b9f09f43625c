"""Where the SQL side of a server is, and how to log in to it."""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

_FORM: Final = "the URL of SQL is mysql://USER:PASSWORD@HOST[:PORT]/[DATABASE][?unix_socket=PATH]"


def sql_login(url: str) -> dict[str, Any]:
    """Keyword arguments for `pymysql.connect`, from a URL.

    Raises ValueError, whose message holds nothing of the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
        options = dict(parse_qsl(parts.query, strict_parsing=True) if parts.query else ())
    except ValueError:
        raise ValueError(_FORM) from None
    if parts.scheme != "mysql" or options.keys() - {"unix_socket"}:
        raise ValueError(_FORM)
    login: dict[str, Any] = {
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.strip("/")) or None,
        **options,
    }
    return login if options else {**login, "host": parts.hostname or "localhost", "port": port}


def holds_password(url: str) -> bool:
    """Whether a URL has a secret in it, of SQL or of HandlerSocket."""
    userinfo, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at and userinfo.partition(":")[2]) or "write_secret=" in url
