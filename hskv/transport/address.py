"""Where servers are and how to log in: addresses, secrets, URLs."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from ..exceptions import AuthenticationError

DEFAULT_READ_PORT: Final = 9998
DEFAULT_WRITE_PORT: Final = 9999

SecretSource = str | bytes | Callable[[], str | bytes] | None

_SCHEMES: Final = ("hskv", "hskv+unix")


class Address(NamedTuple):
    """One listener: a host (IPv4 or a name) and port, or the path of a unix socket.

    `timeout`, in seconds, is for connecting to it and for a request; None for the client's.
    """

    host: str = "localhost"
    port: int = DEFAULT_READ_PORT
    path: str | None = None
    timeout: float | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class SecretBytes(bytes):
    """Bytes with a secret in them, which their repr does not show."""

    def __repr__(self) -> str:
        return "b'***'"

    __str__ = __repr__


class Secret:
    """A secret, or where it is to be read; never shown by `repr`.

    A callable or file is read at each login, since a server that was given no secret makes
    up another one at each start.
    """

    __slots__ = ("_source",)

    def __init__(self, source: "SecretSource | Secret" = None, file: str | None = None) -> None:
        if source is not None and file is not None:
            raise ValueError("give a secret or the file it is in, not both")
        if isinstance(source, Secret):
            source = source._source
        self._source: SecretSource = _FileSecret(file) if file is not None else source

    def read(self) -> "SecretBytes | None":
        """The secret now, None where there is none. Raises ValueError for an unusable one."""
        encoded = self._encoded()
        # No frame of these errors has the secret among its variables.
        if encoded is False:
            raise ValueError("the secret is no valid Unicode text: give it as bytes")
        if encoded and min(encoded) < 0x10:
            raise ValueError("a secret cannot hold bytes below 0x10: the server never accepts it")
        return encoded

    def _encoded(self) -> "SecretBytes | Literal[False] | None":
        """The secret as bytes, False where they cannot be had."""
        source = self._source
        value = source() if callable(source) else source
        if value is None:
            return None
        if not isinstance(value, str):
            return SecretBytes(value)
        try:
            # As os.environ has bytes that are no UTF-8.
            return SecretBytes(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            return False

    def __bool__(self) -> bool:
        return self._source is not None

    def __repr__(self) -> str:
        return "Secret(***)" if self else "Secret(None)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._source,)


@dataclass(frozen=True)
class _FileSecret:
    path: str

    def __call__(self) -> bytes:
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123 pathlib is slow to import
                return file.read().rstrip(b"\r\n")
        except OSError as error:
            raise AuthenticationError(
                f"the secret file {self.path} cannot be read: {error.strerror}; "
                "give this user the right to read it"
            ) from error


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
    on_request: Callable[[Any], object] | None = None
    store: Mapping[str, Any] = field(default_factory=dict)
    """Options that concern the key-value store: prefix, default_ttl."""


def load_settings(source: str | None, **given: Any) -> Settings:
    """The settings of a URL, or of `HSKV_URL` when it is None; keyword arguments beat the URL.

    A keyword that is None counts as not given. Raises ValueError (TypeError for a keyword of
    another type) for whatever cannot be meant; the message never holds a secret.
    """
    url = source if source is not None else os.environ.get("HSKV_URL")
    if not url:
        raise ValueError(
            "no server is named: give a URL such as hskv://:SECRET@127.0.0.1/DATABASE, "
            "or set HSKV_URL"
        )
    settings = parse_url(url)
    changes = {name: value for name, value in given.items() if value is not None}
    file = changes.pop("secret_file", None)
    if "secret" in changes or file is not None:
        changes["secret"] = Secret(changes.get("secret"), file)
    if "write_secret" in changes:
        changes["write_secret"] = Secret(changes["write_secret"])
    settings = replace(settings, **changes)
    check(settings)
    return settings


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
    options = _options(query)
    read, write = ports or _paths(options)
    login = Secret(secret, options.pop("secret_file", None))
    settings = _with_names(Settings((read,), (write,), login), path)
    if "write_secret" in options:
        settings = replace(settings, write_secret=Secret(options.pop("write_secret")))
    return _with_options(settings, options)


def _options(query: str) -> dict[str, str]:
    # Not parse_qsl: it would turn a plus in a secret into a space.
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError("the part of the URL after ? is not name=value&name=value")
        if name in options:
            raise ValueError(f"the option {name!r} stands twice in the URL")
        options[name] = _decoded(value)
    return options


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
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
    return unquote_to_bytes(secret), host


def _ports(netloc: str) -> tuple[Address, Address]:
    match = re.fullmatch(r"(?P<host>[^:,\[\]]+)(:(?P<read>\d+)(,(?P<write>\d+))?)?", netloc)
    if not match:
        raise ValueError(
            "the server is written HOST, HOST:READ_PORT or HOST:READ_PORT,WRITE_PORT "
            "(IPv4 or a name: HandlerSocket has no IPv6); a secret with / ? # @ or % in it is "
            "percent-encoded"
        )
    host = _decoded(match["host"])
    read = _port(match["read"] or DEFAULT_READ_PORT)
    write = _port(match["write"] or DEFAULT_WRITE_PORT)
    if read == write:
        raise ValueError(f"read and write port are both {read}; MariaDB needs two")
    return Address(host, read), Address(host, write)


def _port(text: str | int) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port number")
    return port


def _paths(options: dict[str, str]) -> tuple[Address, Address]:
    try:
        read, write = options.pop("read"), options.pop("write")
    except KeyError as missing:
        raise ValueError(f"hskv+unix:// needs the option {missing.args[0]}=PATH") from None
    if not read or not write or read == write:
        raise ValueError("read and write are the paths of two different sockets")
    return Address(path=read), Address(path=write)


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
}
_STORE_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "prefix": str,
    "default_ttl": float,
    "serializer": str,
}


def _with_options(settings: Settings, options: dict[str, str]) -> Settings:
    known = {**_NUMBERS, **_STORE_OPTIONS}
    names = sorted([*known, "secret_file", "write_secret", "read", "write"])
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


_TIMES: Final = ("timeout", "connect_timeout", "pool_timeout")


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
