"""Whether a URL of HandlerSocket or of SQL shows a secret."""


def holds_password(url: str) -> bool:
    """Whether a URL has a secret in it, of SQL or of HandlerSocket."""
    userinfo, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at and userinfo.partition(":")[2]) or "write_secret=" in url
