"""How to reach a table: what URLs and keyword arguments say."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .endpoint import (
    DEFAULT_READ_PORT,
    Address,
    Secret,
    SecretBytes,
    SecretSource,
    percent_decoded,
)
from .sql_address import BESIDE_SQL, URL_OPTIONS, SqlLogin, sql_login

__all__ = [
    "Address",
    "Secret",
    "SecretBytes",
    "SecretSource",
    "Settings",
    "check",
    "load_settings",
    "parse_url",
]

DEFAULT_WRITE_PORT: Final = 9999

_SCHEMES: Final = ("hskv", "hskv+unix")


@dataclass(frozen=True)
class Settings:
    """What a URL and keyword arguments say of how to reach a table; times in seconds."""

    readers: tuple[Address, ...]
    writers: tuple[Address, ...]
    secret: Secret = field(default_factory=Secret)
    write_secret: Secret = field(default_factory=Secret)
    database: str | None = None
    table: str | None = None
    timeout: float = 5.0
    connect_timeout: float = 2.0
    pool_size: int = 16
    pool_timeout: float = 5.0
    writes: str = "handlersocket"
    reads: str = "handlersocket"
    read: str | None = None
    sql: SqlLogin | None = None
    max_lag: float = 10.0
    on_request: Callable[[Any], object] | None = None
    store: Mapping[str, Any] = field(default_factory=dict)
    """Options that concern the key-value store: prefix, default_ttl."""


def load_settings(source: str | None, **given: Any) -> Settings:
    """The settings of a URL, or of `HSKV_URL` when it is None; keyword arguments beat the URL.

    A keyword that is None counts as not given. Raises ValueError (TypeError for a keyword of
    another type) for whatever cannot be meant; the message never holds a secret.
    """
    url = source if source is not None else os.environ.get("HSKV_URL")
    if url and not isinstance(url, str):
        raise TypeError(f"a URL is text, not {type(url).__name__}")
    if not url:
        raise ValueError(
            "no server is named: give a URL such as hskv://:SECRET@127.0.0.1/DATABASE, "
            "or set HSKV_URL"
        )
    settings = parse_url(url)
    changes = {name: value for name, value in given.items() if value is not None}
    for name in ("secret", "write_secret"):
        file = changes.pop(f"{name}_file", None)
        if name in changes or file is not None:
            changes[name] = Secret(changes.get(name), file)
    changes["sql"] = sql_login(changes, settings.sql)
    for name in BESIDE_SQL:
        changes.pop(name, None)
    if "replicas" in changes:
        replicas = map(_replica, changes.pop("replicas"))
        changes["readers"] = (*settings.readers, *replicas)
    settings = replace(settings, **changes)
    check(settings)
    return _in_its_mode(settings)


def parse_url(url: str) -> Settings:
    """The settings a URL holds. Raises ValueError for a URL with a mistake in it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"a URL begins with {' or '.join(s + '://' for s in _SCHEMES)}")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    # The server first: where an unescaped secret broke the URL, no message quotes a part of it.
    secret, host = _userinfo(netloc)
    ports = _ports(host) if scheme == "hskv" else None
    if ports is None and host:
        raise ValueError("hskv+unix:// has no host: write hskv+unix://:SECRET@/DATABASE?read=...")
    options, replicas = _options(query)
    readers, writers = _paths(options) if ports is None else ports
    login = Secret(secret, options.pop("secret_file", None))
    settings = _with_names(Settings((*readers, *replicas), writers, login), path)
    for_writes = Secret(options.pop("write_secret", None), options.pop("write_secret_file", None))
    settings = replace(settings, write_secret=for_writes)
    sql = sql_login({name: options.pop(name) for name in URL_OPTIONS if name in options}, None)
    return _with_options(replace(settings, sql=sql), options)


def _options(query: str) -> tuple[dict[str, str], list[Address]]:
    """The options by name, all but replicas; and the replicas."""
    # Not parse_qsl: it would turn a plus in a secret into a space.
    options: dict[str, str] = {}
    replicas: list[Address] = []
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError("the part of the URL after ? is not name=value&name=value")
        if name in options:
            raise ValueError(f"the option {name!r} stands twice in the URL")
        if name == "replica":
            replicas.append(_replica(value))
        else:
            # The parts of `sql` are decoded once it is in parts.
            options[name] = value if name == "sql" else _decoded(value)
    return options, replicas


def _replica(text: str) -> Address:
    match = _SERVER.fullmatch(text)
    if not match or match["write"]:
        raise ValueError("a replica is written HOST or HOST:READ_PORT")
    return Address(_decoded(match["host"]), _port(match["read"] or DEFAULT_READ_PORT))


def _decoded(text: str) -> str:
    try:
        return percent_decoded(text).decode()
    except UnicodeDecodeError:
        # Without its cause, which would quote the text: it may be a secret.
        raise ValueError("a part of the URL is not UTF-8 once it is percent-decoded") from None


def _userinfo(netloc: str) -> tuple[bytes | None, str]:
    userinfo, at, host = netloc.rpartition("@")
    if not at:
        return None, host
    user, colon, secret = userinfo.partition(":")
    if user or not colon:
        raise ValueError("HandlerSocket has no users: write the secret as hskv://:SECRET@HOST")
    return percent_decoded(secret), host


