"""Whether a URL of HandlerSocket or of SQL shows a secret."""

from urllib.parse import unquote


def holds_password(url: str) -> bool:
    """Whether a URL has a secret in it, of SQL or of HandlerSocket.

    It is taken apart as the client does it; with a mistake in it, it may show one too.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("hskv", "hskv+unix"):
        return _sql_holds_password(url)
    server, _, query = rest.partition("?")
    options = [part.partition("=")[::2] for part in query.split("&")]
    return (
        _has_password(server.partition("/")[0])
        or any(name == "write_secret" and value for name, value in options)
        or any(name == "sql" and _sql_holds_password(value) for name, value in options)
    )


def _sql_holds_password(url: str) -> bool:
    # Without :// it is encoded as a whole.
    return _has_password((url if "://" in url else unquote(url)).partition("://")[2])


def _has_password(server: str) -> bool:
    return bool(server.rpartition("@")[0].partition(":")[2])
