"""One listener, and the secret that opens it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from ..exceptions import AuthenticationError

DEFAULT_READ_PORT: Final = 9998

SecretSource = str | bytes | Callable[[], str | bytes] | None


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


def percent_decoded(text: str) -> bytes:
    """A part of a URL as the bytes that it stands for."""
    if "%" not in text:
        return text.encode()
    from urllib.parse import unquote_to_bytes  # slow to import, and seldom wanted

    return unquote_to_bytes(text)
