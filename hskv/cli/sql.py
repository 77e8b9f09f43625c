"""How PyMySQL logs in to what the option `sql` of a URL names."""

from typing import Any

from ..transport.endpoint import Address
from ..transport.sql_address import SqlLogin


def pymysql_logins(login: SqlLogin, database: str | None) -> list[dict[str, Any]]:
    """Keyword arguments for `pymysql.connect`, for each host. ValueError for a bad password."""
    password = bytes(login.password.read() or b"")
    who = {"user": login.user, "password": password, "database": database}
    return [{**who, **_place(host)} for host in login.hosts]


def _place(host: Address) -> dict[str, Any]:
    return {"unix_socket": host.path} if host.path else {"host": host.host, "port": host.port}


def holds_password(url: str) -> bool:
    """Whether a URL has a secret in it, of SQL or of HandlerSocket."""
    userinfo, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at and userinfo.partition(":")[2]) or "write_secret=" in url
