"""A private MariaDB whose directory stays: data, sockets, settings, log and secret. Locks: none."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .files import LONGEST_DIRECTORY, own_directory
from .process import give_to_server_user
from .programs import ServerStartError
from .server import PrivateServer

LOCK: Final = "lock"
"""The file that tells the directory of such a server from any other."""


def kept_url(directory: Path) -> str:
    """The URL of the store in a directory: always the same, and without the secret."""
    read, write, secret = (quote(str(directory / name)) for name in _NAMES)
    return f"hskv+unix:///hskv/kv?read={read}&write={write}&secret_file={secret}"


def kept_sql_url(directory: Path) -> str:
    """The URL of its SQL, as root; only its owner may enter the directory."""
    return f"mysql+unix://root@{quote(str(directory / 'sql.sock'))}"


_NAMES: Final = ("read.sock", "write.sock", "secret")


class KeptServer(PrivateServer):
    """As `PrivateServer`, in a directory of its own that stays when it is closed.

    Its URL is the same at every start. Raises ServerStartError for a directory that holds
    something else, or whose path is too long for a socket in it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        options: Mapping[str, str | int | None] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._kept = prepare(directory)
        secret = _secret(self._kept / "secret")
        both = dict.fromkeys(
            ("handlersocket_plain_secret", "handlersocket_plain_secret_wr"), secret
        )
        super().__init__(
            self._kept / "data", options={**(options or {}), **both}, start_timeout=start_timeout
        )

    @property
    def url(self) -> str:
        """The URL that `hskv.connect` takes; the secret is in a file that it names."""
        return kept_url(self._kept)

    def _make_directory(self) -> Path:
        return self._kept

    def _discard(self, directory: Path) -> None:
        """It stays."""


def prepare(directory: Path) -> Path:
    """Make the directory of a kept server, or see that it is one. ServerStartError, OSError."""
    directory = directory.absolute()
    if len(os.fsencode(directory)) > LONGEST_DIRECTORY:
        raise ServerStartError(
            f"{directory} is too long for the sockets in it, {LONGEST_DIRECTORY} bytes at most: "
            "give a shorter --directory"
        )
    own_directory(directory)
    if (directory / LOCK).exists():
        return directory
    if any(directory.iterdir()):
        raise ServerStartError(
            f"{directory} holds something else than a server of hskv: give another --directory"
        )
    give_to_server_user(directory)
    (directory / LOCK).touch(mode=0o600)
    return directory


def _secret(path: Path) -> str:
    """The secret in a file, made where it is missing."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()
