"""What is asked of TLS to a server: which certificates count, and what it means when none does.

The module `ssl` is slow to import, and is imported where it is used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ConnectionError
from .endpoint import Address

if TYPE_CHECKING:
    from ssl import SSLContext

TLS_OPTIONS: Final = (
    "sql_ssl",
    "sql_ssl_ca",
    "sql_ssl_cert",
    "sql_ssl_key",
    "sql_ssl_verify_identity",
)
_FILES: Final = ("ca", "cert", "key")
_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_NO_TLS: Final = 2026
_LATE: Final = "see that it is renewed, and that the clocks of both machines are right"
_OTHER_NAME: Final = (
    "write the name that it is made out to in sql=, or give the server another; where the CA of "
    "sql_ssl_ca signs nothing but such servers, sql_ssl_verify_identity=off will do"
)
_UNKNOWN: Final = "give the certificate of the CA that signed it by sql_ssl_ca"
# By what OpenSSL says of a certificate.
_ADVICE: Final = {
    **dict.fromkeys((9, 10), _LATE),
    **dict.fromkeys((62, 64), _OTHER_NAME),
    **dict.fromkeys((2, 18, 19, 20, 21), _UNKNOWN),
}


@dataclass(frozen=True)
class Tls:
    """Which certificates count: all are paths of PEM files, read again for each connection.

    `ca` has those that may sign the server's, None for those that the system trusts; `cert` and
    `key` are one's own. `verify_identity` asks for a certificate made out to the server's host.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify_identity: bool = True

    def configure(self, context: "SSLContext") -> None:
        """Have a context of clients, as it is made, take these. Raises ConnectionError."""
        import ssl

        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Who names the server's own certificate, or the one that signed it, trusts that.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = self.verify_identity
        try:
            if self.ca is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self.ca)
        except OSError as error:
            raise _unreadable(f"sql_ssl_ca ({self.ca})", error) from error
        try:
            if self.cert is not None:
                # Without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert, self.key, password=b"")
        except OSError as error:
            what = f"sql_ssl_cert ({self.cert})"
            what += f" and sql_ssl_key ({self.key})" if self.key else ""
            raise _unreadable(what, error) from error

    def context(self) -> "SSLContext":
        """A context for whoever opens sockets of their own. Raises ConnectionError."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.configure(context)
        return context


def tls_of(given: Mapping[str, Any], before: Tls | None) -> Tls | None:
    """What options say, which beat what was said before; None for no TLS. Raises ValueError."""
    named: dict[str, Any] = {}
    for name in _FILES:
        if (path := given.get(f"sql_ssl_{name}")) is not None:
            named[name] = os.fspath(path)
            if not named[name]:
                raise ValueError(f"sql_ssl_{name} is the path of a file")
    if (identity := given.get("sql_ssl_verify_identity")) is not None:
        named["verify_identity"] = _flag("sql_ssl_verify_identity", identity)
    asked = given.get("sql_ssl")
    if asked is not None and not _flag("sql_ssl", asked):
        if named:
            raise ValueError("sql_ssl is off, and more of sql_ssl_ is given: leave one of both out")
        return None
    if asked is None and not named:
        return before
    tls = replace(before or Tls(), **named)
    if tls.key and not tls.cert:
        raise ValueError("sql_ssl_key is the key of sql_ssl_cert: give that too")
    return tls


def tls_trouble(address: Address, error: Exception) -> str | None:
    """What an error of PyMySQL's `connect` says of TLS, and what to do; None for another error."""
    import ssl

    if error.args and error.args[0] == _NO_TLS:
        return (
            f"{address} offers no TLS: set ssl_cert and ssl_key in the server's configuration, "
            "or leave sql_ssl out"
        )
    cause = error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = _ADVICE.get(cause.verify_code, "give the server another")
        return f"the certificate of {address} does not count ({cause.verify_message}): {advice}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS with {address} failed ({cause.reason or cause}): see what the server allows"
    return None


def _flag(name: str, value: Any) -> bool:
    """What is on or off, as a bool or in a URL's words. Raises ValueError."""
    found = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if found is None:
        raise ValueError(f"{name} is on or off, not {value!r}")
    return found


def _unreadable(what: str, error: OSError) -> ConnectionError:
    why = getattr(error, "reason", None) or error.strerror or error
    return ConnectionError(
        f"{what} cannot be used: {why}; it is a PEM file that this user may read, a key without "
        "a password"
    )
