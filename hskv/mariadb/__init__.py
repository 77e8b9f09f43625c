"""MariaDBs of one's own, to try hskv and to test with."""

from .programs import ServerStartError
from .server import PrivateServer

__all__ = ["PrivateServer", "ServerStartError"]