_Listeners = tuple[tuple[Address, ...], tuple[Address, ...]]
_SERVER: Final = re.compile(r"(?P<host>[^:,\[\]]+)(:(?P<read>\d+)(,(?P<write>\d+))?)?")
_SERVER_FORM: Final = (
    "the server is written HOST, HOST:READ_PORT or HOST:READ_PORT,WRITE_PORT "
    "(IPv4 or a name: HandlerSocket has no IPv6); a secret with / ? # @ or % in it is "
    "percent-encoded"
)


def _ports(netloc: str) -> _Listeners:
    if not netloc:
        # By SQL alone; else it is missed later, when keyword arguments have been looked at.
        return (), ()
    match = _SERVER.fullmatch(netloc)
    if not match:
        raise ValueError(_SERVER_FORM)
    host = _decoded(match["host"])
    read = _port(match["read"] or DEFAULT_READ_PORT)
    write = _port(match["write"] or DEFAULT_WRITE_PORT)
    if read == write:
        raise ValueError(f"read and write port are both {read}; MariaDB needs two")
    return (Address(host, read),), (Address(host, write),)


def _port(text: str | int) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port number")
    return port


def _paths(options: dict[str, str]) -> _Listeners:
    by_sql = options.get("writes") == "sql"
    try:
        read = options.pop("read")
        write = options.pop("write", None) if by_sql else options.pop("write")
    except KeyError as missing:
        raise ValueError(f"hskv+unix:// needs the option {missing.args[0]}=PATH") from None
    if not read or write == "" or read == write:
        raise ValueError("read and write are the paths of two different sockets")
    return (Address(path=read),), (Address(path=write),) if write else ()


def _with_names(settings: Settings, path: str) -> Settings:
    names = [_decoded(part) for part in path.split("/")]
    if len(names) > 2 or not all(names):
        raise ValueError("the path of the URL is /DATABASE or /DATABASE/TABLE")
    return replace(settings, database=names[0], table=names[1] if len(names) == 2 else None)


_NUMBERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "timeout": float,
    "connect_timeout": float,
    "pool_size": int,
    "pool_timeout": float,
    "max_lag": float,
}
_MODES: Final[Mapping[str, Callable[[str], Any]]] = {"writes": str, "reads": str, "read": str}
_STORE_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "prefix": str,
    "default_ttl": float,
    "serializer": str,
}


def _with_options(settings: Settings, options: dict[str, str]) -> Settings:
    known = {**_NUMBERS, **_MODES, **_STORE_OPTIONS}
    others = ("secret_file", "write_secret", "write_secret_file", "write", "replica", *URL_OPTIONS)
    names = sorted([*known, *others])
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            raise ValueError(f"{name!r} is no option of a URL; known: {', '.join(names)}")
        try:
            values[name] = known[name](text)
        except ValueError:
            raise ValueError(f"the option {name} of the URL is no number: {text!r}") from None
    store = {name: values.pop(name) for name in _STORE_OPTIONS if name in values}
    settings = replace(settings, store=store, **values)
    check(settings)
    return settings


_TIMES: Final = ("timeout", "connect_timeout", "pool_timeout", "max_lag")


def check(settings: Settings) -> None:
    """Raise ValueError for numbers that cannot be meant, TypeError for what is no number."""
    times = {name: getattr(settings, name) for name in _TIMES}
    addresses = (*settings.readers, *settings.writers)
    times |= {f"the timeout of {one}": one.timeout or settings.timeout for one in addresses}
    for name, value in times.items():
        if not 0 < value < 10**6:
            raise ValueError(f"{name} is a number of seconds above zero, not {value!r}")
    if not isinstance(settings.pool_size, int) or not 1 <= settings.pool_size <= 10_000:
        raise ValueError(f"pool_size is 1 to 10000 channels, not {settings.pool_size!r}")


def _in_its_mode(settings: Settings) -> Settings:
    """The settings without the listeners that are not used. Raises ValueError for no mode."""
    modes = ("handlersocket", "sql")
    for name in ("writes", "reads"):
        if getattr(settings, name) not in modes:
            raise ValueError(f"{name} is handlersocket or sql, not {getattr(settings, name)!r}")
    if settings.read not in (None, "primary", "replica"):
        raise ValueError(f"read is primary or replica, not {settings.read!r}")
    if settings.writes == "sql" and settings.sql is None:
        raise ValueError("writes=sql needs sql=mysql://USER:PASSWORD@HOST[:PORT]/")
    if settings.reads == "sql" and settings.writes != "sql":
        raise ValueError("reads=sql goes with writes=sql: one server's HandlerSocket does both")
    if settings.writes == "sql":
        settings = replace(settings, writers=())
    if settings.reads == "sql":
        return replace(settings, readers=())
    if not settings.readers:
        raise ValueError(
            f"{_SERVER_FORM}; by SQL alone, hskv:///DATABASE?reads=sql&writes=sql&sql=..."
        )
    return settings
