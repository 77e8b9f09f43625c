"""What other libraries hand over: options that may all be text, and keys of any length."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from ..store.store import KeyValueStore

# No UTF-8 begins so: a hashed key is no other key.
_HASHED: Final = b"\xff"


def open_store(arguments: Mapping[str, Any], default_prefix: str) -> KeyValueStore[bytes, Any]:
    """A store by the arguments that name one; others are ignored. No I/O."""
    options = {
        name: of_text(arguments[name])
        for name, of_text in _CLIENT_OPTIONS.items()
        if arguments.get(name) is not None
    }
    prefix = arguments.get("prefix")
    return KeyValueStore(
        arguments.get("url"),
        arguments.get("table"),
        key_type=bytes,
        prefix=default_prefix if prefix is None else str(prefix),
        **options,
    )


def fitted_keys(store: KeyValueStore[bytes, Any], spare: int = 0) -> Callable[[str], bytes]:
    """What makes a key of any str; one that the store cannot take is hashed, never cut.

    They leave `spare` bytes free, and never begin with 0xFE, so that this can mark others.
    """
    longest = store.table.key_bytes + 1 - len(store.row_key(b"x")) - spare

    def fitted(key: str) -> bytes:
        encoded = key.encode("utf-8", "surrogatepass")
        if 0 < len(encoded) <= longest and encoded[0]:
            return encoded
        return _HASHED + sha256(encoded).digest()

    return fitted


def flag(value: Any) -> bool:
    """A bool, also as a configuration file writes it. Raises ValueError for anything else."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("1", "true", "yes", "on"):
            return True
        if text in ("", "0", "false", "no", "off", "none"):
            return False
        raise ValueError(f"{value!r} is neither true nor false")
    return bool(value)


def _secret(value: Any) -> Any:
    # A numeric one may have been read as a number.
    return value if callable(value) or isinstance(value, bytes) else str(value)


_CLIENT_OPTIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "secret": _secret,
    "write_secret": _secret,
    "secret_file": str,
    "write_secret_file": str,
    "writes": str,
    "reads": str,
    "read": str,
    "sql": str,
    "sql_password": _secret,
    "sql_password_file": str,
    "sql_ssl": flag,
    "sql_ssl_ca": str,
    "sql_ssl_cert": str,
    "sql_ssl_key": str,
    "sql_ssl_verify_identity": flag,
    "max_lag": float,
    "timeout": float,
    "connect_timeout": float,
    "pool_size": int,
    "pool_timeout": float,
}
