"""A URL with some of it changed, and its secrets left out."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from ...transport.address import Address

HIDDEN: Final = "***"
_SECRET_OPTION: Final = re.compile(r"(?<=[?&]write_secret=)[^&]*")
_SECRET_FILE: Final = re.compile(r"(?<=[?&])(write_)?secret_file=([^&]*)")
_SQL_PASSWORD: Final = re.compile(r"(?<=[?&]sql=)([^:/?&]+://[^:&]*):[^&]*@")
# Encoded as a whole, where a password is not looked for.
_ENCODED_SQL: Final = re.compile(r"(?<=[?&]sql=)(?![^&]*://)[^&]*%[^&]*")


def hidden(url: str) -> str:
    """A URL with *** for its secrets."""
    scheme, _, rest = url.partition("://")
    main, question, query = rest.partition("?")
    netloc, slash, path = main.partition("/")
    _, at, host = netloc.rpartition("@")
    query = _SECRET_OPTION.sub(HIDDEN, question + query)
    query = _SQL_PASSWORD.sub(rf"\1:{HIDDEN}@", _ENCODED_SQL.sub(HIDDEN, query))
    return f"{scheme}://{f':{HIDDEN}@' if at else ''}{host}{slash}{path}{query}"


def with_options(url: str, **options: str) -> str:
    """A hidden URL with some options set; those that it has are replaced."""
    main, _, query = hidden(url).partition("?")
    parts = [part for part in query.split("&") if part and part.partition("=")[0] not in options]
    parts += [f"{name}={value}" for name, value in options.items()]
    return f"{main}?{'&'.join(parts)}" if parts else main


class Login(NamedTuple):
    """A URL to log in with, and what is to be in the files that it names for its secrets."""

    url: str
    files: Mapping[str, str]


def with_secrets(url: str, secret: str, write_secret: str | None = None) -> Login:
    """Other secrets to log in with: in the URL, or in files where it names one.

    One alone where it writes by SQL.
    """
    read, _ = _secret_files(url)
    written = Login(hidden(url), {})
    if write_secret is not None:
        written = _with_write_secret(url, write_secret)
    scheme, _, rest = written.url.partition("://")
    netloc, slash, path = rest.partition("/")
    login = "" if read else f":{secret}@"
    files = {**({read: secret} if read else {}), **written.files}
    return Login(f"{scheme}://{login}{netloc.rpartition('@')[2]}{slash}{path}", files)


def _with_write_secret(url: str, secret: str) -> Login:
    read, write = _secret_files(url)
    if write not in ("", read):
        return Login(hidden(url), {write: secret})
    if read and not _SECRET_OPTION.search(url):
        file = f"{read}-write"
        return Login(with_options(url, write_secret_file=quote(file, safe="/")), {file: secret})
    return Login(with_options(url, write_secret=secret), {})


def secret_file(url: str, side: str) -> str:
    """The file that a URL names for the secret of the read or the write port; else empty."""
    read, write = _secret_files(url)
    return (write if side == "write" else "") or read


def _secret_files(url: str) -> tuple[str, str]:
    """The files that a URL names for the secrets to read and to write with; empty for none."""
    files = {found[1]: unquote(found[2]) for found in _SECRET_FILE.finditer(url)}
    return files.get(None, ""), files.get("write_", "")


def with_ports(url: str, read: Address, write: Address | None) -> str:
    """A hidden URL with other listeners; none to write to where it writes by SQL."""
    _, _, rest = hidden(url).partition("://")
    netloc, _, path = rest.partition("/")
    login = "".join(netloc.rpartition("@")[:2])
    if read.path is None:
        path, _, query = path.partition("?")
        kept = [part for part in query.split("&") if not re.match("(read|write)=/", part)]
        query = f"?{'&'.join(kept)}" if any(kept) else ""
        port = f"{read.port},{write.port}" if write else f"{read.port}"
        return f"hskv://{login}{read.host}:{port}/{path}{query}"
    paths = {"read": quote(read.path, safe="/")}
    if write:
        paths["write"] = quote(str(write.path), safe="/")
    return with_options(f"hskv+unix://{login}/{path}", **paths)
